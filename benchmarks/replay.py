"""What it is like to replay a long session: from exec to its charts, and a step along its time line.

    python -m benchmarks.replay [--short] [--steps 10000] [--sizes 80x24 160x48] [--times 10] [--keys 60]

The real ``workbench replay`` runs behind a pseudo-terminal on a session of 10,000 steps and 640,000 responses, which
is made once and kept in the temporary directory.

open     Seconds from exec until charts with a line in them, the last step and the time line are painted.
step     Milliseconds from writing , or . in the middle of the record until the time line has been painted at the step
         before or after; and what of it the records take, without a screen.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import promises
from benchmarks.measure import facts, table, write
from benchmarks.processes import UNANSWERED, WORKBENCH, Terminal, resident_bytes
from benchmarks.screen import CHART_MARKS, SETTLE, done, long_session, quantile, say
from sessions.folders import SessionFolder
from sessions.replay import Replay

BACK = 5
"""Steps one way before as many the other."""
SHOWN = ("reward/mean", "kl/k3", "advantage/std", "entropy", "loss/policy", "response/length", "grad/norm")
"""Metrics whose points are made at each step when nothing but the records is measured."""


def opened(folder: SessionFolder, steps: int, columns: int, rows: int) -> tuple[float, float]:
    """Seconds until it is painted, and megabytes of the process then."""
    terminal = Terminal([*WORKBENCH, "replay", folder.name], columns, rows)
    try:
        line = f"step {steps}/{steps}".encode()
        seconds = terminal.until(b"reward", line, any_of=CHART_MARKS, seconds=60)
        return round(seconds, 3), round(resident_bytes(terminal.pid) / 1e6, 1)
    finally:
        terminal.close()


def scrubbed(folder: SessionFolder, steps: int, columns: int, rows: int, keys: int) -> list[float]:
    """Milliseconds of each key, :data:`UNANSWERED` where no paint came."""
    middle = steps // 2
    terminal = Terminal([*WORKBENCH, "replay", folder.name, "--step", str(middle)], columns, rows)
    try:
        terminal.until(b"reward", f"step {middle}/{steps}".encode(), any_of=CHART_MARKS, seconds=60)
        terminal.drain(SETTLE)
        taken, at = [], middle
        for index in range(keys):
            by = -1 if index // BACK % 2 == 0 else 1
            at += by
            terminal.drain(0.12)
            taken.append(terminal.key(b"," if by < 0 else b".", f"step {at}/{steps}".encode()))
        return taken
    finally:
        terminal.close()


def moments(folder: SessionFolder, steps: int, count: int) -> dict[str, float]:
    """Milliseconds of the records alone: of opening them, and of single steps on."""
    began = time.perf_counter()
    replay = Replay(folder)
    opening = time.perf_counter() - began
    taken = []
    for step in range(steps // 2, steps // 2 + count):
        began = time.perf_counter()
        _, series = replay.moment(step)
        for name in SHOWN:
            if name in series:
                _ = series[name].steps  # its points are made now
        taken.append(1000 * (time.perf_counter() - began))
    replay.close()
    return {
        "opening_ms": round(1000 * opening),
        "step_ms_p50": round(statistics.median(taken), 2),
        "step_ms_p99": quantile(taken, 0.99),
    }


def kept(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The promises, with what was measured of them; of a shorter record than promised there is none."""
    if payload["steps"] < 10_000:
        return []
    worst = max(payload["open"], key=lambda row: row["seconds"])
    spread = f"median of {worst['times']} at {worst['size']}, {worst['from']:.2f} to {worst['to']:.2f}"
    slowest = max(payload["keys"], key=lambda row: row["key_ms_p50"])
    return [
        promises.REPLAY.measured(worst["seconds"], spread),
        promises.REPLAY_STEP.measured(slowest["key_ms_p50"], f"{slowest['keys']} keys at {slowest['size']}"),
    ]


def report(name: str, payload: dict[str, Any]) -> None:
    """Print the tables and keep them."""
    parts = [f"# {name}", "", "How a long record replays, measured by `python -m benchmarks.replay`."]
    for title, rows in (
        (f"Opening a record of {payload['steps']} steps", payload["open"]),
        ("A step along the time line, key to paint", payload["keys"]),
        ("The records alone", [payload["records"]]),
        ("Promises", payload["promises"]),
    ):
        if rows:
            text = table(rows, list(rows[0]))
            print(f"\n{title}\n{text}")
            parts.extend(["", f"## {title}", "", "```", text, "```"])
    write(name, payload, "\n".join(parts))


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="half a minute in all")
    parser.add_argument("--steps", type=int, default=10_000, help="of the session")
    parser.add_argument("--sizes", nargs="+", default=["80x24", "160x48"])
    parser.add_argument("--times", type=int, help="that it is opened at each size (10; short: 3)")
    parser.add_argument("--keys", type=int, help="at each size (60; short: 20)")
    given = parser.parse_args(words)
    times, keys = given.times or (3 if given.short else 10), given.keys or (20 if given.short else 60)
    sizes = [(int(columns), int(rows)) for columns, _, rows in (size.partition("x") for size in given.sizes)]
    payload: dict[str, Any] = {"command": "python -m benchmarks.replay", "facts": facts(), "steps": given.steps}
    say(f"a session of {given.steps} steps")
    with long_session(given.steps) as folder:
        payload["records"] = done(moments(folder, given.steps, 200))
        payload["open"], payload["keys"] = [], []
        for columns, rows in sizes:
            runs = [opened(folder, given.steps, columns, rows) for _ in range(times)]
            seconds = [run[0] for run in runs]
            payload["open"].append(
                done(
                    {
                        "size": f"{columns}x{rows}",
                        "seconds": round(statistics.median(seconds), 3),
                        "from": min(seconds),
                        "to": max(seconds),
                        "times": times,
                        "mb": max(run[1] for run in runs),
                    }
                )
            )
            taken = scrubbed(folder, given.steps, columns, rows, keys)
            payload["keys"].append(
                done(
                    {
                        "size": f"{columns}x{rows}",
                        "key_ms_p50": quantile(taken, 0.5),
                        "key_ms_p99": quantile(taken, 0.99),
                        "keys": len(taken),
                        "unanswered": sum(t == UNANSWERED for t in taken),
                    }
                )
            )
    payload["promises"] = kept(payload)
    report("replay-short" if given.short else "replay", payload)


if __name__ == "__main__":
    main(sys.argv[1:])
