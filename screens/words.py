"""What may be typed after ``:``: the words of ``workbench send``, and those below."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from screens.errands import export_session, show_answer, show_long_answer
from sessions.commands import WORDS, Stop, parse_words
from sessions.errors import UnknownName, UsageError, WorkbenchError
from sessions.formats import FORMATS
from sessions.server import is_query

if TYPE_CHECKING:
    from screens.base import WorkbenchScreen


@dataclass(frozen=True, slots=True)
class ScreenWord:
    """A word that the screens answer themselves.

    :ivar run: the screen and what stands after the word.
    """

    usage: str
    help: str
    run: Callable[[WorkbenchScreen, list[str]], None]


def _goto(screen: WorkbenchScreen, arguments: list[str]) -> None:
    if len(arguments) != 1 or not re.fullmatch("[0-9]{1,15}", arguments[0]):
        raise UsageError("goto needs a step: goto 640")
    screen.workbench.goto(int(arguments[0]))


def _export(screen: WorkbenchScreen, arguments: list[str]) -> None:
    if len(arguments) < 2:
        raise UsageError(f"export needs a format ({', '.join(FORMATS)}) and a new folder: export jsonl ~/records")
    export_session(screen, arguments[0], " ".join(arguments[1:]))


def _answer(screen: WorkbenchScreen, arguments: list[str]) -> None:
    show_long_answer(screen)


def _guide(screen: WorkbenchScreen, arguments: list[str]) -> None:
    screen.workbench.show_guide()


def _quit(screen: WorkbenchScreen, arguments: list[str]) -> None:
    screen.workbench.detach()


def _help(screen: WorkbenchScreen, arguments: list[str]) -> None:
    screen.action_help()


SCREEN_WORDS: dict[str, ScreenWord] = {
    "goto": ScreenWord("STEP", "the charts around a step, with the crosshair on it", _goto),
    "export": ScreenWord("FORMAT DIR", "write the session to a new folder: " + ", ".join(FORMATS), _export),
    "answer": ScreenWord("", "the newest answer that was longer than a line", _answer),
    "guide": ScreenWord("", "the guide for whoever rates, to read and to change", _guide),
    "q": ScreenWord("", "detach; the training goes on", _quit),
    "quit": ScreenWord("", "detach; the training goes on", _quit),
    "help": ScreenWord("", "the keys and the words", _help),
}


def run_words(screen: WorkbenchScreen, text: str) -> None:
    """Do what was typed; what is wrong with it is said in one line."""
    name, *arguments = text.split()
    try:
        if name in SCREEN_WORDS:
            SCREEN_WORDS[name].run(screen, arguments)
            return
        if name not in WORDS:
            raise UnknownName("command", name, [*WORDS, *SCREEN_WORDS])
        command = parse_words(text)
    except WorkbenchError as error:
        screen.say(str(error), "error")
        return
    if isinstance(command, Stop):
        # The words are the confirmation that the dialog of Q asks for.
        screen.say("stopping at the next safe point")
    if is_query(command):
        show_answer(screen, command, text)
    else:
        screen.send(command)
