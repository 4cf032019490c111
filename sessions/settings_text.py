"""Settings files, written: everything that can be set, what is not given as a comment with its default.

A line that begins with ``#`` and no blank is a setting at its default: without the ``#`` it says the same. A line that
begins with ``#`` and a blank is an explanation.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sessions.adapters import KIND as LORA
from sessions.hyperparameters import HYPERPARAMETERS, REWARD_WEIGHT, Assignment, hyperparameter, parse_assignment
from sessions.knob import Hyperparameter, Value
from sessions.records import SessionSettings
from sessions.reward_kinds import NAMED, REWARD_KINDS, reward_kind
from sessions.run_settings import ALGORITHM, GROUPS, SETTINGS, Setting, starting_values
from sessions.settings_file import START
from sessions.specs import Kind, Option, OptionValue, Spec, parse_spec
from sessions.task_kinds import DATASET, PYTHON, TASK_KINDS, task_kind
from sessions.toml_text import number_text, toml_value

_WIDTH = 110
_COLUMN = 40
"""Where the explanations behind settings begin."""
_SHOWN = ("model",)
"""Settings that are no comment even at their default: what a reader looks for first."""


def settings_text(settings: SessionSettings, folder: Path, header: Iterable[str] = ()) -> str:
    """The file that starts a session with these settings.

    :param folder: that the file will lie in: paths inside it are written relative to it.
    :param header: lines at its top, without ``#``.
    """
    return "\n".join(_Writer(settings, folder.absolute()).lines(header)) + "\n"


class _Writer:
    """Writes one file."""

    def __init__(self, settings: SessionSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._sets = [parse_assignment(text) for text in settings.sets]
        self._values = starting_values(settings)

    def lines(self, header: Iterable[str]) -> Iterator[str]:
        for text in header:
            yield from _prose(text)
        yield from _prose(
            "Paths are relative to the folder of this file. A line that begins with # and no blank is a default: take "
            "the # away and change it. What is given to `workbench run` beside this file wins over it."
        )
        for group, heading in GROUPS.items():
            wanted = [s for s in SETTINGS.values() if s.group == group and not s.section]
            if wanted:
                yield from ("", f"# ---- {heading}")
                yield from (self._line(setting) for setting in wanted)
        yield from self._task()
        yield from self._rewards()
        yield from self._lora()
        yield from self._hyperparameters()
        for section in ("warm_up", "checkpoints", "machine"):
            wanted = [s for s in SETTINGS.values() if s.section == section]
            yield from ("", f"[{section}]", *(self._line(setting) for setting in wanted))

    def _line(self, setting: Setting) -> str:
        """One plain setting with what it does."""
        value = self._values[ALGORITHM] if setting.name == ALGORITHM else getattr(self._settings, setting.name)
        if setting.kind == "path" and isinstance(value, str):
            value = self._near(value)
        if setting.name == ALGORITHM:
            given = any(a.name == ALGORITHM and a.step is None for a in self._sets)
        else:
            given = setting.name in _SHOWN or value != setting.default
        return _setting(setting.key or setting.name, toml_value(value), setting.help, given=given)

    # ------------------------------------------------------------------------------------- names with options

    def _task(self) -> Iterator[str]:
        spec = parse_spec(self._settings.task, "task")
        kind = task_kind(spec)
        yield from ("", "[task]", _setting("use", toml_value(self._named(spec.use)), SETTINGS["task"].help))
        yield from self._options(kind, spec)
        others = [k for k in (*TASK_KINDS.values(), DATASET, PYTHON) if k is not kind]
        yield from _kinds("other tasks", others, {DATASET.name: '"train.jsonl"', PYTHON.name: '"task.py:function"'})

    def _rewards(self) -> Iterator[str]:
        yield ""
        for text in self._settings.rewards:
            spec = parse_spec(text, "reward")
            yield from ("[[reward]]", _setting("use", toml_value(self._named(spec.use)), ""))
            yield from self._options(reward_kind(spec), spec)
            yield ""
        if not self._settings.rewards:
            yield from _prose("Rewards are those of the task, unless there are tables like this, one for each:")
            yield from ("# [[reward]]", '# use = "rewards.py:function"', "# weight = 1.0")
        yield from _kinds("rewards", (*REWARD_KINDS.values(), NAMED), {NAMED.name: '"rewards.py:function"'})

    def _options(self, kind: Kind, spec: Spec) -> Iterator[str]:
        values = kind.read(spec, "")
        for option in kind.options:
            value = values[option.name]
            is_path = option.kind == "path" or option.name == "evaluation_split"  # which may be a file
            text = self._near(str(value)) if is_path else value
            yield _setting(option.name, _typed(option, text), option.help, given=value != option.default)
        known = {option.name for option in kind.options}
        for name, written in spec.options.items():
            if name not in known:
                yield _setting(_key(name), toml_value(written), "")

    def _lora(self) -> Iterator[str]:
        yield ""
        if not self._settings.lora:
            yield from _prose("To train adapters and not the whole model:")
            defaults = LORA.read(parse_spec("lora", "lora"), "lora")
            yield "# [lora]"
            for option in LORA.options:
                lines = _setting(option.name, _typed(option, defaults[option.name]), option.help).split("\n")
                yield from (*lines[:-1], f"# {lines[-1]}")
            return
        yield "[lora]"
        yield from self._options(LORA, parse_spec(f"lora {self._settings.lora}", "lora"))

    # --------------------------------------------------------------------------------------- hyperparameters

    def _hyperparameters(self) -> Iterator[str]:
        yield from ("", "[hyperparameters]")
        yield from _prose(
            f"What does not change is a value, what does a schedule: kl_coefficient = {{ {START} = 0.04, 100 = 0.0 }} "
            "has 0.0 from step 100 on. The defaults are those of the task and the algorithm above."
        )
        for knob in HYPERPARAMETERS.values():
            given = [a for a in self._sets if a.name == knob.name]
            if knob.name == ALGORITHM:
                given = [a for a in given if a.step is not None]
                if not given:
                    continue
            value = _scheduled(knob, given) if given else _knob_text(knob, self._values[knob.name])
            first = re.split(r"(?<!Dr)\. ", knob.help)[0].rstrip(".")
            yield _setting(knob.name, value, f"{first} ({knob.range_text})", given=bool(given))
        own = dict.fromkeys(a.name for a in self._sets if a.name.startswith(REWARD_WEIGHT))
        for name in own:
            given = [a for a in self._sets if a.name == name]
            yield _setting(toml_value(name), _scheduled(hyperparameter(name), given), "weight of that component")

    # -------------------------------------------------------------------------------------------------- paths

    def _near(self, text: str) -> str:
        """A path relative to the file's folder where it lies inside; what is no absolute path as it is."""
        path = Path(text)
        if not text or not path.is_absolute():
            return text
        return f"./{path.relative_to(self._folder)}" if path.is_relative_to(self._folder) else text

    def _named(self, use: str) -> str:
        where, colon, function = use.rpartition(":")
        return f"{self._near(where)}:{function}" if colon and where.endswith(".py") else self._near(use)


def _setting(name: str, value: str, help_text: str, *, given: bool = True) -> str:
    """A setting and what it does, behind it where there is room, else above."""
    said = f"{'' if given else '#'}{name} = {value}"
    if not help_text:
        return said
    line = f"{said:<{_COLUMN}}  # {help_text}"
    return line if len(line) <= _WIDTH + 2 else "\n".join([*_prose(help_text), said])


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else toml_value(name)


def _prose(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)]


def _kinds(title: str, every: Sequence[Kind], uses: Mapping[str, str]) -> Iterator[str]:
    """What else could be used, with its options, as an explanation."""
    yield f"# {title}:"
    for kind in every:
        needs = f" (pip install 'rl-workbench[{kind.needs}]')" if kind.needs else ""
        options = ", ".join(option.name for option in kind.options)
        text = f"use = {uses.get(kind.name, toml_value(kind.name))}: {kind.help}{needs}"
        text += f"; options: {options}" if options else ""
        yield from (
            f"#   {line}" for line in textwrap.wrap(text, _WIDTH - 2, subsequent_indent="    ", break_on_hyphens=False)
        )


def _typed(option: Option, value: OptionValue) -> str:
    if option.kind == "number":
        return number_text(float(value))
    return toml_value(value)


def _knob_text(knob: Hyperparameter, value: Value) -> str:
    return number_text(value) if knob.kind == "float" and isinstance(value, int | float) else toml_value(value)


def _scheduled(knob: Hyperparameter, given: Sequence[Assignment]) -> str:
    at = {START if a.step is None else str(a.step): _knob_text(knob, a.value) for a in given}
    if list(at) == [START]:
        return at[START]
    return "{ " + ", ".join(f"{step} = {value}" for step, value in at.items()) + " }"
