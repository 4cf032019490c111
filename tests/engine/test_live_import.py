"""Ratings and preferences come to an engine that trains, through its socket, in pages."""

from __future__ import annotations

import json
from pathlib import Path

from sessions import wire
from sessions.commands import ImportOrderings, Pause, QueryGroup, Rate
from sessions.importing import ImportFile, Received, pages
from sessions.orderings import Ordering
from sessions.records import RatingUse
from sessions.store import Store
from tests.engine.live import live, session
from workbench.commands_import import _sent


def received(sent: list[tuple[object, Received]]) -> Received:
    total = Received()
    for _, part in sent:
        total.add(part)
    return total


async def test_preferences_of_many_pages_are_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": "a" * (i % 3 * 4000), "rejected": f"b{i}"} for i in range(1500)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    async with live(session(steps=0), evaluate_every=0) as tested:
        await tested.step(1)
        reader = Store(tested.engine.folder.database, read_only=True)
        for turn in range(2):
            sent = await _sent(tested.client.path, pages(ImportFile(path, reader).each(), path.name, "bo"), "bo")
            assert len(sent) > 5
            got = received(sent)
            assert (got.new, got.known, got.unusable) == ((1500, 0, 0), (0, 1500, 0))[turn]
        assert len(reader.orderings(limit=5000)) == 1500
        events = [e for e in reversed(reader.events(limit=500)) if isinstance(e, wire.Imported)]
        assert sum(event.orderings for event in events) == 1500
        assert {(event.who, event.source) for event in events} == {("bo", "pairs.jsonl")}
        reader.close()


async def test_what_is_no_preference_is_rejected_whole() -> None:
    async with live(session(steps=0), evaluate_every=0) as tested:
        good = Ordering(prompt="p", tiers=[["a"], ["b"]])
        for bad in (Ordering(prompt="p", tiers=[["a"]]), Ordering(prompt="p", tiers=[["a"], ["b"]], margin=1e9)):
            answer = await tested.do(ImportOrderings(source="x", orderings=[good, bad]))
            assert answer.status == "rejected"
            assert "\n" not in answer.text
        assert await tested.engine.write(tested.engine.store.orderings) == []


async def test_an_imported_rating_enters_the_next_update_as_a_late_one(tmp_path: Path) -> None:
    """Taken from a copy of the session: there it was given; here its group has had its update."""
    path = tmp_path / "ratings.jsonl"
    async with live(session(steps=0), evaluate_every=0) as tested:
        await tested.step(1)
        detail = await tested.client.query(QueryGroup(group="1.1"), wire.GroupDetail)
        texts = {r.letter: r.text for r in detail.group.responses}
        row = {
            "id": "r1", "time": 12.0, "who": "ann", "group": "1.1", "branch": "main", "mode": "likert",
            "values": {"A": 1.0, "B": 5.0}, "order": ["B", "A"], "prompt": detail.group.prompt,
            "texts": {letter: texts[letter] for letter in "AB"},
        }  # fmt: skip
        path.write_text(json.dumps(row) + "\n")
        reader = Store(tested.engine.folder.database, read_only=True)
        for turn in range(2):
            sent = await _sent(tested.client.path, pages(ImportFile(path, reader).each(), path.name, "bo"), "bo")
            got = received(sent)
            assert (got.new, got.known) == ((1, 0), (0, 1))[turn]
        reader.close()
        [rating] = (await tested.client.query(QueryGroup(group="1.1"), wire.GroupDetail)).ratings
        assert (rating.id, rating.who, rating.time, rating.order) == ("r1", "ann", 12.0, ["B", "A"])
        await tested.until(lambda: any(isinstance(e, wire.RatingSaved) for e in tested.engine.board.events))
        await tested.step(2)
        detail = await tested.client.query(QueryGroup(group="1.1"), wire.GroupDetail)
        [use] = detail.uses
        assert isinstance(use, RatingUse)
        assert (use.rating, use.fate, use.step) == ("r1", "late", 2)
        answer = await tested.do(Rate(who="ann", group="1.1", mode="likert", values={"A": 2.0}))
        assert answer.status == "applied"
        assert (await tested.do(Pause())).status == "applied"
