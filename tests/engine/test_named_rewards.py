"""Reward functions of files and modules: brought unchanged, refused with the line that is wrong, and in a live session
weighed and reloaded."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from engine.control import Discarded
from engine.knobs import Knobs
from engine.learner import Learner
from engine.reward_reload import Values, score_again
from engine.rewards.loading import Surroundings, load_components, load_named
from engine.rewards.named import NamedRewards
from engine.scoring import score_group
from engine.tasks import Prompt, Task, load_task
from engine.tasks.task import columns_of
from sessions import wire
from sessions.errors import UsageError
from sessions.records import Group, Response
from sessions.reward_kinds import read_rewards
from sessions.reward_reloads import RewardReload
from tests.engine.live import Hold, Live, live, session
from tests.engine.small import make_knobs, make_learner, random_policy, small_task, wait_for

TRL = Path(__file__).parent / "trl_rewards.py"
SLEEPS = "import time\ndef f(completions): time.sleep(1000)\n"
ROW = {"ground_truth": "4", "task": "math", "level": 3}


def named(*texts: str, columns=("answer", *ROW), folder: str = "", timeout: float = 30.0) -> tuple[dict, NamedRewards]:
    read, where = read_rewards(list(texts)), Surroundings(timeout, folder=folder)
    process = load_named(read, columns, where)
    assert process is not None
    return load_components(read, {}, where, process), process


@pytest.fixture(scope="module")
def brought() -> Iterator[tuple[dict, NamedRewards]]:
    functions = ("tokens", "characters", "format", "accuracy", "math", "async", "logging")
    components, process = named(*(f"{TRL}:{name}_reward" for name in functions))
    yield components, process
    process.close()


def scores(components, name: str, completions, **prompt: Any) -> list[float | None]:
    asked = Prompt(**{"id": "p", "text": "2+2=", "answer": "4", "columns": ROW, **prompt})
    tokens = [[7] * (len(text) + 1) for text in completions]
    found = score_group({name: components[name]}, asked, completions, tokens, {"global_step": 5, "max_steps": 10})
    assert not any(scored.failed for scored in found), found
    return [scored.components[name] for scored in found]


def test_trls_examples_score_as_they_stand(brought) -> None:
    components, process = brought
    assert scores(components, "tokens_reward", ["a", "bcd"]) == [2.0, 4.0]
    assert scores(components, "characters_reward", ["a", "bcd"]) == [1.0, 3.0]
    assert scores(components, "accuracy_reward", [r"so \boxed{4}", r"\boxed{5}", "4"]) == [1.0, 0.0, 0.0]
    assert scores(components, "math_reward", ["4", "5"]) == [1.0, -1.0]
    assert scores(components, "math_reward", ["4", "5"], columns={**ROW, "task": "coding"}) == [None, None]
    assert scores(components, "async_reward", ["a", "bcd"]) == [0.5, 1.5]
    process.take_logged()
    assert scores(components, "logging_reward", ["4", "5"]) == [1.5, 0.0]
    assert scores(components, "logging_reward", ["4", "4"]) == [1.5, 1.5]
    assert process.take_logged() == {"logged/accuracy": 0.75}
    assert process.take_logged() == {}


def test_chat_prompts_come_with_completions_as_messages(brought) -> None:
    components, _ = brought
    messages = [{"role": "user", "content": "2+2="}]
    good = "<think>2 and 2</think><answer>4</answer>"
    assert scores(components, "format_reward", [good, "4"], messages=messages) == [1.0, 0.0]


def test_a_column_named_like_an_argument_of_its_own_does_not_take_its_place(brought) -> None:
    components, _ = brought
    columns = {**ROW, "completion_ids": "mine", "trainer_state": "mine", "prompts": "mine"}
    assert scores(components, "tokens_reward", ["a"], columns=columns) == [2.0]
    assert "completion_ids" not in columns_of([Prompt("p", "?", "", columns)])


def test_columns_of_any_kind_are_handed_over() -> None:
    import datetime

    import numpy as np

    components, process = named(f"{TRL}:characters_reward")
    try:
        odd = {
            "array": np.arange(3),
            "when": datetime.date(2026, 1, 2),
            "set": {1},
            "text": "\ud800",
            "no": float("nan"),
        }
        assert scores(components, "characters_reward", ["ab"], columns=odd) == [2.0]
    finally:
        process.close()


def test_a_function_of_a_module_is_found_where_the_run_was_started(tmp_path) -> None:
    (tmp_path / "engine").mkdir()  # a name that the workbench has, too
    (tmp_path / "engine" / "__init__.py").write_text("SCALE = 3\n")
    (tmp_path / "my_rewards.py").write_text(
        "from engine import SCALE\ndef f(completions): return [SCALE] * len(completions)\n"
    )
    components, process = named("my_rewards:f", folder=str(tmp_path))
    try:
        assert scores(components, "f", ["a"]) == [3.0]
        assert len(process.process.code["f"]) == 12
    finally:
        process.close()


def test_a_file_finds_the_modules_beside_it_and_is_called_as_its_own(tmp_path) -> None:
    (tmp_path / "helper.py").write_text("BONUS = 2\n")
    (tmp_path / "json.py").write_text(
        "from helper import BONUS\nimport dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "def f(completions): return [Point(BONUS).x] * len(completions)\n"
    )
    components, process = named(f"{tmp_path}/json.py:f")
    try:
        assert scores(components, "f", ["a"]) == [2.0]
    finally:
        process.close()


BROKEN = {
    "syntax": ("def f(completions:\n    pass\n", "f", "reward {path}:1: '(' was never closed"),
    "missing module": ("import os\nimport nowhere_x\ndef f(completions): ...\n", "f",
                       "reward {path}:2: No module named 'nowhere_x'; install it for the Python"),
    "raises": ("def g():\n    return 1 / 0\ng()\ndef f(completions): ...\n", "f",
               "reward {path}:2: importing it raised ZeroDivisionError: division by zero"),
    "exits": ("import sys\nsys.exit('no key')\n", "f", "reward {path}:2: importing it raised SystemExit: no key"),
    "no function": ("def accuracy(completions): ...\n", "acuracy",
                    "reward {path}: defines no acuracy; did you mean accuracy?"),
    "no callable": ("f = 3\n", "f", "reward {path}: f is an int, which cannot be called"),
    "async generator": ("async def f(completions):\n    yield 1.0\n", "f",
                        "reward {path}: f is an async generator; have"),
    "instance that is one": (
        "class F:\n    async def __call__(self, completions):\n        yield 1.0\nf = F()\n",
        "f",
        "reward {path}: f is an async generator; have",
    ),
    "class": ("class F:\n    def __call__(self, completions): ...\n", "F", "reward {path}: F is a class; give"),
    "needs a column": ("def f(completions, solution): ...\n", "f",
                       "reward {path}: f needs an argument solution, and the task has no such column (it has"),
    "no completions": ("def f(prompts): ...\n", "f", "reward {path}: f takes no completions; a reward is"),
    "by place": ("def f(completions, /): ...\n", "f", "reward {path}: f takes completions by place only"),
    "hangs": ("while True: pass\n", "f", "reward {path}: while it was loaded, it took longer than 0.5 s"),
    "dies": ("import os\nos._exit(5)\n", "f", "reward {path}: while it was loaded, its process ended with exit code 5"),
    "bytes": (b"\xff\xfe\x00def f", "f", "reward {path}: is not text in the encoding that it should have"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_loaded_is_said_in_one_line_with_its_place(tmp_path, case: str) -> None:
    source, function, message = BROKEN[case]
    path = tmp_path / "rewards.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(UsageError) as caught:
        named(f"{path}:{function}", columns=("answer",), timeout=0.5 if case == "hangs" else 30.0)
    assert str(caught.value).startswith(message.format(path=path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_module_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"reward nowhere_y.rewards: there is no module nowhere_y; modules are looked"):
        named("nowhere_y.rewards:f", folder=str(tmp_path))


def test_the_code_that_was_loaded_stays_until_it_is_reloaded(tmp_path) -> None:
    path = tmp_path / "r.py"
    path.write_text(
        "import os\ndef f(completions):\n    if 'die' in completions: os._exit(1)\n    return [1] * len(completions)\n"
    )
    components, process = named(f"{path}:f")
    try:
        first = process.process.pid
        path.write_text("def f(completions): return [2] * len(completions)\n")
        (died,) = score_group(components, Prompt("p", "?", ""), ["die"])
        assert died.failed == "f: its process ended with exit code 1"
        assert scores(components, "f", ["a"]) == [1.0]
        assert process.process.pid != first
    finally:
        process.close()


def test_a_task_takes_named_rewards_beside_its_own_and_gives_its_columns(tmp_path) -> None:
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(8)]
    data, code = tmp_path / "rows.jsonl", tmp_path / "r.py"
    data.write_text("\n".join(map(json.dumps, rows)))
    code.write_text("def f(completions, answer): return [int(a) * len(c) for c, a in zip(completions, answer)]\n")
    task = load_task(str(data), 0, 2, ["task", f"{code}:f weight=0.5"])
    try:
        assert list(task.components)[-1] == "f"
        assert task.info().components["f"] == 0.5
        prompt = next(p for p in [*task.prompts, *task.evaluation] if p.answer == "5")
        (scored,) = score_group(task.components, prompt, ["5 "])
        assert scored.components["f"] == 10.0
        assert scored.reward == 5.0 + sum(v or 0 for n, v in scored.components.items() if n != "f")
    finally:
        assert task.named is not None
        task.named.close()


# ------------------------------------------------------------------------------------------- in a live session

LENGTHS = """def f(completions, log_metric=None):
    log_metric("calls", 1)
    return [float(len(c)) for c in completions]
"""


def building(code: Path, holds: list[Hold] | None = None, timeout: float = 30.0) -> Callable[..., Any]:
    """A learner whose second component is the function ``f`` of a file.

    :param holds: gets what holds its compute thread.
    """

    def build(settings, control, where) -> tuple[Learner, Knobs]:
        task: Task = small_task()
        read, where_run = read_rewards(["task", f"{code}:f weight=0.5"]), Surroundings(timeout)
        process = load_named(read, ["answer"], where_run)
        components = load_components(read, task.components, where_run, process)
        task = replace(task, components=components, named=process)
        weights = {f"reward_weight.{name}": c.weight for name, c in components.items()}
        knobs = make_knobs(*settings.sets, **weights)
        if holds is not None:
            holds.append(Hold(control))
        return Learner(settings, task, random_policy(), knobs, control, where.checkpoints), knobs

    return build


async def rewards(run: Live, step: int) -> list[tuple[float | None, dict[str, float | None]]]:
    found = []
    for number in range(1, 5):
        detail = await run.query(f"group {step}.{number}")
        found += [
            (r.get("reward"), r["components"], r.get("failed", ""), r["text"]) for r in detail["group"]["responses"]
        ]
    return found


def code_file(folder: Path, text: str = LENGTHS) -> Path:
    path = folder / "r.py"
    path.write_text(text)
    return path


async def test_a_weight_changes_live_at_the_next_rollout_and_is_recorded(home, tmp_path) -> None:
    async with live(build=building(code_file(tmp_path))) as run:
        await run.step()
        answer = await run.first("set reward_weight.f=2")
        assert answer.text == "reward_weight.f applies at the next rollout"
        await run.step()
        for step, weight in ((1, 0.5), (2, 2.0)):
            for reward, components, _, text in await rewards(run, step):
                assert components["f"] == len(text)
                assert reward == pytest.approx(components["early"] + weight * len(text))
        refused = await run.do("set reward_weight.ff=2")
        assert refused.status == "rejected"
        assert refused.text == "unknown reward component 'ff'; did you mean f?"
        last = run.engine.board.last_step
        assert last.values["reward_weight.f"] == 2.0
        assert last.metrics["logged/calls"] == 1.0
        await run.first("set reward_weight.f=0")
        await run.step()
        await run.until(lambda: run.engine.board.task.components["f"] == 0)
        assert "check f" in {w["name"] for w in await run.query("watches") if w["on"]}


async def test_reloaded_code_is_tried_shown_and_used_for_the_responses_that_wait(home, tmp_path) -> None:
    code = code_file(tmp_path)
    async with live(build=building(code)) as run:
        await run.first("set reward_weight.f=0.75")
        await run.do("pause update")
        before = await rewards(run, 1)
        old = run.engine.learner.task.named.process.code["f"]

        refused = await run.do("reload use")
        assert refused.text.startswith("there is no reloaded code to use; `reload` loads it")
        code.write_text("def f(completions\n")
        refused = await run.do("reload")
        assert refused.status == "rejected"
        assert refused.text == f"reward {code}:1: '(' was never closed; the code in use stays"

        code.write_text("def f(completions): return [1 + len(c) if c else None for c in completions]\n")
        answer = await run.do("reload")
        assert answer.status == "applied", answer
        told = wire.msgspec.json.decode(answer.data, type=RewardReload)
        (change,) = told.components
        assert (told.step, told.waiting, change.name) == (1, True, "f")
        assert (change.responses, change.changed) == (16, 16)
        assert change.old_code == old != change.code
        assert "16 of 16 responses change" in answer.text
        lengths = [len(text) for *_, text in before]
        assert change.before == pytest.approx(sum(lengths) / 16)
        assert change.after == pytest.approx(sum(n + 1 for n in lengths if n) / sum(n > 0 for n in lengths))
        assert await rewards(run, 1) == before  # only shown

        answer = await run.do("reload use")
        assert answer.text == "in use: the rewards of 16 responses of step 1 are replaced"
        for (_, was, _, _), (reward, now, failed, text) in zip(before, await rewards(run, 1), strict=True):
            assert now == {**was, "f": 1 + len(text) if text else None}
            assert reward == pytest.approx(was["early"] + 0.75 * (1 + len(text) if text else 0))
            assert failed == ""
        assert len([e for e in run.of(wire.GroupsChanged) if len(e.heads) == 4]) == 1
        await run.step()
        await run.step()
        assert {len(t) + 1 if t else None for _, _, _, t in await rewards(run, 2)} == {
            c["f"] for _, c, _, _ in await rewards(run, 2)
        }
        steps = run.engine.store.steps("main")
        assert [record.reward_code["f"] for record in steps] == [change.code, change.code]
        notes = run.notes("reward code")
        assert any(note.endswith("16 values of step 1 change; not in use yet") for note in notes)


async def test_code_taken_up_inside_a_step_scores_the_next_one(home, tmp_path) -> None:
    code, holds = code_file(tmp_path), []
    async with live(build=building(code, holds)) as run:
        run.hold = holds[0]
        await run.step()
        first = run.engine.board.last_step.reward_code["f"]
        code.write_text("def f(completions): return [7.0] * len(completions)\n")
        answer = await run.do("reload")
        assert not wire.msgspec.json.decode(answer.data, type=RewardReload).waiting
        assert "tried on the responses of step 1" in answer.text
        run.hold.at("sampling", 2)
        await run.first("step")
        await run.held()
        (one,) = run.engine.store.newest_groups("main", limit=1)
        await run.engine.write(run.engine.store.add_groups, [structs.replace(one, step=2, status="sampled")])
        told = wire.msgspec.json.decode((await run.do("reload")).data, type=RewardReload)
        assert told.step == 1  # also while the next one has a group that nobody has learned from
        await run.first("reload use")
        await run.until(lambda: run.engine.control._errands)
        run.hold.release()
        await run.until(lambda: run.engine.learner.step == 2 and run.engine.control.paused)
        assert {c["f"] for _, c, _, _ in await rewards(run, 2)} != {7.0}
        await run.step()
        assert {c["f"] for _, c, _, _ in await rewards(run, 3)} == {7.0}
        codes = [record.reward_code["f"] for record in run.engine.store.steps("main")]
        assert codes[0] == codes[1] == first != codes[2]


async def test_a_session_goes_on_from_its_records_and_says_that_the_code_has_changed(home, tmp_path) -> None:
    code, folder = code_file(tmp_path), session()
    async with live(folder, build=building(code)) as run:
        await run.step(2)
        scored = await rewards(run, 2)
    code.write_text("def f(completions): return [7.0] * len(completions)\n")
    async with live(folder, build=building(code)) as run:
        assert run.engine.learner.step == 2
        assert await rewards(run, 2) == scored
        (note,) = [e.text for e in run.snapshots[-1].events if isinstance(e, wire.Noted) and "has changed" in e.text]
        assert note.startswith("the code has changed since the session was left: f ")


async def test_a_session_without_named_rewards_has_nothing_to_reload(home) -> None:
    async with live() as run:
        answer = await run.do("reload")
        assert (
            answer.text == "no reward of this session is a function of a file or a module: there is nothing to reload"
        )


async def test_a_function_that_ends_its_process_again_and_again_pauses_the_run(home, tmp_path) -> None:
    code = code_file(tmp_path, "import os\ndef f(completions): os._exit(3)\n")
    async with live(build=building(code)) as run:
        await run.first("resume")
        await run.paused_again()
        (alarm,) = [e.alarm for e in run.of(wire.AlarmRaised)]
        assert alarm.rule == "reward process"
        assert alarm.message.startswith(
            "reward functions were not asked for the rest of step 1: f was ended 3 times in a row; the last time"
        )
        assert run.engine.control.phase == "updating"
        failed = [why for _, _, why, _ in await rewards(run, 1)]
        assert failed[0] == "f: its process ended with exit code 3"
        assert failed[-1].startswith("f: not asked: f was ended 3 times in a row; the last time")
        code.write_text(LENGTHS)
        await run.do("reload")
        await run.do("reload use")
        assert [why for _, _, why, _ in await rewards(run, 1)] == [""] * 16
        await run.do("step")
        assert run.engine.board.last_step.metrics["response/failed_fraction"] == 0


async def test_the_next_step_asks_again_after_a_pause(home, tmp_path) -> None:
    mark = tmp_path / "dies"
    mark.touch()
    dying = f"def f(completions):\n    if os.path.exists('{mark}'): os._exit(3)\n    return [1] * len(completions)\n"
    code = code_file(tmp_path, "import os\n" + dying)
    async with live(build=building(code)) as run:
        await run.first("resume")
        await run.paused_again()
        mark.unlink()
        await run.do("step")
        assert run.engine.board.last_step.metrics["response/failed_fraction"] == 1
        await run.step()
        assert run.engine.board.last_step.metrics["response/failed_fraction"] == 0


def test_a_step_without_an_engine_asks_again_what_the_step_before_gave_up(tmp_path: Path) -> None:
    mark = tmp_path / "dies"
    mark.touch()
    dying = f"def f(completions):\n    if os.path.exists('{mark}'): os._exit(3)\n    return [1] * len(completions)\n"
    components, process = named(f"{code_file(tmp_path, 'import os' + chr(10) + dying)}:f")
    learner = make_learner(tmp_path / "checkpoints", task=replace(small_task(), components=components, named=process))
    try:
        assert learner.run_step()["response/failed_fraction"] == 1
        assert process.process.stopped
        mark.unlink()
        assert learner.run_step()["response/failed_fraction"] == 0
    finally:
        process.close()


def test_leaving_an_evaluation_whose_reward_hangs_does_not_wait_for_it(tmp_path: Path) -> None:
    components, process = named(f"{code_file(tmp_path, SLEEPS)}:f", timeout=500.0)
    task = replace(small_task(), components=components, named=process)
    learner = make_learner(tmp_path / "checkpoints", task=task, save=False)
    left: list[BaseException] = []

    def evaluate() -> None:
        with pytest.raises(Discarded) as caught:
            learner.evaluate()
        left.append(caught.value)

    try:
        thread = threading.Thread(target=evaluate)
        thread.start()
        wait_for(lambda: process.process._running is not None and process.process._running.busy)
        learner.control.discard()
        thread.join(60)
        assert left
        wait_for(lambda: process.process._running is None)
    finally:
        process.close()


def rescored(failed: str, found: Values, **more: Any) -> Response:
    """One response with components of every kind, scored again with other values of ``f``."""
    components = {"early": 0.5, "f": 1.0, "overlong": -0.25, "reward_model": 2.0}
    response = Response(letter="A", text="x", length=1, ended=True, components=components, reward=9.0, failed=failed)
    group = Group(
        branch="main", step=1, number=1, prompt_id="p", prompt="", answer="", temperature=1.0, responses=[response]
    )
    score_again(group, [found], ["f"], {"early": 1.0, "f": 10.0}, 0.5, **more)
    return response


def test_scored_again_a_response_keeps_what_other_components_made_of_it() -> None:
    response = rescored("", ({"f": 3.0}, ""))
    assert response.components == {"early": 0.5, "f": 3.0, "overlong": -0.25, "reward_model": 2.0}
    assert response.reward == 0.5 + 10 * 3 - 0.25 + 0.5 * 2
    assert rescored("f: raised", ({"f": 3.0}, "")).reward == response.reward
    failing = rescored("", ({"f": None}, "f: too slow"))
    assert (failing.reward, failing.failed) == (None, "f: too slow")
    other = rescored("early: raised", ({"f": 3.0}, ""))
    assert (other.reward, other.failed) == (None, "early: raised")


async def test_leaving_a_step_whose_reward_hangs_does_not_wait_for_it(home, tmp_path) -> None:
    code = code_file(tmp_path, SLEEPS)
    async with live(build=building(code, timeout=500.0)) as run:
        await run.first("resume")
        named = run.engine.learner.task.named
        await run.until(lambda: named.process._running is not None and named.process._running.busy)
        await run.do("pause")
        before = named.process.pid
        answer = await run.do("discard")
        assert answer.status == "applied"
        await run.first("resume")
        await run.until(lambda: named.process.pid not in (0, before))  # the step begins again, with another process
        assert not named.process.stopped
    wait_for(lambda: named.process._running is None)


def test_what_people_bring_is_given_the_row_as_it_is_and_what_is_ours_the_reference(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("def same(completions, answer, **_):\n    return [float(len(a)) for a in answer]\n")
    worked = Prompt(id="p", text="2+2=", answer="4", columns={"answer": "2 and 2 are #### 4"})
    components, process = named(f"{tmp_path / 'r.py'}:same", "exact")
    try:
        (scored,) = score_group(components, worked, ["4"], [[1]], {"global_step": 1, "max_steps": 0})
    finally:
        process.close()
    assert scored.components == {"same": float(len("2 and 2 are #### 4")), "exact": 1.0}


# ---------------------------------------------------------------------------------------------- held-out answers

ASKED = """def f(completions, completion_ids, trainer_state, log_metric):
    assert len(completion_ids) == len(completions)
    log_metric("step", trainer_state.global_step)
    return [float(trainer_state.global_step)] * len(completions)
"""


async def test_a_function_gets_of_held_out_answers_what_it_gets_of_responses_and_logs_nothing(home, tmp_path) -> None:
    async with live(build=building(code_file(tmp_path, ASKED))) as run:
        await run.step(2)
        await run.first("set reward_weight.f=10")
        await run.step()
        await run.do("pause update")  # the step in progress logged already
        answer = await run.do("evaluate 2")
        assert answer.status == "applied", answer
        held = await run.engine.write(run.engine.store.held_out, "main", 3)
        early = small_task().components["early"].function
        for answered in held.answers:
            assert answered.components["f"] == 3.0
            for sample in (answered.greedy, *answered.samples):
                assert sample.reward == pytest.approx(early(["?"], [sample.text])[0] + 10 * 3.0)
        await run.step(2)
        assert [record.metrics["logged/step"] for record in run.engine.store.steps("main")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("end", ["stop", "stop --now"])
async def test_what_functions_log_of_a_step_is_recorded_though_the_session_ends_before_its_update(
    home, tmp_path, end: str
) -> None:
    code = code_file(tmp_path, ASKED.replace('"step", trainer_state.global_step', '"length", len(completions[0])'))
    folder = session()
    async with live(folder, build=building(code)) as run:
        await run.do("pause update")
        await run.first(end)
        await run.ended()
    async with live(folder, build=building(code)) as run:
        await run.step()
        firsts = [text for place, (*_, text) in enumerate(await rewards(run, 1)) if place % 4 == 0]
        assert run.engine.store.steps("main")[0].metrics["logged/length"] == sum(map(len, firsts)) / 4


async def test_what_functions_logged_of_a_try_that_was_dropped_counts_for_nothing(home, tmp_path) -> None:
    code = code_file(tmp_path, ASKED.replace('"step", trainer_state.global_step', '"length", len(completions[0])'))
    async with live(build=building(code)) as run:
        await run.do("pause update")
        await run.do("discard")
        await run.until(lambda: run.engine.control.paused and run.engine.control.phase == "idle")
        await run.step()
        texts = []
        for number in range(5, 9):
            detail = await run.query(f"group 1.{number}")
            texts.append(detail["group"]["responses"][0]["text"])
        assert run.engine.store.steps("main")[0].metrics["logged/length"] == sum(map(len, texts)) / 4


# -------------------------------------------------------------------------------- code and an engine that ended

TWICE = "def f(completions): return [2.0 * len(c) for c in completions]\n"


@pytest.mark.parametrize("end", ["stop", "stop --now"])
async def test_code_that_is_used_after_an_engine_ended_scores_the_responses_that_it_left(
    home, tmp_path, end: str
) -> None:
    code, folder = code_file(tmp_path), session(sets=["reward_weight.f=3@2"])
    async with live(folder, build=building(code)) as run:
        await run.step()
        await run.do("pause update")
        before = await rewards(run, 2)
        await run.first(end)
        await run.ended()
    async with live(folder, build=building(code)) as run:
        code.write_text(TWICE)
        answer = await run.do("reload")
        assert wire.msgspec.json.decode(answer.data, type=RewardReload).waiting, answer.text
        answer = await run.do("reload use")
        assert answer.text.endswith("responses of step 2 are replaced")
        await run.step()
        for (_, was, _, text), (reward, now, _, again) in zip(before, await rewards(run, 2), strict=True):
            assert again == text
            assert now == {**was, "f": 2.0 * len(text)}
            assert reward == pytest.approx(was["early"] + 3 * 2 * len(text))


async def test_where_a_step_has_been_begun_since_reloaded_code_is_tried_on_the_newest_that_was_learned(
    home, tmp_path
) -> None:
    code, holds = code_file(tmp_path), []
    async with live(build=building(code, holds)) as run:
        run.hold = holds[0]
        await run.step()
        await run.do("pause update")
        await run.do("discard")
        await run.until(lambda: run.engine.control.paused and run.engine.control.phase == "idle")
        code.write_text(TWICE)
        answer = await run.do("reload")
        told = wire.msgspec.json.decode(answer.data, type=RewardReload)
        assert (told.step, told.waiting) == (1, False)
