"""What it is like to watch a session: keys, bytes, the first paint, a long history, and memory.

    python -m benchmarks.screen [--short] [--parts keys attach memory] [--seconds 30] [--sizes 80x24 160x48]
                                [--session S] [--steps 10000] [--events 200000] [--attaches 10]

The real ``workbench attach`` runs behind a pseudo-terminal.

keys     A session trains the embedded model (or ``--session``, one of yours that runs). Milliseconds from writing
         j or k until the row that the cursor moves to has been painted, and from the key of another screen until that
         is; bytes a second with nobody pressing anything; seconds from exec to a painted chart.
attach   To a session of 10,000 steps and 640,000 responses, from exec until its charts and its last step are painted:
         once with its engine there, paused, once with its records alone. Making it takes half a minute; it is kept in
         the temporary directory and used again.
memory   Of the screen process while 200,000 events come in as fast as it reads, after every screen has been open.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import big_session, promises
from benchmarks.flood import Flood
from benchmarks.measure import facts, table, write
from benchmarks.processes import (
    UNANSWERED,
    WORKBENCH,
    EngineProcess,
    Screens,
    Terminal,
    own_home,
    process_seconds,
    resident_bytes,
)
from sessions.folders import ExitInfo, SessionFolder
from sessions.hyperparameters import HYPERPARAMETERS
from sessions.records import SessionSettings

PARTS = ("keys", "attach", "memory")
SETTLE = 3.0
"""Seconds after the first paint that no figure counts."""
CHART_MARKS = ("⠁", "⣀", "⡀", "⠤", "⠒", "⠉", "⢀", "⠠", "⠐", "⠂", "⠄", "⠈")
"""Braille that any line in a chart has some of."""
SCREEN_KEYS = ((b"p", b"range"), (b"e", b"EVENTS"), (b"s", b"SAMPLES"), (b"d", b"reward"))


# ------------------------------------------------------------------------------------------------------- keys


def keys(session: str, columns: int, rows: int, seconds: float) -> dict[str, Any]:
    """Attach at one size while the session trains, and measure."""
    terminal = Terminal([*WORKBENCH, "attach", session], columns, rows)
    try:
        first = terminal.until(b"reward", seconds=60)
        terminal.drain(SETTLE)
        before, began = process_seconds(terminal.pid), time.monotonic()
        quiet = terminal.drain(seconds / 2) / (seconds / 2)
        spent = (process_seconds(terminal.pid) - before) / (time.monotonic() - began)
        switches = press(terminal, seconds / 2, SCREEN_KEYS)
        terminal.key(b"p", b"range")
        terminal.drain(1)
        names = list(HYPERPARAMETERS)[:8]  # the table paints the row that the cursor moves to
        down = [(b"j", name.encode()) for name in names[1:]]
        up = [(b"k", name.encode()) for name in reversed(names[:-1])]
        moves = press(terminal, seconds, [*down, *up])
    finally:
        terminal.close()
    return {
        "size": f"{columns}x{rows}",
        "first_paint_s": round(first, 2),
        "bytes_per_second": round(quiet),
        "cpu_percent": round(100 * spent, 1),
        "key_ms_p50": quantile(moves, 0.5),
        "key_ms_p99": quantile(moves, 0.99),
        "keys": len(moves),
        "screen_ms_p50": quantile(switches, 0.5),
        "screen_ms_p99": quantile(switches, 0.99),
        "screens": len(switches),
        "unanswered": sum(t == UNANSWERED for t in moves + switches),
    }


def press(terminal: Terminal, seconds: float, pairs: Sequence[tuple[bytes, bytes]]) -> list[float]:
    """Press the keys in turn for so long; milliseconds each, :data:`UNANSWERED` where no paint came."""
    taken: list[float] = []
    deadline = time.monotonic() + seconds
    for key, expected in itertools.cycle(pairs):
        if time.monotonic() > deadline:
            break
        terminal.drain(0.12)
        taken.append(terminal.key(key, expected))
    return taken


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


@contextlib.contextmanager
def training(session: str | None) -> Iterator[str]:
    """The name of a session that trains: the one given, or one of the embedded model in a home of its own."""
    if session is not None:
        yield session
        return
    with own_home(), EngineProcess(SessionSettings(name="watched", nice=False, threads=1)) as engine:
        engine.until_step(3)
        yield engine.folder.name


# ----------------------------------------------------------------------------------------------------- attach


@contextlib.contextmanager
def long_session(steps: int) -> Iterator[SessionFolder]:
    """A session of so many steps as the only one of its home; made at most once."""
    home = Path(tempfile.gettempdir()) / f"workbench-benchmark-{os.getuid()}-{steps}"
    before = os.environ.get("WORKBENCH_HOME")
    folder = big_session.make(home / "sessions" / "long", steps)
    os.environ["WORKBENCH_HOME"] = str(home)
    try:
        yield folder
    finally:
        os.environ.pop("WORKBENCH_HOME")
        if before is not None:
            os.environ["WORKBENCH_HOME"] = before


def attach(folder: SessionFolder, steps: int, times: int, columns: int, rows: int) -> dict[str, Any]:
    """Seconds from exec until charts with a line in them and the last step are painted."""
    found: dict[str, Any] = {"size": f"{columns}x{rows}", "times": times}
    with EngineProcess(folder) as engine:
        engine.until_ready()
        found["engine_s"] = [_painted(folder, steps, columns, rows) for _ in range(times)]
    now = time.time()
    folder.write_exit(
        ExitInfo(
            pid=1, code=0, signal="", out_of_memory=False, peak_memory_bytes=0, started=now, ended=now,
            cause="ended in order",
        )
    )  # fmt: skip
    found["records_s"] = [_painted(folder, steps, columns, rows) for _ in range(times)]
    return found


def _painted(folder: SessionFolder, steps: int, columns: int, rows: int) -> float:
    terminal = Terminal([*WORKBENCH, "attach", folder.name], columns, rows)
    try:
        return round(terminal.until(b"reward", str(steps).encode(), any_of=CHART_MARKS, seconds=60), 3)
    finally:
        terminal.close()


# ----------------------------------------------------------------------------------------------------- memory


def memory(folder: SessionFolder, events: int, columns: int, rows: int) -> dict[str, Any]:
    """Megabytes of the screen process at each quarter of the events."""
    with Flood(folder) as flood, Screens(folder.name, columns, rows) as screens:
        screens.show(1)
        pid = screens.attached[0].pid
        for key, _ in SCREEN_KEYS:
            screens.press(key)
            time.sleep(1.5)
        found = [{"events": 0, "mb": _megabytes(pid)}]
        for _ in range(4):
            before, began = screens.seconds(), time.monotonic()
            flood.send(events // 4)
            time.sleep(2.0)  # a redraw or two
            took = time.monotonic() - began
            found.append(
                {
                    "events": flood.sent,
                    "mb": _megabytes(pid),
                    "cpu_us_an_event": round(1e6 * (screens.seconds() - before) / (events // 4)),
                    "seconds": round(took, 1),
                }
            )
            say(f"  {found[-1]}")
        return {"size": f"{columns}x{rows}", "snapshots_for_events": flood.resyncs, "marks": found}


def _megabytes(pid: int) -> float:
    return round(resident_bytes(pid) / 1e6, 1)


# ------------------------------------------------------------------------------------------------------- report


def kept(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The promises, with what was measured of them; a history or a flood of another size than promised is none."""
    found = []
    by_size = {row["size"]: row for row in payload.get("keys", [])}
    if by_size:
        worst = max(by_size.values(), key=lambda row: row["key_ms_p50"])
        found.append(promises.KEY_P50.measured(worst["key_ms_p50"], f"{worst['keys']} keys at {worst['size']}"))
        worst = max(by_size.values(), key=lambda row: row["key_ms_p99"])
        found.append(promises.KEY_P99.measured(worst["key_ms_p99"], f"{worst['keys']} keys at {worst['size']}"))
    for size, promise in (("80x24", promises.BYTES_SMALL), ("160x48", promises.BYTES_LARGE)):
        if size in by_size:
            found.append(promise.measured(by_size[size]["bytes_per_second"] / 1000))
    if "attach" in payload and payload["steps"] >= 10_000:
        worst_of = max((payload["attach"][which] for which in ("engine_s", "records_s")), key=statistics.median)
        spread = f"median of {len(worst_of)}, {min(worst_of):.2f} to {max(worst_of):.2f}"
        found.append(promises.ATTACH.measured(statistics.median(worst_of), spread))
    marks = payload["memory"]["marks"] if "memory" in payload else [{"events": 0}]
    if marks[-1]["events"] >= 200_000:
        at = f"after {marks[-1]['events']:,} events"
        found.append(promises.MEMORY.measured(marks[-1]["mb"], at))
        found.append(promises.GROWTH.measured(100 * (marks[-1]["mb"] / marks[-3]["mb"] - 1), at))
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(name: str, payload: dict[str, Any]) -> None:
    """Print the tables and keep them."""
    parts = [f"# {name}", "", "How a session feels while it trains, measured by `python -m benchmarks.screen`."]

    def show(title: str, rows: list[dict[str, Any]]) -> None:
        text = table(rows, list(dict.fromkeys(name for row in rows for name in row)))
        print(f"\n{title}\n{text}")
        parts.extend(["", f"## {title}", "", "```", text, "```"])

    if "keys" in payload:
        show("Keys, bytes and first paint", payload["keys"])
    if "attach" in payload:
        seconds = payload["attach"]
        rows = [
            {"shown from": what, "median s": statistics.median(v), "from": min(v), "to": max(v), "times": len(v)}
            for what, v in (("a paused engine", seconds["engine_s"]), ("the records", seconds["records_s"]))
        ]
        show(f"Attach to a long session at {seconds['size']}", rows)
    if "memory" in payload:
        flood = payload["memory"]
        show(f"Memory of the screen process at {flood['size']}", flood["marks"])
        print(f"snapshots sent in place of events: {flood['snapshots_for_events']}")
    show("Promises", payload["promises"])
    write(name, payload, "\n".join(parts))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="about two minutes in all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--session", help="measure the keys on this running session")
    parser.add_argument("--seconds", type=float, help="of keys at each size (30; short: 8)")
    parser.add_argument("--sizes", nargs="+", default=["80x24", "160x48"])
    parser.add_argument("--steps", type=int, default=10_000, help="of the long session")
    parser.add_argument("--attaches", type=int, help="in either way (10; short: 3)")
    parser.add_argument("--events", type=int, default=200_000)
    given = parser.parse_args(words)
    seconds = given.seconds or (8.0 if given.short else 30.0)
    attaches = given.attaches or (3 if given.short else 10)
    sizes = [(int(columns), int(rows)) for columns, _, rows in (size.partition("x") for size in given.sizes)]
    payload: dict[str, Any] = {"command": "python -m benchmarks.screen", "facts": facts(), "steps": given.steps}
    if "keys" in given.parts:
        with training(given.session) as session:
            payload["keys"] = [done(keys(session, *size, seconds)) for size in sizes]
    if {"attach", "memory"} & set(given.parts):
        say(f"a session of {given.steps} steps")
        with long_session(given.steps) as folder:
            if "attach" in given.parts:
                payload["attach"] = done(attach(folder, given.steps, attaches, *sizes[-1]))
            if "memory" in given.parts:
                payload["memory"] = memory(folder, given.events, *sizes[-1])
    payload["promises"] = kept(payload)
    report("screen-short" if given.short else "screen", payload)


def done(found: dict[str, Any]) -> dict[str, Any]:
    say(f"  {found}")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
