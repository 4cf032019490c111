"""What records, socket and screens cost a training: processor seconds of the engine's threads, and steps a second.

    python -m benchmarks.engine_overhead [--short] [--rounds 10] [--seconds 20] [--screens 1 4] [--size 160x48]
                                         [--set NAME=VALUE ...]

One engine trains the embedded model on one thread of torch, its learning rate so low that the steps stay alike.
Screens, the real ``workbench attach`` behind pseudo-terminals with the dashboard shown, are attached in turn: none,
one, four; four, one, none; and so on. A round has a window of ``--seconds`` for each, so that each number of screens
has a neighbour without any: a pair. What is reported is the median of the pairs with its spread.

share        processor seconds of the event loop (commands, socket, heartbeat), the store's writer and asyncio's own
             threads, of the compute thread's
slow-down    of steps a second against the window without screens of the same round
screen       processor seconds of one screen process a second: its share of a core
"""

from __future__ import annotations

import argparse
import bisect
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import promises
from benchmarks.measure import facts, table, write
from benchmarks.processes import EngineProcess, Screens, own_home
from sessions.records import SessionSettings

WARM_STEPS = 10
SETTLE = 1.0
"""Seconds after screens have come or gone that no window counts."""
COMPUTE = ("compute", "native")
"""Threads that compute: the engine's one, and those that torch starts."""
OWN = ("MainThread", "store", "asyncio")
"""The engine's own work: the loop, the store's writer, and what asyncio hands to threads."""
ROLES = {"MainThread": "loop", "store": "store", "asyncio": "asyncio", "compute": "compute", "native": "native"}


@dataclass
class Window:
    """What happened while so many screens were attached.

    :ivar steps: finished in it, with a fraction at either end.
    :ivar threads: thread -> processor seconds.
    :ivar screens: processor seconds of all screen processes.
    """

    count: int
    round: int
    began: float
    ended: float
    threads: dict[str, float]
    screens: float
    steps: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def speed(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds

    @property
    def own(self) -> float:
        """Processor seconds of the engine's own work."""
        return sum(s for name, s in self.threads.items() if name.startswith(OWN))

    @property
    def compute(self) -> float:
        """Processor seconds of what computes."""
        return sum(s for name, s in self.threads.items() if name.startswith(COMPUTE))

    @property
    def share(self) -> float:
        """The engine's own work, in per cent of what computes."""
        return 100 * self.own / self.compute


def steps_between(times: Sequence[float], began: float, ended: float) -> float:
    """Steps done in a stretch of time, a step that lies across an end counted by its part.

    :param times: when each step was done, ascending; the stretch lies within them.
    """

    def done_at(when: float) -> float:
        after = bisect.bisect_right(times, when)
        if after == 0 or after == len(times):
            raise ValueError(f"no steps on both sides of {when:.3f}")
        return after + (when - times[after - 1]) / (times[after] - times[after - 1])

    return done_at(ended) - done_at(began)


def watch(engine: EngineProcess, screens: Screens, count: int, number: int, seconds: float) -> Window:
    """One window."""
    screens.show(count)
    time.sleep(SETTLE)
    threads, before, began = engine.thread_seconds(), screens.seconds(), time.time()
    time.sleep(seconds)
    after, spent, ended = engine.thread_seconds(), screens.seconds(), time.time()
    used = {name: total - threads.get(name, 0.0) for name, total in after.items()}
    return Window(count, number, began, ended, used, spent - before)


def run(rounds: int, seconds: float, counts: Sequence[int], size: tuple[int, int], sets: Sequence[str]) -> list[Window]:
    """All windows, with their steps."""
    settings = SessionSettings(
        name="overhead",
        nice=False,
        threads=1,
        sets=["learning_rate=1e-9", "evaluate_every=0", "checkpoint_steps=0", *sets],
    )
    order = [0, *counts]
    windows: list[Window] = []
    with own_home(), EngineProcess(settings) as engine, Screens(engine.folder.name, *size) as screens:
        engine.until_step(WARM_STEPS)
        for number in range(rounds):
            for count in order if number % 2 == 0 else reversed(order):
                windows.append(watch(engine, screens, count, number, seconds))
                print(f"  round {number + 1}, {count} screens: {windows[-1].share:.2f} %", file=sys.stderr, flush=True)
        engine.until_step(engine.last_step() + 2)  # a step on the far side of the last window
        times = sorted(engine.step_times().values())
    for window in windows:
        window.steps = steps_between(times, window.began, window.ended)
    return windows


# ------------------------------------------------------------------------------------------------------ report


def slow_downs(windows: Sequence[Window], count: int) -> list[float]:
    """Per cent, one a round: by how much longer a step takes than without screens."""
    alone = {w.round: w.speed for w in windows if w.count == 0}
    return [100 * (alone[w.round] / w.speed - 1) for w in windows if w.count == count]


def spread(values: Sequence[float]) -> str:
    """Smallest and largest."""
    return f"{min(values):.2f} to {max(values):.2f}"


def row(windows: Sequence[Window], count: int) -> dict[str, Any]:
    """One number of screens."""
    mine = [w for w in windows if w.count == count]
    shares = [w.share for w in mine]
    found: dict[str, Any] = {
        "screens": count,
        "windows": len(mine),
        "steps/s": statistics.median(w.speed for w in mine),
        "engine's share, %": statistics.median(shares),
        "share from, to": spread(shares),
        "own ms a step": 1000 * statistics.median(w.own / w.steps for w in mine),
        "compute ms a step": 1000 * statistics.median(w.compute / w.steps for w in mine),
    }
    if count:
        slow = slow_downs(windows, count)
        cores = [100 * w.screens / w.seconds / count for w in mine]
        found |= {
            "slow-down, %": statistics.median(slow),
            "slow-down from, to": spread(slow),
            "a screen, % of a core": statistics.median(cores),
            "screen from, to": spread(cores),
        }
    return found


def thread_rows(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Milliseconds of processor a step, by thread and number of screens."""
    counts = sorted({w.count for w in windows})
    names = sorted({_role(name) for w in windows for name in w.threads})
    return [
        {"thread": name}
        | {f"ms a step, {n} screens": _milliseconds([w for w in windows if w.count == n], name) for n in counts}
        for name in names
    ]


def _role(thread: str) -> str:
    return next((role for prefix, role in ROLES.items() if thread.startswith(prefix)), thread)


def _milliseconds(windows: Sequence[Window], role: str) -> float:
    each = [sum(s for name, s in w.threads.items() if _role(name) == role) / w.steps for w in windows]
    return 1000 * statistics.median(each)


def kept(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The promises, with what was measured of them: the worst over the numbers of screens."""
    most = max(rows, key=lambda r: r["engine's share, %"])
    found = [
        promises.OVERHEAD.measured(most["engine's share, %"], f"{most['screens']} screens: {most['share from, to']}")
    ]
    watched = [r for r in rows if r["screens"]]
    if watched:
        most = max(watched, key=lambda r: r["a screen, % of a core"])
        value, over = most["a screen, % of a core"], f"{most['screens']} screens: {most['screen from, to']}"
        found.append(promises.SCREEN_CPU.measured(value, over))
    return found


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="about two minutes")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, help="of a window (20; short: 2)")
    parser.add_argument("--screens", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--size", default="160x48")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(words)
    columns, rows = map(int, given.size.split("x"))
    seconds = given.seconds or (2.0 if given.short else 20.0)
    windows = run(given.rounds, seconds, given.screens, (columns, rows), given.sets)
    found = [row(windows, count) for count in (0, *given.screens)]
    payload: dict[str, Any] = {
        "command": "python -m benchmarks.engine_overhead",
        "facts": facts(),
        "rows": found,
        "threads": thread_rows(windows),
        "promises": kept(found),
        "windows": [asdict(w) for w in windows],
    }
    name = "engine_overhead-short" if given.short else "engine_overhead"
    parts = [f"# {name}", "", "What records, socket and screens cost, by `python -m benchmarks.engine_overhead`."]
    for title, what in (("Screens", found), ("Threads", payload["threads"]), ("Promises", payload["promises"])):
        text = table(what, list(dict.fromkeys(column for r in what for column in r)))
        print(f"\n{title}\n{text}")
        parts.extend(["", f"## {title}", "", "```", text, "```"])
    write(name, payload, "\n".join(parts))


if __name__ == "__main__":
    main(sys.argv[1:])
