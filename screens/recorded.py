"""A session whose engine has ended, as its database knows it: the snapshot and the answers an engine would give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from screens.live import HEADS
from sessions import commands as c
from sessions.errors import EngineUnreachable, InvalidValue, WorkbenchError
from sessions.folders import SessionFolder
from sessions.records import Status, parse_response_name
from sessions.store import Store
from sessions.wire import GroupDetail, Snapshot, encode_json

NEWEST = 200
"""Groups and ratings that a snapshot holds; the rest is asked for."""


@contextmanager
def _reading(folder: SessionFolder) -> Iterator[Store]:
    store = Store(folder.database, read_only=True)
    try:
        yield store
    finally:
        store.close()


def recorded_snapshot(folder: SessionFolder, branch: str = "main") -> Snapshot | None:
    """What the screens need of an ended session; None if nothing was recorded. Blocking."""
    if not folder.database.exists():
        return None
    try:
        with _reading(folder) as store:
            last = store.last_step(branch)
            ratings = store.recent_ratings(NEWEST)
            values = dict(last.values) if last else {}
            return Snapshot(
                seq=store.last_seq(),
                status=Status(
                    time=last.time if last else 0.0,
                    session=folder.name,
                    branch=branch,
                    state="FAILED",  # unless exit.json says otherwise
                    phase="idle",
                    algorithm=str(values.get("algorithm", "")),
                    step=last.step if last else 0,
                    finished_steps=last.step if last else 0,
                    steps=folder.settings().steps,
                ),
                values=values,
                series=store.series_data(branch),
                heads=list(reversed(store.heads(branch, limit=min(HEADS, NEWEST)))),
                ratings=ratings,
                uses=store.uses_of(ratings, branch),
                changes=store.changes(branch),
                alarms=store.alarms(branch),
                checkpoints=store.checkpoints(branch),
                events=store.events(limit=500),
                last_step=last,
            )
    except WorkbenchError:
        return None


def recorded_answer(folder: SessionFolder, query: c.Command, branch: str = "main") -> str:
    """The data that an engine would answer a query with. Blocking.

    :raises EngineUnreachable: if only an engine can do what is asked.
    :raises InvalidValue: if nothing of that name was recorded.
    """
    with _reading(folder) as store:
        match query:
            case c.QuerySeries(names=names, first=first, last=last, limit=limit):
                series = store.series(branch)
                return encode_json([series[n].window(first, last, limit) for n in names if n in series])
            case c.QueryGroups(before=before, limit=limit, unrated=unrated):
                return encode_json(store.heads(branch, before, limit, unrated=unrated))
            case c.QueryGroup(group=text):
                name = parse_response_name(text)
                ratings = store.ratings_of(name, branch)
                group, head = store.group(name, branch), store.head(name, branch)
                return encode_json(GroupDetail(group=group, head=head, ratings=ratings, uses=store.uses_of(ratings)))
            case c.QueryResponse(response=text):
                name = parse_response_name(text)
                for response in store.group(name, branch).responses:
                    if response.letter == name.letter:
                        return encode_json(response)
                raise InvalidValue(f"no response {text}")
            case c.QueryEvents(before=before, limit=limit):
                return encode_json(store.events(before, limit))
            case _:
                raise EngineUnreachable("the engine has ended; only what was recorded can be shown")
