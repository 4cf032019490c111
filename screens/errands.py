"""What keys start that takes more than one line: the stop dialog, a query's answer, restarting an engine, the pager."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from textual.app import SuspendNotSupported
from textual.screen import ModalScreen

from screens.dialogs import ConfirmDialog, TextDialog
from screens.link import Link
from screens.numbers import span
from sessions.branches import BranchInfo, Probe
from sessions.commands import (
    Command,
    QueryBranches,
    QueryEvaluation,
    QueryPlan,
    QueryProbes,
    QueryRewardModel,
    QueryRose,
    QueryWatches,
    Stop,
)
from sessions.errors import WorkbenchError
from sessions.evaluations import EvaluationView
from sessions.plans import Plan
from sessions.reward_models import RewardModelState, reward_model_lines
from sessions.rose import Roses
from sessions.watch_book import WatchState, state_lines
from sessions.wire import Answer

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen


def ask_to_stop(screen: WorkbenchScreen) -> None:
    """The dialog behind ``Q``: the age of the last checkpoint, and a word to type."""
    live = screen.live
    last = "There is no checkpoint yet."
    if live.checkpoints:
        newest = live.checkpoints[-1]
        last = f"The last checkpoint is {span(live.clock() - newest.time)} old (step {newest.step})."
    saving = "A checkpoint is written before the engine leaves."
    if live.warming:
        saving = "Nothing is saved: the warm-up will begin again."
    lines = [last, saving, "q only detaches: the training goes on."]

    def answered(yes: bool | None) -> None:
        if yes:
            screen.send(Stop())

    screen.app.push_screen(ConfirmDialog(f"Stop the session {live.name}?", lines, "stop"), answered)


def show_answer(screen: WorkbenchScreen, query: Command, title: str) -> None:
    """Ask the engine and show what it says."""

    async def ask() -> None:
        try:
            async for answer in screen.workbench.send(query):
                if answer.status == "rejected":
                    screen.say(answer.text, "error")
                else:
                    screen.app.push_screen(_dialog(query, title, answer))
        except WorkbenchError as error:
            screen.say(str(error), "error")

    screen.run_worker(ask(), group="ask", exit_on_error=False)


def _dialog(query: Command, title: str, answer: Answer) -> ModalScreen[None]:
    """What shows an answer; one of an engine of another version is shown as it is."""
    if isinstance(query, QueryRose):
        from screens.rose import RoseDialog

        with contextlib.suppress(msgspec.ValidationError):
            return RoseDialog(msgspec.json.decode(answer.data, type=Roses))
    if isinstance(query, QueryEvaluation):
        from screens.evaluation import EvaluationDialog

        with contextlib.suppress(msgspec.ValidationError):
            return EvaluationDialog(msgspec.json.decode(answer.data, type=EvaluationView))
    lines = answer.text.split("\n") if answer.text else in_lines(query, answer.data)
    return TextDialog(title, lines)


def show_long_answer(screen: WorkbenchScreen) -> None:
    """The newest answer that was longer than a line, to read."""
    if screen.workbench.long_answer is None:
        screen.say("no command has had a long answer yet")
    else:
        screen.app.push_screen(TextDialog(*screen.workbench.long_answer))


def restart(screen: WorkbenchScreen) -> None:
    """Start an engine for the session on the screen, which has none."""
    app = screen.workbench
    folder, start, link = app.folder, app.restart_session, app.link
    if folder is None or start is None or not isinstance(link, Link):
        return

    async def again() -> None:
        live = app.live
        live.restarting = True
        try:
            await start(folder)
            link.expect()
        except WorkbenchError as error:
            live.restarting = False
            screen.say(str(error), "error")
            link.hurry()

    screen.run_worker(again(), group="restart", exclusive=True, exit_on_error=False)


def export_session(screen: WorkbenchScreen, to: str, target: str) -> None:
    """Write the session on the screen, or the file that is rated, to a folder, in a thread; the screen says what became
    of it."""
    from sessions.export import export  # what few need is loaded when they do: attaching does not wait for it

    folder, filed = screen.workbench.folder, screen.workbench.rating_file
    if filed is not None:
        from sessions.export_rated import export_rated

        work = partial(export_rated, filed.file.path, filed.file.output, to, Path(target))
    elif folder is not None:
        work = partial(export, folder, to, Path(target))
    else:
        return

    async def write() -> None:
        screen.say(f"exporting to {target} ...")
        try:
            done = await asyncio.to_thread(work)
            screen.say(done.describe()[-1])
        except WorkbenchError as error:
            screen.say(str(error), "error")
        except OSError as error:
            screen.say(f"{error.filename or target}: {error.strerror}", "error")

    screen.run_worker(write(), group="export", exit_on_error=False)


def open_in_pager(screen: WorkbenchScreen, text: str) -> None:
    """Show text in $PAGER; the screen waits meanwhile, the engine does not."""
    words = shlex.split(os.environ.get("PAGER") or "less")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", prefix="workbench-", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            with screen.app.suspend():
                subprocess.run([*words, file.name], check=False)
        except OSError as error:
            screen.say(f"{words[0]} cannot be started ({error.strerror}); set PAGER", "error")
        except SuspendNotSupported:
            screen.say("this terminal cannot be handed to another program", "error")
    screen.app.refresh()


def in_lines(query: Command, data: str) -> list[str]:
    """What a query was answered, in lines: watches as a table, a plan in words, other records as JSON."""
    from screens.branch_words import aligned, branch_table
    from screens.probe_lines import probe_words

    try:
        if isinstance(query, QueryWatches):
            return state_lines(msgspec.json.decode(data, type=list[WatchState]))
        if isinstance(query, QueryPlan):
            return msgspec.json.decode(data, type=Plan).describe().split("\n")
        if isinstance(query, QueryRewardModel):
            return reward_model_lines(msgspec.json.decode(data, type=RewardModelState | None))
        if isinstance(query, QueryBranches):
            return aligned(branch_table(msgspec.json.decode(data, type=list[BranchInfo]), time.time()))
        if isinstance(query, QueryProbes):
            return probe_words(msgspec.json.decode(data, type=list[Probe]))
    except msgspec.ValidationError:
        pass  # from an engine of another version: shown as it is
    return pretty(data)


def pretty(data: str) -> list[str]:
    """A query's JSON in lines."""
    return msgspec.json.format(data, indent=2).splitlines()
