"""The curriculum: its rule against numbers worked out by hand, and the state through everything a session does."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from engine.rewards import Component
from engine.rollout import RolloutGroup
from engine.tasks import Prompt, Task
from engine.tasks.curriculum import FLOOR, RATE, Curriculum
from sessions.checkpoints import CurriculumState
from sessions.records import StepRecord
from tests.engine.live import live, session
from tests.engine.small import early_letters, make_learner, rollout_group, same_weights
from tests.engine.test_resuming import BUSY, Act, act, checkpoint, inside, interrupted, rows, step, whole_once


def levelled(sizes: tuple[int, ...] = (7, 5, 9), judge: Callable[[Prompt, str], bool] | None = None) -> Task:
    """So many prompts of levels 1, 2, 3; by default every l-th text is right at level l, whatever it says."""
    prompts = [
        Prompt(id=f"{level}:{i}", text=f"{level}+{i * i}=", answer=str(i), level=level)
        for level, count in enumerate(sizes, 1)
        for i in range(count)
    ]
    return Task(
        name="levelled",
        prompts=prompts[::2] + prompts[1::2],
        evaluation=[Prompt(id=f"e{i}", text=f"{i}+{i}=", answer="x", level=1 + i % 2) for i in range(6)],
        components={"early": Component(early_letters)},
        reward_range=(0.0, 1.0),
        judge=judge or (lambda prompt, text: sum(map(ord, text)) % max(1, prompt.level) == 0),
        curriculum=True,
    )


def exact(measured: list[tuple[int, Fraction]]) -> dict[int, Fraction]:
    """p_l in fractions: while few were measured the mean of them and 1/2, later a moving average."""
    p: dict[int, Fraction] = {}
    n: Counter[int] = Counter()
    for level, share in measured:
        a = max(Fraction(1, n[level] + 2), Fraction(1, 20))
        p[level] = (1 - a) * p.get(level, Fraction(1, 2)) + a * share
        n[level] += 1
    return p


# ------------------------------------------------------------------------------------------------- the rule


def test_the_first_averages_by_hand() -> None:
    curriculum = Curriculum(levelled())
    metrics = curriculum.learn([(1, 1.0), (1, 0.5), (3, 0.0), (1, 1.0)])
    assert metrics["curriculum/success_1"] == pytest.approx((0.5 + 1 + 0.5 + 1) / 4)
    assert metrics["curriculum/success_3"] == pytest.approx((0.5 + 0) / 2)
    assert metrics["curriculum/level"] == pytest.approx((1 + 1 + 3 + 1) / 4)
    assert "curriculum/success_2" not in metrics
    assert curriculum.state.groups == {1: 3, 3: 1}


def test_the_averages_over_many_groups() -> None:
    told = [(1 + i % 3, Fraction(i * 7 % 9, 8)) for i in range(200)]
    curriculum = Curriculum(levelled())
    for part in itertools.batched(told, 11) if hasattr(itertools, "batched") else [told]:
        curriculum.learn([(level, float(share)) for level, share in part])
    expected = exact(told)
    assert RATE == 0.05
    assert {level: curriculum.success(level) for level in (1, 2, 3)} == pytest.approx(
        {level: float(p) for level, p in expected.items()}, abs=1e-12
    )


def test_shares_by_hand() -> None:
    curriculum = Curriculum(levelled())
    assert curriculum.shares() == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
    curriculum.begin(CurriculumState(success={1: 0.9, 2: 0.5, 3: 0.1}, groups={}, most=2))
    total = 0.09 + 0.25 + 0.09
    assert FLOOR == 0.2
    assert curriculum.shares() == pytest.approx(
        {1: 0.2 / 3 + 0.8 * 0.09 / total, 2: 0.2 / 3 + 0.8 * 0.25 / total, 3: 0.2 / 3 + 0.8 * 0.09 / total}
    )


def test_a_level_without_any_success_and_one_without_failure_are_still_asked() -> None:
    curriculum = Curriculum(levelled())
    for _ in range(300):
        curriculum.learn([(1, 1.0), (2, 0.5), (3, 0.0)])
    shares = curriculum.shares()
    assert shares[2] > 0.85
    assert min(shares.values()) >= 0.2 / 3
    nothing = Curriculum(levelled())
    nothing.begin(CurriculumState(success={1: 1.0, 2: 0.0, 3: 1.0}, groups={}, most=1))
    assert nothing.shares() == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3})


def test_the_level_that_is_asked_most_moves_when_another_is_clearly_better_to_learn_from() -> None:
    curriculum = Curriculum(levelled())
    assert curriculum.state.most == 1
    curriculum.learn([(1, 0.6), (2, 0.5)])
    assert (curriculum.state.most, curriculum.moved) == (1, "")  # 0.2475 and 0.25: too close to tell
    curriculum.learn([(1, 1.0)] * 4)
    assert curriculum.state.most == 2
    assert "level 2 is asked most from here on" in curriculum.moved
    assert f"its success is 0.50, that of level 1 {curriculum.success(1):.2f}" in curriculum.moved
    curriculum.learn([])
    assert (curriculum.state.most, curriculum.moved) == (2, "")


# ------------------------------------------------------------------------------------------------- prompts


def test_prompts_are_a_function_of_seed_cursor_and_state() -> None:
    task = levelled((40, 40, 40))
    curriculum = Curriculum(task)
    whole = [p.id for p in curriculum.take(3, 0, 60)]
    for count in (1, 4, 7):
        parts = [p.id for cursor in range(0, 60, count) for p in Curriculum(task).take(3, cursor, count)]
        assert parts[:60] == whole
    assert [p.id for p in curriculum.take(4, 0, 60)] != whole
    curriculum.learn([(1, 1.0)] * 50)
    assert [p.id for p in curriculum.take(3, 0, 60)] != whole


def test_another_seed_draws_other_levels() -> None:
    curriculum = Curriculum(levelled((40, 40, 40)))
    levels = [tuple(p.level for p in curriculum.take(seed, 0, 40)) for seed in (0, 1, 2)]
    assert len(set(levels)) == 3


def test_levels_are_drawn_by_their_shares() -> None:
    curriculum = Curriculum(levelled())
    curriculum.begin(CurriculumState(success={1: 0.95, 2: 0.5, 3: 0.02}, groups={}, most=2))
    drawn = Counter(p.level for p in curriculum.take(0, 1000, 4000))
    for level, share in curriculum.shares().items():
        assert drawn[level] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_a_level_repeats_no_prompt_before_the_cursor_has_passed_all_of_them() -> None:
    curriculum = Curriculum(levelled((50, 50, 50)))
    for first in (0, 50, 100):
        ids = [p.id for p in curriculum.take(2, first, 50)]
        assert len(set(ids)) == 50


def test_every_prompt_of_a_level_comes_up() -> None:
    curriculum = Curriculum(levelled())
    assert {p.id for p in curriculum.take(0, 0, 600)} == {p.id for p in levelled().prompts}


# ------------------------------------------------------------------------------------------------ measuring


def test_success_is_what_the_judge_says_of_the_groups_that_this_step_asked() -> None:
    def said(number: int, prompt: str, texts: str, **more: bool) -> RolloutGroup:
        group = rollout_group([0.0] * len(texts), number=number, **more)
        group.record.prompt_id = prompt
        for response, text in zip(group.record.responses, texts, strict=True):
            response.text = text
        return group

    curriculum = Curriculum(levelled(judge=lambda prompt, text: text == "y"))
    groups = [
        said(4, "3:1", "ynnn"),
        said(1, "1:0", "yyyn"),
        said(9, "2:0", "yyyy", late=True),
        said(2, "another session's", "yyyy"),
    ]
    assert curriculum.measure(groups) == [(1, 0.75), (3, 0.25)]


def test_groups_that_dynamic_sampling_replaced_are_measured_too(tmp_path: Path) -> None:
    task = levelled(judge=lambda prompt, text: True)
    dead = Task(**{**{name: getattr(task, name) for name in Task.__dataclass_fields__},
                   "components": {"same": Component(lambda completions, **_: [0.5] * len(completions))}})  # fmt: skip
    learner = make_learner(tmp_path, task=dead, dynamic_sampling=2)
    learner.run_step()
    assert learner.curriculum is not None
    assert len(learner.replaced) == 8
    assert sum(learner.curriculum.state.groups.values()) == 12


def test_a_learner_without_one_takes_its_prompts_in_the_tasks_order(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    assert learner.curriculum is None
    assert learner.prompts(5, 9) == learner.task.take(learner.seed, 5, 9)
    assert not [name for name in learner.run_step() if name.startswith("curriculum/")]


def test_a_learner_asks_what_its_curriculum_says(tmp_path: Path) -> None:
    task = levelled((30, 30, 30))
    learner = make_learner(tmp_path, task=task, save=False)
    assert learner.curriculum is not None
    learner.curriculum.begin(CurriculumState(success={1: 0.0, 2: 0.5, 3: 1.0}, groups={}, most=2))
    asked = [group.record.prompt_id for group in learner.sample(1)]
    assert asked == [p.id for p in learner.curriculum.take(learner.seed, 0, 4)]
    assert [p.id for p in learner.prompts(0, 40)] != [p.id for p in task.take(learner.seed, 0, 40)]
    assert sum(p.level == 2 for p in learner.prompts(0, 40)) > 25


def test_a_step_is_measured_in_its_metrics_and_an_evaluation_by_level(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, task=levelled(judge=lambda prompt, text: prompt.level == 2))
    asked = [p.level for p in learner.prompts(0, 4)]
    metrics = learner.run_step()
    assert metrics["curriculum/level"] == pytest.approx(sum(asked) / 4)
    assert {name for name in metrics if name.startswith("curriculum/success_")} == {
        f"curriculum/success_{level}" for level in asked
    }
    found = learner.evaluate().metrics
    assert {k: v for k, v in found.items() if "accuracy" in k} == {
        "eval/accuracy": 0.5, "eval/accuracy_1": 0.0, "eval/accuracy_2": 1.0,
    }  # fmt: skip


# ------------------------------------------------------------------------------------ ending and going on


def test_a_checkpoint_has_what_was_measured(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, task=levelled())
    for _ in range(3):
        learner.run_step()
    learner.save("here")
    assert learner.curriculum is not None
    state, next_ones = learner.curriculum.state, learner.prompts(learner.cursor, 8)
    learner.run_step()
    assert learner.curriculum.state != state
    learner.load(tmp_path / "3")
    assert learner.curriculum.state == state
    assert learner.prompts(learner.cursor, 8) == next_ones
    learner.load(tmp_path / "0")
    assert learner.curriculum.state == CurriculumState(most=1)


TASK = {"task": levelled((40, 30, 50))}


@pytest.mark.parametrize("end", ["stop", "stop --now"])
@pytest.mark.parametrize("after", [5, 11])
async def test_ended_and_gone_on_equals_never_ended(end: str, after: int) -> None:
    values = {"epochs": 2, "minibatches": 2, "rating_max_kl": 5.0, "dynamic_sampling": 1, **TASK}
    weights, expected = await whole_once(BUSY, 8, **values)
    found, again, tested = await interrupted(BUSY, 8, end, after, **values)
    assert same_weights(weights, found)
    assert again == expected
    assert "resumed" not in {kind for kind in tested.notes("resumed") if "otherwise" in kind}
    assert [record.metrics["curriculum/level"] for record, _ in expected]


async def test_a_dropped_try_is_not_measured_and_its_prompts_stay_spent() -> None:
    acts: list[Act] = [
        step(), checkpoint, inside("updating", 2), act("pause"), inside("updating", 0), act("discard"),
        lambda tested: tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused),
        step(2),
    ]  # fmt: skip
    weights, expected = await whole_once(acts, 6, epochs=2, **TASK)
    found, again, tested = await interrupted(acts, 6, "stop --now", len(acts), epochs=2, **TASK)
    assert same_weights(weights, found)
    assert again == expected
    curriculum = tested.engine.learner.curriculum
    assert sum(curriculum.state.groups.values()) == 4 * 6


async def test_a_rewind_and_a_fork_go_back_to_what_was_known_there() -> None:
    async with live(session(steps=0), **TASK) as tested:
        learner = tested.engine.learner
        states = []
        for _ in range(4):
            await tested.step()
            states.append((learner.curriculum.state, learner.prompts(learner.cursor, 8)))
        await tested.do("rewind 2")
        await tested.until(lambda: learner.step == 2 and tested.engine.control.paused)
        assert (learner.curriculum.state, learner.prompts(learner.cursor, 8)) == states[1]
        await tested.step()
        await tested.step()
        assert (learner.curriculum.state, learner.prompts(learner.cursor, 8)) == states[3]
        await tested.do("fork other --at 1")
        await tested.until(lambda: learner.step == 1 and tested.engine.control.paused)
        assert (learner.curriculum.state, learner.prompts(learner.cursor, 8)) == states[0]


async def test_a_preview_measures_nothing() -> None:
    async with live(session(steps=0), **TASK) as tested:
        await tested.step()
        tested.hold.at("updating", 0)
        await tested.do("resume")
        await tested.held()
        await tested.first("pause")
        tested.hold.release()
        await tested.paused()
        before = tested.engine.learner.curriculum.state
        answer = await tested.do("preview")
        assert answer.status == "applied", answer
        assert tested.engine.learner.curriculum.state == before


async def test_the_events_say_when_the_level_moves() -> None:
    folder = session(steps=0)
    task = levelled((40, 30, 50), judge=lambda prompt, text: prompt.level == 1 or text > "m")
    async with live(folder, task=task) as tested:
        await tested.step(5)
        told = tested.notes("curriculum")
        assert told
        assert told[0].startswith("level ")
    found: list[StepRecord] = [record for record, _ in rows(folder)]
    assert found[-1].metrics["curriculum/success_1"] > 0.8  # every answer was right
