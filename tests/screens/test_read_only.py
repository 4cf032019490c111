"""A screen that only watches: whatever is pressed or typed, an engine is asked and never told."""

from __future__ import annotations

import pytest

from screens.keys import ACTIONS, CHANGING
from screens.read_only import REFUSAL
from sessions import commands as c
from sessions.server import is_query
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import frame, until, until_shown

MODES = ("dashboard", "samples", "rate", "parameters", "branches", "events")
_PRESSED = {
    " ": "space", ".": "full_stop", ":": "colon", "!": "exclamation_mark", "?": "question_mark", "<": "less_than_sign",
    ">": "greater_than_sign", "+": "plus", "-": "minus", "=": "equals_sign", "/": "slash", ",": "comma",
    "[": "left_square_bracket", "]": "right_square_bracket", "{": "left_curly_bracket", "}": "right_curly_bracket",
}  # fmt: skip
_SCOPES = {mode: (mode,) for mode in MODES} | {
    "dashboard": ("dashboard", "chart", "global"),
    "samples": ("samples", "list"),
}
LEAVES = ("detach", "pager", "interrupt")
"""Actions that end the app or hand the terminal to another program."""


def told(engine: FakeEngine) -> list[c.Command]:
    """What the engine was told to do, before anything refuses it."""
    return [command for command in engine.received if not is_query(command)]


@pytest.fixture
def deaf(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> list[c.Command]:
    """Every command that comes over the socket, those that the server refuses too."""
    came: list[c.Command] = []
    dispatch = engine.server._dispatch

    async def heard(connection: object, command: c.Command, *, limited: bool) -> None:
        came.append(command)
        await dispatch(connection, command, limited=limited)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.server, "_dispatch", heard)
    return came


@pytest.mark.parametrize("mode", MODES)
async def test_no_key_of_any_screen_sends_anything_but_questions(
    attach: Attach, engine: FakeEngine, deaf: list[c.Command], mode: str
) -> None:
    engine.add_branch("lower", 100, tip=110)
    started: list[object] = []

    async def start(what: object) -> None:
        started.append(what)

    async with attach((120, 36), mode, read_only=True, start_session=start, restart_session=start) as (app, pilot):
        for action in ACTIONS.values():
            if action.id in LEAVES or action.scope not in _SCOPES[mode]:
                continue
            app.switch_mode(mode)
            await pilot.press(_PRESSED.get(action.keys[0], action.keys[0]))
            await pilot.press("y", "enter")  # whatever was opened would be confirmed so
            while len(app.screen_stack) > 1:
                app.pop_screen()
            await pilot.press("escape")
            await pilot.pause()
        assert deaf  # the questions of the screens
        assert [command for command in deaf if not is_query(command)] == []
        assert started == []


@pytest.mark.parametrize(
    ("mode", "key"),
    [
        ("dashboard", "space"), ("dashboard", "full_stop"), ("dashboard", "C"), ("dashboard", "Q"),
        ("dashboard", "exclamation_mark"), ("rate", "5"), ("rate", "x"), ("rate", "c"), ("rate", "u"),
        ("parameters", "A"), ("parameters", "B"), ("parameters", "u"), ("parameters", "ctrl+r"),
        ("branches", "enter"), ("branches", "W"), ("branches", "B"), ("branches", "R"), ("branches", "X"),
    ],
)  # fmt: skip
async def test_a_key_that_would_change_something_says_so_in_one_line(attach: Attach, mode: str, key: str) -> None:
    async with attach((120, 36), mode, read_only=True) as (app, pilot):
        await pilot.pause()
        await until(lambda: mode != "branches" or "* is trained" in frame(app) or "no forks yet" in frame(app))
        await pilot.press(key)
        text = await until_shown(app, REFUSAL)
        assert text.count("read-only: ") == 1
        assert len(app.screen_stack) == 1


async def test_words_are_refused_and_questions_answered(
    attach: Attach, engine: FakeEngine, deaf: list[c.Command]
) -> None:
    async with attach(size=(120, 36), read_only=True) as (app, pilot):
        for words in ("pause", "set learning_rate 1e-5", "rewind 3", "stop", "rate 1.1A 5", "race grpo,ppo 3"):
            await pilot.press("colon", *words, "enter")
            await until_shown(app, REFUSAL)
            await pilot.press("escape")
        await pilot.press("colon", *"watches", "enter")
        await until(lambda: any(isinstance(command, c.QueryWatches) for command in deaf))
        assert [command for command in deaf if not is_query(command)] == []


async def test_the_first_line_says_so_and_the_footer_leaves_the_keys_out(attach: Attach, engine: FakeEngine) -> None:
    for mode in MODES:
        for size in ((60, 16), (80, 24), (160, 48)):
            async with attach(size, mode, read_only=True) as (app, pilot):
                await pilot.pause()
                lines = (await until_shown(app, "read-only", "detach")).split("\n")
                assert lines[0].endswith("read-only")
                assert lines[0].lstrip().startswith("RUN")
                assert "space pause" not in lines[-1]
                assert "? help" in lines[-1]
    async with attach(size=(160, 48)) as (app, _):
        assert "read-only" not in frame(app)
        assert "space pause" in frame(app)


async def test_what_is_staged_is_not_applied_and_stays(attach: Attach, engine: FakeEngine) -> None:
    async with attach(size=(120, 36), read_only=True) as (app, pilot):
        app.switch_mode("parameters")
        await pilot.pause()
        await pilot.press("plus", "A")
        await until_shown(app, REFUSAL)
        assert app.staging.staged
        assert told(engine) == []


def test_every_command_of_a_screen_is_behind_an_action_that_is_marked() -> None:
    assert {
        "pause", "step", "checkpoint", "acknowledge", "undo", "redo", "stop_session", "apply", "fork", "rewind",
        "rename", "delete", "skip", "comment", "new_session", "delete_session", "restart", "rate('likert', 5)",
    } <= CHANGING  # fmt: skip
    assert not {"command", "detach", "help", "copy", "pager", "reveal", "mode('rate')", "compare"} & CHANGING


async def test_people_see_each_other_by_name(attach: Attach, engine: FakeEngine) -> None:
    from sessions.client import attached

    async with attach(size=(160, 48), who="ann") as (app, _), attached(engine.server.path, "send", who="tuner"):
        engine.beat()
        await until_shown(app, "you", "tuner send")
        assert "ann" not in frame(app)


async def test_a_screen_sends_in_its_persons_name_and_with_the_branch_it_shows(
    attach: Attach, engine: FakeEngine
) -> None:
    async with attach(who="dr. no") as (_, pilot):
        words = ("pause", "rewind 3", "fork x", "switch lower", "race grpo,ppo 3", "race stop")
        for text in words:
            await pilot.press("colon", *text, "enter")
        await until(lambda: len(told(engine)) == len(words))
    assert {command.who for command in told(engine)} == {"dr. no"}
    assert [getattr(command, "expect", None) for command in told(engine)] == [None, "main", "main", "main", "main", ""]
