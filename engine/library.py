"""The learning from a script or a notebook: make a policy, a task and a learner, run steps, read metrics.

There is no session and no engine process: nothing is recorded but what the script keeps. ``docs/library.md`` has
examples; :mod:`sessions.library` reads sessions, and speaks to those that run.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.adapters import Attach, attach
from engine.control import Control
from engine.knobs import Knobs
from engine.learner import Learner
from engine.loading import find_model, load_policy
from engine.policy import Policy, make_accelerator
from engine.rewards import Component, RewardFunction
from engine.rewards.loading import Surroundings
from engine.soundness import room_for
from engine.start import check_model, check_weights, first_values, fitting
from engine.tasks import Task, load_task
from engine.tasks.dataset import PromptRows
from engine.tasks.task import there_twice
from sessions.adapters import adapted, check_lora, read_lora
from sessions.errors import InvalidValue, UsageError
from sessions.hyperparameters import Value, check_sampler
from sessions.records import SessionSettings

Reward = str | RewardFunction | tuple[RewardFunction, float]
"""Words as ``--reward`` takes them, a function with TRL's signature, or one with its weight."""


def make_policy(
    model: str = "tiny",
    *,
    lora: str = "",
    device: str = "auto",
    precision: str = "auto",
    chat_template: bool = True,
    trust_remote_code: bool = False,
    seed: int = 0,
) -> Policy:
    """A causal language model to train.

    :param model: ``tiny``, a folder, a GGUF file or a hub name, as ``workbench run --model`` takes it.
    :param lora: words of adapters that are trained instead, such as ``r=16``; empty: the model is.
    :param seed: of new adapters.
    :raises UsageError: one line that says what cannot be used.
    """
    model, lora = adapted(model, lora)
    options = read_lora(check_lora(lora)) if lora else None
    start: Attach | None = None
    if options is not None:
        chosen = options

        def start(given: Any) -> Any:
            return attach(given, chosen, seed, model, None)

    found = find_model(model, "", control=Control(), trust_remote_code=trust_remote_code)
    return load_policy(
        found.folder,
        make_accelerator(device, precision),
        chat_template=chat_template,
        trust_remote_code=trust_remote_code,
        attach=start,
        name=model,
    )


def make_task(
    words: str = "arithmetic",
    *,
    rewards: Sequence[Reward] = (),
    held_out: int = 0,
    seed: int = 0,
    timeout: float = 60.0,
    reward_range: tuple[float, float] | None = None,
) -> Task:
    """Prompts, rewards, held-out prompts and their judge.

    :param words: as ``workbench run --task`` takes them: a name, a file or a dataset, and options.
    :param rewards: instead of the task's own; ``"task"`` among them are those. Functions are called in this process.
    :param held_out: prompts; 0: as many as the task proposes.
    :param seed: of the choice of held-out rows.
    :param timeout: seconds that what is named in words may take for a group.
    :param reward_range: between which the whole reward lies; None: that of what is named in words, and functions give
        0 to 1. People's ratings map onto it.
    :raises UsageError: if there is no such task or reward, or what it is made of cannot be used.
    """
    named = [reward for reward in rewards if isinstance(reward, str)]
    brought: dict[str, Component] = {}
    for reward in rewards:
        if isinstance(reward, str):
            continue
        function, weight = reward if isinstance(reward, tuple) else (reward, 1.0)
        name = getattr(function, "__name__", type(function).__name__)
        if name in brought:
            raise UsageError(f"two rewards are called {name}; give one of them another __name__")
        brought[name] = Component(function, weight)
    task = load_task(words, seed, held_out, named, Surroundings(timeout), rewarded=not brought)
    own = dict(task.components) if named or not rewards else {}
    if both := own.keys() & brought.keys():
        raise UsageError(f"two rewards are called {min(both)}; give the function another __name__")
    low, high = task.reward_range if own else (0.0, 0.0)
    low += sum(min(component.weight, 0.0) for component in brought.values())
    high += sum(max(component.weight, 0.0) for component in brought.values())
    return replace(task, components={**own, **brought}, reward_range=reward_range or (low, high))


def make_learner(
    policy: Policy,
    task: Task,
    algorithm: str = "",
    *,
    preset: str = "",
    seed: int = 0,
    folder: Path | str | None = None,
    **hyperparameters: Value,
) -> Learner:
    """What learns: ``learner.run_step()`` makes a step and returns its metrics, ``learner.evaluate()`` asks the
    held-out prompts, ``learner.policy.save(FOLDER)`` writes the model.

    :param algorithm: grpo (the default), ppo or trpo.
    :param preset: published settings, over which the others are laid.
    :param folder: where the weights of the start are kept, which are the reference; None: a temporary one.
    :param hyperparameters: by name, as ``docs/hyperparameters.md`` lists them.
    :raises UsageError: if a value is not allowed, or does not go with the others or with the model.
    """
    given: dict[str, Value] = {**({"algorithm": algorithm} if algorithm else {}), **hyperparameters}
    parts = [part for part in (task.prompts, task.evaluation) if not isinstance(part, PromptRows)]  # those are numbered
    if (twice := there_twice(prompt for part in parts for prompt in part)) is not None:
        raise UsageError(
            f"task {task.name}: the id {twice!r} is there twice; each prompt needs its own, and so do held-out ones"
        )
    check_weights(task, given)
    values = first_values(task, given, preset, adapters=policy.adapters is not None)
    check_sampler(values, mismatch=False)
    check_model(policy, "of the policy")
    task = fitting(task, policy, values, asked=bool(preset) or "max_new_tokens" in given)
    room_for(policy, task.prompts, task.evaluation).check(float(values["max_new_tokens"]))
    place = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="workbench-"))
    place.mkdir(parents=True, exist_ok=True)
    if (place / "0").exists():
        raise InvalidValue(f"{place}: holds the start of another training; give a new folder")
    settings = SessionSettings(name=task.name, seed=seed)
    learner = Learner(settings, task, policy, Knobs(values), Control(), place)
    if folder is None:
        weakref.finalize(learner, shutil.rmtree, place, ignore_errors=True)
    learner.save("start of RL")
    return learner
