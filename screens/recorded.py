"""A session whose engine has ended, as its database knows it: a snapshot from the disk."""

from __future__ import annotations

from screens.live import HEADS
from sessions.errors import WorkbenchError
from sessions.folders import SessionFolder
from sessions.records import Status
from sessions.store import Store
from sessions.wire import Snapshot


def recorded_snapshot(folder: SessionFolder, branch: str = "main") -> Snapshot | None:
    """What the screens need of an ended session; None if nothing was recorded."""
    if not folder.database.exists():
        return None
    try:
        store = Store(folder.database, read_only=True)
    except WorkbenchError:
        return None
    try:
        last = store.last_step(branch)
        checkpoints = store.checkpoints(branch)
        heads = store.heads(branch, limit=min(HEADS, 200))
        ratings = store.recent_ratings()
        status = Status(
            time=last.time if last else 0.0,
            session=folder.name,
            branch=branch,
            state="FAILED",  # unless exit.json says otherwise
            phase="idle",
            algorithm=str(last.values.get("algorithm", "")) if last else "",
            step=last.step if last else 0,
            finished_steps=last.step if last else 0,
            steps=folder.settings().steps,
        )
        return Snapshot(
            seq=store.last_seq(),
            status=status,
            values=dict(last.values) if last else {},
            series=store.series_data(branch),
            heads=list(reversed(heads)),
            ratings=ratings,
            uses=store.uses_of(ratings),
            changes=store.changes(),
            alarms=store.alarms(),
            checkpoints=checkpoints,
            events=store.events(limit=500),
            last_step=last,
        )
    except WorkbenchError:
        return None
    finally:
        store.close()
