"""One line to type into, at the bottom of a screen: a filter, a comment, a value. Hidden until something asks."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from screens.safe import visible


class Ask(Horizontal):
    """The line. While it is open its input has the focus, so no key of the screen fires."""

    DEFAULT_CSS = """
    Ask { height: 1; display: none; background: $surface; }
    Ask.-open { display: block; }
    Ask > Static { width: auto; height: 1; color: $text-accent; text-style: bold; padding: 0 1; }
    Ask > Input { height: 1; border: none; padding: 0; background: $surface; width: 1fr; }
    Ask > Input:focus { border: none; background: $surface; }
    """

    class Edited(Message):
        """A key changed the text."""

        def __init__(self, purpose: str, text: str) -> None:
            super().__init__()
            self.purpose, self.text = purpose, text

    class Answered(Message):
        """Enter was pressed."""

        def __init__(self, purpose: str, text: str) -> None:
            super().__init__()
            self.purpose, self.text = purpose, text

    class Cancelled(Message):
        """Esc was pressed."""

        def __init__(self, purpose: str) -> None:
            super().__init__()
            self.purpose = purpose

    # tab belongs to the screen, whose panes must not move while something is asked about one of them.
    BINDINGS = [
        Binding("escape", "cancel", "back", show=False),
        Binding("tab,shift+tab", "stay", "stay", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.purpose = ""
        self._back: Widget | None = None

    def compose(self) -> ComposeResult:
        yield Static("", markup=False)
        yield Input(compact=True, select_on_focus=False)

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    def ask(self, purpose: str, question: str, value: str = "", hint: str = "", *, replace: bool = False) -> None:
        """Open the line; the answer comes as a message with this purpose.

        :param replace: the text is selected, so that what is typed takes its place.
        """
        if not self.is_open:
            self._back = self.screen.focused
        self.purpose = purpose
        self.query_one(Static).update(Content(visible(question)))
        entry = self.query_one(Input)
        with self.prevent(Input.Changed):
            entry.value = value
        entry.placeholder = visible(hint)
        entry.cursor_position = len(value)
        self.add_class("-open")
        # At once, not after the next refresh: the keys that follow are meant for this line.
        self.screen.set_focus(entry)
        if replace:
            entry.action_select_all()

    def close(self) -> None:
        """Hide the line; the focus goes back where it was."""
        self.remove_class("-open")
        if self._back is not None and self._back.is_attached:
            self.screen.set_focus(self._back)
        else:
            self.screen.set_focus(None)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.is_open:
            self.post_message(self.Edited(self.purpose, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.close()
        self.post_message(self.Answered(self.purpose, event.value))

    def action_stay(self) -> None:
        """Keep the focus in the line."""

    def action_cancel(self) -> None:
        self.close()
        self.post_message(self.Cancelled(self.purpose))
