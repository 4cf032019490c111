"""``workbench``, ``run`` and ``attach``: what starts engines and opens the app."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from sessions.errors import EngineEnded, SessionError, SessionRunning, UsageError
from sessions.folders import SessionFolder, all_sessions, check_session_name, new_session, session_folder, sessions_home
from sessions.records import SessionSettings, Status
from sessions.run_settings import SETTINGS, canonical_sets, combined
from sessions.settings_file import read_settings_file
from sessions.starts import Source
from workbench.daemon import discard, last_seq, last_step, restart_session, start_engine, start_session, until_ready
from workbench.output import ProgressLine, duration, need_terminal, say
from workbench.run_options import given_settings
from workbench.settings import check_settings, person, preferences


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
    who = person(arguments)
    if arguments.file == "":
        raise UsageError("the name of the settings file is empty; give FILE.toml, or leave it out")
    file = read_settings_file(Path(arguments.file)) if arguments.file is not None else None
    folder, fresh = _session(combined(file.given if file else {}, given_settings(arguments)))
    source = Source(command=["workbench", *sys.argv[1:]], file=file)
    since, before = last_seq(folder), last_step(folder)
    supervisor = start_engine(folder, source)
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


def _give_up(folder: SessionFolder, error: EngineEnded, *, fresh: bool) -> NoReturn:
    """Raise what ended an engine while it was loading; a new session goes with it."""
    kept = discard(folder) if fresh else folder.log
    if error.exit_code == 2 or kept is None:
        raise error
    raise EngineEnded(f"the engine of {folder.name!r} ended while loading: {error}; its log: {kept}", None)


def _session(given: dict[str, Any]) -> tuple[SessionFolder, bool]:
    """The session to run, and whether it is new.

    :param given: by the command line and a settings file together.
    :raises WorkbenchError: before anything is written, if it cannot be run so.
    """
    name, paused = given.pop("name", None), given.pop("paused", False)
    if name is not None and (sessions_home() / check_session_name(name) / "session.toml").exists():
        return _continued(session_folder(name), given, paused=paused), False
    settings = msgspec.structs.replace(SessionSettings(name=name or ""), **given, paused=paused)
    return new_session(name, check_settings(settings)), True


def _continued(folder: SessionFolder, given: Mapping[str, Any], *, paused: bool) -> SessionFolder:
    """A session that has ended, as it was started; only how far it goes and where it is mirrored to may be given anew.

    :raises SessionRunning: if it has an engine.
    :raises UsageError: if other settings were given.
    """
    if folder.running():
        raise SessionRunning(f"session {folder.name!r} is running; `workbench attach {folder.name}` shows it")
    before = folder.settings()
    wanted = check_settings(msgspec.structs.replace(before, **given), warmed=any(folder.checkpoints.glob("[0-9]*")))
    anew = {name for name, setting in SETTINGS.items() if setting.anew} - {"paused"}
    for name in sorted(given.keys() - anew, key=lambda name: (name == "sets", name)):
        was, now = getattr(before, name), getattr(wanted, name)
        if name == "sets":
            was = canonical_sets(was)
        if was != now:
            raise UsageError(
                f"session {folder.name!r} was started with {_flag(name, was)}, not {_flag(name, now)}; "
                f"leave that out to continue it; then `workbench send {folder.name} fork NAME ...` tries it on a branch"
            )
    # how it is run this time, not what is trained
    ran = msgspec.structs.replace(before, paused=paused, **{name: getattr(wanted, name) for name in anew})
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
    supervisor = start_engine(folder, Source(command=["workbench", *sys.argv[1:]]))
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
    setting = SETTINGS[name]
    if isinstance(value, list):
        return " ".join(f"{setting.option} {text}" for text in value) or f"no {setting.option}"
    if isinstance(value, bool):
        flag = f"--no-{setting.option[2:]}" if setting.default else setting.option
        return flag if value is not setting.default else f"no {flag}"
    return f"{setting.option} {value}" if value or name == "seed" else f"no {setting.option}"


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
