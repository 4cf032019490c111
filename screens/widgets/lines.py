"""The lines every screen has: two at the top, a message or the command line, and the keys at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from textual.content import Content
from textual.widget import Widget

from screens.keys import ACTIONS, shown
from screens.safe import wrap

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen
    from screens.replaying import ReplayLink

Severity = Literal["information", "warning", "error"]
MOST_LINES = 3
"""Of a long message, such as the reason for a rejection."""
_FOR_ENGINES = ("pause", "step", "checkpoint")
"""What a session without an engine cannot do."""
_FOR_THE_ENDED = ("failed.log",)
"""What is worth a place in the footer only there."""
_NOT_SHOWN = {"ended": _FOR_ENGINES, "replay": (*_FOR_ENGINES, *_FOR_THE_ENDED, "failed.restart")}
_ROLE_STYLE = {
    "strong": "bold", "bar": "$text-primary", "axis": "$text-muted", "dim": "$text-muted", "cross": "bold $text-accent",
    "change": "$text-warning", "alarm": "bold $text-error", "good": "$text-success",
}  # fmt: skip
_MESSAGE_STYLE = {"information": "$text-accent", "warning": "$text-warning", "error": "$text-error"}


class Line(Widget):
    """Some lines of text that are drawn again only when they change."""

    DEFAULT_CSS = """
    Line { height: 1; width: 1fr; }
    """

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._content = Content("")

    def show(self, content: Content) -> None:
        """Draw this from now on."""
        if not content.is_same(self._content):
            self._content = content
            self.refresh()

    def render(self) -> Content:
        return self._content


class MessageLine(Line):
    """The newest message; without one, what the screen has to announce."""

    _said = False
    _announced = ""

    def say(self, text: str, severity: Severity = "information") -> None:
        """Show a message."""
        self._said = bool(text)
        lines = wrap(text.replace("\n", " "), max(10, self.screen.size.width - 2))[:MOST_LINES]
        self.styles.height = len(lines)
        self.show(Content.styled("\n".join(f" {line}" for line in lines) if text else "", _MESSAGE_STYLE[severity]))

    def announce(self, text: str) -> None:
        """What stands here while there is no message."""
        self._announced = text
        if not self._said:
            self.styles.height = 1
            self.show(Content.styled(f" {text}", "$foreground-muted") if text else Content(""))

    def clear(self) -> None:
        """Take the message away."""
        self._said = False
        self.announce(self._announced)


class TimeLine(Line):
    """Of a replay, where one is in the record; hidden elsewhere."""

    DEFAULT_CSS = """
    TimeLine { display: none; }
    TimeLine.-shown { display: block; }
    """

    def update_place(self, link: ReplayLink | None) -> None:
        """Draw what has changed."""
        screen = cast("WorkbenchScreen", self.screen)
        if self.has_class("-shown") != (link is not None):
            self.set_class(link is not None, "-shown")
            self.call_after_refresh(screen.tick, True)  # the body has another height now
        if link is not None:
            row = link.time_line(screen.size.width, screen.workbench.marks)
            self.show(Content.assemble(*((text, _ROLE_STYLE.get(role, "")) for text, role in row)))


class FooterLine(Line):
    """The keys that work here, from the bindings in force."""

    DEFAULT_CSS = """
    FooterLine { color: $text-muted; }
    """

    def update_keys(self) -> None:
        """Read the bindings again."""
        screen = cast("WorkbenchScreen", self.screen)
        self.show(footer(footer_keys(screen), self.size.width))

    def on_resize(self) -> None:
        self.update_keys()


def footer_keys(screen: WorkbenchScreen) -> list[tuple[str, str, str]]:
    """(id, key, label) of what the footer may show, the most important first."""
    found: dict[str, tuple[int, str, str]] = {}
    for key, active in screen.active_bindings.items():
        action = ACTIONS.get(active.binding.id or "")
        if action is None or not action.footer or action.id in found or not active.enabled:
            continue
        if action.changes and screen.workbench.read_only:
            continue
        if action.action == f"mode('{screen.MODE}')":
            continue  # the screen one is on
        if action.id in _NOT_SHOWN.get(screen.live.connection, _FOR_THE_ENDED):
            continue
        found[action.id] = (action.footer, shown(key), action.label)
    ranked = sorted(found.items(), key=lambda item: item[1][0])
    return [(name, key, label) for name, (_, key, label) in ranked]


def footer(keys: list[tuple[str, str, str]], width: int) -> Content:
    """The keys that fit, ``q detach`` at the right edge."""
    right = next((f"{key} {label}" for name, key, label in keys if name == "detach"), "")
    # ? stays whatever the width: it leads to all the others.
    must = {name for name, _, _ in keys if name in ("help", "command")}
    room = width - len(right) - 3
    texts = [(name, f"{key} {label}") for name, key, label in keys if name != "detach"]
    kept: list[str] = []
    reserved = sum(len(text) + 2 for name, text in texts if name in must)
    used = 0
    for name, text in texts:
        if name in must:
            reserved -= len(text) + 2
        elif used + len(text) + 2 + reserved > room:
            continue
        kept.append(text)
        used += len(text) + 2
    line = "  ".join(kept)
    return Content(f" {line}{' ' * max(1, width - len(line) - len(right) - 2)}{right}")
