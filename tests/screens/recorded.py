"""A recorded session to replay: sixty steps, a change, an alarm, a rating, two checkpoints; it ended in order."""

from __future__ import annotations

import msgspec

from sessions.folders import ExitInfo, SessionFolder, new_session
from sessions.hyperparameters import defaults
from sessions.records import Alarm, Change, Checkpoint, Rating, RatingUse, SessionSettings, StepRecord
from sessions.store import Store
from sessions.wire import Noted, encode_json
from tests.screens.fake_engine import START, fake_group, fake_metrics

STEPS, CHANGED, SAVED, RATED, ALARMED = 60, 20, 25, 30, 40


def recorded_session(name: str = "gsm8k-grpo", *, code: int = 0, steps: int = STEPS) -> SessionFolder:
    """The folder of the session."""
    folder = new_session(name, SessionSettings(name=name, steps=100))
    store = Store(folder.database)
    values = {**defaults(), "algorithm": "grpo"}
    store.set_meta("start_values", encode_json(values))
    store.add_event(Noted(time=START, step=0, kind="started", text="gsm8k on cpu, step 0"))
    for step in range(1, steps + 1):
        now = START + 11.8 * step
        if step == CHANGED:
            values = {**values, "learning_rate": 5e-7}
            store.put_change(
                Change(
                    id="c1", time=now, who="ann", name="learning_rate", old=1e-6, new=5e-7, boundary="minibatch",
                    status="applied", accepted_step=step, applied_step=step,
                )
            )  # fmt: skip
        if step == RATED:
            rating = Rating(
                id="r1", time=now, who="ann", branch="main", step=RATED - 1, group=2, mode="likert", values={"A": 5.0}
            )
            store.add_rating(rating)
            store.add_rating_uses([RatingUse(rating="r1", group="29.2", fate="late", step=step, kl=0.001)], step)
        groups = [fake_group(step, number) for number in (1, 2, 3, 4)]
        store.add_groups(groups)
        advantages = [r.advantage for g in groups for r in g.responses if r.advantage is not None]
        store.add_step(
            StepRecord(
                branch="main", step=step, time=now + 11, metrics=fake_metrics(step), advantages=advantages,
                values=dict(values),
            ),
            groups,
            500,
        )  # fmt: skip
        if step == ALARMED:
            alarm = Alarm(id="a1", time=now + 11, step=step, rule="kl", message="kl/k3 jump 5.2x @40")
            store.put_alarm(alarm)
            store.put_alarm(msgspec.structs.replace(alarm, acknowledged=now + 12))
        if step in (SAVED, steps):
            path = f"checkpoints/{step}"
            store.put_checkpoint(Checkpoint(step=step, time=now + 11, path=path, bytes=2**21, reason="asked for"))
    store.close()
    ended = START + 11.8 * (steps + 1)
    folder.write_exit(
        ExitInfo(
            pid=1, code=code, signal="", out_of_memory=False, peak_memory_bytes=0, started=START, ended=ended,
            cause="ended in order" if code == 0 else "RuntimeError: boom",
        )
    )  # fmt: skip
    return folder
