"""What was answered to the held-out prompts, on the screen."""

from __future__ import annotations

import msgspec
import pytest

from screens.evaluation import EvaluationDialog
from screens.evaluation_lines import MOST_LINES, evaluation_lines, evaluation_words
from sessions.commands import QueryEvaluation
from sessions.evaluations import EvaluationView, HeldOut, HeldOutAnswer, Sample, Turned, metrics_of
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import check_golden, frame, until, until_shown

TRAIN = "A train leaves at 14:05 and travels 180 km at 90 km/h. When does it arrive?"


def answer(name: str, prompt: str, text: str, right: bool | None, *samples: Sample, **more) -> HeldOutAnswer:
    greedy = Sample(text=text, length=len(text) // 4 + 1, right=right, reward=None if right is None else float(right))
    return HeldOutAnswer(
        prompt_id=name, prompt=prompt, reference="16:05", greedy=greedy, samples=list(samples), **more
    )  # fmt: skip


def found() -> EvaluationView:
    """Four prompts: one whose answer has become wrong, one right, one with samples, one that nobody judges."""
    worse = answer("w", TRAIN, "180 / 90 = 2 h, so it arrives at 18:05.", False)
    better = answer("b", "What is 17 x 3?", "17 x 3 = 51", True)
    samples = [Sample(text=f"try {i}", length=2, right=i == 1, reward=float(i == 1)) for i in range(4)]
    answers = [worse, better, answer("s", "Count to three.", "1 2 3", True, *samples), answer("n", "Sing.", "la", None)]
    return EvaluationView(
        now=HeldOut(
            branch="main", step=640, time=1.0, answers=answers, metrics=metrics_of(answers), total=4, who="ann"
        ),
        earlier=600,
        earlier_metrics={"eval/accuracy": 0.5, "eval/length": 9.0},
        steps=[600, 640],
        better=[Turned(now=better, before=answer("b", "What is 17 x 3?", "17 x 3 = 41", False))],
        worse=[Turned(now=worse, before=answer("w", TRAIN, "180 / 90 = 2 h, so it arrives at 16:05.", True))],
    )


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_evaluation_golden(attach: Attach, engine: FakeEngine, size: tuple[int, int]) -> None:
    engine.evaluation = found()
    async with attach(size=size) as (app, pilot):
        await pilot.press("colon", *"evaluation", "space", *"640", "enter")
        await until(lambda: isinstance(app.screen, EvaluationDialog), "the pane")
        await until_shown(app, "has become wrong", "esc back")
        check_golden(f"evaluation-{size[0]}x{size[1]}", frame(app))
        await pilot.press("n", "n")
        await until_shown(app, "What is 17 x 3?")
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, EvaluationDialog), "the screen behind it")
    assert [(c.step, c.earlier) for c in engine.received if isinstance(c, QueryEvaluation)] == [(640, -1)]


def test_every_prompt_is_there_once_and_what_has_turned_comes_first() -> None:
    lines, starts = evaluation_lines(found(), 78)
    text = ["".join(piece for piece, _ in line) for line in lines]
    assert [text[start].split("  ")[1] for start in starts] == [
        "has become wrong",
        "has become right",
        "right",
        "not judged",
    ]
    assert sum("Count to three." in line for line in text) == 1
    assert any("1 of 4 samples right" in line for line in text)


def test_the_words_that_differ_are_marked() -> None:
    lines, _ = evaluation_lines(found(), 78)
    marked = [text.strip() for line in lines for text, tone in line if tone == "found"]
    assert marked == ["18:05.", "16:05.", "51", "41"]


def test_a_long_answer_is_cut_in_the_pane_and_whole_in_words() -> None:
    view = found()
    view.now.answers[3].greedy.text = "\n".join(f"line {i}" for i in range(100))
    lines = ["".join(text for text, _ in line) for line in evaluation_lines(view, 78)[0]]
    assert sum("| line" in line for line in lines) == MOST_LINES - 1
    assert any(f".. {100 - MOST_LINES + 1} more lines" in line for line in lines)
    assert sum("| line" in line for line in evaluation_words(view)) == 100


def test_what_a_model_wrote_steers_no_terminal() -> None:
    bad = "\x1b[2J\x9b31m\u202eevil\x07"
    view = found()
    for each in [*view.now.answers, view.better[0].before]:
        each.prompt = each.reference = each.greedy.text = bad
        each.samples = [Sample(text=bad, right=False)]
    view = msgspec.structs.replace(view, now=msgspec.structs.replace(view.now, who=bad))
    text = "\n".join(evaluation_words(view)) + "".join(t for line in evaluation_lines(view, 40)[0] for t, _ in line)
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(text)


def test_the_first_evaluation_has_nothing_to_be_compared_with() -> None:
    view = msgspec.structs.replace(found(), earlier=-1, better=[], worse=[])
    text = "\n".join(evaluation_words(view))
    assert "since then" not in text
    assert "4 prompts, greedy, asked for by ann: held-out 66.7%" in text
