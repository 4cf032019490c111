"""Completion in shells: ``workbench completion bash`` prints what a shell reads, and the shell then asks here.

argcomplete reads the parser itself; this adds what only the sessions on the disk and the tables know. It runs at every
press of tab, so nothing slow is imported, and what goes wrong completes nothing.
"""

from __future__ import annotations

import argparse
import ast
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.shell_integration import shellcode

from sessions.hyperparameters import HYPERPARAMETERS
from sessions.knob import Hyperparameter
from sessions.paths import expanded
from sessions.run_settings import SETTINGS

SHELLS = {
    "bash": 'eval "$(workbench completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(workbench completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "workbench completion fish | source    # in ~/.config/fish/config.fish",
}
"""Shells, and the line that switches completion on."""
Completer = Callable[..., Iterable[str]]
_FILES = argcomplete.completers.FilesCompleter


def print_script(arguments: argparse.Namespace) -> int:
    """``workbench completion SHELL``."""
    from workbench.output import emit  # brings what no shell that asks needs

    emit(f"{shellcode(['workbench'], True, arguments.shell).strip()}\n# {SHELLS[arguments.shell]}")
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks, and end the process; what goes wrong is nothing to print between its keys."""
    _equip(parser)
    try:
        argcomplete.autocomplete(parser, always_complete_options=False)
    except Exception:  # noqa: BLE001
        os._exit(1)


def _equip(parser: argparse.ArgumentParser) -> None:
    """Give every argument the completer for what it takes."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _equip(command)
        elif action.nargs != 0 and not action.choices:
            completer = _completer(action, parser.prog.split()[-1])
            action.completer = completer or _nothing  # type: ignore[attr-defined]


def _nothing(**_: Any) -> tuple[str, ...]:
    """For numbers and new names: else argcomplete offers files."""
    return ()


def _completer(action: argparse.Action, command: str) -> Completer | None:
    wanted: dict[str, Completer] = {
        "session": _sessions,
        "name": _kinds_of_task if command == "tasks" else _sessions,
        "kind": _kinds_of_reward,
        "file": _FILES(("toml",) if command in ("run", "new") else ("jsonl",)),
        "sets": _knobs,
        "values": _knobs,
        "words": _words,
        "branches": _branches,
        "branch": _branches,
        "metrics": _metrics,
        "watches": _metrics,
        "mode": _modes,
        "rule": _rules,
        "model": _names(("tiny", "smollm2"), _FILES()),
        "task": _tasks,
        "rewards": _rewards,
        "algorithms": _algorithms,
        "lora": _names(("r=",)),
    }
    setting = SETTINGS.get(action.dest)
    if action.dest in wanted:
        return wanted[action.dest]
    if setting is not None and setting.choices:
        return _names(setting.choices)
    if action.metavar in ("DIR", "FILE") or (setting is not None and setting.kind == "path"):
        return _FILES()
    return None


def _names(names: Iterable[str], files: Completer | None = None) -> Completer:
    def complete(prefix: str, **said: Any) -> list[str]:
        return [*(name for name in names if name.startswith(prefix)), *(files(prefix, **said) if files else ())]

    return complete


def _sessions(prefix: str = "", **_: Any) -> list[str]:
    """Names of sessions, as their folders say; a file of the disk would be one for `export` and `rate` too."""
    with os.scandir(_home() / "sessions") as entries:
        return sorted(e.name for e in entries if e.name.startswith(prefix) and os.path.exists(f"{e.path}/session.toml"))


def _home() -> Path:
    given = os.environ.get("WORKBENCH_HOME")
    if given:
        return expanded(given)
    from sessions.folders import home

    return home()


def _branches(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Names of a session's branches; nothing where its database is not there."""
    path = _home() / "sessions" / str(parsed_args.session) / "session.db"
    if "/" in str(parsed_args.session) or not path.is_file():
        return []
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.2)
    try:
        return [row[0] for row in database.execute("SELECT name FROM branches")]
    except sqlite3.Error:
        return []
    finally:
        database.close()


def _knobs(prefix: str, **_: Any) -> list[str]:
    """``NAME=``, and after that the values of a choice."""
    name, equals, _value = prefix.partition("=")
    if not equals:
        return [f"{known}=" for known in HYPERPARAMETERS]
    knob = HYPERPARAMETERS.get(name)
    return [f"{name}={value}" for value in _values(knob)] if knob else []


def _values(knob: Hyperparameter) -> tuple[str, ...]:
    return ("async", "wait", "timeout") if knob.kind == "gate" else knob.choices


def _words(prefix: str, parsed_args: argparse.Namespace, **said: Any) -> Iterable[str]:
    """What comes after ``send S``: a command, then what that command takes."""
    from sessions.commands import WORDS

    words = [word for word in getattr(parsed_args, "words", None) or [] if word]
    if not words:
        return list(WORDS)
    usage = WORDS[words[0]].usage if words[0] in WORDS else ""
    found: list[str] = []
    if "NAME=VALUE" in usage:
        found += _knobs(prefix)
    if "BRANCH" in usage:
        found += _branches(parsed_args)
    if words[0] == "preset":
        found += SETTINGS["preset"].choices
    if words[0] in ("preview", "race"):
        found += _algorithms()
    if words[0] in ("watch", "unwatch"):
        found += [*_metrics(), *_watches()]
    if prefix.startswith("-"):
        found += [part.strip("[]") for part in usage.split() if part.strip("[").startswith("--")]
    return found


def _metrics(**_: Any) -> list[str]:
    from sessions.metrics import METRICS

    return list(METRICS)


def _watches() -> list[str]:
    from sessions.watches import DEFAULT_WATCHES

    return [watch.name for watch in DEFAULT_WATCHES]


def _modes(**_: Any) -> list[str]:
    from sessions.modes import MODES

    return list(MODES)


def _rules(**_: Any) -> tuple[str, ...]:
    return ("newest", "random", "spread")


def _algorithms(**_: Any) -> list[str]:
    return list(HYPERPARAMETERS["algorithm"].choices)


def _tasks(prefix: str, **said: Any) -> list[str]:
    from sessions.task_kinds import SUFFIXES, TASK_KINDS

    files = _FILES((*(s[1:] for s in SUFFIXES), "py"))
    return _functions(prefix) or list(_names(TASK_KINDS, files)(prefix, **said))


def _rewards(prefix: str, **said: Any) -> list[str]:
    from sessions.reward_kinds import REWARD_KINDS

    return _functions(prefix) or list(_names(REWARD_KINDS, _FILES(("py",)))(prefix, **said))


def _functions(prefix: str) -> list[str]:
    """After ``file.py:`` the functions of that file, which is read and not run."""
    path, colon, _ = prefix.partition(".py:")
    if not colon:
        return []
    tree = ast.parse(expanded(f"{path}.py").read_bytes())
    named = (node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return [f"{path}.py:{name}" for name in named if not name.startswith("_")]


def _kinds_of_task(**_: Any) -> list[str]:
    from sessions.task_kinds import ALL_KINDS

    return list(ALL_KINDS)


def _kinds_of_reward(**_: Any) -> list[str]:
    from sessions.reward_kinds import REWARD_KINDS

    return list(REWARD_KINDS)
