"""Every setting of a session, once: its name, its place in a settings file, its option, its type and what it does.

The options of ``workbench run``, the reading and the writing of settings files (:mod:`sessions.settings_file`,
:mod:`sessions.settings_text`) and ``docs/settings.md`` come from :data:`SETTINGS`. The defaults are those of
:class:`sessions.records.SessionSettings`, whose fields these are; ``algorithm`` alone is a hyperparameter that has a
place of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sessions.adapters import LEARNING_RATE
from sessions.errors import InvalidValue, UsageError
from sessions.hyperparameters import HYPERPARAMETERS, defaults, parse_assignment
from sessions.knob import Value
from sessions.presets import PRESETS, preset
from sessions.shortcuts import ALL, SHORTCUTS
from sessions.specs import parse_spec
from sessions.task_kinds import task_kind
from sessions.toml_text import short
from sessions.trackers import TRACKERS

if TYPE_CHECKING:
    from sessions.records import SessionSettings

Kind = Literal["text", "path", "whole", "number", "switch", "texts", "spec", "specs", "sets"]
ALGORITHM = "algorithm"
GROUPS = {
    "learned": "what is learned",
    "how": "how it is learned",
    "warm_up": "warm-up, before RL",
    "kept": "what is watched and kept",
    "machine": "the machine",
    "start": "this session",
}
"""Headings of the help, the documentation and a new settings file, in their order."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    :ivar name: field of :class:`SessionSettings`.
    :ivar kind: ``path`` is relative to the file that has it; ``spec`` is a name with options, in the file a table;
        ``specs`` several of them, ``texts`` a list, ``sets`` the hyperparameters.
    :ivar help: after the option, without a full stop.
    :ivar metavar: what its value is called in help.
    :ivar section: table of the file that it stands in; empty: at the top.
    :ivar key: its name there; empty: as ``name``.
    :ivar flag: empty: ``--name``.
    :ivar low: least value allowed (numbers), inclusive unless ``above``.
    :ivar on: of a switch: whether it is on by itself.
    :ivar anew: it says how a session is run and not what is trained: it may be given anew when that is continued.
    """

    name: str
    kind: Kind
    group: str
    help: str
    metavar: str = ""
    section: str = ""
    key: str = ""
    flag: str = ""
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 2**53 - 1
    above: bool = False
    on: bool = False
    anew: bool = False

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def at(self) -> str:
        """Where it stands in a file: ``checkpoints.keep_last``."""
        key = self.key or self.name
        return f"{self.section}.{key}" if self.section else key

    @property
    def default(self) -> Any:
        """Its value where nobody gives one."""
        if self.name == ALGORITHM:
            return HYPERPARAMETERS[ALGORITHM].default
        from sessions.records import SessionSettings  # brings msgspec, which help can do without

        return getattr(SessionSettings(name=""), self.name)

    @property
    def range_text(self) -> str:
        """What is allowed of a number, in words."""
        if self.kind == "whole":
            return f"whole numbers from {self.low:g}" + (f" to {self.high:g}" if self.high < 2**31 - 1 else "")
        if self.above:
            return f"above {self.low:g}, at most {self.high:g}"
        return f"numbers from {self.low:g} to {self.high:g}"

    def check(self, value: object, where: str) -> None:
        """Refuse a number that is out of bounds and a word that is none of the choices.

        :param where: it was given, for the error.
        :raises InvalidValue: if it is.
        """
        if isinstance(value, int | float) and self.kind in ("whole", "number"):
            inside = self.low < value <= self.high if self.above else self.low <= value <= self.high
            if not inside or math.isnan(value):
                raise InvalidValue(f"{where}: {value:g} is out of bounds; allowed: {self.range_text}")
        if self.choices and self.kind == "text" and value not in (*self.choices, self.default):
            raise InvalidValue(f"{where}: {value!r} is not one of {', '.join(self.choices)}")


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("model", "path", "learned", "tiny (the default), smollm2, a folder, .gguf or org/name", "M"),
        Setting(
            "model_revision", "text", "learned", "branch, tag or commit of a hub model; its commit is kept", "REV"
        ),
        Setting(
            "chat_template", "switch", "learned", "wrap prompts in the chat template that the tokenizer brings",
            on=True,
        ),
        Setting(
            "trust_remote_code", "switch", "learned",
            "run the Python code in the model's folder, for architectures that transformers has not; read it first",
        ),
        Setting(
            "lora", "spec", "learned", "train adapters and not the model, such as r=16", "WORDS",
            section="lora",
        ),
        Setting(
            "task", "spec", "learned", "arithmetic (the default), or a file of prompts; its options as key=value", "T",
            section="task",
        ),
        Setting(
            "rewards", "specs", "learned",
            "instead of the task's own: a name, module:function or file.py:function; its options as key=value", "R",
            section="reward", flag="--reward",
        ),
        Setting(
            "reward_timeout", "number", "learned", "seconds that a reward function may take for a group (60)", "S",
            low=0.1, high=86_400,
        ),
        Setting(
            "reward_folder", "path", "learned", "where modules of rewards are looked for (where it is started)",
            "DIR",
        ),
        Setting("reward_model", "path", "learned", "a reward model that `workbench reward-model train` made", "DIR"),
        Setting(
            ALGORITHM, "text", "how", "grpo (the default), ppo or trpo", "A",
            choices=HYPERPARAMETERS[ALGORITHM].choices,
        ),
        Setting("preset", "text", "how", f"published settings: {', '.join(PRESETS)}", "P", choices=tuple(PRESETS)),
        Setting(
            "sets", "sets", "how",
            "a hyperparameter, at once or from a step on; `workbench hyperparameters` lists them", "NAME=VALUE[@STEP]",
            section="hyperparameters", flag="--set",
        ),
        Setting(
            "allow_sampler_mismatch", "switch", "how",
            "let training sample with top_p, top_k or min_p, which the policy knows nothing of",
        ),
        Setting("steps", "whole", "how", "stop after this step (0, the default: never)", "N", anew=True),
        Setting("seed", "whole", "how", "of everything random (0)", "N"),
        Setting(
            "warm_up", "path", "warm_up", "fine-tune first, on a .jsonl file of prompt and completion", "FILE",
            section="warm_up", key="file",
        ),
        Setting(
            "warm_up_epochs", "whole", "warm_up", "times through that file (1)", "N", section="warm_up", key="epochs",
            low=1, high=2**31 - 1,
        ),
        Setting(
            "warm_up_learning_rate", "number", "warm_up", "after a linear rise (2e-5)", "X", section="warm_up",
            key="learning_rate", low=0, high=1, above=True,
        ),
        Setting(
            "warm_up_batch", "whole", "warm_up", "examples an optimizer step (32)", "N", section="warm_up", key="batch",
            low=1, high=2**31 - 1,
        ),
        Setting(
            "evaluation_rows", "whole", "kept", "held-out prompts (0, the default: as many as the task proposes)", "N",
        ),
        Setting(
            "watches", "texts", "kept", "an alarm beside the usual ones, such as: 'kl/k3 > 0.2 for 3 pause'", "RULE",
            key="watch", flag="--watch",
        ),
        Setting(
            "track", "texts", "kept", f"mirror metrics to {', '.join(TRACKERS[:-1])} or {TRACKERS[-1]}", "T",
            choices=TRACKERS, anew=True,
        ),
        Setting(
            "keep_last", "whole", "kept", "newest checkpoints that a branch keeps (3)", "N", section="checkpoints",
            low=1, anew=True,
        ),
        Setting(
            "keep_best", "whole", "kept", "and those of the best held-out accuracy (1)", "N", section="checkpoints",
            anew=True,
        ),
        Setting(
            "keep_every", "whole", "kept", "and those of every Nth step, for ever (0: none)", "N",
            section="checkpoints", anew=True,
        ),
        Setting(
            "keep_token_steps", "whole", "kept", "steps whose records of each token are kept (500)", "N",
            section="checkpoints", low=1,
        ),
        Setting(
            "device", "text", "machine", "auto (the default), cpu, cuda or mps", "D", section="machine",
            choices=("auto", "cpu", "cuda", "mps"),
        ),
        Setting(
            "precision", "text", "machine", "auto (the default), fp32 or bf16", "P", section="machine",
            choices=("auto", "fp32", "bf16"),
        ),
        Setting(
            "threads", "whole", "machine", "of torch (0, the default: physical cores less one)", "N",
            section="machine", high=1024,
        ),
        Setting(
            "micro_tokens", "whole", "machine", "tokens that one forward and backward may hold (16384)", "N",
            section="machine", low=64, high=2**31 - 1,
        ),
        Setting(
            "nice", "switch", "machine", "let other programs go first, on two cores or fewer", section="machine",
            on=True,
        ),
        Setting(
            "plain", "texts", "machine", "turn one of the engine's shortcuts off, or all of them", "SHORTCUT",
            section="machine", choices=(ALL, *SHORTCUTS),
        ),
        Setting("name", "text", "start", "of the session; one that has ended goes on (TASK-1, TASK-2, ...)", "S"),
        Setting("paused", "switch", "start", "pause before the first step", anew=True),
    )
}  # fmt: skip
"""The table. Its order is that of the help and of a new settings file."""


def combined(file: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """What a settings file and the command line say together; the command line wins.

    A hyperparameter that is set on the command line loses what the file says of it, a schedule too. A list of the
    command line takes the place of the file's, and an empty text takes a list away. An algorithm becomes the first of
    the hyperparameters.

    :param file: name of a setting -> value, as :func:`sessions.settings_file.read_settings_file` gives it.
    :param line: the same of the command line.
    :returns: fields of :class:`SessionSettings` that either of them gives.
    :raises UsageError: if an algorithm is named twice and differently.
    """
    given = {**file, **line}
    for name, value in given.items():
        if value == [""]:
            given[name] = []
    set_on_line = [parse_assignment(text) for text in line.get("sets", ())]
    named = {a.name for a in set_on_line}
    if ALGORITHM in line or _of_preset(line.get("preset", "")):
        named.add(ALGORITHM)
    kept = [text for text in file.get("sets", ()) if parse_assignment(text).name not in named]
    own = [("", text) for text in kept] + [("--set ", text) for text in line.get("sets", ())]
    algorithm = line.get(ALGORITHM) or ("" if ALGORITHM in named else file.get(ALGORITHM, ""))
    given.pop(ALGORITHM, None)
    if algorithm:
        _check_algorithm(algorithm, own, given.get("preset", ""), option=ALGORITHM in line)
        own.insert(0, ("", f"{ALGORITHM}={algorithm}"))
    if own or "sets" in given:
        given["sets"] = [text for _, text in own]
    return given


def _check_algorithm(algorithm: str, own: Sequence[tuple[str, str]], published: str, *, option: bool) -> None:
    assigned = [(what, text, parse_assignment(text)) for what, text in own]
    others = [(what + text, a.value) for what, text, a in assigned if a.name == ALGORITHM and a.step is None]
    if other := _of_preset(published):
        others.append((f"--preset {published}" if option else f"preset {published}", other))
    for what, named in others:
        if named != algorithm:
            said = f"--algorithm {algorithm}" if option else f"algorithm {algorithm}"
            raise UsageError(f"{said} does not go with {what}, which is for {named}; leave one out")


def _of_preset(published: str) -> str:
    return str(preset(published).values.get(ALGORITHM, "")) if published else ""


def canonical_sets(sets: Sequence[str]) -> list[str]:
    """``name=value[@STEP]`` in one order, each name once for each step, so that equal settings read alike.

    :raises UsageError: if one of them cannot be read.
    """
    found: dict[tuple[int, str], Value] = {}
    for text in sets:
        one = parse_assignment(text)
        found[(one.step or 0, one.name)] = one.value
    order = {name: place for place, name in enumerate(HYPERPARAMETERS)}  # weights of reward components come last
    return [
        f"{name}={value_text(value)}" + (f"@{step}" if step else "")
        for (step, name), value in sorted(
            found.items(), key=lambda item: (item[0][0], order.get(item[0][1], len(order)), item[0][1])
        )
    ]


def value_text(value: Value) -> str:
    """A hyperparameter's value, so that it reads back as the same."""
    return value if isinstance(value, str) else short(value)


def starting_values(settings: SessionSettings) -> dict[str, Value]:
    """Every hyperparameter as a session begins with it, as far as its kind of task says.

    :raises UsageError: if something in the settings cannot be read.
    """
    adapted = {"learning_rate": LEARNING_RATE} if settings.lora else {}
    own = {**adapted, **task_kind(parse_spec(settings.task, "task")).defaults}
    given = {a.name: a.value for a in map(parse_assignment, settings.sets) if a.step is None}
    if settings.preset:
        limit = defaults(own, given)["max_new_tokens"]
        given = {**preset(settings.preset).settings(int(limit)), **given}
    return defaults(own, given)
