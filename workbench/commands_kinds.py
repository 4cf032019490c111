"""``rewards``: what is built in, with its options, from the one table of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sessions.errors import UnknownName
from sessions.reward_kinds import COMMON, REWARD_KINDS
from sessions.specs import Kind, Option, shown
from workbench.output import emit, listing


def rewards(arguments: argparse.Namespace) -> int:
    """``workbench rewards [NAME]``: every built-in reward, or one with its options and an example."""
    return print_kinds("reward", REWARD_KINDS, arguments.kind, json_lines=arguments.json, common=COMMON)


def print_kinds(
    what: str, kinds: Mapping[str, Kind], name: str | None, *, json_lines: bool, common: Iterable[Option] = ()
) -> int:
    """Kinds as a table, one of them with its options, or either as JSON lines.

    :param what: they are, such as ``reward``.
    :param common: options that all of them take, left out of the table of all.
    :raises UnknownName: if there is none of that name.
    """
    if name is not None and name not in kinds:
        raise UnknownName(what, name, kinds)
    chosen = list(kinds.values()) if name is None else [kinds[name]]
    if json_lines:
        for kind in chosen:
            emit(json.dumps(_as_json(kind)))
    elif name is None:
        shared = set(common)
        rows = [[what, "options", "what it is"]]
        rows += [[k.name, " ".join(o.name for o in k.options if o not in shared), k.help] for k in chosen]
        emit(listing(rows))
    else:
        _one(what, kinds[name])
    return 0


def default_of(option: Option) -> str:
    """A default as it is shown: ``needed`` where there is none, ``-`` for an empty one."""
    return "needed" if option.default is None else shown(option.default) or "-"


def _one(what: str, kind: Kind) -> None:
    emit(f"{kind.name}: {kind.help}")
    if kind.counterpart:
        emit(f"elsewhere: {kind.counterpart}")
    if kind.needs:
        emit(f"needs: pip install 'rl-workbench[{kind.needs}]'")
    if kind.example:
        emit(f'example: workbench run --{what} "{kind.example}"')
    if kind.options:
        rows = [["option", "default", "allowed", "what it is"]]
        emit("\n" + listing(rows + [[o.name, default_of(o), o.allowed, o.help] for o in kind.options]))


def _as_json(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "help": kind.help,
        "needs": kind.needs,
        "example": kind.example,
        "counterpart": kind.counterpart,
        "options": [
            {
                "name": o.name,
                "kind": o.kind,
                "default": o.default,
                "needed": o.default is None,
                "allowed": o.allowed,
                "help": o.help,
            }
            for o in kind.options
        ],
    }
