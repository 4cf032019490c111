"""From settings to a learner that is ready to train: the one place where everything is put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import torch

from engine.adapters import Attach, attach
from engine.control import Control
from engine.decoding import why_not_decoded
from engine.knobs import Knobs
from engine.learner import Learner
from engine.loading import find_model, load_policy
from engine.policy import Policy, make_accelerator
from engine.reward_model import load_reward_model
from engine.rewards.loading import Surroundings
from engine.soundness import room_for, why_not_causal
from engine.tasks import Task, load_task
from engine.tasks.characters import check_characters
from engine.tasks.context import fit
from sessions import checkpoints
from sessions.adapters import LEARNING_RATE, adapted, is_adapter, read_lora
from sessions.errors import SessionError, UnknownName, UsageError
from sessions.folders import SessionFolder
from sessions.hyperparameters import (
    REWARD_WEIGHT,
    Value,
    check_sampler,
    check_together,
    defaults,
    parse_assignment,
)
from sessions.presets import preset
from sessions.records import SessionSettings
from sessions.shortcuts import active
from sessions.specs import parse_spec
from sessions.task_kinds import TASK_KINDS

ADAPTED = {"learning_rate": LEARNING_RATE}
"""Defaults with adapters, under those of the task."""


def start(settings: SessionSettings, control: Control, folder: SessionFolder) -> tuple[Learner, Knobs]:
    """Load task, model and optimizer, as they are before the first step.

    :raises WorkbenchError: saying what cannot be used.
    """
    model, lora = adapted(settings.model, settings.lora)
    settings = msgspec.structs.replace(settings, model=model, lora=lora)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.use_deterministic_algorithms(settings.device == "cpu" or not torch.cuda.is_available(), warn_only=True)
    accelerator = make_accelerator(settings.device, settings.precision)
    where = Surroundings(
        settings.reward_timeout, str(accelerator.device), settings.trust_remote_code, settings.reward_folder
    )
    task = load_task(settings.task, settings.seed, settings.evaluation_rows, settings.rewards, where, _told(control))
    assignments = [parse_assignment(text) for text in settings.sets]
    given = {a.name: a.value for a in assignments if a.step is None}
    check_weights(task, [a.name for a in assignments])
    values = first_values(task, given, settings.preset, adapters=bool(settings.lora))
    check_sampler(values, mismatch=settings.allow_sampler_mismatch)
    found = find_model(
        settings.model, settings.model_revision, control=control, trust_remote_code=settings.trust_remote_code
    )
    if found.commit and found.commit != settings.model_revision:
        folder.write_settings(msgspec.structs.replace(folder.settings(), model_revision=found.commit))
    control.loading = ""
    policy = load_policy(
        found.folder,
        accelerator,
        chat_template=settings.chat_template,
        shortcuts=active(settings.plain),
        trust_remote_code=settings.trust_remote_code,
        attach=_attach(settings, folder),
        name=settings.model,
    )
    check_model(policy, settings.model)
    task = fitting(task, policy, values, asked=bool(settings.preset) or "max_new_tokens" in given)
    if parse_spec(settings.task, "task").use in TASK_KINDS:
        check_characters(task, policy, settings.task, settings.model)
    before = None
    if settings.reward_model:
        before = load_reward_model(
            Path(settings.reward_model), accelerator, trust_remote_code=settings.trust_remote_code
        )
    schedule = [a for a in assignments if a.step is not None]
    room = room_for(policy, task.prompts, task.evaluation)
    knobs = Knobs(values, schedule, mismatch=settings.allow_sampler_mismatch)
    for later in schedule:
        if later.name == "max_new_tokens":
            room.check(float(later.value))
    knobs.checks.append(lambda values: room.check(float(values["max_new_tokens"])))
    return Learner(settings, task, policy, knobs, control, folder.checkpoints, given=before), knobs


def _told(control: Control) -> Callable[[str], None]:
    """Tells people what takes long while a task is made, and ends it when the session is stopping."""

    def tell(text: str) -> None:
        if control.stopping:
            raise SessionError(f"stopped while the task was being made ({text})")
        control.tell(text)

    return tell


def check_weights(task: Task, names: Iterable[str]) -> None:
    """Refuse weights of reward components that the task has not.

    :raises UnknownName: offering the nearest.
    """
    for name in names:
        component = name.removeprefix(REWARD_WEIGHT)
        if name != component and component not in task.components:
            raise UnknownName("reward component", component, task.components)


def first_values(
    task: Task, given: Mapping[str, Value], published: str = "", *, adapters: bool = False
) -> dict[str, Value]:
    """Every hyperparameter at the start: the defaults, those of adapters and of the task, a preset, what was given.

    :param published: name of a preset; empty: none.
    :raises InvalidValue: if they do not go together.
    """
    if published:
        limit = defaults(task.defaults, given)["max_new_tokens"]
        given = {**preset(published).settings(int(limit)), **given}
    weights: dict[str, Value] = {REWARD_WEIGHT + name: c.weight for name, c in task.components.items()}
    values = defaults(ADAPTED if adapters else {}, task.defaults, weights, given)
    check_together(values)
    return values


def check_model(policy: Policy, name: str) -> None:
    """Refuse a model that cannot be sampled and trained here.

    :param name: as the person called it.
    :raises UsageError: saying why.
    """
    if why := why_not_causal(policy):
        raise UsageError(
            f"model {name}: is not a causal language model ({why}); give one that says one token after another, such "
            "as Llama, Qwen or GPT-2"
        )
    if why := why_not_decoded(policy):
        raise UsageError(
            f"model {name}: it cannot be sampled token by token with a cache of keys and values ({why}); "
            "give a model whose layers attend, such as Llama, Qwen or GPT-2"
        )


def fitting(task: Task, policy: Policy, values: dict[str, Value], *, asked: bool) -> Task:
    """The task with those prompts that the model's context has room for.

    :param values: whose ``max_new_tokens`` becomes what the context leaves, where neither a person nor the task said.
    :param asked: whether a person said.
    :raises UsageError: if there is room for none.
    """
    if policy.context is not None and not asked and "max_new_tokens" not in task.defaults:
        values["max_new_tokens"] = min(int(values["max_new_tokens"]), policy.context // 2)
    return fit(task, policy, int(values["max_new_tokens"]))


def _attach(settings: SessionSettings, folder: SessionFolder) -> Attach | None:
    if not settings.lora:
        return None
    options, first = read_lora(settings.lora), folder.checkpoints / "0"
    saved = first / "policy" if is_adapter(first / "policy") and _whole(first) else None
    return lambda model: attach(model, options, settings.seed, settings.model, saved)


def _whole(checkpoint: Path) -> bool:
    try:
        checkpoints.check(checkpoint)
    except checkpoints.Damaged:
        return False
    return True
