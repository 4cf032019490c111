"""Settings files: what ``workbench run FILE.toml`` reads.

A file says what the command line says (:mod:`sessions.run_settings`), grouped in tables. Paths in it are relative to
the folder that it lies in. What it holds is checked against the definitions here, so that a mistake is named with its
place in the file; what can only be known beside the command line is checked after the two were put together.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sessions.adapters import KIND as LORA
from sessions.adapters import lora_words
from sessions.errors import InputFileError, InvalidValue, UnknownName, UsageError
from sessions.hyperparameters import HYPERPARAMETERS, REWARD_WEIGHT, hyperparameter
from sessions.knob import NONE, Hyperparameter
from sessions.paths import expanded
from sessions.reward_kinds import REWARD_KINDS, has_modules, reward_kind
from sessions.run_settings import SETTINGS, Setting, value_text
from sessions.specs import Kind, Option, Spec, parse_spec, shown
from sessions.task_kinds import DATASET, SUFFIXES, TASK_KINDS, task_kind
from sessions.watch_words import parse_watch

_T = TypeVar("_T")
MOST_BYTES = 2**20
START = "start"
"""The key of a schedule's first value: ``kl_coefficient = { start = 0.04, 100 = 0.0 }``."""
_USE = "use"
_MODEL_FILES = (".gguf",)
_KINDS = {
    "text": "text in quotes",
    "path": "text in quotes",
    "whole": "a whole number",
    "number": "a number",
    "switch": "true or false",
    "texts": "a list of texts",
    "wholes": "a whole number, a list of them, or text such as '1-4'",
    "names": "text in quotes, or a list of texts",
}


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """One that was read.

    :ivar text: as it stands on the disk.
    :ivar given: name of a setting (:data:`sessions.run_settings.SETTINGS`) -> its value; only what the file says.
    """

    path: Path
    text: str
    given: dict[str, Any]


def read_settings_file(path: Path) -> SettingsFile:
    """Read and check a file.

    :raises UsageError: one line with the file, the place in it, and what is allowed.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        remedy = f"`workbench new {path}` writes one"
        if "=" in path.name:  # the shell has torn them from the name before them
            remedy = f'options belong into the quotes of the name before them, such as --task "maze {path}"'
        raise InputFileError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > MOST_BYTES:
        raise InputFileError(f"{path}: has more than the {MOST_BYTES:,} bytes that a settings file may have")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputFileError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from None
    return SettingsFile(path, text, parse_settings(text, str(path), path.parent))


def parse_settings(text: str, where: str, folder: Path) -> dict[str, Any]:
    """What a settings file says.

    :param where: it is called in errors.
    :param folder: that its paths are relative to.
    :returns: name of a setting -> its value.
    :raises UsageError: one line with the place, and what is allowed.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputFileError(f"{where}: is not TOML: {_in_words(error)}") from None
    except ValueError as error:  # a number of too many digits
        raise InputFileError(f"{where}: cannot be read ({error})") from None
    return _Reader(where, folder.absolute()).all(tables)


def _in_words(error: Exception) -> str:
    return f"{str(error)[:1].lower()}{str(error)[1:]}" if str(error) else "it is nested too deeply"


class _Reader:
    """Reads the tables of one file.

    :param where: the file, for errors.
    :param folder: that its paths are relative to.
    """

    def __init__(self, where: str, folder: Path) -> None:
        self._where, self._folder = where, folder

    def all(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        special = {"task": self._task, "reward": self._rewards, "lora": self._lora, "hyperparameters": self._sets}
        plain: dict[str, dict[str, Setting]] = {}
        for setting in SETTINGS.values():
            if setting.section not in special:
                plain.setdefault(setting.section, {})[setting.key or setting.name] = setting
        top, sections = plain.pop(""), plain
        given: dict[str, Any] = {}
        for name, value in tables.items():
            if name in special:
                given |= special[name](value)
            elif name in sections:
                given |= self._table(name, value, sections[name])
            elif name in top:
                given |= self._table("", {name: value}, top)
            else:
                self._unknown("", name, (*special, *sections, *top))
        if has_modules(given.get("rewards", [])):  # as its other paths: from where the file is
            given.setdefault("reward_folder", str(self._folder))
        return given

    # ------------------------------------------------------------------------------------------ plain settings

    def _table(self, section: str, table: object, known: Mapping[str, Setting]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for key, value in self._is_table(section, table).items():
            if key not in known:
                self._unknown(section, key, known)
            given[known[key].name] = self._value(known[key], value)
        return given

    def _value(self, setting: Setting, value: object) -> Any:
        place = self._place(setting.at)
        if setting.kind == "texts" and isinstance(value, str):
            value = [value] if value else []
        _check_type(setting.kind, value, place)
        if setting.kind == "number":
            value = float(value)  # type: ignore[arg-type]
        setting.check(value, place)
        if isinstance(value, list):
            for text in value:
                if setting.choices and text not in setting.choices:
                    raise UnknownName(f"value of {place}:", text, setting.choices)
        if setting.name == "watches":
            self._watches(value, place)
        if setting.kind == "path" and isinstance(value, str):
            return self._path(value, always=setting.name != "model")
        return value

    def _watches(self, rules: Any, place: str) -> None:
        for rule in rules:
            try:
                parse_watch(rule)
            except UsageError as error:
                raise InvalidValue(f"{place}: {error}") from None

    # ------------------------------------------------------------------------------------- names with options

    def _task(self, value: object) -> dict[str, Any]:
        if isinstance(value, str):
            spec = self._in("task", lambda: parse_spec(value, "task"))
            table: Mapping[str, Any] = {_USE: spec.use, **spec.options}
            return {"task": str(self._spec("task", table, task_kind, TASK_KINDS, typed=False))}
        return {"task": str(self._spec("task", self._is_table("task", value), task_kind, TASK_KINDS))}

    def _rewards(self, value: object) -> dict[str, Any]:
        words: list[str] = []
        if not isinstance(value, list):
            raise InvalidValue(f"{self._place('reward')}: is a table for each reward; begin each with [[reward]]")
        for number, one in enumerate(value, 1):
            place = f"reward[{number}]" if len(value) > 1 else "reward"
            if isinstance(one, str):
                one = {_USE: one}
            words.append(str(self._spec(place, self._is_table(place, one), reward_kind, REWARD_KINDS)))
        return {"rewards": words}

    def _lora(self, value: object) -> dict[str, Any]:
        typed = not isinstance(value, str)
        if isinstance(value, str):
            value = dict(self._in("lora", lambda: parse_spec(f"lora {value}", "lora")).options)
        known = {option.name: option for option in LORA.options}
        options: dict[str, str] = {}
        for name, one in self._is_table("lora", value).items():
            if name not in known:
                self._unknown("lora", name, known)
            options[name] = self._option("lora", name, one, known[name], typed=typed)
        return {"lora": self._in("lora", lambda: lora_words(options))}

    def _spec(
        self,
        place: str,
        table: Mapping[str, Any],
        kind_of: Callable[[Spec], Kind],
        built_in: Collection[str],
        *,
        typed: bool = True,
    ) -> Spec:
        """A table as a name and options, with its paths absolute.

        :param built_in: names that are never those of files.
        """
        use = table.get(_USE)
        if use is not None and (not isinstance(use, str) or not use.strip()):
            what = "is empty" if isinstance(use, str) else _named_type(use)
            raise InvalidValue(f"{self._place(f'{place}.{_USE}')}: {what}; it names what is used, as text in quotes")
        if use is None:
            raise InvalidValue(f"{self._place(place)}: {_USE} is missing; it names what is used, as text in quotes")
        use = self._named(use, built_in)
        kind = self._in(f"{place}.{_USE}", lambda: kind_of(Spec(use)))
        known = {option.name: option for option in kind.options}
        options: dict[str, str] = {}
        for name, value in table.items():
            if name == _USE:
                continue
            if name not in known and not kind.others:
                self._unknown(place, name, (_USE, *known))
            options[name] = self._option(place, name, value, known.get(name), typed=typed)
        if kind is DATASET and Path(use).is_file() and options.get("evaluation_split"):  # then that is a file too
            options["evaluation_split"] = self._path(options["evaluation_split"], always=True)
        spec = Spec(use, options)
        if not typed:
            return spec
        return self._in(place, lambda: kind.canonical(spec, place.partition("[")[0]))

    def _option(self, place: str, name: str, value: object, option: Option | None, *, typed: bool = True) -> str:
        where = self._place(f"{place}.{name}")
        if option is not None and typed:
            kind = "text" if option.choices else option.kind
            _check_type(kind, value, where)
        elif isinstance(value, dict) or not isinstance(value, str | int | float | list):
            raise InvalidValue(f"{where}: {_named_type(value)}; allowed: text, a number, true or false")
        if isinstance(value, list):
            _check_type("wholes" if option is not None and option.kind == "wholes" else "texts", value, where)
            return ",".join(map(str, value))
        if option is not None and option.kind == "path" and isinstance(value, str):
            return self._path(value, always=True)
        return shown(value)  # type: ignore[arg-type]

    # --------------------------------------------------------------------------------------- hyperparameters

    def _sets(self, table: object) -> dict[str, Any]:
        sets: list[str] = []
        for name, value in _with_weights(self._is_table("hyperparameters", table)).items():
            place = f"hyperparameters.{name}"
            knob = hyperparameter(name) if name.startswith(REWARD_WEIGHT) else HYPERPARAMETERS.get(name)
            if knob is None:
                self._unknown("hyperparameters", name, (*HYPERPARAMETERS, f"{REWARD_WEIGHT}NAME"))
            if isinstance(value, dict):
                sets += self._schedule(knob, value, place)
            else:
                sets.append(f"{name}={self._knob(knob, value, place)}")
        return {"sets": sets}

    def _schedule(self, knob: Hyperparameter, table: Mapping[str, object], place: str) -> list[str]:
        if not table:
            raise InvalidValue(f"{self._place(place)}: the schedule is empty; give {{ {START} = VALUE, STEP = VALUE }}")
        sets = []
        for step, value in table.items():
            if step == START:
                sets.append(f"{knob.name}={self._knob(knob, value, place)}")
            elif re.fullmatch("[0-9]{1,15}", step) and int(step) >= 1:
                sets.append(f"{knob.name}={self._knob(knob, value, f'{place}.{step}')}@{int(step)}")
            else:
                raise InvalidValue(
                    f"{self._place(place)}: {step!r} is neither {START} nor a step from 1; "
                    f"a schedule reads {{ {START} = VALUE, 100 = VALUE }}"
                )
        return sets

    def _knob(self, knob: Hyperparameter, value: object, place: str) -> str:
        where = self._place(place)
        number = knob.kind in ("int", "float") and not (knob.optional and value == NONE)
        if number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidValue(f"{where}: {_named_type(value)}; allowed: {knob.range_text}, without quotes")
        if not number and not isinstance(value, str):
            raise InvalidValue(f"{where}: {_named_type(value)}; allowed: {knob.range_text}, in quotes")
        return value_text(self._in(place, lambda: knob.parse(value)))

    # ------------------------------------------------------------------------------------------------- places

    def _path(self, text: str, *, always: bool) -> str:
        """Text as an absolute path, if it is one: where not ``always``, it may be a name.

        What lies beside the file is that; so is what is written as a path or ends as a file does.
        """
        if not text:
            return text
        path = expanded(text)
        inside = path if path.is_absolute() else self._folder / path
        written = text.startswith(("./", "../", "~", "/")) or path.suffix.lower() in (*SUFFIXES, *_MODEL_FILES)
        if always or written or (text not in ("tiny", "smollm2") and _exists(inside)):
            return os.path.abspath(inside)
        return text

    def _named(self, use: str, built_in: Collection[str]) -> str:
        """The name of a task or a reward, with the path in it absolute."""
        if use in built_in:
            return use
        where, colon, function = use.rpartition(":")
        if colon and where.endswith(".py"):
            return f"{self._path(where, always=True)}:{function}"
        return self._path(use, always=False)

    def _place(self, at: str) -> str:
        return f"{self._where}: {at}" if at else self._where

    def _in(self, place: str, read: Callable[[], _T]) -> _T:
        """What ``read`` gives; its complaint begins with the place."""
        try:
            return read()
        except UsageError as error:
            text = str(error)
            name = place.rpartition(".")[2]
            while any(text.startswith(twice := f"{name.partition('[')[0]}{mark}") for mark in (": ", " ")):
                text = text.removeprefix(twice)
            raise _type_of(error)(f"{self._place(place)}: {text}") from None

    def _is_table(self, name: str, value: object) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            header = "[[reward]]" if name.partition("[")[0] == "reward" else f"[{name}]"
            raise InvalidValue(f"{self._place(name)}: {_named_type(value)}; it is a table: begin it with {header}")
        return value

    def _unknown(self, section: str, name: str, known: Iterable[str]) -> NoReturn:
        elsewhere = [s.at for s in SETTINGS.values() if name and name in (s.name, s.key, s.option[2:])]
        known = list(known)
        if section == "" and name in HYPERPARAMETERS:
            elsewhere.insert(0, f"hyperparameters.{name}")
        place = self._place(f"{section}.{name}" if section else name)
        if elsewhere and not _near(name, known):
            raise InvalidValue(f"{place}: unknown setting here; did you mean {elsewhere[0]}?")
        raise _Unknown(place, name, known)


class _Unknown(UnknownName):
    """A key that no definition knows, with its place."""

    def __init__(self, place: str, name: str, known: Iterable[str]) -> None:
        super().__init__("setting", name, known)
        self.args = (f"{place}: {self.args[0]}",)


def _type_of(error: UsageError) -> type[UsageError]:
    """The class to raise a complaint with again: one that takes a message alone."""
    return InputFileError if isinstance(error, InputFileError) else InvalidValue


def _near(name: str, known: Iterable[str]) -> bool:
    return bool(difflib.get_close_matches(name, list(known), n=1))


def _check_type(kind: str, value: object, where: str) -> None:
    right = {
        "text": isinstance(value, str),
        "path": isinstance(value, str),
        "whole": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "switch": isinstance(value, bool),
        "texts": isinstance(value, list) and all(isinstance(text, str) for text in value),
        "wholes": isinstance(value, int | str) or (isinstance(value, list) and all(type(n) is int for n in value)),
        "names": isinstance(value, str) or (isinstance(value, list) and all(isinstance(t, str) for t in value)),
    }[kind]
    if not right or (isinstance(value, float) and math.isnan(value)):
        raise InvalidValue(f"{where}: {_named_type(value)}; allowed: {_KINDS[kind]}")
    if any(isinstance(one, int) and abs(one) >= 2**63 for one in (value if isinstance(value, list) else [value])):
        raise InvalidValue(f"{where}: has more digits than any number here; allowed: {_KINDS[kind]}")
    if "\0" in str(value):
        raise InvalidValue(f"{where}: holds a character that no name has (NUL)")


def _with_weights(table: Mapping[str, object]) -> dict[str, object]:
    """The hyperparameters with every ``reward_weight.NAME``, which without quotes is a table in TOML, by that name."""
    own = table.get(REWARD_WEIGHT[:-1])
    if not isinstance(own, dict):
        return dict(table)
    rest = {name: value for name, value in table.items() if value is not own}
    return rest | {REWARD_WEIGHT + name: value for name, value in own.items()}


def _named_type(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value[:40]!r} is text"
    if isinstance(value, dict):
        return "is a table"
    if isinstance(value, list):
        return "is a list"
    if isinstance(value, int | float):
        return f"{value} is a number"
    return f"{value} is a date or a time"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
