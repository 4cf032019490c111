"""Sessions on what people bring, in which anything happens, ended anywhere, beside the same ones that never ended.

The acts are those of :mod:`tests.engine.test_resuming_at_random`; with them come adapters, levels that a curriculum
chooses, chat messages, reward functions of a file that are weighed anew and reloaded, evaluations on command, races,
and watches; and engines that are killed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.adapters import attach
from engine.learner import Learner
from engine.policy import Policy, make_accelerator
from engine.rewards import Component
from engine.rewards.loading import Surroundings, load_components, load_named
from engine.tasks import Prompt, Task
from engine.tasks.task import columns_of
from sessions.adapters import is_adapter, read_lora
from sessions.commands import Evaluate, Race, Reload, Set, new_id
from sessions.folders import SessionFolder
from sessions.records import Change
from sessions.reward_kinds import read_rewards
from sessions.store import Store
from tests.engine.live import Live, live, session
from tests.engine.small import early_letters, make_learner, random_policy, small_task
from tests.engine.test_resuming_at_random import (
    ALGORITHMS,
    TEACHING,
    VALUES,
    Author,
    Run,
    checkpoint,
    compare,
    discard,
    finish,
    inside,
    one_step,
    send,
    settled,
    tell,
    together,
)

CODE = """
SCALE = {scale}

def said(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]

def kind(completions, prompts, level, trainer_state, log_metric, **_):
    assert len(prompts) == len(completions)
    for text in completions:
        log_metric("length", len(said(text)) + trainer_state.global_step / 8)
    return [SCALE * (len(said(c)) % (2 + l)) / 4 for c, l in zip(completions, level)]

def letters(completions, completion_ids):
    assert all(completion_ids)
    return [None if not said(c) else (sum(map(ord, said(c))) % 7) * SCALE / 7 for c in completions]
"""
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{{ '=' if m.role == 'user' else '+' }}{% endfor %}"
    "{% if add_generation_prompt %}=={% endif %}"
)
WEIGHTS = {
    "reward_weight.early": [0.0, 0.5, 1.0],
    "reward_weight.kind": [0.0, 1.0, -0.5],
    "reward_weight.letters": [0.0, 0.3, 1.0],
}
ASKED = {"eval_samples": [0, 1, 2], "evaluate_every": [0, 1, 2], "dynamic_sampling": [0, 1, 2]}
RULES = ["kl/k3 > 0.0001 for 2", "reward/mean > 0.3 for 2 checkpoint", "curriculum/level > 1"]


def brought(folder: Path, *, curriculum: bool, messages: bool, named: bool) -> Task:
    """Levels of sums; the reward of a component of its own, and of functions of a file of the session's."""
    prompts = [
        Prompt(
            id=f"{level}:{i}",
            text=f"{level}+{i * i}=",
            answer=str(i),
            columns={"level": level},
            messages=[{"role": "system", "content": "7*"}] * (i % 2) + [{"role": "user", "content": f"{level}+{i * i}"}]
            if messages
            else (),
            level=level,
            drawing="maze" * (i % 2),
        )
        for level, count in enumerate((7, 5, 9), 1)
        for i in range(count + 2)
    ]
    held = [prompt for prompt in prompts if int(prompt.answer) < 2]
    task = Task(
        name="brought",
        prompts=[prompt for prompt in prompts if prompt not in held],
        evaluation=held,
        components={"early": Component(early_letters if not messages else _of_messages)},
        reward_range=(0.0, 1.0),
        judge=lambda prompt, text: sum(map(ord, text)) % prompt.level == 0,
        curriculum=curriculum,
    )
    if not named:
        return task
    code = folder / "rewards.py"
    rewards = read_rewards(["task", f"{code}:kind", f"{code}:letters weight=0"])
    where = Surroundings(30.0)
    process = load_named(rewards, columns_of(task.prompts), where)
    return replace(task, components=load_components(rewards, task.components, where, process), named=process)


def _of_messages(prompts: Any, completions: Any, **more: Any) -> list[float | None]:
    return early_letters(prompts, [completion[0]["content"] for completion in completions], **more)


async def evaluate(tested: Live, run: Run) -> None:
    """Somebody wants to know, between steps."""
    answer = await tell(tested, run, Evaluate(samples=1 + len(run.answers) % 2, who="ann", id=new_id()), last=True)
    run.answers.append(answer.data)


def reload(scale: float, *, use: bool) -> Callable[[Live, Run], Any]:
    """Somebody changes the file and has it loaded, and used or not; then the file is as what is in use."""

    async def do(tested: Live, run: Run) -> None:
        file = tested.engine.folder.path / "rewards.py"
        before = file.read_text()
        file.write_text(CODE.format(scale=scale))
        answer = await tell(tested, run, Reload(who="ann", id=new_id()), last=True)
        run.answers.append(answer.text)
        if use:
            await tell(tested, run, Reload(use=True, who="ann", id=new_id()), last=True)
        else:
            file.write_text(before)

    return do


async def race(tested: Live, run: Run) -> None:
    if any(change.name == "rating_gate" for change in tested.engine.knobs.pending):
        return  # its branches begin with the values of the step, and would wait at a gate that nobody serves
    answer = await tell(tested, run, Race(algorithms=["grpo", "ppo"], steps=1, who="ann", id=new_id()), last=True)
    if answer.status == "applied":
        await tested.until(lambda: not tested.engine.moves.racing)
        await settled(tested)


class Bringer(Author):
    """Makes up what happens in a session on what people bring."""

    def __init__(self, seed: int, *, moves: bool, blocks: int = 6) -> None:
        r = random.Random(f"brought {seed}")
        self.lora = r.choice(["", "r=2", "r=4 alpha=8 rslora=yes", "r=2 targets=q_proj,v_proj"])
        self.curriculum, self.messages = r.random() < 0.6, r.random() < 0.4
        self.named = r.random() < 0.7
        self.rules = r.sample(RULES, r.randint(0, 2))
        self.weights = WEIGHTS if self.named else {"reward_weight.early": WEIGHTS["reward_weight.early"]}
        super().__init__(seed, moves=moves, blocks=0)
        self.possible = {**VALUES, **{n: TEACHING[n] for n in ("reward_model_weight",)}, **ASKED, **self.weights}
        self.values |= {n: self.random.choice(of) for n, of in ASKED.items() if self.random.random() < 0.5}
        self.values |= {n: 0.0 if n.endswith("letters") else 1.0 for n in self.weights}
        if self.random.random() < 0.4:
            self.values |= {"value_model": self.random.choice(["head", "shared", "separate"])}
            self.values |= {**self.random.choice(ALGORITHMS), "kl_placement": "reward", "kl_estimator": "k1"}
            if not together(self.values):
                self.values |= {"dynamic_sampling": 0, "baseline": "group", "kl_target": "none"}
        name = self.random.choice(sorted(self.weights))
        self.sets.append(f"{name}={self.random.choice(self.weights[name])}@{self.random.randint(2, 5)}")
        self.acts.clear()
        for _ in range(blocks):
            self.block()
        self.add(one_step, "step")

    def block(self) -> None:
        r = self.random
        kind = r.random()
        if kind < 0.25:
            self.add(evaluate, "evaluate")
        elif kind < 0.4 and self.named:
            scale, use = r.choice([0.5, 1.0, 2.0]), r.random() < 0.7
            self.add(reload(scale, use=use), f"reload {scale} {use}")
        elif kind < 0.5:
            command = Set(values={n: r.choice(of) for n, of in self.weights.items()})
            self.add(send(command), f"set {command.values}")
        elif kind < 0.57 and self.moves:
            self.add(race, "race")
        elif kind < 0.8:
            self.inside_brought()
        super().block()

    def inside_brought(self) -> None:
        """Inside a step, before its update: people evaluate, weigh, reload, discard."""
        r = self.random
        phase, number = r.choice([("updating", 0), ("updating", 0), ("sampling", 1), ("scoring", 1)])
        self.add(inside(phase, number), f"inside {phase} {number}")
        for _ in range(r.randint(1, 3)):
            kind = r.random()
            if kind < 0.35 and phase == "updating":
                self.add(evaluate, "evaluate", False)
            elif kind < 0.7 and self.named and phase == "updating":
                scale = r.choice([0.5, 1.0, 2.0])
                self.add(reload(scale, use=r.random() < 0.7), f"reload {scale}", r.random() < 0.5)
            else:
                self.change(False)
        if r.random() < 0.3:
            self.add(discard, "discard", False)
        elif r.random() < 0.2:
            self.add(checkpoint, "checkpoint", False)
        if self.moves and r.random() < 0.3:
            self.move()
        self.add(finish, "finish")

    def ends(self, seed: int) -> dict[int, str]:
        r = random.Random(f"kills {seed}")
        return {i: r.choice([how, how, "kill"]) for i, how in super().ends(seed).items()}

    def settings(self, name: str) -> dict[str, Any]:
        return {"watches": self.rules, "lora": self.lora}

    def task(self, folder: SessionFolder) -> Task:
        file = folder.path / "rewards.py"
        if not file.exists():
            file.write_text(CODE.format(scale=1.0))
        return brought(folder.path, curriculum=self.curriculum, messages=self.messages, named=self.named)

    def policy(self, folder: SessionFolder) -> Callable[[], Policy]:
        def make() -> Policy:
            plain = random_policy()
            model, tokenizer, adapters = plain.model, plain.tokenizer, None
            if self.messages:
                tokenizer.chat_template = TEMPLATE
            if self.lora:
                saved = folder.checkpoints / "0" / "policy"
                adapters = attach(model, read_lora(self.lora), 0, saved=saved if is_adapter(saved) else None)
            return Policy(model, tokenizer, make_accelerator("cpu", "fp32"), adapters=adapters)

        return make

    def more(self, learner: Learner, folder: SessionFolder) -> Any:
        store = Store(folder.database, read_only=True)
        try:
            evaluated, groups, alarms = [], [], []
            for name, branch in store.branches().items():
                if branch.deleted:
                    continue
                for step in store.held_out_steps(name):
                    found = store.held_out(name, step)
                    assert found is not None
                    evaluated.append(msgspec.structs.replace(found, time=0.0))
                groups += [store.group(h.name, name, tokens=False) for h in map(_named, store.heads(name, limit=1000))]
                alarms += [
                    (a.branch, a.step, a.rule) for a in store.alarms(name) if "loop" not in a.rule and a.rule != "x"
                ]
        finally:
            store.close()
        for group in groups:
            for response in group.responses:
                response.reference_logprobs = []
        return {
            "curriculum": learner.curriculum.state if learner.curriculum else None,
            "evaluated": evaluated,
            "groups": groups,
            "alarms": sorted(set(alarms)),
        }


def _named(head: Any) -> Any:
    from sessions.records import parse_response_name

    class Named:
        name = parse_response_name(head.name)

    return Named


async def check(seed: int, *, moves: bool, blocks: int = 6) -> None:
    await compare(Bringer(seed, moves=moves, blocks=blocks), seed)


@pytest.mark.parametrize("moves", [False, True], ids=["a-line", "branches"])
async def test_whatever_is_brought_an_end_in_between_changes_nothing(moves: bool) -> None:
    await check(0, moves=moves)


async def test_what_is_set_together_is_kept_together_and_before_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between two of its values would leave values that do not go together."""
    words = "set algorithm=ppo kl_placement=reward kl_estimator=k1 value_warmup_steps=0"
    async with live() as tested:
        store, kept = tested.engine.store, []
        good = store._put_change

        def full(change: Change) -> Any:
            if len(kept) == 2:
                raise OSError(28, "No space left on device")
            kept.append(change)
            return good(change)

        monkeypatch.setattr(store, "_put_change", full)
        answer = await tested.first(words)
        assert (answer.status, len(kept)) == ("rejected", 2)
        assert store.changes() == []
    async with live(session("other")) as tested:
        answers = tested.client.answers(Set(values={"algorithm": "trpo", "damping": 0.1}, id=new_id()))
        assert (await anext(answers)).status == "accepted"
        with contextlib.closing(Store(tested.engine.folder.database, read_only=True)) as store:
            assert {"algorithm", "damping"} <= {change.name for change in store.changes()}


def test_a_group_that_took_no_place_takes_none_when_it_is_sampled_again(tmp_path: Path) -> None:
    """Whatever it is worth by now: the prompts after it would be others."""
    settings = {"dynamic_sampling": 2, "prompts_per_step": 3}
    task = small_task(12, lambda prompts, completions, **_: [float(len(prompts[0]) % 2 and i) for i in range(4)])
    first = make_learner(tmp_path / "a", task=task, **settings)
    groups = first.sample(1)
    assert first.replaced
    recorded = {g.record.number: g.record for g in (*groups, *first.replaced)}
    for group in first.replaced:
        group.record.status = "replaced"
    for group in recorded.values():  # other code was taken up, by which all others are dead
        for place, response in enumerate(group.responses):
            response.reward = float(place) if group.status == "replaced" else 1.0
    again = make_learner(tmp_path / "b", task=task, **settings)
    found = again.sample(1, recorded=recorded)
    assert [g.record.number for g in found] == [g.record.number for g in groups]
    assert [g.record.number for g in again.replaced] == [g.record.number for g in first.replaced]


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100, 160))
@pytest.mark.parametrize("moves", [False, True], ids=["a-line", "branches"])
async def test_many_sessions_on_what_is_brought_with_ends_in_between_equal_those_without(
    seed: int, moves: bool
) -> None:
    await check(seed, moves=moves, blocks=8)
