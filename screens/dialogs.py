"""Dialogs: a text to read, a word to type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from screens.safe import visible


class TextDialog(ModalScreen[None]):
    """Lines to read; esc or q leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "leave", "back"),
        Binding("j,down", "line(1)", "down", show=False),
        Binding("k,up", "line(-1)", "up", show=False),
        Binding("pagedown,space", "page(1)", "page down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("g,home", "end(-1)", "top", show=False),
        Binding("G,end", "end(1)", "bottom", show=False),
        Binding("y", "copy", "copy", show=False),
    ]
    DEFAULT_CSS = """
    TextDialog { align: center middle; }
    TextDialog > Vertical { width: 96%; max-width: 110; height: auto; max-height: 90%; }
    TextDialog VerticalScroll { height: auto; max-height: 100%; }
    TextDialog Static { width: 1fr; height: auto; }
    """

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self.heading = title
        self.lines = list(lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(visible(self.heading))
            box.border_subtitle = Content("j k scroll   y copy   esc back")
            with VerticalScroll():
                yield Static(Content("\n".join(visible(line) for line in self.lines)))

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_line(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        box = self.query_one(VerticalScroll)
        box.scroll_relative(y=by * max(1, box.size.height - 1), animate=False)

    def action_end(self, which: int) -> None:
        box = self.query_one(VerticalScroll)
        box.scroll_to(y=box.max_scroll_y if which > 0 else 0, animate=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard("\n".join(self.lines))


class ProceedDialog(ModalScreen[bool]):
    """What is about to happen; ``y`` does it. Not enter, which opened it and may repeat."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "proceed", "do it"), Binding("escape,n,q", "leave", "back")]
    DEFAULT_CSS = """
    ProceedDialog { align: center middle; }
    ProceedDialog > Vertical { width: 72; max-width: 95%; height: auto; }
    ProceedDialog Static { width: 1fr; height: auto; }
    """

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self.heading, self.lines = title, list(lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(visible(self.heading))
            box.border_subtitle = Content("y does it   esc back")
            yield Static(Content("\n".join(visible(line) for line in self.lines)))

    def action_proceed(self) -> None:
        self.dismiss(True)

    def action_leave(self) -> None:
        self.dismiss(False)


class ConfirmDialog(ModalScreen[bool]):
    """Yes only by typing a word.

    :param word: what must be typed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back")]
    DEFAULT_CSS = """
    ConfirmDialog { align: center middle; }
    ConfirmDialog > Vertical { width: 64; max-width: 95%; height: auto; }
    ConfirmDialog Static { width: 1fr; height: auto; }
    ConfirmDialog Input { border: none; height: 1; }
    """

    def __init__(self, title: str, lines: Sequence[str], word: str) -> None:
        super().__init__()
        self.heading, self.lines, self.word = title, list(lines), word

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(visible(self.heading))
            box.border_subtitle = Content("esc back")
            yield Static(Content("\n".join([*self.lines, "", f"Type {self.word} and enter:"])))
            yield Input(compact=True)
            yield Static("", id="wrong", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip() == self.word:
            self.dismiss(True)
        else:
            self.query_one("#wrong", Static).update(f"that is not {self.word}; nothing was done")

    def action_leave(self) -> None:
        self.dismiss(False)
