"""The tree of branches: a table whose branches open and close with ``h`` and ``l``."""

from __future__ import annotations

from textual.message import Message

from screens.widgets.line_table import LineTable


class BranchTable(LineTable):
    """Rows of branches and checkpoints."""

    class Folded(Message):
        """The branch under the cursor should be opened (True) or closed."""

        def __init__(self, key: str, opened: bool) -> None:
            super().__init__()
            self.key, self.opened = key, opened

    def move(self, direction: str) -> None:
        if direction in ("left", "right"):
            if self.key:
                self.post_message(self.Folded(self.key, direction == "right"))
        else:
            super().move(direction)
