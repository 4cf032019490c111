"""What it costs to bring one's own: a call of a named reward function, a large dataset, an evaluation on record.

    python -m benchmarks.brought [--gigabytes 0.2] [--json FILE]

Each figure is made in a process of its own. A call's cost is what the reward process adds: the median of calls of a
function that gives a constant. A dataset's is the processor time of its check at the start, and what the peak memory of
the process is above that for ten rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import markdown, run_json, write_json

SHAPES = {"one answer of 5 characters": (1, 5), "eight of 2,000 with a question as long": (8, 2000)}
CALLS = 300
ANSWERS = 1000


def call(count: int, length: int) -> dict[str, float]:
    """Milliseconds that a call takes in the reward process and in this one, and the memory of that process."""
    from engine.rewards.process import NamedFunction, RewardProcess

    source = "def same(completions, **_):\n    return [1.0] * len(completions)\n"
    process = RewardProcess([NamedFunction("same", "", "same", source)], ["answer"], "", 30.0, lambda text: None)
    given: dict[str, Any] = {
        "prompts": ["q" * length] * count,
        "completions": ["a" * length] * count,
        "completion_ids": [list(range(length // 4 + 1))] * count,
        "answer": ["4"] * count,
    }
    process.start()
    try:
        took = []
        for _ in range(CALLS):
            began = time.perf_counter()
            process.call("same", given, {"global_step": 0})
            took.append(time.perf_counter() - began)
    finally:
        process.close()
    return {"milliseconds": 1000 * statistics.median(took)}


def dataset(rows: int) -> dict[str, float]:
    """Processor seconds and peak memory of making a task of a JSON lines file of so many rows."""
    from engine.memory import peak_memory
    from engine.tasks import load_task

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w") as file:
            for i in range(rows):
                question = f"What is {i} + {i % 97}? " + "It is written in words and then in figures. " * 10
                file.write(json.dumps({"prompt": question, "answer": str(i + i % 97)}) + "\n")
        size, began = path.stat().st_size, time.process_time()
        task = load_task(f"{path}", 0)
        took = time.process_time() - began
        return {"rows": len(task.prompts), "bytes": size, "seconds": took, "memory": peak_memory()}


def evaluation() -> dict[str, float]:
    """Bytes that an evaluation of a thousand short answers adds to a session's database."""
    from sessions.evaluations import HeldOut, HeldOutAnswer, Sample
    from sessions.store import Store

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.db"
        store, sizes = Store(path), []
        for step in range(20):
            answers = [
                HeldOutAnswer(
                    prompt_id=f"arithmetic:{i}+{i % 97}", prompt=f"{i}+{i % 97}=", reference=str(i + i % 97),
                    greedy=Sample(text=str(i + (i * step) % 89), length=4, ended=True, right=i % 3 > 0, reward=1.0),
                    components={"exact": 1.0},
                )
                for i in range(ANSWERS)
            ]  # fmt: skip
            store.add_held_out(HeldOut(branch="main", step=step, time=0.0, answers=answers))
            sizes.append(store._db.execute("PRAGMA page_count").fetchone()[0] * 4096)
        store.close()
    return {"bytes": (sizes[-1] - sizes[0]) / (len(sizes) - 1)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=0.2, help="size of the dataset")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        kind, *numbers = given.one
        made = {"call": call, "dataset": dataset, "evaluation": evaluation}[kind](*map(int, numbers))
        print(json.dumps(made))
        return

    def one(*words: object) -> dict[str, float]:
        return run_json([sys.executable, "-m", "benchmarks.brought", "--one", *map(str, words)])

    rows: list[dict[str, object]] = []
    for name, shape in SHAPES.items():
        rows.append({"what": f"reward call: {name}", "figure": one("call", *shape)["milliseconds"], "unit": "ms"})
    few = one("dataset", 10)
    many = one("dataset", round(given.gigabytes * 1e9 / 512))
    about = f"dataset of {many['bytes'] / 1e9:.2g} GB, {many['rows']:,.0f} rows"
    rows.append({"what": f"{about}: processor time", "figure": many["seconds"], "unit": "s"})
    rows.append({"what": f"{about}: memory", "figure": (many["memory"] - few["memory"]) / 1e6, "unit": "MB"})
    rows.append(
        {"what": f"evaluation of {ANSWERS:,} answers", "figure": one("evaluation")["bytes"] / 1e3, "unit": "KB"}
    )
    print(markdown(rows, ["what", "figure", "unit"]))
    if given.json:
        write_json(given.json, {"rows": rows})


if __name__ == "__main__":
    main()
