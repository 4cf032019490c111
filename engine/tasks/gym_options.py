"""What the package reasoning-gym has: names, and the options of each. Nothing here brings torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec

from sessions.errors import InvalidValue, UnknownName
from sessions.extras import need
from sessions.specs import OptionValue
from sessions.task_kinds import GYM, GYM_KIND


def gym_names() -> list[str]:
    """Every task of the package.

    :raises UsageError: if it is not installed.
    """
    return sorted(gym_sets())


def gym_options(name: str) -> dict[str, tuple[Any, str]]:
    """Option of a task -> its default and its type in words.

    :raises UnknownName: if there is no such task.
    """
    config = gym_config(name)
    hints = get_type_hints(config)
    filled = config()
    return {f: (getattr(filled, f), _type_words(hints[f])) for f in _fields(config)}


def gym_values(name: str, options: Mapping[str, OptionValue], where: str) -> dict[str, Any]:
    """The task's own options as its configuration wants them.

    :raises UsageError: naming the option that is unknown or wrong.
    """
    config, known = gym_config(name), {option.name for option in GYM_KIND.options}
    return {key: _value(config, key, str(text), where) for key, text in options.items() if key not in known}


def gym_sets() -> dict[str, tuple[Any, Any]]:
    """Name -> the class of the task and of its configuration; without the one that only mixes others."""
    need(GYM, f"task {GYM}")
    import reasoning_gym  # noqa: F401 - it fills the table
    from reasoning_gym.factory import DATASETS

    return {name: made for name, made in DATASETS.items() if name != "composite"}  # its parts are no words


def gym_config(name: str) -> Any:
    """The class of a task's configuration."""
    sets = gym_sets()
    if name not in sets:
        raise UnknownName(f"{GYM} task", name, sets)
    return sets[name][1]


def _fields(config: Any) -> list[str]:
    return [name for name in config.__dataclass_fields__ if name not in ("size", "seed")]


def _value(config: Any, key: str, text: str, where: str) -> Any:
    """An option's text as its configuration wants it: lists are written with commas, or as JSON."""
    if key not in _fields(config):
        raise UnknownName(f"option of {where}:", key, (*_fields(config), *(o.name for o in GYM_KIND.options)))
    kind = get_type_hints(config)[key]
    value: Any = text
    if text[:1] in "[{":
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise InvalidValue(f"{where}: {key} {text!r} is not JSON ({error})") from None
    elif any(word in str(kind).lower() for word in ("list", "tuple", "sequence", "set[")):
        value = [part.strip() for part in text.split(",")]
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, TypeError):
        raise InvalidValue(f"{where}: {key} {text!r} is not of its type, {_type_words(kind)}") from None


def _type_words(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind)) if isinstance(kind, type) and not hasattr(kind, "__args__") else str(
        kind
    ).replace("typing.", "")  # fmt: skip
