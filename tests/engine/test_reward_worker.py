"""The process that runs reward functions: what they may return and do, and that it costs no more than responses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.rewards import process as processes
from engine.rewards.component import Failed
from engine.rewards.output import BYTES, LINES, LONGEST_LINE, Allowance, copy_output
from engine.rewards.process import MOST_ENDS, NamedFunction, RewardProcess
from sessions.reward_files import read_source
from tests.engine.small import wait_for

HERE = Path(__file__).parent
HOSTILE = HERE / "hostile_rewards.py"
NAMES = [
    line.split("def ")[1].split("(")[0]
    for line in HOSTILE.read_text().splitlines()
    if line.startswith(("def ", "async def "))
]
printed: list[str] = []


def loaded(timeout: float = 30.0, *names: str, say=printed.append) -> RewardProcess:
    wanted = names or (*NAMES, "instance", "Box.method")
    functions = [NamedFunction(n, str(HOSTILE), n, HOSTILE.read_text()) for n in wanted]
    process = RewardProcess(functions, ["answer"], "", timeout, say)
    process.start()
    return process


@pytest.fixture(scope="module")
def hostile() -> Iterator[RewardProcess]:
    process = loaded()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def _fresh_step(request) -> None:
    if "hostile" in request.fixturenames:
        request.getfixturevalue("hostile").begin_step()


def ask(process: RewardProcess, name: str, texts=("a", "bb")):
    n = len(texts)
    given = {"prompts": ["?"] * n, "completions": list(texts), "completion_ids": [[1]] * n, "answer": ["bb"] * n}
    return process.call(name, given, {"global_step": 0})[0]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has collected has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("good", [1.0, 2.0]),
        ("only_completions", [1.0, 1.0]),
        ("instance", [0.0, 1.0]),
        ("Box.method", [1.0, 1.0]),
        ("generator", [1.0, 1.0]),
        ("numpy_array", [0.0, 1.0]),
        ("forks", [1.0, 1.0]),
        ("leaves_a_thread", [1.0, 1.0]),
        ("collects", [1.0, 1.0]),
        ("answers_itself", [1.0, 1.0]),
    ],
)
def test_it_gives_what_a_function_returns(hostile, name: str, values) -> None:
    assert ask(hostile, name) == values
    assert ask(hostile, "good") == [1.0, 2.0]  # and the next call has its own answer


def test_async_functions_share_one_loop(hostile) -> None:
    assert ask(hostile, "waits") == [1.0, 1.0]
    assert ask(hostile, "waits") == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("endless", "returned more than 2 values for 2 completions"),
        ("wrong_count", "returned 1 values for 2 completions"),
        ("nothing", "returned None; a list with one number for each completion is expected"),
        ("dictionary", "returned a dict; a list with one number for each completion is expected"),
        ("one_number", "returned a float; a list with one number for each completion is expected"),
        ("raises", "raised ValueError: no digit in it [31m (hostile_rewards.py:"),
        ("unspeakable", "raised Unspeakable: (it cannot be shown)"),
        ("megabytes", "raised ValueError: xxxx"),
        ("system_exit", "raised SystemExit: 3"),
        ("interrupted", "raised KeyboardInterrupt"),
        ("deep", "raised RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_answer_is_said_in_one_line_and_the_process_goes_on(hostile, name: str, reason: str) -> None:
    ask(hostile, "good")
    before = hostile.pid
    with pytest.raises(Failed) as caught:
        ask(hostile, name)
    text = str(caught.value)
    assert text.startswith(reason)
    assert len(text) < 400
    assert text.isprintable()
    assert ask(hostile, "good") == [1.0, 2.0]
    assert hostile.pid == before


def test_a_value_that_is_no_finite_number_fails_only_its_response(hostile) -> None:
    first, second, third, fourth = ask(hostile, "some_wrong", ("a", "b", "c", "d"))
    assert (first, fourth) == (1.0, None)
    assert str(second) == "returned nan, which is not a finite number"
    assert str(third) == "returned '2', which is not a finite number"
    assert isinstance(second, Failed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("exits", "its process ended with exit code 3"),
        ("crashes", "its process was ended by SIGSEGV"),
        ("loops", "it took longer than 0.4 s (--reward-timeout) and was ended"),
        ("stuck_in_c", "it took longer than 0.4 s (--reward-timeout) and was ended"),
        ("closes_files", "its process ended: the function has closed files that are not its own"),
    ],
)
def test_what_ends_or_holds_the_process_costs_one_answer(hostile, monkeypatch, name: str, reason: str) -> None:
    ask(hostile, "good")
    before = hostile.pid
    if "longer than" in reason:
        monkeypatch.setattr(hostile, "_timeout", 0.4)
    with pytest.raises(Failed, match=r".") as caught:
        ask(hostile, name)
    monkeypatch.undo()
    assert str(caught.value) == reason
    assert gone(before)
    assert ask(hostile, "good") == [1.0, 2.0]
    assert hostile.pid != before


def test_a_process_that_takes_too_much_memory_is_ended(hostile, monkeypatch) -> None:
    monkeypatch.setattr(processes, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(processes, "LOOK_SECONDS", 0.02)
    with pytest.raises(Failed, match=r"its process held 0\.\d GB, over half of the machine's memory, and was ended"):
        ask(hostile, "takes_memory")
    monkeypatch.undo()
    assert ask(hostile, "good") == [1.0, 2.0]


def test_after_some_ends_in_a_row_nothing_is_asked_until_the_next_step(hostile) -> None:
    for _ in range(MOST_ENDS):
        with pytest.raises(Failed, match="exit code 3"):
            ask(hostile, "exits")
    with pytest.raises(Failed) as caught:
        ask(hostile, "good")
    why = f"exits was ended {MOST_ENDS} times in a row; the last time its process ended with exit code 3"
    assert str(caught.value) == f"not asked: {why}"
    assert hostile.stopped
    hostile.begin_step()
    assert ask(hostile, "good") == [1.0, 2.0]


def test_ends_that_are_not_in_a_row_do_not_add_up(hostile) -> None:
    for _ in range(MOST_ENDS + 1):
        with pytest.raises(Failed, match="exit code 3"):
            ask(hostile, "exits_for_a")
        assert ask(hostile, "exits_for_a", ["b"]) == [1.0]
    assert not hostile.stopped


def test_a_function_that_answers_in_between_does_not_keep_another_from_being_given_up(hostile) -> None:
    for _ in range(MOST_ENDS):
        assert not hostile.stopped
        with pytest.raises(Failed, match="exit code 3"):
            ask(hostile, "exits")
        if not hostile.stopped:
            assert ask(hostile, "good") == [1.0, 2.0]
    assert hostile.stopped.startswith(f"exits was ended {MOST_ENDS} times in a row")


def test_who_leaves_a_call_need_not_wait_for_it(hostile) -> None:
    ask(hostile, "good")
    process = loaded(30.0, "sleeps", "good")
    failures = []

    def call() -> None:
        with pytest.raises(Failed) as caught:
            ask(process, "sleeps")
        failures.append(str(caught.value))

    for _ in range(MOST_ENDS + 1):
        thread = threading.Thread(target=call)
        thread.start()
        wait_for(lambda: process._running is not None and process._running.busy and process.pid)
        process.leave()
        thread.join(10)
    assert len(failures) == MOST_ENDS + 1
    assert not process.stopped  # nobody's fault
    process.leave()  # while nothing is asked
    assert ask(process, "good") == [1.0, 2.0]
    process.close()


def test_closing_ends_everything_that_was_started() -> None:
    process = loaded(30.0, "leaves_a_child", "good")
    child = int(ask(process, "leaves_a_child")[0])
    runner = process.pid
    assert not gone(child)
    process.close()
    assert gone(runner)
    wait_for(lambda: gone(child))
    with pytest.raises(Failed, match="not asked: the session ends"):
        ask(process, "good")


def test_a_process_that_was_replaced_ends_after_its_call() -> None:
    process = loaded(30.0, "good")
    runner = process.pid
    process.retire()
    assert gone(runner)


def test_nothing_is_left_when_the_engine_is_killed() -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from engine.rewards.process import NamedFunction, RewardProcess\n"
        "where = sys.argv[1]\n"
        "function = NamedFunction('f', where, 'leaves_a_child', Path(where).read_text())\n"
        "process = RewardProcess([function])\n"
        "child = process.call('f', {'completions': ['a']}, {})[0][0]\n"
        "print(int(child), process.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", script, str(HOSTILE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE.parents[1], text=True) as engine:
        try:
            child, runner = map(int, engine.stdout.readline().split())
            assert not gone(runner)
        finally:
            engine.kill()
    wait_for(lambda: gone(runner) and gone(child))


def test_nothing_is_left_when_the_guard_is_killed() -> None:
    process = loaded(30.0, "good")
    ask(process, "good")
    runner, guard = process.pid, process._running._guard.pid
    os.kill(guard, signal.SIGKILL)
    wait_for(lambda: gone(runner))
    with pytest.raises(Failed, match="its process was ended by SIGKILL"):
        ask(process, "good")
    assert ask(process, "good") == [1.0, 2.0]
    process.close()


def test_a_function_that_never_ends_is_ended_where_nothing_lists_processes(tmp_path: Path, monkeypatch) -> None:
    """As on macOS: no /proc, and no prctl."""
    elsewhere = tmp_path / "worker.py"
    text = Path(processes.worker.__file__).read_text()
    text = text.replace('"/proc', '"/nowhere').replace("ctypes.CDLL(None).prctl(", "(lambda *_: None)(")
    elsewhere.write_text(text)
    monkeypatch.setattr(processes.worker, "__file__", str(elsewhere))
    process = loaded(30.0, "sleeps", "good")
    ask(process, "good")
    runner = process.pid
    monkeypatch.setattr(process, "_timeout", 0.1)
    with pytest.raises(Failed, match="took longer than"):
        ask(process, "sleeps")
    assert gone(runner)
    process.close()


def test_a_file_in_an_encoding_of_its_own_says_what_is_written_in_it(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    text = "# -*- coding: latin-1 -*-\ndef f(completions): return [float(text == 'é') for text in completions]\n"
    path.write_bytes(text.encode("latin-1"))
    process = RewardProcess([NamedFunction("f", str(path), "f", read_source(path))], timeout=30.0)
    try:
        assert ask(process, "f", ["é", "e"]) == [1.0, 0.0]
    finally:
        process.close()


def test_it_has_the_persons_environment_and_not_the_switches_of_the_engine(tmp_path: Path, monkeypatch) -> None:
    """A function may load a model of the hub: only the engine keeps itself off it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WORKBENCH_HUB_OFFLINE", "")
    source = "import os\ndef f(completions): return [len(os.environ.get('HF_HUB_OFFLINE', ''))]\n"
    process = RewardProcess([NamedFunction("f", str(tmp_path / "f.py"), "f", source)], timeout=30.0)
    try:
        assert ask(process, "f", ["a"]) == [0.0]
    finally:
        process.close()


def test_the_terminals_interrupt_does_not_reach_it(hostile) -> None:
    ask(hostile, "good")
    before = hostile.pid
    assert os.getsid(before) != os.getsid(0)
    os.kill(before, signal.SIGINT)
    assert ask(hostile, "good") == [1.0, 2.0]
    assert hostile.pid == before


def test_what_functions_print_goes_to_the_log_bounded() -> None:
    lines: list[str] = []
    process = loaded(20.0, "floods", say=lines.append)
    assert ask(process, "floods") == [1.0, 1.0]
    process.close()
    wait_for(lambda: any("left out" in line for line in lines))
    assert sum(map(len, lines)) < 2 * BYTES
    assert all(line.isprintable() for line in lines)
    assert any("[31mred" in line for line in lines)


def test_lines_are_copied_until_the_allowance_is_used_up_and_again_after_a_while() -> None:
    now = [0.0]
    lines: list[str] = []
    source, end = os.pipe()
    copying = threading.Thread(target=copy_output, args=(source, lines.append, Allowance(lambda: now[0])))
    copying.start()
    os.write(end, b"one\n" + b"y" * 3 * LONGEST_LINE + b"\nthree\n")
    wait_for(lambda: "three" in lines)
    os.write(end, b"z\n" * LINES)
    wait_for(lambda: lines.count("z") == LINES - 3)
    time.sleep(0.05)
    now[0] = 100.0
    os.write(end, b"after\nlast")
    os.close(end)
    copying.join(5)
    assert lines[:3] == ["one", "y" * LONGEST_LINE, "three"]
    assert lines.count("z") == LINES - 3
    left = 2 * LONGEST_LINE + 3
    assert lines[-3:] == [f"({left:,} bytes that were printed are left out)", "after", "last"]


def test_a_process_that_was_left_just_as_it_answered_is_not_asked_again() -> None:
    process = loaded(30.0, "good")
    try:
        process._running.busy = True  # as between the answer's arrival and its being read
        process.leave()
        assert ask(process, "good") == [1.0, 2.0]
    finally:
        process.close()
