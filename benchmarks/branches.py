"""What a long session with many branches costs its engine: the questions of a step, of a screen and of a switch.

    python -m benchmarks.branches [--steps 10000] [--branches 50] [--times 5]

The session has 200 checkpoints and 5,000 ratings besides; it is made once and kept in the temporary directory. Each
question is asked of the records as the engine's writer asks it, in its own thread.

cpu      median of the milliseconds of processor that the writer takes
still    longest time, in milliseconds, that an event loop beside it stood still meanwhile
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import big_session
from benchmarks.measure import facts, table, write
from engine.board import Board
from engine.resuming import look
from engine.watchdog import HISTORY
from sessions.store import Store

RATE_EVERY = 2
TICK = 0.002
"""Seconds between two looks at how late the event loop is."""


def timed(question: Callable[[], object]) -> float:
    """Milliseconds of processor of this thread."""
    began = time.thread_time()
    question()
    return 1000 * (time.thread_time() - began)


async def asked(questions: dict[str, Callable[[], object]], times: int) -> list[dict[str, Any]]:
    """Ask each so often on one thread while an event loop runs on another."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            late.append(1000 * (time.perf_counter() - began - TICK))

    ticking, loop, found = asyncio.create_task(tick()), asyncio.get_running_loop(), []
    with ThreadPoolExecutor(1) as writer:
        for name, question in questions.items():
            late.clear()
            taken = [await loop.run_in_executor(writer, timed, question) for _ in range(times)]
            await asyncio.sleep(5 * TICK)
            found.append({"what": name, "cpu": round(statistics.median(taken), 2), "still": round(max(late), 1)})
    ticking.cancel()
    return found


def measure(database: Path, steps: int, branches: int, times: int) -> list[dict[str, Any]]:
    """All questions; the rewind comes last, and once."""
    store = Store(database)
    try:
        middle = f"try-{branches // 2}"
        found = asyncio.run(
            asked(
                {
                    "a step: line of a branch": lambda: store.line(middle),
                    "a step: ratings that wait": lambda: store.unsettled_ratings("main"),
                    "a checkpoint: accuracies of the saved": store.saved_accuracies,
                    "a screen: every branch": store.branch_infos,
                    "a switch: where a branch can go on": lambda: look(store, middle, 0),
                    "a switch: the board": lambda: Board(store, "main"),
                    "a switch: steps for the watches": lambda: store.steps("main", steps - HISTORY),
                },
                times,
            )
        )
        rewind = {f"a rewind of {steps // 2:,} steps": lambda: store.rewind("main", steps - steps // 2, "measured")}
        return found + asyncio.run(asked(dict(rewind), 1))
    finally:
        store.close()


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--branches", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args(words)
    name = f"workbench-benchmark-{os.getuid()}-{given.steps}-{given.branches}"
    folder = big_session.make(Path(tempfile.gettempdir()) / name / "long", given.steps, given.branches, RATE_EVERY)
    with tempfile.TemporaryDirectory() as copies:  # the rewind is not for the next time
        copy = Path(copies) / folder.database.name
        shutil.copyfile(folder.database, copy)
        copy.chmod(0o600)
        rows = measure(copy, given.steps, given.branches, given.times)
    payload = {"command": "python -m benchmarks.branches", "facts": facts(), "rows": rows}
    title = f"{given.steps:,} steps and {given.branches} branches"
    text = table(rows, list(rows[0]))
    print(f"{title}\n{text}")
    write("branches", payload, "\n".join([f"# {title}", "", "What it costs the engine.", "", "```", text, "```"]))


if __name__ == "__main__":
    main(sys.argv[1:])
