"""The maze task: its mazes, what is held out, its rewards against walks on the characters, and that it is learned."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import pytest

from engine.loading import TINY, load_policy
from engine.policy import make_accelerator
from engine.scoring import score_group
from engine.tasks import Prompt, load_task
from engine.tasks.characters import check_characters
from engine.tasks.task import Task
from sessions.errors import UsageError
from sessions.hyperparameters import defaults
from sessions.maze import read_maze
from tests.engine.small import make_knobs, make_learner
from tests.sessions.test_maze import exits


@lru_cache
def made(words: str = "maze") -> Task:
    return load_task(words, seed=0)


def rows_of(prompt: Prompt) -> list[str]:
    return prompt.text.removesuffix("\n=").split("\n")


def scored(prompt: Prompt, text: str, task: Task) -> dict[str, float | None]:
    """Component -> value, and ``reward``."""
    (result,) = score_group(task.components, prompt, [text])
    assert not result.failed
    return {**result.components, "reward": result.reward}


CORRIDOR = Prompt(id="c", text="", answer="", columns={"maze": "*s..e."})
"""Three moves to the right."""


# ------------------------------------------------------------------------------------------------- its mazes


@pytest.mark.parametrize(
    ("words", "height", "width"),
    [("maze", 3, 3), ("maze size=5", 5, 5), ("maze size=6 rows=1", 1, 6), ("maze size=2 rows=4 wall_share=0", 4, 2)],
)
def test_every_maze_has_its_size_and_a_way_out(words: str, height: int, width: int) -> None:
    task = made(words)
    for prompt in [*task.prompts[:200], *task.evaluation[:50]]:
        rows = rows_of(prompt)
        assert (len(rows), {len(row) for row in rows}) == (height, {width})
        assert sorted("".join(rows).replace("*", "").replace(".", "")) == ["e", "s"]
        assert exits(rows, prompt.answer)
        maze = read_maze(prompt.text)
        assert maze is not None
        assert len(prompt.answer) == maze.shortest
        assert (prompt.level, prompt.drawing) == (width, "maze")


def test_held_out_mazes_are_drawn_otherwise_than_those_that_are_learned_from() -> None:
    for words in ("maze", "maze size=2-4 wall_share=0.4", "maze size=4-6 rows=1"):
        task = made(words)
        train, held = ({p.text for p in part} for part in (task.prompts, task.evaluation))
        assert not train & held
        assert len(train) == len(task.prompts) == len({p.id for p in task.prompts})
        assert held


def test_the_mazes_are_the_same_in_every_session() -> None:
    one, other = load_task("maze size=3-4", 0), load_task("maze size=3-4", 7)
    assert one.prompts == other.prompts
    assert one.evaluation == other.evaluation
    assert [p.level for p in one.evaluation[:4]] == [3, 4, 3, 4]


def test_more_walls_are_more_walls() -> None:
    def share(words: str) -> float:
        drawn = "".join(p.columns["maze"] for p in made(words).prompts).replace("\n", "")
        return drawn.count("*") / len(drawn)

    assert share("maze size=6 wall_share=0") == 0
    assert 0.1 < share("maze size=6 wall_share=0.2") < share("maze size=6 wall_share=0.4") < 0.4


def test_instructions_say_what_the_characters_and_the_moves_are() -> None:
    prompt = made("maze drawing=hashes instructions=true").prompts[0]
    assert "S" in prompt.columns["maze"]
    assert prompt.columns["maze"] in prompt.text
    assert "# is a wall" in prompt.text
    assert "u up, d down, l left, r right" in prompt.text
    assert read_maze(prompt.text) == read_maze(prompt.columns["maze"])


def test_a_drawing_that_the_model_cannot_read_is_refused_at_the_start() -> None:
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    check_characters(made("maze size=2-5"), policy, "maze size=2-5", "tiny")
    words = "maze drawing=hashes"
    with pytest.raises(UsageError, match="task maze drawing=hashes: the tokenizer of model tiny does not have # E S;"):
        check_characters(made(words), policy, words, "tiny")


# ------------------------------------------------------------------------------------------------ its rewards


def test_the_components_of_a_walk_by_hand() -> None:
    task = made()
    assert scored(CORRIDOR, "rrr", task) == {
        "exit": 1, "readable": 1, "progress": 1, "bumps": 0, "detour": 0, "reward": pytest.approx(1.4),
    }  # fmt: skip
    bumped = scored(CORRIDOR, "urlrrr", task)  # a bump, there and back, three more: six moves for three
    assert bumped["bumps"] == pytest.approx(-1 / 5)
    assert bumped["detour"] == -1
    assert bumped["reward"] == pytest.approx(1 + 0.2 + 0.2 - 0.1 / 5 - 0.1)
    half = scored(CORRIDOR, "r, right, maybe", task)
    assert (half["exit"], half["detour"]) == (0, None)
    assert half["progress"] == pytest.approx(2 / 3)
    assert half["readable"] == pytest.approx(2 / 3)
    assert scored(CORRIDOR, "", task)["reward"] == 0
    assert scored(CORRIDOR, "l" * 5000, task)["reward"] == pytest.approx(0.2 - 0.1)
    assert scored(CORRIDOR, "rrrr", task)["detour"] == pytest.approx(-1 / 3)


def test_every_reward_is_in_the_range_and_the_best_is_its_top() -> None:
    task, rng = made("maze size=4"), random.Random(0)
    low, high = task.reward_range
    for prompt in task.prompts[:100]:
        assert scored(prompt, prompt.answer, task)["reward"] == pytest.approx(high)
        for _ in range(5):
            text = "".join(rng.choice("udlr8246 x\x00,") for _ in range(rng.randrange(30)))
            reward = scored(prompt, text, task)["reward"]
            assert reward is not None
            assert low <= reward <= high + 1e-12
    assert scored(CORRIDOR, "x" + " llllllll", task)["reward"] == pytest.approx(0.2 * 8 / 9 - 0.1)


def test_the_judge_asks_whether_the_exit_was_reached() -> None:
    task, rng = made(), random.Random(5)
    judged = []
    for prompt in task.evaluation[:60]:
        moves = "".join(rng.choice("udlr") for _ in range(10))
        assert task.judge(prompt, moves) == exits(rows_of(prompt), moves)
        assert task.judge(prompt, prompt.answer)
        judged.append(task.judge(prompt, moves))
    assert 5 < sum(judged) < 55


# ------------------------------------------------------------------------------------------------ learning it


def learn(folder: Path, seed: int, steps: int, values: dict[str, float]) -> tuple[list[float], float]:
    """The reward of each step of the embedded model on corridors, and its held-out accuracy afterwards."""
    task = load_task("maze size=4-6 rows=1", seed)
    every = {"evaluate_every": 0, "checkpoint_steps": 0, **values}
    policy = load_policy(TINY, make_accelerator("cpu", "fp32"))
    learner = make_learner(
        folder, policy=policy, task=task, knobs=make_knobs(**defaults(task.defaults, every)), seed=seed
    )
    assert learner.evaluate().accuracy == 0
    return [learner.run_step()["reward/mean"] for _ in range(steps)], learner.evaluate().accuracy


def test_the_reward_of_the_embedded_model_does_not_fall(tmp_path: Path) -> None:
    rewards, _ = learn(tmp_path, 0, 15, {"prompts_per_step": 8})
    assert sum(rewards[-5:]) > sum(rewards[:5])


def test_the_groups_that_are_sampled_say_that_they_are_mazes(tmp_path: Path) -> None:
    learner = make_learner(tmp_path, task=made(), save=False)
    assert {group.record.drawing for group in learner.sample(1)} == {"maze"}


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_embedded_model_learns_to_leave_corridors(tmp_path: Path, seed: int) -> None:
    rewards, accuracy = learn(tmp_path, seed, 200, {})
    first, last = (sum(part) / 20 for part in (rewards[:20], rewards[-20:]))
    print(f"seed {seed}: reward {first:.2f} -> {last:.2f}, held-out accuracy 0 -> {accuracy:.2f}")
    assert last > first + 0.25
    assert accuracy > 0.4
