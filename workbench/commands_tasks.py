"""``tasks``: what ``--task`` takes, from the one table of kinds."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec

from sessions.errors import UnknownName
from sessions.extras import EXTRAS
from sessions.specs import Kind
from sessions.task_kinds import ALL_KINDS, GYM
from workbench.commands_kinds import default_of
from workbench.output import emit, listing


def tasks(arguments: argparse.Namespace) -> int:
    """``workbench tasks [NAME]``: the kinds of task, or the options of one; ``reasoning-gym`` also lists its names."""
    name: str = arguments.name or ""
    if not name:
        return _all(as_json=arguments.json)
    kind_name, _, gym = name.partition(":")
    if kind_name not in ALL_KINDS or (gym and kind_name != GYM):
        raise UnknownName("kind of task", name, ALL_KINDS)
    _one(ALL_KINDS[kind_name], gym, as_json=arguments.json)
    return 0


def _all(*, as_json: bool) -> int:
    if as_json:
        for kind in ALL_KINDS.values():
            emit(json.dumps(_described(kind)))
        return 0
    rows = [["kind", "options", "what it is"]]
    rows += [[k.name, " ".join(o.name for o in k.options), _help(k)] for k in ALL_KINDS.values()]
    emit(listing(rows))
    emit("\nA file, a folder or org/name of the hub is a dataset; FILE.py:FUNCTION is python; `workbench tasks NAME`")
    emit("shows the options of a kind.")
    return 0


def _one(kind: Kind, gym: str, *, as_json: bool) -> None:
    options = [[o.name, default_of(o), o.allowed, o.help] for o in kind.options]
    own: dict[str, tuple[object, str]] = {}
    names: list[str] = []
    if kind.name == GYM and (gym or find_spec(EXTRAS[GYM]) is not None):
        from engine.tasks.gym_options import gym_names, gym_options

        own, names = (gym_options(gym), []) if gym else ({}, gym_names())
        options += [[name, _written(default), words, f"of {gym}"] for name, (default, words) in own.items()]
    if as_json:
        more: dict[str, object] = {"names": names} if names else {}
        more |= {"own": {name: {"default": repr(d), "type": words} for name, (d, words) in own.items()}} if own else {}
        emit(json.dumps({**_described(kind), **more}))
        return
    emit(f"{kind.name}: {_help(kind)}\n")
    emit(listing([["option", "default", "allowed", "what it does"], *options]))
    if kind.others:
        emit(f"\nOther options {kind.others}.")
    if names:
        emit(f"\n{len(names)} names: {', '.join(names)}\n`workbench tasks {GYM}:NAME` shows the options of one.")


def _described(kind: Kind) -> dict[str, object]:
    return {
        "kind": kind.name,
        "help": kind.help,
        "needs": kind.needs,
        "options": [{"name": o.name, "default": o.default, "allowed": o.allowed, "help": o.help} for o in kind.options],
    }


def _help(kind: Kind) -> str:
    return f"{kind.help} (extra {kind.needs})" if kind.needs else kind.help


def _written(default: object) -> str:
    text = ",".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    return text if len(text) <= 24 else text[:23] + "…"
