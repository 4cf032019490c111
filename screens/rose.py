"""The responses whose reward rose most since a step: a text over the whole screen, to read."""

from __future__ import annotations

from functools import partial

from screens.reading import ReadingDialog
from screens.rose_lines import rose_lines, rose_words
from sessions.rose import Roses


class RoseDialog(ReadingDialog):
    """The answer to ``rose``; esc leaves."""

    def __init__(self, roses: Roses) -> None:
        super().__init__(
            f"reward rose most since step {roses.since}",
            partial(rose_lines, roses),
            "response",
            lambda: rose_words(roses),
        )
