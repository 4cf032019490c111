"""``evaluate``: the held-out prompts, asked of a session's policy, of one of its checkpoints, or of any model."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sessions.client import attached
from sessions.commands import Evaluate
from sessions.errors import InputFileError, Refused, SessionError, UsageError
from sessions.evaluations import HeldOutAnswer, words_of
from sessions.export_model import choose_checkpoint
from sessions.export_tables import HeldOutRow, held_out_answer_rows
from sessions.folders import SessionFolder, session_folder
from sessions.records import Record, SessionSettings
from sessions.store import Store
from sessions.wire import encode_json
from workbench.commands_race import stop_engine
from workbench.commands_run import start_paused
from workbench.commands_session import engine_socket
from workbench.output import emit, say
from workbench.settings import check_settings, person


class Evaluation(Record):
    """What ``evaluate --json`` prints.

    :ivar of: the session, or the model.
    :ivar step: of the session; -1: of a model.
    """

    of: str
    metrics: dict[str, float]
    prompts: int
    step: int = -1


def evaluate(arguments: argparse.Namespace) -> int:
    """``workbench evaluate``: figures to stdout; with ``--save`` the answers to a file."""
    if arguments.session is None and arguments.model is None:
        raise UsageError("evaluate what? Give a session's name, or a model with --model and a task with --task")
    given = [option for name, option in _OF_A_MODEL.items() if getattr(arguments, name) is not None]
    if arguments.session is not None and given:
        raise UsageError(f"{given[0]}: session {arguments.session} has its own; leave one of the two out")
    if arguments.session is None and (arguments.step is not None or arguments.best):
        raise UsageError("--step and --best are of a session's checkpoints; give its name")
    if arguments.save is not None:
        _check_free(Path(arguments.save))
    if arguments.session is None:
        found, answers = _standalone(_settings_of(arguments), arguments.model, arguments.samples)
    else:
        folder = session_folder(arguments.session)
        if arguments.step is None and not arguments.best:
            found, answers = _of_session(folder, arguments.samples, person(arguments))
        else:
            found, answers = _of_checkpoint(folder, arguments.step, arguments.samples, best=arguments.best)
    if arguments.json:
        emit(encode_json(found))
    else:
        after = f" after step {found.step}" if found.step >= 0 else ""
        emit(f"{found.of}{after}: {words_of(found.metrics)} ({found.prompts} held-out prompts)")
    if arguments.save is not None:
        _save(Path(arguments.save), found, answers)
    return 0


_OF_A_MODEL = {
    "model": "--model", "lora": "--lora", "task": "--task", "rewards": "--reward", "sets": "--set", "seed": "--seed",
    "device": "--device", "precision": "--precision", "chat_template": "--no-chat-template",
}  # fmt: skip
"""Settings that go with ``--model``, and their options: a session has them."""


def _of_session(folder: SessionFolder, samples: int | None, who: str) -> tuple[Evaluation, list[HeldOutAnswer]]:
    """The newest policy, asked by its engine, which keeps what it says; without one, by one that is started for it."""
    started = not folder.running()
    if started:
        start_paused(folder)
    try:
        step = asyncio.run(_ask(folder, samples, who))
    finally:
        if started:
            asyncio.run(stop_engine(folder, who))
    store = Store(folder.database, read_only=True)
    try:
        kept = store.held_out(store.active, step)
    finally:
        store.close()
    if kept is None:
        raise SessionError(f"session {folder.name!r} went elsewhere meanwhile; its branches show where")
    return Evaluation(of=folder.name, metrics=kept.metrics, prompts=len(kept.answers), step=step), kept.answers


async def _ask(folder: SessionFolder, samples: int | None, who: str) -> int:
    """Have an engine evaluate.

    :returns: the step after which it did.
    :raises Refused: with its reason.
    """
    socket = await asyncio.to_thread(engine_socket, folder)
    async with attached(socket, "evaluate", who=who) as client:
        answer = None
        async for answer in client.answers(Evaluate(samples=-1 if samples is None else samples)):
            if answer.status == "accepted":
                say(f"{folder.name} {answer.text} ...")
    if answer is None or answer.status != "applied":
        raise Refused(answer.text if answer is not None else f"the engine of {folder.name!r} gave no answer")
    return answer.step


def _of_checkpoint(
    folder: SessionFolder, step: int | None, samples: int | None, *, best: bool
) -> tuple[Evaluation, list[HeldOutAnswer]]:
    """A checkpoint's policy, asked here; the session's records stay as they are."""
    store = Store(folder.database, read_only=True)
    try:
        chosen = choose_checkpoint(folder, store, store.active, step=step, best=best)
        values = store.step(store.active, chosen.step)
    finally:
        store.close()
    settings = msgspec.structs.replace(
        folder.settings(), model=str(folder.checkpoint(chosen.path) / "policy"), warm_up="", reward_model="", lora=""
    )
    if values is not None:
        sets = [f"{name}={values.values[name]}" for name in _ASKED_WITH if name in values.values]
        settings = msgspec.structs.replace(settings, sets=sets, preset="")
    found, answers = _standalone(settings, folder.name, samples)
    found.step = chosen.step
    return found, answers


_ASKED_WITH = (
    "max_new_tokens", "temperature", "eval_samples", "eval_temperature", "eval_top_p", "eval_top_k", "eval_min_p",
)  # fmt: skip
"""Hyperparameters that an evaluation depends on."""


def _settings_of(arguments: argparse.Namespace) -> SessionSettings:
    given = {name: value for name in _OF_A_MODEL if (value := getattr(arguments, name)) is not None}
    return check_settings(msgspec.structs.replace(SessionSettings(name=""), **given))


def _standalone(settings: SessionSettings, called: str, samples: int | None) -> tuple[Evaluation, list[HeldOutAnswer]]:
    """Load a model here and ask it."""
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads or 1))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    say("loading ...")
    from engine.control import Control
    from engine.start import start

    with tempfile.TemporaryDirectory(prefix="workbench-evaluate-") as place:
        folder = SessionFolder(Path(place))
        folder.write_settings(settings)  # a hub model's revision is written into them
        learner, _ = start(settings, Control(), folder)
        if not learner.task.evaluation:
            raise UsageError(f"task {settings.task}: it holds no prompts out; nothing can be evaluated")
        say(f"asking {len(learner.task.evaluation)} held-out prompts ...")
        found = learner.evaluate(samples=samples)
    return Evaluation(of=called, metrics=found.metrics, prompts=len(found.answers)), found.answers


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise InputFileError(f"{path}: is there already; give another --save")
    if not path.absolute().parent.is_dir():
        raise InputFileError(f"{path}: there is no folder {path.absolute().parent}")


def _save(path: Path, found: Evaluation, answers: Iterable[HeldOutAnswer]) -> None:
    """Write the answers, one JSON object a line."""
    rows: Iterable[HeldOutRow] = held_out_answer_rows("", max(found.step, 0), answers)
    try:
        with path.open("xb") as file:
            for row in rows:
                file.write(msgspec.json.encode(row) + b"\n")
    except OSError as error:
        raise InputFileError(f"{path}: cannot be written ({error.strerror})") from None
