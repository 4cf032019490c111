"""``workbench``, ``run`` and ``attach``: what starts engines and opens the app."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from sessions.errors import EngineEnded, SessionError, SessionRunning, UsageError
from sessions.folders import SessionFolder, all_sessions, check_session_name, new_session, session_folder, sessions_home
from sessions.hyperparameters import parse_assignment
from sessions.presets import preset
from sessions.records import SessionSettings, Status
from workbench.daemon import discard, last_seq, last_step, restart_session, start_engine, start_session, until_ready
from workbench.output import ProgressLine, duration, need_terminal, say
from workbench.settings import check_settings, person, preferences

GIVEN = (
    "model", "lora", "task", "rewards", "reward_timeout", "seed", "steps", "device", "precision", "threads", "nice",
    "chat_template", "sets",
    "plain", "micro_tokens", "allow_sampler_mismatch", "trust_remote_code", "preset", "track", "reward_model",
    "keep_last", "keep_best", "keep_every",
    "warm_up", "warm_up_epochs", "warm_up_learning_rate", "warm_up_batch",
)  # fmt: skip
"""What ``run`` takes of the settings of a session; None where it was not given."""
HOW = ("steps", "track", "keep_last", "keep_best", "keep_every")
"""Those that say how it is run and not what is trained: they may be given anew when it is continued."""


def open_list(arguments: argparse.Namespace) -> int:
    """``workbench``: the list of sessions."""
    need_terminal("`workbench list` prints the sessions")
    return open_app(None, who=person(arguments))


def attach(arguments: argparse.Namespace) -> int:
    """``workbench attach``: watch a session and work with it; one that has ended is shown from its records."""
    need_terminal("`workbench follow S` prints what happens")
    folder = session_folder(arguments.session) if arguments.session else _only_running()
    return open_app(folder, who=person(arguments), read_only=arguments.read_only, **how_shown(arguments))


def how_shown(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of the screens on the command line, over the person's settings."""
    return ({"slow": True} if arguments.slow else {}) | ({"marks": arguments.marks} if arguments.marks else {})


def _only_running() -> SessionFolder:
    running = [folder for folder in all_sessions() if folder.running()]
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(sorted(folder.name for folder in running))
        raise UsageError(f"several sessions are running; name one of them: {names}")
    raise SessionError("no session is running; `workbench run` starts one, `workbench list` shows those that ended")


def open_app(folder: SessionFolder | None, **options: Any) -> int:
    """The screens in this terminal, until the person leaves."""
    likes = preferences()
    from screens.app import run_app  # Textual takes a while to import: not before it is known to be needed

    line = run_app(
        folder,
        mouse=likes.mouse,
        **{
            "theme": likes.theme,
            "marks": likes.marks,
            "slow": likes.slow,
            "keymap": likes.keys,
            "start_session": start_session,
            "restart_session": restart_session,
            **options,
        },
    )
    if line:
        say(line)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """``workbench run``: a new session, or one that has ended continued."""
    if arguments.json and not arguments.headless:
        raise UsageError("--json prints the steps of a run without screens; add --headless")
    if not arguments.headless:
        need_terminal("add --headless to train without screens")
    if arguments.algorithm is not None:
        arguments.sets = _with_algorithm(arguments.algorithm, arguments.sets or (), arguments.preset or "")
    who = person(arguments)
    folder, fresh = _session(arguments)
    since, before = last_seq(folder), last_step(folder)
    supervisor = start_engine(folder)
    try:
        _wait(folder, supervisor)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        if fresh:
            discard(folder)
        raise SessionError("interrupted while the engine was loading; it was stopped") from None
    except EngineEnded as error:
        if last_step(folder) == before:  # else it has trained before it could be seen, and is told about below
            _give_up(folder, error, fresh=fresh)
    if not arguments.headless:
        return open_app(folder, who=who)
    from workbench.headless import run_headless

    return asyncio.run(run_headless(folder, since, who=who, as_json=arguments.json))


def _with_algorithm(algorithm: str, sets: Sequence[str], published: str) -> list[str]:
    """What ``--set`` was given, with the algorithm first.

    :raises UsageError: if something else on the line names another.
    """
    given = [(f"--set {text}", parse_assignment(text)) for text in sets]
    others = [(what, a.value) for what, a in given if a.name == "algorithm" and a.step is None]
    if published:
        others.append((f"--preset {published}", preset(published).values.get("algorithm", algorithm)))
    for what, other in others:
        if other != algorithm:
            raise UsageError(f"--algorithm {algorithm} does not go with {what}, which is for {other}; leave one out")
    return [f"algorithm={algorithm}", *sets]


def _give_up(folder: SessionFolder, error: EngineEnded, *, fresh: bool) -> NoReturn:
    """Raise what ended an engine while it was loading; a new session goes with it."""
    kept = discard(folder) if fresh else folder.log
    if error.exit_code == 2 or kept is None:
        raise error
    raise EngineEnded(f"the engine of {folder.name!r} ended while loading: {error}; its log: {kept}", None)


def _session(arguments: argparse.Namespace) -> tuple[SessionFolder, bool]:
    """The session to run, and whether it is new.

    :raises WorkbenchError: before anything is written, if it cannot be run so.
    """
    given = {name: getattr(arguments, name) for name in GIVEN if getattr(arguments, name) is not None}
    if arguments.name is not None and (sessions_home() / check_session_name(arguments.name) / "session.toml").exists():
        return _continued(session_folder(arguments.name), given, paused=arguments.paused), False
    settings = msgspec.structs.replace(SessionSettings(name=arguments.name or ""), **given, paused=arguments.paused)
    return new_session(arguments.name, check_settings(settings)), True


def _continued(folder: SessionFolder, given: Mapping[str, Any], *, paused: bool) -> SessionFolder:
    """A session that has ended, as it was started; only how far it goes and where it is mirrored to may be given anew.

    :raises SessionRunning: if it has an engine.
    :raises UsageError: if other settings were given.
    """
    if folder.running():
        raise SessionRunning(f"session {folder.name!r} is running; `workbench attach {folder.name}` shows it")
    before = folder.settings()
    wanted = check_settings(msgspec.structs.replace(before, **given), warmed=any(folder.checkpoints.glob("[0-9]*")))
    for name in given.keys() - set(HOW):
        was, now = getattr(before, name), getattr(wanted, name)
        if was != now:
            raise UsageError(
                f"session {folder.name!r} was started with {_flag(name, was)}, not {_flag(name, now)}; "
                f"leave that out to continue it; then `workbench send {folder.name} fork NAME ...` tries it on a branch"
            )
    # how it is run this time, not what is trained
    ran = msgspec.structs.replace(before, paused=paused, **{name: getattr(wanted, name) for name in HOW})
    if ran != before:
        folder.write_settings(ran)
    return folder


def start_paused(folder: SessionFolder) -> None:
    """Start an engine for a session that has none; it waits before its next step, even if it has made all of them.

    How the session is run otherwise stays as it was.

    :raises WorkbenchError: if it does not load.
    """
    before = folder.settings()
    _continued(folder, {"steps": 0}, paused=True)
    supervisor = start_engine(folder)
    try:
        _wait(folder, supervisor)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise SessionError("interrupted while the engine was loading; it was stopped") from None
    finally:
        folder.write_settings(before)


def _flag(name: str, value: object) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, list):
        option = {"sets": "--set", "rewards": "--reward"}.get(name, f"--{name}")
        return " ".join(f"{option} {text}" for text in value) or f"no {option}"
    name = name.replace("_", "-")
    if name in ("allow-sampler-mismatch", "trust-remote-code"):
        return f"--{name}" if value else f"no --{name}"
    if isinstance(value, bool):
        flag = f"--no-{name}"
        return f"no {flag}" if value else flag
    return f"--{name} {value}" if value or name == "seed" else f"no --{name}"


def _wait(folder: SessionFolder, supervisor: subprocess.Popen[bytes]) -> None:
    """Show that the engine loads until it has, on one line."""
    progress, started = ProgressLine(), time.monotonic()

    def report(status: Status | None) -> None:
        what = "starting the engine" if status is None else status.note or f"{status.phase} {status.session}"
        if progress.live:
            progress.update(f"{folder.name}: {what} ... {duration(time.monotonic() - started)}")

    say(f"session {folder.name}")
    try:
        asyncio.run(until_ready(folder, supervisor, report))
    finally:
        if progress.live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
