"""The help: what is under the cursor, the keys that work here, and the words of the command line."""

from __future__ import annotations

from screens.base import WorkbenchScreen
from screens.dialogs import TextDialog
from screens.keys import ACTIONS, shown
from screens.words import SCREEN_WORDS
from sessions.commands import WORDS

_TITLES = {
    "global": "everywhere",
    "list": "in a list or a text",
    "sides": "on two texts",
    "chart": "on a chart",
    "rate": "rating",
    "replay": "in a replay",
}


def help_lines(screen: WorkbenchScreen) -> list[str]:
    """What ``?`` shows, from the bindings in force."""
    lines = list(screen.topic())
    if lines:
        lines.append("")
    keys: dict[str, list[str]] = {}
    for key, active in screen.active_bindings.items():
        if active.binding.id in ACTIONS and active.enabled:
            keys.setdefault(active.binding.id or "", []).append(shown(key))
    scopes = sorted({ACTIONS[name].scope for name in keys}, key=lambda scope: (scope == "global", scope == "list"))
    for scope in scopes:
        lines.append(_TITLES.get(scope, f"on the {scope} screen"))
        for name, pressed in keys.items():
            action = ACTIONS[name]
            if action.scope == scope:
                lines.append(f"  {', '.join(pressed):<13} {action.help or action.label}")
        lines.append("")
    lines.append("after :")
    for word in WORDS.values():
        lines.append(f"  {f'{word.name} {word.usage}'.strip():<42} {word.help}")
    for name, screen_word in SCREEN_WORDS.items():
        lines.append(f"  {f'{name} {screen_word.usage}'.strip():<42} {screen_word.help}")
    return lines


class HelpDialog(TextDialog):
    """The help of one screen, as it is now."""

    def __init__(self, screen: WorkbenchScreen) -> None:
        super().__init__("help", help_lines(screen))
