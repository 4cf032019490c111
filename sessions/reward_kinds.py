"""Every kind of reward, once: its name, its options and what they do.

Validation, help, the documentation and ``workbench new`` come from here; ``engine/rewards`` makes the functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sessions.errors import InputFileError, InvalidValue, UnknownName, UsageError
from sessions.specs import Kind, Option, OptionValue, Spec, kinds, parse_spec

_NAMED = re.compile(r"(?P<where>.+):(?P<function>[A-Za-z_][\w.]*)")
_COMPONENT = re.compile(r"[A-Za-z_]\w{0,39}")

COMMON = (
    Option("weight", "number", 1.0, "of the component; 0: measured and shown, and does not teach", low=-1e6, high=1e6),
    Option("name", "text", "", "of the component, where the reward's own name will not do"),
)
"""What every reward takes."""

REWARD_KINDS = kinds(
    Kind("task", "the task's own components, as they come with it", ()),
    Kind("exact", "1 when the response is the answer, blanks around it aside; else 0", COMMON),
    Kind("last_number", "1 when the last number of the response is that of the answer; else 0", COMMON),
)
"""Built-in rewards by name."""

NAMED = Kind("named", "a function of a module or a file, with TRL's signature", COMMON)


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One ``--reward``, read.

    :ivar kind: whose options ``options`` holds, all of them.
    :ivar name: of the component.
    """

    spec: Spec
    kind: Kind
    name: str
    weight: float
    options: dict[str, OptionValue]


def reward_kind(spec: Spec) -> Kind:
    """What kind of reward a spec names.

    :raises UnknownName: if nothing answers to it.
    """
    if spec.use in REWARD_KINDS:
        return REWARD_KINDS[spec.use]
    if _NAMED.fullmatch(spec.use):
        return NAMED
    raise UnknownName("reward", spec.use, (*REWARD_KINDS, "module:function", "file.py:function"))


def named_parts(use: str) -> tuple[str, str]:
    """``module:function`` or ``file.py:function`` as its two parts.

    :raises InvalidValue: if it is neither.
    """
    found = _NAMED.fullmatch(use)
    if found is None:
        raise InvalidValue(f"reward {use!r} should read module:function or file.py:function")
    return found["where"], found["function"]


def read_rewards(texts: list[str]) -> list[RewardSpec]:
    """Every reward of a session, in order.

    :raises UsageError: if one cannot be read, or two would have the same name.
    """
    read: list[RewardSpec] = []
    for text in texts:
        spec = parse_spec(text, "reward")
        kind = reward_kind(spec)
        options = kind.read(spec, "reward")
        name = str(options.get("name", "")) or _own_name(spec, kind)
        if not _COMPONENT.fullmatch(name):
            raise InvalidValue(f"reward {spec.use}: name {name!r} is none for a component: letters, digits and _")
        if any(other.name == name for other in read):
            raise UsageError(f"reward {spec.use}: there is another component {name}; add name=... to one of them")
        read.append(RewardSpec(spec, kind, name, float(options.get("weight", 1.0)), options))
    return read


def check_rewards(texts: list[str]) -> list[str]:
    """The words of every reward with its options checked and paths absolute.

    :raises UsageError: one line that says what, where and what to do.
    """
    return [str(_absolute(reward.kind.canonical(reward.spec, "reward"))) for reward in read_rewards(texts)]


def _own_name(spec: Spec, kind: Kind) -> str:
    return named_parts(spec.use)[1].rsplit(".", 1)[-1] if kind is NAMED else spec.use.replace("-", "_")


def _absolute(spec: Spec) -> Spec:
    if reward_kind(spec) is not NAMED:
        return spec
    where, function = named_parts(spec.use)
    if not where.endswith(".py"):
        return spec
    path = Path(where).expanduser()
    if not path.is_file():
        raise InputFileError(f"reward {spec.use}: no such file")
    return Spec(f"{path.resolve()}:{function}", spec.options)
