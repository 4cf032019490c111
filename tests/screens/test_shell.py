"""What every screen shares: state, commands and their answers, dialogs, leaving, and the end of an engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from screens.app import WorkbenchApp
from screens.base import WorkbenchScreen
from screens.dialogs import ConfirmDialog, TextDialog
from screens.widgets.command_line import CommandLine
from sessions import commands as c
from sessions.folders import SessionFolder
from sessions.store import Store
from sessions.watch_book import WatchState
from sessions.wire import Noted
from tests.screens.conftest import Attach
from tests.screens.fake_engine import FakeEngine
from tests.screens.frames import frame, until, until_shown
from tests.sessions.samples import group


def received(engine: FakeEngine, kind: type[c.Command]) -> list[c.Command]:
    return [command for command in engine.received if isinstance(command, kind)]


async def test_space_pauses_and_goes_on(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("space")
        await until_shown(app, "PAUSED", "paused by you at 12:00")
        await pilot.press("space")
        await until_shown(app, "RUN")
        assert len(received(engine, c.Pause)) == 1
        assert len(received(engine, c.Resume)) == 1


async def test_keys_send_their_commands(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("full_stop", "C")
        await until_shown(app, "checkpoint of step 121")
        assert received(engine, c.Step)
        assert received(engine, c.TakeCheckpoint)


async def test_alarms_are_shown_until_acknowledged_and_never_modal(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "! kl/k3 jump 5.2x @100", "! ack")
        engine.raise_alarm("83% dead groups", "error")
        await until_shown(app, "! 83% dead groups")
        assert len(app.screen_stack) == 1
        await pilot.press("exclamation_mark")
        await until(lambda: "! kl/k3" not in frame(app))
        await pilot.press("exclamation_mark")
        await until_shown(app, "no alarm to acknowledge")


async def test_watches_are_made_and_listed_on_every_screen(attach: Attach, engine: FakeEngine) -> None:
    engine.watches = [WatchState(name="kl/k3 high", rule="kl/k3 > 0.2 for 3 pause", on=True, state="quiet", own=True)]
    async with attach() as (app, pilot):
        for key in "1234":
            await pilot.press(key, "colon", *"watch kl/k3 > 0.2 for 3 pause", "enter")
        await until(lambda: len(received(engine, c.AddWatch)) == 4)
        assert {w.rule for w in received(engine, c.AddWatch)} == {"kl/k3 > 0.2 for 3 pause"}
        await pilot.press("colon", *"unwatch kl/k3 high", "enter")
        await until(lambda: received(engine, c.RemoveWatch))
        await pilot.press("colon", *"watch kl/k4 > 1", "enter")
        await until_shown(app, "did you mean kl/k3?")
        await pilot.press("colon", *"watches", "enter")
        await until_shown(app, "kl/k3 high  quiet, own  kl/k3 > 0.2 for 3 pause")
        await pilot.press("escape")
        engine.watches = [{"from": "another version"}]
        await pilot.press("colon", *"watches", "enter")
        await until_shown(app, '"from": "another version"')


async def test_a_rejected_command_says_why(attach: Attach, engine: FakeEngine) -> None:
    engine.refuse["checkpoint"] = "the disk is full"
    async with attach() as (app, pilot):
        await pilot.press("C")
        await until_shown(app, "rejected: the disk is full")


async def test_the_command_line_reads_the_words_of_send(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("colon", *"set learning_rate 3e-7", "enter")
        await until(lambda: received(engine, c.Set))
        command = received(engine, c.Set)[0]
        assert isinstance(command, c.Set)
        assert command.values == {"learning_rate": 3e-7}
        await until_shown(app, "lr 3e-7")
        await pilot.press("colon", *"sett x", "enter")
        await until_shown(app, "did you mean set?")
        await pilot.press("colon", *"set learning_rate 9", "enter")
        await until_shown(app, "out of bounds")
        assert len(received(engine, c.Set)) == 1


async def test_export_writes_the_session_to_a_folder_and_says_where(
    attach: Attach, engine: FakeEngine, tmp_path: Path
) -> None:
    store = Store(engine.folder.database)
    store.add_groups([group(3, 1)])
    store.close()
    async with attach(size=(160, 24)) as (app, pilot):
        for words, said in (
            ("export", "export needs a format (jsonl, parquet, preferences, model) and a new folder"),
            (f"export json {tmp_path}/a b", "unknown format 'json'; did you mean jsonl?"),
            (f"export jsonl {tmp_path}/a b", f"is in {tmp_path}/a b"),
            (f"export jsonl {tmp_path}/a b", "is there already; give a new or empty folder"),
            (f"export model {tmp_path}/c", "has no checkpoint of branch main on disk"),
        ):
            await pilot.press("colon")
            app.screen.query_one(CommandLine).value = words
            await pilot.press("enter")
            await until_shown(app, said)
        assert len((tmp_path / "a b" / "responses.jsonl").read_text().splitlines()) == 4
        assert [p.name for p in tmp_path.iterdir()] == ["a b"]
    assert not received(engine, c.Stop)


async def test_typing_into_the_command_line_fires_no_keys(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("colon", *"q.C sd", "escape")
        await pilot.pause()
        assert app.is_running
        assert not received(engine, c.Step)
        assert app.current_mode == "dashboard"


async def test_a_query_on_the_command_line_shows_its_answer(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("colon", *"status", "enter")
        await until(lambda: isinstance(app.screen, TextDialog))
        await until_shown(app, '"session": "gsm8k-grpo"')


async def test_undo_without_anything_says_so(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("u")
        await until_shown(app, "nothing to undo")


async def test_the_palette_offers_the_actions(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        await pilot.press("ctrl+p")
        await pilot.press(*"write a check")
        await until_shown(app, "write a checkpoint now")
        await pilot.press("down", "enter")
        await until(lambda: received(engine, c.TakeCheckpoint))


async def test_stop_wants_the_word(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("Q")
        await until(lambda: isinstance(app.screen, ConfirmDialog))
        await until_shown(app, "The last checkpoint is 0 s old (step 120).")
        await pilot.press(*"yes", "enter")
        await until_shown(app, "nothing was done")
        assert not received(engine, c.Stop)
        for _ in range(3):
            await pilot.press("backspace")
        await pilot.press(*"stop", "enter")
        await until(lambda: received(engine, c.Stop))
        stop = received(engine, c.Stop)[0]
        assert isinstance(stop, c.Stop)
        assert not stop.now


async def test_escape_leaves_the_stop_dialog_and_stops_nothing(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("Q")
        await until(lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, ConfirmDialog))
        assert not received(engine, c.Stop)


async def test_detach_says_how_to_come_back(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, pilot):
        await pilot.press("q")
        await pilot.pause()
        line = "detached from gsm8k-grpo; training goes on. Come back with: workbench attach gsm8k-grpo"
        assert app.return_value == line
    assert not received(engine, c.Stop)


async def test_ctrl_c_explains_and_leaves_nothing(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("ctrl+c")
        await until_shown(app, "q detaches", "Q stops")
        assert app.is_running


async def test_escape_never_leaves(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("escape", "escape")
        assert app.is_running


async def test_the_modes_and_back(attach: Attach) -> None:
    async with attach() as (app, pilot):
        for key, mode in (("s", "samples"), ("p", "parameters"), ("e", "events"), ("r", "rate"), ("d", "dashboard")):
            await pilot.press(key)
            await until(lambda mode=mode: app.current_mode == mode)  # type: ignore[misc]


async def test_read_only_says_so(attach: Attach, engine: FakeEngine) -> None:
    async with attach(read_only=True) as (app, pilot):
        await pilot.press("C")
        await until_shown(app, "read-only")
        assert not received(engine, c.TakeCheckpoint)


async def test_a_failed_engine_shows_cause_log_checkpoint_and_restarts(attach: Attach, engine: FakeEngine) -> None:
    started: list[SessionFolder] = []

    go_on = asyncio.Event()

    async def restart(folder: SessionFolder) -> None:
        started.append(folder)
        await go_on.wait()

    lines = [f"line {n}" for n in range(30)] + ["RuntimeError: \x1b[31mboom"]
    engine.folder.log.write_text("\n".join(lines))
    async with attach(restart_session=restart) as (app, pilot):
        await engine.leave(code=1, cause="RuntimeError: boom")
        text = await until_shown(app, "FAILED", "exit code 1", "␛[31mboom", "last checkpoint: step 120", "line 16")
        await until_shown(app, "R restart", "L log")
        assert "zoom" not in frame(app)
        assert "line 15\n" not in text
        assert "space pause" not in frame(app)
        await pilot.press("space")
        await until_shown(app, "not sent: no engine is connected; d, then R, starts one")
        await pilot.press("R")
        await until(lambda: started == [engine.folder])
        text = await until_shown(app, "LOADING", "starting the engine of gsm8k-grpo again")
        assert "boom" not in text
        await pilot.press("space")
        await until_shown(app, "not sent: no engine is connected: it is being started")
        engine.folder.forget_exit()
        go_on.set()
        await asyncio.sleep(1.0)  # it loads: longer than between two tries
        assert "starting the engine of gsm8k-grpo again" in frame(app)
        await engine.come_back()
        text = await until_shown(app, "RUN", "reward", "kl/k3")
        assert "boom" not in text
        assert "failed" not in text


async def test_an_engine_that_fails_while_it_is_started_again_is_told(attach: Attach, engine: FakeEngine) -> None:
    async def restart(folder: SessionFolder) -> None:
        folder.forget_exit()

    async with attach(restart_session=restart) as (app, pilot):
        await engine.leave(code=1, cause="RuntimeError: boom")
        await until_shown(app, "the engine failed", "boom")
        await pilot.press("R")
        await until_shown(app, "starting the engine of gsm8k-grpo again")
        engine.fail(code=1, cause="no memory is left")
        text = await until_shown(app, "FAILED", "the engine failed", "no memory is left")
        assert "boom" not in text
        await pilot.press("w")
        await until_shown(app, "reward", "kl/k3")
        await pilot.press("q")
        await pilot.pause()
        assert "which has ended" in (app.return_value or "")


async def test_an_engine_that_is_started_again_and_says_nothing_is_given_up(
    attach: Attach, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def restart(folder: SessionFolder) -> None:
        folder.forget_exit()

    monkeypatch.setattr("screens.link.START_SECONDS", 0.1)
    async with attach(restart_session=restart) as (app, pilot):
        await engine.leave(code=1, cause="RuntimeError: boom")
        await until_shown(app, "the engine failed", "boom")
        await pilot.press("R")
        await until_shown(app, "left no word of how it ended")


async def test_a_session_that_made_all_its_steps_says_how_it_gets_more(attach: Attach, engine: FakeEngine) -> None:
    started: list[SessionFolder] = []

    async def restart(folder: SessionFolder) -> None:
        started.append(folder)

    assert engine.last_step is not None
    engine.status = msgspec.structs.replace(engine.status, steps=engine.last_step.step)
    more = f"workbench run --name gsm8k-grpo --steps {2 * engine.last_step.step}"
    async with attach((120, 36), restart_session=restart) as (app, pilot):
        await until_shown(app, "reward")
        await engine.leave(code=0, cause="after the last step")
        await until_shown(app, "DONE", f"all {engine.last_step.step} steps are made: `{more}` goes on")
        await pilot.press("R", "L")  # the log comes after: R has been answered by then
        await until_shown(app, "engine.log, the end")
        assert not started


async def test_a_stopped_engine_is_done(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        await engine.leave(code=0, cause="stopped by you")
        await until_shown(app, "DONE", "stopped by you", "reward")


async def test_a_lost_connection_is_down_then_live_again(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        await engine.server.close()
        await until_shown(app, "DOWN", "connection lost")
        await engine.server.start()
        assert app.link is not None
        app.link.hurry()
        await until_shown(app, "RUN")


async def test_a_new_connection_has_the_subscription_of_the_old(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        assert app.link is not None
        async for _answer in app.link.send(c.Subscribe(growing=3)):
            pass
        assert [connection.growing for connection in engine.server.connections] == [3]
        await engine.server.close()
        await until_shown(app, "DOWN")
        await engine.server.start()
        app.link.hurry()
        await until(lambda: [connection.growing for connection in engine.server.connections] == [3])


async def test_another_version_of_the_engine_can_still_be_stopped(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions.server.PROTOCOL", 99)
    app = WorkbenchApp(engine.folder, marks="braille")
    async with app.run_test(size=(80, 24)) as pilot:
        await until_shown(app, "older than the engine's 99", "only :status and :stop")
        await pilot.press("C")
        await until_shown(app, "only status and stop are served")
        await pilot.press("Q", *"stop", "enter")
        await until(lambda: received(engine, c.Stop))


async def test_stale_after_missed_heartbeats(attach: Attach, engine: FakeEngine) -> None:
    async with attach() as (app, _):
        await until_shown(app, "RUN")
        engine.now += 12
        await until_shown(app, "STALE", "no heartbeat for 12 s", "sampling 41/64")
        engine.beat()
        await until_shown(app, "RUN")


async def test_no_engine_yet_says_that_it_connects(home: Path) -> None:
    folder = SessionFolder(home / "sessions" / "nothing")
    folder.path.mkdir(parents=True)
    lock = folder.lock()
    try:
        app = WorkbenchApp(folder, marks="braille")
        async with app.run_test(size=(80, 24)):
            await until_shown(app, "LOADING", "connecting to the engine of nothing")
    finally:
        import os

        os.close(lock)


@pytest.mark.parametrize("text", ["\x1b]52;c;bad\x07", "\u202eright", "[bold]not markup[/bold]"])
async def test_text_of_the_engine_is_never_a_command_to_the_terminal(
    attach: Attach, engine: FakeEngine, text: str
) -> None:
    async with attach(size=(160, 48)) as (app, _):
        engine.raise_alarm(text)
        engine.event(Noted(time=engine.now, step=1, kind="note", text=text))
        engine.beat(note=text, device=text)
        await until_shown(app, "[bold]not" if "bold" in text else ("52;c;bad" if "52" in text else "right"))
        shown = frame(app)
        assert "\x1b" not in shown
        assert "\u202e" not in shown


async def test_no_color_and_ansi_themes_draw(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with attach(theme="ansi-dark") as (app, _):
        await until_shown(app, "RUN", "reward")


async def test_a_command_without_an_answer_is_said_to_be_on_its_way(
    attach: Attach, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(command: object, reply: object) -> None:
        """An engine that hangs."""

    monkeypatch.setattr("screens.base.PATIENCE", 0.05)
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        monkeypatch.setattr(engine, "command", silent)
        await pilot.press("C")
        await until_shown(app, "sent; the engine has not answered yet")


async def test_tab_does_not_leave_an_open_command_line(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await until_shown(app, "reward")
        await pilot.press("colon", *"got")
        await pilot.press("tab", "shift+tab", *"o 7", "enter")
        await until_shown(app, "steps 0 to 57")


async def test_what_the_message_line_announces_stands_back(attach: Attach) -> None:
    async with attach() as (app, _):
        await until_shown(app, "2 charts hidden")
        segments = app.screen.query_one("#message").render_line(0)._segments
        style = next(segment.style for segment in segments if "hidden" in segment.text)
        assert style is not None
        assert style.color is not None
        assert sum(style.color.get_truecolor()) < 3 * 190  # text is near 3 * 224 in this theme


# ---- long answers


LONG = "\n".join(["what ppo would do with step 120", *(f"  120.1{i:02}  reward 1  adv +.94" for i in range(40))])


async def test_an_answer_of_many_lines_is_read_in_a_dialog(attach: Attach, engine: FakeEngine) -> None:
    engine.other_text = LONG
    async with attach() as (app, pilot):
        await pilot.press("colon", *"preview", "enter")
        await until_shown(app, "what ppo would do with step 120", "120.105", "esc back")
        await pilot.press("G")
        await until_shown(app, "120.139")
        await pilot.press("escape")
        await until(lambda: "120.139" not in frame(app))
        await pilot.press("colon", *"answer", "enter")
        await until_shown(app, "what ppo would do with step 120")


async def test_a_long_answer_does_not_take_the_keys_of_somebody_who_types(attach: Attach, engine: FakeEngine) -> None:
    engine.other_text = LONG
    async with attach() as (app, pilot):
        screen = app.screen
        assert isinstance(screen, WorkbenchScreen)
        screen.send(c.Preview())
        screen._keys += 1  # a key between the command and its answer
        await until_shown(app, "what ppo would do with step 120 ..", ":answer shows all of it")
        assert app.screen is screen
        await pilot.pause()


async def test_without_a_long_answer_it_says_so(attach: Attach) -> None:
    async with attach() as (app, pilot):
        await pilot.press("colon", *"answer", "enter")
        await until_shown(app, "no command has had a long answer yet")


async def test_who_paused_is_said_where_the_whole_note_has_no_room(attach: Attach, engine: FakeEngine) -> None:
    engine.beat(state="PAUSED", note="paused by alarm: the entropy is low; space goes on, . runs one step")
    async with attach() as (app, _):
        text = await until_shown(app, "PAUSED", "step 121", "paused by alarm: the entropy is low")
        assert "space goes on" not in text.splitlines()[0]
