"""A text to write in place: F2 saves; esc leaves, and asks first if something was written."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import TextArea

from screens.safe import visible
from screens.veil import unveil, veil

WRITES = "F2 saves   esc leaves"
ASKS = "y save   n throw away   k keep as a draft   esc go on writing"


class _Area(TextArea):
    """The text. The keys that it shares with tmux have others here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "save", "save", show=False),
        Binding("escape", "leave", "leave", show=False),
    ]

    def __init__(self, editor: TextEditor) -> None:
        super().__init__("", soft_wrap=True, tab_behavior="indent", compact=True, highlight_cursor_line=False)
        self._editor = editor

    def action_save(self) -> None:
        self._editor.save()

    def action_leave(self) -> None:
        self._editor.leave()

    async def _on_key(self, event: events.Key) -> None:
        if event.key in ("escape", "f2"):
            event.stop()
            event.prevent_default()
            self._editor.leave() if event.key == "escape" else self._editor.save()
        elif self._editor.asking:
            event.stop()
            event.prevent_default()
            self._editor.asked(event.key)
        else:
            await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        event.text = veil(event.text)
        await super()._on_paste(event)


class TextEditor(Vertical):
    """The editor, hidden until :meth:`open`. While it is open no key of the screen fires.

    :ivar asking: whether it waits to hear what becomes of what was written.
    """

    DEFAULT_CSS = """
    TextEditor { height: 1fr; width: 1fr; display: none; }
    TextEditor.-open { display: block; }
    TextEditor TextArea { height: 1fr; border: none; padding: 0; background: $background; }
    TextEditor TextArea:focus { border: none; }
    """

    class Done(Message):
        """The editor was closed.

        :ivar text: what was written; None: nothing, or it was thrown away.
        :ivar draft: it is to be kept, and not saved.
        """

        def __init__(self, purpose: str, text: str | None, draft: bool) -> None:
            super().__init__()
            self.purpose, self.text, self.draft = purpose, text, draft

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes="pane")
        self.area = _Area(self)
        self.purpose = ""
        self.asking = False
        self._original = self._begun = ""

    def compose(self) -> ComposeResult:
        yield self.area

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    def open(self, purpose: str, title: str, text: str, original: str | None = None) -> None:
        """Write on a text.

        :param original: what it was made of, if that is another.
        """
        self.purpose, self.asking = purpose, False
        self._original = text if original is None else original
        self._begun = veil(text)
        self.area.load_text(self._begun)
        self.border_title = Content(visible(title))
        self._say(WRITES)
        self.add_class("-open")
        self.screen.set_focus(self.area)

    def _say(self, text: str) -> None:
        self.border_subtitle = Content(text)

    @property
    def written(self) -> bool:
        """Whether the text is another than at first."""
        return self.area.text != self._begun

    @property
    def text(self) -> str:
        return unveil(self.area.text, self._original)

    def save(self) -> None:
        self._close(self.text)

    def leave(self) -> None:
        """esc: out at once where nothing was written; else ask; again: back to the text."""
        if self.asking:
            self.asking = False
            self._say(WRITES)
        elif self.written:
            self.asking = True
            self._say(ASKS)
        else:
            self._close(None)

    def asked(self, key: str) -> None:
        """What becomes of what was written."""
        if key == "y":
            self.save()
        elif key == "k":
            self._close(self.text, draft=True)
        elif key == "n":
            self._close(None)

    def _close(self, text: str | None, draft: bool = False) -> None:
        self.asking = False
        self.remove_class("-open")
        self.post_message(self.Done(self.purpose, text, draft))
