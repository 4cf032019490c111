"""The lines that say how the engine stands: what it is about comes before figures, in every width."""

from __future__ import annotations

from screens.headings import heading
from screens.live import Live
from screens.states import failed_lines
from screens.topline import state_content
from sessions.folders import ExitInfo
from sessions.records import Checkpoint, Status, StepRecord
from sessions.wire import Snapshot

AGAIN = "computes steps 1 to 1280 again from their records"


def live_of(state: str = "RUN", *, algorithm: str = "grpo", last: int = 0, saved: int = -1, **changes: object) -> Live:
    live = Live("arithmetic-1", lambda: 1000.0)
    live.connected("live")
    status = Status(
        time=0.0, session="arithmetic-1", branch="main", state=state, phase="updating", algorithm=algorithm,  # type: ignore[arg-type]
        step=14, steps=4000, tokens_per_second=615.0, elapsed=80.0, left=400.0, **changes,  # type: ignore[arg-type]
    )  # fmt: skip
    record = StepRecord(branch="main", step=last, time=900.0, metrics={}) if last else None
    points = [Checkpoint(step=saved, time=940.0, path=str(saved), bytes=1, reason="", branch="main")]
    live.feed(Snapshot(seq=1, status=status, last_step=record, checkpoints=points if saved >= 0 else []))
    return live


def died(live: Live, cause: str, *, code: int | None = None, signal: str = "") -> list[str]:
    live.ended(
        ExitInfo(
            pid=1, code=code, signal=signal, out_of_memory=False, peak_memory_bytes=0, started=0.0, ended=900.0,
            cause=cause,
        ),
        [],
    )  # fmt: skip
    return failed_lines(live)


def test_what_the_engine_is_about_is_said_in_80_columns() -> None:
    live = live_of(note=AGAIN)
    assert AGAIN in state_content(live, 80).plain
    assert AGAIN in heading(live, 90, "EVENTS  following").plain
    assert "tok/s" in state_content(live_of(), 80).plain


def test_a_small_screen_says_who_paused_it() -> None:
    live = live_of("PAUSED", note="paused by the race, which is over; space goes on, . runs one step")
    text = heading(live, 80, "BRANCHES  4 branches").plain
    assert "paused by the race, which is over" in text
    assert "space goes on" not in text


def test_while_the_model_is_loaded_no_step_and_no_speed_is_said() -> None:
    text = state_content(live_of("LOADING", algorithm="", note="loading torch"), 160).plain
    assert "loading torch" in text
    assert "step" not in text
    assert "tok/s" not in text
    assert "step 14/4000" in state_content(live_of("LOADING", note=AGAIN), 160).plain


def test_a_failure_says_its_cause_once_and_what_is_computed_again() -> None:
    lines = died(live_of(last=188, saved=164), "killed by SIGKILL", signal="SIGKILL")
    assert lines[0].endswith(": killed by SIGKILL")
    assert lines[1].startswith("last checkpoint: step 164, 1 min ago.   R restarts from it")
    assert lines[2] == "nothing recorded is lost: the 24 steps since are computed again from their records"
    assert died(live_of(last=9, saved=9), "it raised", code=1)[0].endswith("it raised (exit code 1)")
    assert not any("computed again" in line for line in died(live_of(last=9, saved=9), "it raised", code=1))
    assert "the step since is computed again" in died(live_of(last=10, saved=9), "it raised", code=1)[2]
