"""The list of sessions."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from screens.app import WorkbenchApp
from screens.session_form import fields_of, settings_of
from sessions.errors import SessionError, UsageError
from sessions.folders import SessionFolder, new_session
from sessions.records import SessionSettings, StepRecord
from sessions.store import Store
from tests.screens.fake_engine import FakeEngine, fake_group
from tests.screens.frames import frame, until, until_shown


def ended_session(name: str = "old-1") -> SessionFolder:
    """A session on the disk, without an engine."""
    folder = new_session(name, SessionSettings(name=name))
    store = Store(folder.database)
    for step, reward in enumerate([0.1, 0.6, 0.3], start=1):
        store.add_step(
            StepRecord(branch="main", step=step, time=1000.0 + step, metrics={"reward/mean": reward}), [], 500
        )
    store.close()
    return folder


async def test_no_session_says_how_to_start_one(home: Path) -> None:
    app = WorkbenchApp(None, marks="braille")
    async with app.run_test(size=(80, 24)):
        await until_shown(app, "no session on this machine yet: workbench run starts one")


async def test_running_and_ended_sessions_are_listed_and_enter_attaches(engine: FakeEngine) -> None:
    ended_session()
    app = WorkbenchApp(None, marks="braille")
    async with app.run_test(size=(100, 24)) as pilot:
        text = await until_shown(app, "gsm8k-grpo", "RUN", "old-1", ".600 @2", "2 sessions, 1 running")
        assert text.index("gsm8k-grpo") < text.index("old-1"), "running ones first"
        await pilot.press("d", "space")
        assert app.current_mode == "sessions"
        await pilot.press("enter")
        await until_shown(app, "gsm8k-grpo/main", "reward")


async def test_an_ended_session_shows_what_was_recorded(home: Path) -> None:
    folder = ended_session()
    app = WorkbenchApp(folder, marks="braille")
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(app, "FAILED", "the engine is gone")
        await pilot.press("w")
        await until_shown(app, "best .600 @2")


async def test_the_samples_of_an_ended_session_can_be_read(home: Path) -> None:
    folder = ended_session()
    store = Store(folder.database)
    store.add_groups([fake_group(3, number) for number in (1, 2)])
    store.close()
    app = WorkbenchApp(folder, marks="braille")
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(app, "FAILED")
        await pilot.press("s")
        await until_shown(app, "3.2", "it arrives at")
        await pilot.press("colon", *"group 3.1", "enter")
        await until_shown(app, '"number": 1')


async def test_a_new_session_is_started_from_the_form(engine: FakeEngine) -> None:
    given: list[SessionSettings] = []

    async def start(settings: SessionSettings) -> SessionFolder:
        given.append(settings)
        if settings.task == "nothing":
            raise SessionError("there is no task nothing; columns: \x1b]0;a")
        return engine.folder

    app = WorkbenchApp(None, marks="braille", start_session=start)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(app, "a new")
        await pilot.press("a")
        await until_shown(app, "a new session", "arithmetic", "tiny")
        await pilot.press("tab", *["backspace"] * 12, *"nothing", "enter")
        await until_shown(app, "a new session", "there is no task nothing; columns: ␛]0;a", "task        nothing")
        await pilot.press("tab", *["backspace"] * 7, *"arithmetic")
        await pilot.press("tab", "tab", "tab", "tab", *"group_size=4", "enter")
        await until_shown(app, "gsm8k-grpo/main")
    assert given[-1].sets == ["group_size=4"]
    assert given[-1].task == "arithmetic"


async def test_what_a_file_makes_the_form_say_reaches_no_terminal_as_a_command(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('"\\u001b]0;a" = 1\n')

    async def start(settings: SessionSettings) -> SessionFolder:
        raise SessionError("nothing is started")

    app = WorkbenchApp(None, marks="braille", start_session=start)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(app, "a new")
        await pilot.press("a")
        await until_shown(app, "a new session")
        app.screen.query_one("#field-file", Input).value = str(path)
        await pilot.press("enter")
        text = await until_shown(app, "unknown setting")
        assert "\x1b" not in text


def test_the_form_refuses_what_is_wrong() -> None:
    good = {"model": "", "task": "", "algorithm": "grpo", "steps": "", "name": "", "sets": ""}
    assert settings_of(good).model == "tiny"
    for field, value in (("steps", "-1"), ("name", "a/b"), ("sets", "no_such=1"), ("algorithm", "sorcery")):
        with pytest.raises(Exception, match=r"\S"):
            settings_of({**good, field: value})


def test_the_form_takes_a_warm_up_and_fills_it_in_again() -> None:
    plain = {"model": "", "task": "", "algorithm": "grpo", "steps": "", "name": "", "sets": ""}
    settings = settings_of({**plain, "warm_up": "'my sums.jsonl' epochs=3 learning_rate=1e-3"})
    assert (settings.warm_up, settings.warm_up_epochs, settings.warm_up_learning_rate) == ("my sums.jsonl", 3, 1e-3)
    assert fields_of(settings)["warm_up"] == "'my sums.jsonl' epochs=3 learning_rate=0.001"
    assert settings_of(fields_of(settings)) == settings
    assert fields_of(settings_of(plain))["warm_up"] == ""
    for wrong in ("f.jsonl epoch=3", "f.jsonl batch=many"):
        with pytest.raises(ValueError, match="warm-up: "):
            settings_of({**plain, "warm_up": wrong})


async def test_deleting_wants_the_name_and_never_takes_a_running_session(engine: FakeEngine) -> None:
    folder = ended_session()
    app = WorkbenchApp(None, marks="braille")
    async with app.run_test(size=(100, 24)) as pilot:
        await until_shown(app, "old-1")
        await pilot.press("X")
        await until_shown(app, "gsm8k-grpo is running; stop it first")
        await pilot.press("j", "X")
        await until_shown(app, "Delete old-1?")
        await pilot.press(*"old", "enter")
        await until_shown(app, "nothing was done")
        assert folder.path.exists()
        await pilot.press(*"-1", "enter")
        await until(lambda: not folder.path.exists())
        await until(lambda: "old-1" not in frame(app).replace("deleted old-1", ""))


async def test_the_filter(engine: FakeEngine) -> None:
    ended_session()
    app = WorkbenchApp(None, marks="braille")
    async with app.run_test(size=(100, 24)) as pilot:
        await until_shown(app, "old-1")
        await pilot.press("slash", *"gsm", "enter")
        await until(lambda: "old-1" not in frame(app))


def test_the_form_takes_a_settings_file_and_what_is_typed_wins_over_it(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(
        'steps = 9\nalgorithm = "ppo"\n[[reward]]\nuse = "exact"\n[hyperparameters]\nepochs = 2\nclip_low = 0.1\n'
    )
    given = {"model": "", "task": "", "algorithm": "grpo", "steps": "0", "name": "n", "sets": "epochs=3"}
    settings = settings_of({**given, "file": str(path)})
    assert (settings.steps, settings.rewards, settings.name) == (9, ["exact"], "n")
    assert settings.sets == ["algorithm=ppo", "clip_low=0.1", "epochs=3"]
    again = settings_of({**fields_of(settings), "steps": "5"}, settings)
    assert again.rewards == ["exact"], "what has no field stays when the form is opened again"
    assert (again.steps, sorted(again.sets)) == (5, sorted(settings.sets))
    path.write_text("stps = 9\n")
    with pytest.raises(UsageError, match="did you mean steps"):
        settings_of({**given, "file": str(path)})
