"""What rating by hand costs: from a key to its answer saved and painted, answers a minute, and processor time.

    python -m benchmarks.rating [--short] [--parts keys rate known] [--size 80x24] [--seconds 30] [--session S]

keys    The real ``workbench attach`` behind a pseudo-terminal, while a session trains the embedded model (or
        ``--session``, one of yours). A scripted rater answers in one mode after another; milliseconds from writing a
        key until ``saved:`` has been painted, which is when the record is on disk; answers a minute of a rater who
        waits for that each time.
rate    Twenty answers a second for the same time: whether all of them are on record, and what the screen process and
        the engine took of a core for them, over what they take without.
known   The same app without a terminal or an engine: processor milliseconds of a key with 50 ratings of 20 groups
        known, and with 5,000 of 2,000. Both are taken in turns; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, facts, table, write
from benchmarks.processes import UNANSWERED, WORKBENCH, Terminal, process_seconds
from benchmarks.screen import quantile, say, training
from screens.app import WorkbenchApp
from screens.rate import RateScreen
from sessions.commands import Command, QueryGroup, Rate
from sessions.folders import SessionFolder, session_folder
from sessions.hyperparameters import defaults
from sessions.records import Group, Rating, Response, Status, head_of, letters, parse_response_name
from sessions.store import Store
from sessions.wire import Answer, AnyEvent, Delta, GroupDetail, GroupsChanged, Noted, RatingSaved, Snapshot

PARTS = ("keys", "rate", "known")
SETTLE = 3.0
SAVED = b"saved:"
A_SECOND = 20
MODES: dict[str, tuple[str, ...]] = {
    "likert": ("4", "2", "5", "\r"),
    "thumbs": ("=", "-", "=", "\r"),
    "pair": ("h", "l", "t", "L"),
    "rank": ("1", "2", "\r"),
    "critique": ("1", "\r"),
}
"""Mode -> keys, in turn; those that answer nothing are pressed and not timed."""
ANSWERS = {"likert": "425", "thumbs": "=-", "pair": "hltL", "rank": "\r", "critique": "\r"}
"""The keys after which something is saved."""
GOES_TO = {"likert": 0, "thumbs": 1, "pair": 2, "rank": 3, "critique": 5}
"""How often ``m`` is pressed."""


# ------------------------------------------------------------------------------------------------------- keys


def keys(session: str, size: tuple[int, int], seconds: float) -> list[dict[str, Any]]:
    """Rate in one mode after another while the session trains."""
    rows, used = [], 0  # whoever comes back rates in the mode used last
    for mode, script in MODES.items():
        terminal = Terminal([*WORKBENCH, "attach", session], *size)
        try:
            terminal.until(b"reward", seconds=60)
            os.write(terminal.fd, b"r" + b"m" * ((GOES_TO[mode] - used) % 6))
            used = GOES_TO[mode]
            terminal.drain(SETTLE)
            taken: list[float] = []
            began = time.monotonic()
            for key in itertools.cycle(script):
                if time.monotonic() - began > seconds / len(MODES):
                    break
                if key in ANSWERS[mode]:
                    taken.append(terminal.key(key.encode(), SAVED))
                else:
                    os.write(terminal.fd, key.encode())
                    terminal.drain(0.05)
            minutes = (time.monotonic() - began) / 60
        finally:
            terminal.close()
        answered = [ms for ms in taken if ms < UNANSWERED]
        rows.append(
            {
                "mode": mode,
                "answers": len(answered),
                "p50 ms": quantile(taken, 0.5),
                "p99 ms": quantile(taken, 0.99),
                "a minute": round(len(answered) / minutes),
                "unanswered": len(taken) - len(answered),
            }
        )
        say(f"  {rows[-1]}")
    return rows


# ------------------------------------------------------------------------------------------------------- rate


def recorded(folder: SessionFolder) -> int:
    store = Store(folder.database, read_only=True)
    try:
        return len(store.recent_ratings(1_000_000))
    finally:
        store.close()


def rate(session: str, size: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Twenty answers a second, and what they cost."""
    folder = session_folder(session)
    info = folder.engine()
    assert info is not None, "the engine has just been attached to"
    terminal = Terminal([*WORKBENCH, "attach", session], *size)

    def spent() -> tuple[float, float]:
        return process_seconds(terminal.pid), process_seconds(info.pid)

    try:
        terminal.until(b"reward", seconds=60)
        os.write(terminal.fd, b"r")
        terminal.drain(SETTLE)
        before, began = spent(), time.monotonic()
        terminal.drain(seconds)
        quiet = [(b - a) / (time.monotonic() - began) for a, b in zip(before, spent(), strict=True)]
        had = recorded(folder)
        before, began, pressed = spent(), time.monotonic(), 0
        for number in range(round(seconds * A_SECOND)):
            terminal.drain(max(0.0, began + number / A_SECOND - time.monotonic()))
            os.write(terminal.fd, b"345"[number % 3 : number % 3 + 1])
            pressed += 1
        took = time.monotonic() - began
        busy = [(b - a) / took for a, b in zip(before, spent(), strict=True)]
        terminal.drain(5.0)
    finally:
        terminal.close()
    return {
        "answers": pressed,
        "a second": round(pressed / took, 1),
        "on record": recorded(folder) - had,
        "screen %": round(100 * busy[0], 1),
        "screen quiet %": round(100 * quiet[0], 1),
        "ms of screen an answer": round(1000 * (busy[0] - quiet[0]) * took / pressed, 1),
        "ms of engine an answer": round(1000 * (busy[1] - quiet[1]) * took / pressed, 1),
    }


# ------------------------------------------------------------------------------------------------------ known


class Alone(WorkbenchApp):
    """The app over a session that is only in memory: it answers itself at once."""

    CSS_PATH = str(ROOT / "screens" / "workbench.tcss")

    def __init__(self, groups: int, ratings: int) -> None:
        super().__init__(SessionFolder(Path("/nonexistent/alone")), who="ann", marks="block")
        self.groups = {(step, 1): _group(step) for step in range(1, groups + 1)}
        self.known = [_rating(n, n % (groups // 2) + 1) for n in range(ratings)]
        self.seq = 1

    def attach(self, folder: SessionFolder) -> None:
        now = time.time()
        heads = [head_of(group) for group in self.groups.values()]
        status = Status(
            time=now, session="alone", branch="main", state="RUN", phase="sampling", algorithm="grpo", steps=9999,
            step=len(heads) + 1, finished_steps=len(heads),
        )  # fmt: skip
        events: list[AnyEvent] = [Noted(time=now - 9e6, step=1, seq=1, kind="start", text="")]
        values = {**defaults(), "rating_repeats": 0.05}
        self.live.feed(Snapshot(seq=1, status=status, values=values, heads=heads, ratings=self.known, events=events))
        self.live.connected("live")
        self.switch_mode("rate")

    async def send(self, command: Command) -> AsyncIterator[Answer]:
        if isinstance(command, Rate):
            name = parse_response_name(command.group)
            rating = Rating(
                id=command.id, time=time.time(), who=command.who, branch="main", step=name.step, group=name.group,
                mode=command.mode, values=command.values, order=command.order, seconds=command.seconds,
            )  # fmt: skip
            head = head_of(self.groups[name.step, name.group], {k: f"{v:g}" for k, v in command.values.items()})
            saved = RatingSaved(time=rating.time, step=name.step, seq=self.seq + 1, rating=rating)
            changed = GroupsChanged(time=rating.time, step=name.step, seq=self.seq + 2, heads=[head])
            self.seq += 2
            self.live.feed(Delta(events=[saved, changed]))
        yield Answer(id=command.id, status="applied", text="saved")

    async def query_engine(self, command: Command, kind: Any) -> Any:
        if isinstance(command, QueryGroup):
            name = parse_response_name(command.group)
            group = self.groups[name.step, name.group]
            return GroupDetail(group=group, head=head_of(group))
        return []


def _group(step: int) -> Group:
    text = "Outbound: 180 / 90 = 2 h, so it arrives at 16:05. It waits. " * 6
    responses = [
        Response(letter=letters(i), text=f"{text}#### {i}", length=90, ended=True, reward=float(i % 2))
        for i in range(8)
    ]
    return Group(
        branch="main", step=step, number=1, prompt_id="p", prompt="When is it back?", answer="", temperature=1.0,
        responses=responses,
    )  # fmt: skip


def _rating(number: int, step: int) -> Rating:
    letter = letters(number % 8)
    return Rating(
        id=f"r{number}", time=time.time() - 9000 + number * 1e-3, who="ann", branch="main", step=step, group=1,
        mode="likert", values={letter: float(number % 5 + 1)}, order=list("ABCDEFGH"), seconds=4.0,
    )  # fmt: skip


async def _known(groups: int, ratings: int, size: tuple[int, int], count: int) -> list[float]:
    app = Alone(groups, ratings)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.5)
        screen = app.screen
        assert isinstance(screen, RateScreen)
        taken = []
        for key in itertools.islice(itertools.cycle(("4", "2", "5", "3", "enter")), count):
            before = time.thread_time()
            await pilot.press(key)
            taken.append(1000 * (time.thread_time() - before))
    return taken[5:]


def known(size: tuple[int, int], count: int) -> list[dict[str, Any]]:
    """Processor milliseconds of a key, with little known and with much, in turns."""
    sizes = {(20, 50): [], (2000, 5000): []}  # type: dict[tuple[int, int], list[float]]
    for _ in range(3):
        for (groups, ratings), taken in sizes.items():
            taken += asyncio.run(_known(groups, ratings, size, count))
    return [
        {
            "groups": groups,
            "ratings": ratings,
            "keys": len(taken),
            "cpu ms p50": quantile(taken, 0.5),
            "cpu ms p99": quantile(taken, 0.99),
            "mean": round(statistics.mean(taken), 1),
        }
        for (groups, ratings), taken in sizes.items()
    ]


# ----------------------------------------------------------------------------------------------------- report


def tables(payload: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    if "keys" in payload:
        yield f"Key to saved and painted, at {payload['size']} while training", payload["keys"]
    if "rate" in payload:
        yield f"{A_SECOND} answers a second", [payload["rate"]]
    if "known" in payload:
        yield "A key, with little and with much known", payload["known"]


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="about a minute in all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--session", help="a running session of yours")
    parser.add_argument("--size", default="80x24")
    parser.add_argument("--seconds", type=float, help="of keys, and of answers (60; short: 15)")
    given = parser.parse_args(words)
    seconds = given.seconds or (15.0 if given.short else 60.0)
    columns, _, rows = given.size.partition("x")
    size = int(columns), int(rows)
    payload: dict[str, Any] = {"command": "python -m benchmarks.rating", "facts": facts(), "size": given.size}
    if {"keys", "rate"} & set(given.parts):
        with training(given.session) as session:
            if "keys" in given.parts:
                payload["keys"] = keys(session, size, seconds)
            if "rate" in given.parts:
                payload["rate"] = rate(session, size, seconds)
    if "known" in given.parts:
        payload["known"] = known(size, 60 if given.short else 200)
    parts = ["# rating", "", "What rating by hand costs, measured by `python -m benchmarks.rating`."]
    for title, found in tables(payload):
        text = table(found, list(found[0]))
        print(f"\n{title}\n{text}")
        parts.extend(["", f"## {title}", "", "```", text, "```"])
    write("rating-short" if given.short else "rating", payload, "\n".join(parts))


if __name__ == "__main__":
    main(sys.argv[1:])
