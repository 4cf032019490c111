"""A task in a person's own Python: a function of a file or a module that returns a :class:`~engine.tasks.task.Task`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from engine.rewards import Component
from engine.tasks.task import Prompt, Task, there_twice
from sessions.errors import InputFileError, InvalidValue, UnknownName, UsageError, WorkbenchError
from sessions.reward_kinds import COMPONENT_NAME, TAKEN
from sessions.specs import OptionValue, Spec
from sessions.task_kinds import python_parts

SECONDS = 60.0
"""That the file and its function may take together."""
LOOKED_AT = 100_000
"""Prompts of which each is looked at; of longer ones the first so many."""


def python_task(spec: Spec, options: Mapping[str, OptionValue], seed: int) -> Task:
    """The task that a person's function makes.

    ``held_out`` and ``seed`` are given to it where it has such parameters, and every other option.

    :raises UsageError: one line that says where its code went wrong.
    """
    where, name = python_parts(spec.use)
    made = _in_time(lambda: _call(where, name, spec.use, options, seed), spec.use)
    return _checked(made, spec.use, int(options["held_out"]))


def _call(where: str, name: str, use: str, options: Mapping[str, OptionValue], seed: int) -> object:
    function = getattr(_module(where, use), name, None)
    if not callable(function):
        raise InputFileError(f"task {use}: there is no function {name} in it")
    return function(**_arguments(function, options, seed, f"task {use}"))


def _module(where: str, use: str) -> Any:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is not None and (where == error.name or where.startswith(error.name + ".")):
                raise InputFileError(f"task {use}: there is no module {where}") from None
            raise
    path = Path(where)
    if not path.is_file():
        raise InputFileError(f"task {use}: no such file")
    name = f"workbench_task_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # what lies beside it can be imported, as when it is run
    found.loader.exec_module(module)
    return module


def _arguments(
    function: Callable[..., Any], options: Mapping[str, OptionValue], seed: int, where: str
) -> dict[str, Any]:
    """Options as the function's parameters want them."""
    parameters = inspect.signature(function).parameters
    try:
        hints = get_type_hints(function)
    except Exception:  # noqa: BLE001 - names that are only there for type checkers; then they are not converted
        hints = {}
    given: dict[str, Any] = {"seed": seed} if "seed" in parameters else {}
    if "held_out" in parameters and (options["held_out"] or parameters["held_out"].default is inspect.Parameter.empty):
        given["held_out"] = options["held_out"]
    for name, value in options.items():
        if name == "held_out":
            continue
        if name not in parameters:
            raise UnknownName(f"option of {where}:", name, parameters)
        try:
            given[name] = msgspec.convert(value, hints.get(name, Any), strict=False)
        except (msgspec.ValidationError, TypeError):
            raise InvalidValue(f"{where}: {name} {value!r} is not {hints.get(name)}") from None
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.name not in given and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if missing:
        raise UsageError(f"{where}: its function wants {missing[0]}; add {missing[0]}=...")
    return given


def _in_time(work: Callable[[], object], use: str) -> object:
    """Do a person's work in a thread that nobody waits for longer than :data:`SECONDS`."""
    result: list[object] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - a person's code may raise anything, SystemExit among it
            failure.append(error)

    thread = threading.Thread(target=run, name="task", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise UsageError(f"task {use}: has not been made in {SECONDS:g} s; what takes long belongs into a file of rows")
    if failure:
        if isinstance(failure[0], WorkbenchError):
            raise failure[0]
        raise UsageError(f"task {use}: {_words(failure[0], use)}") from None
    return result[0]


def _words(error: BaseException, use: str) -> str:
    """What a person's code raised, and on which line of it."""
    text = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in own if "importlib" not in frame.filename]
    at = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
    return f"{at}{said}"


def _are_messages(messages: object) -> bool:
    return isinstance(messages, Sequence) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in messages
    )


def _checked(made: object, use: str, held_out: int) -> Task:
    """The task, if it is one.

    :raises UsageError: naming what is wrong in it.
    """

    def wrong(what: str) -> UsageError:
        return UsageError(f"task {use}: {what}")

    if not isinstance(made, Task):
        raise wrong(f"its function returned {type(made).__name__}; an engine.tasks.Task is expected")
    for what, prompts in (("prompts", made.prompts), ("evaluation", made.evaluation)):
        if not isinstance(prompts, Sequence):
            raise wrong(f"{what} is {type(prompts).__name__}; a list of Prompt is expected")
        for prompt in prompts[:LOOKED_AT]:
            if not isinstance(prompt, Prompt):
                raise wrong(f"{what} holds {type(prompt).__name__}; engine.tasks.Prompt is expected")
            if not isinstance(prompt.text, str) or not prompt.text.strip():
                raise wrong(f"{what}: prompt {prompt.id!r} has no text")
            if not isinstance(prompt.id, str) or not isinstance(prompt.answer, str):
                raise wrong(f"{what}: id and answer of prompt {prompt.id!r} should be text")
            if not isinstance(prompt.columns, Mapping):
                raise wrong(f"{what}: columns of prompt {prompt.id!r} is no dict")
            if not _are_messages(prompt.messages):
                raise wrong(f"{what}: messages of prompt {prompt.id!r} should each have role and content, as text")
    if not made.prompts:
        raise wrong("it has no prompts")
    if (twice := there_twice((*made.prompts[:LOOKED_AT], *made.evaluation[:LOOKED_AT]))) is not None:
        raise wrong(f"the id {twice!r} is there twice; each prompt needs its own")
    if not isinstance(made.components, Mapping) or any(
        not isinstance(c, Component) or not callable(c.function) for c in made.components.values()
    ):
        raise wrong("components should map names to Component(function)")
    if made.judge is not None and not callable(made.judge):
        raise wrong("judge is no function; (prompt, text) -> True or False is expected")
    if made.evaluation and made.judge is None:
        raise wrong("it has an evaluation set and no judge; give judge, or leave evaluation empty")
    for name, component in made.components.items():
        if not isinstance(name, str) or not COMPONENT_NAME.fullmatch(name):
            raise wrong(f"components: {name!r} cannot be the name of one; give letters, digits and _, at most 40")
        if name in TAKEN:
            raise wrong(f"components: {name} is the name of something else; give another")
        if isinstance(component.weight, bool) or not isinstance(component.weight, int | float):
            raise wrong(f"components: the weight of {name} is {type(component.weight).__name__}; a number is expected")
    try:
        low, high = map(float, made.reward_range)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high or not math.isfinite(high - low):
        raise wrong(f"reward_range {made.reward_range!r} should be (low, high)")
    if not isinstance(made.name, str) or not made.name.strip():
        raise wrong(f"its name is {made.name!r}; text is expected")
    evaluation = made.evaluation[:held_out] if held_out else made.evaluation
    secret = {prompt.text for prompt in made.evaluation}
    train = made.prompts
    if len(train) <= LOOKED_AT:
        train = [prompt for prompt in train if prompt.text not in secret]
        if not train:
            raise wrong("every prompt is in the evaluation set too; none is left to train on")
    notes = made.notes
    if dropped := len(made.prompts) - len(train):
        notes = (*notes, f"{dropped:,} prompts that are in the evaluation set too left out")
    known = (
        made.fingerprint
        or hashlib.blake2b(
            "\x1f".join(f"{p.id}\x1e{p.text}\x1e{p.answer}" for p in (*train[:LOOKED_AT], *evaluation)).encode(),
            digest_size=16,
        ).hexdigest()
    )
    return replace(
        made,
        prompts=train,
        evaluation=evaluation,
        notes=notes,
        fingerprint=known,
        unrewarded=made.unrewarded
        or ("" if made.components else f"task {use}: it has no components; give it some, or --reward FILE.py:FUNCTION"),
    )
