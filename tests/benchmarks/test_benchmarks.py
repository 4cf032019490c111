"""What the benchmarks reckon with: fits, windows of steps, verdicts, threads, the table of promises."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from benchmarks import big_session, engine_overhead, promises, scaling, summary, timed_engine
from benchmarks.engine_overhead import Window
from sessions.records import Group, ResponseName
from sessions.store import Store
from tests.sessions.samples import group, step_record


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [2.0, 4.0, 8.0, 64.0]
    assert scaling.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="no line"):
        scaling.exponent([4.0, 4.0], [1.0, 2.0])


def test_steps_across_the_ends_of_a_window_count_by_their_part() -> None:
    times = [10.0, 12.0, 14.0, 18.0]
    assert engine_overhead.steps_between(times, 12.0, 14.0) == 1.0
    assert engine_overhead.steps_between(times, 11.0, 15.0) == pytest.approx(0.5 + 1.0 + 0.25)
    with pytest.raises(ValueError, match="both sides"):
        engine_overhead.steps_between(times, 9.0, 12.0)


def window(count: int, number: int, steps: float, **threads: float) -> Window:
    return Window(count, number, 0.0, 10.0, threads, screens=0.4 * count, steps=steps)


def test_a_slow_down_is_measured_against_the_same_round() -> None:
    windows = [window(0, 0, 100.0), window(1, 0, 80.0), window(1, 1, 50.0), window(0, 1, 50.0)]
    assert engine_overhead.slow_downs(windows, 1) == [pytest.approx(25.0), 0.0]


def test_the_engines_share_counts_its_own_threads_and_not_those_that_compute() -> None:
    threads = {"MainThread": 1.0, "store_0": 0.5, "asyncio_1": 0.5, "compute_0": 90.0, "native": 10.0, "clock": 7.0}
    assert window(0, 0, 1.0, **threads).share == pytest.approx(2.0)


def test_every_thread_of_this_process_is_found_with_its_time() -> None:
    stop = threading.Event()

    def spin() -> None:
        while time.thread_time() < 0.05:
            pass
        stop.wait()

    thread = threading.Thread(target=spin, name="spinning")
    thread.start()
    try:
        while timed_engine.seconds()["spinning"] < 0.05:
            pass
        found = timed_engine.seconds()
    finally:
        stop.set()
        thread.join()
    assert {"MainThread", "spinning"} <= set(found)
    assert found["MainThread"] <= time.process_time()


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "goal"), (1.5, "floor"), (2.0, "floor"), (2.1, "missed")])
def test_less_is_better(value: float, verdict: str) -> None:
    assert promises.OVERHEAD.verdict(value) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(3.0, "goal"), (2.2, "floor"), (2.1, "missed")])
def test_more_is_better(value: float, verdict: str) -> None:
    assert promises.GRPO.verdict(value) == verdict


def test_a_full_run_counts_before_a_short_one_and_the_worst_case_before_the_others(tmp_path: Path) -> None:
    def keep(name: str, share: float) -> None:
        payload = {"promises": [promises.OVERHEAD.measured(share)], "rows": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(payload))

    keep("engine_overhead-short", 9.0)
    assert "9 %" in summary.tables(tmp_path)
    keep("engine_overhead", 1.5)
    assert "9 %" not in summary.tables(tmp_path)
    speed = [
        {"case": "tiny, kl 0, 1 epoch", "side": "ours", "times faster, cpu": "2.90 (2.80 to 3.10)"},
        {"case": "tiny, kl 0.04, 1 epoch", "side": "ours", "times faster, cpu": "3.30 (3.20 to 3.40)"},
        {"case": "tiny, kl 0, 4 epochs", "side": "ours", "times faster, cpu": "2.50 (2.40 to 2.60)"},
        {"case": "tiny, kl 0, 4 epochs", "side": "ours, plain", "times faster, cpu": "1.00"},
    ]
    (tmp_path / "grpo_vs_trl.json").write_text(json.dumps({"tables": {"Speed": speed}}))
    lines = [line for line in summary.tables(tmp_path).splitlines() if "TRL" in line or "epochs" in line]
    assert "2.9 x (tiny, kl 0, 1 epoch: 2.80 to 3.10) | floor" in lines[0]
    assert "2.5 x (tiny, kl 0, 4 epochs: 2.40 to 2.60) | floor" in lines[1]


def test_a_long_session_is_made_of_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big_session, "PROMPTS", 2)
    monkeypatch.setattr(big_session, "KEEP_TOKENS", 5)
    from sessions.folders import SessionFolder

    folder = SessionFolder(tmp_path)
    store = Store(folder.database)
    for step in (1, 2):
        groups: list[Group] = [group(step, number) for number in (1, 2)]
        store.add_groups(groups)
        store.add_step(step_record(step, **{"eval/accuracy": 0.9}), groups, 500)
    store.close()
    big_session.grow(folder, 30, branches=2)
    store = Store(folder.database)
    try:
        records = store.steps("main")
        assert [record.step for record in records] == list(range(1, 31))
        assert all(0 <= (record.metrics["eval/accuracy"] or 0) <= 1 for record in records)
        assert len({record.metrics["reward/mean"] for record in records}) > 25
        assert len(store.heads("main", limit=1000)) == 60
        assert store.group(ResponseName(25, 1), "main").responses[0].tokens == []
        assert store.group(ResponseName(26, 1), "main").responses[0].tokens != []
        assert [rating.step for rating in store.recent_ratings()] == [25]
        branches = {name: (found.parent, found.step) for name, found in store.branches().items() if name != "main"}
        assert branches == {"try-1": ("main", 5), "try-2": ("main", 10)}
        assert [record.step for record in store.steps("try-2", after=10)] == list(range(11, 31))
        assert store.step("try-2", 30) != store.step("main", 30)
        assert store.active == "main"
    finally:
        store.close()
