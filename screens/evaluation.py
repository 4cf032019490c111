"""What was answered to the held-out prompts: a text over the whole screen, to read."""

from __future__ import annotations

from functools import partial

from screens.evaluation_lines import evaluation_lines, evaluation_words
from screens.reading import ReadingDialog
from sessions.evaluations import EvaluationView


class EvaluationDialog(ReadingDialog):
    """The answer to ``evaluation``; esc leaves."""

    def __init__(self, view: EvaluationView) -> None:
        super().__init__(
            f"held-out prompts after step {view.now.step}",
            partial(evaluation_lines, view),
            "prompt",
            lambda: evaluation_words(view),
        )
