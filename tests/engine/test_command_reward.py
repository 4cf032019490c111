"""A program as a reward: what it is asked, what it may answer, and that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from engine.rewards import Component
from engine.rewards.command import Command
from engine.rewards.component import Failed
from engine.rewards.lines import MOST_ANSWER
from engine.rewards.loading import Surroundings
from engine.scoring import score_group
from engine.tasks import MAKERS, load_task
from engine.tasks.arithmetic import arithmetic
from engine.tasks.task import Prompt, Task
from sessions.errors import UsageError

HEAD = """\
import json, os, sys, time
def say(value): print(value if isinstance(value, str) else json.dumps(value), flush=True)
"""
Make = Callable[..., Command]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make(body): a command of a program that runs ``body`` for each line, with ``group`` and ``count``."""
    made = []

    def command(body: str, *, before: str = "", seconds: float = 30.0) -> Command:
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        path = tmp_path / f"score{len(made)}.py"
        path.write_text(
            f"{HEAD}{before}\nfor count, line in enumerate(sys.stdin):\n    group = json.loads(line)\n"
            f"    n = len(group['completions'])\n{lines}\n"
        )
        run = shlex.join([sys.executable, "-I", "-S", str(path)])
        made.append(Command(run, folder=str(tmp_path), seconds=seconds))
        return made[-1]

    yield command
    for one in made:
        one.close()


def ask(command: Command, *texts: str, **columns):
    return command(prompts=["q"] * len(texts), completions=list(texts), **columns)


def gone(pid: int) -> bool:
    """Whether a process is no more, or soon is."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_program_is_started_once_and_gets_every_column(make: Make, tmp_path: Path) -> None:
    command = make(
        "log.write(line); log.flush()\nsay({'rewards': [len(c) + 10 * count for c in group['completions']]})",
        before="log = open('asked', 'a'); log.write(f'{os.getpid()}\\n')",
    )
    state = SimpleNamespace(global_step=3)
    first = ask(command, "a", "bb\n\u2028é\0", answer=["1", "2"], when=[date(2026, 1, 2)] * 2, trainer_state=state)
    assert first == [1, 6]
    assert ask(command, "\ud800", completion_ids=[[4, 5]]) == [11]
    pid, one, two = (tmp_path / "asked").read_text().strip().split("\n")
    assert pid.isdigit()
    assert json.loads(one) == {
        "prompts": ["q", "q"],
        "completions": ["a", "bb\n\u2028é\0"],
        "answer": ["1", "2"],
        "when": ["2026-01-02"] * 2,
        "trainer_state": {"global_step": 3},
    }
    assert json.loads(two) == {"prompts": ["q"], "completions": ["\ud800"], "completion_ids": [[4, 5]]}


def test_null_and_what_is_no_number_concern_their_response_alone(make: Make) -> None:
    command = make('say(\'{"rewards": [0.5, null, NaN, "x", true]}\')')
    scored = score_group({"mine": Component(command)}, Prompt("p", "q", ""), list("abcde"))
    assert [s.reward for s in scored] == [0.5, None, None, None, 1.0]
    assert [s.failed for s in scored] == [
        "", "", "mine: returned nan, which is not a finite number", "mine: returned 'x', which is not a finite number",
        "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("say('hello')", "it answered 'hello'; one line is expected that reads"),
        ("say([1.0])", "it answered '[1.0]'"),
        ("say({'reward': [1.0]})", "one line is expected"),
        ("say({'rewards': [1.0, 2.0]})", "it answered 2 rewards for 1 completions"),
        ("say('[' * 100000)", "it answered '[[["),
        ("say('1' * 5000)", "it answered '111"),
        ("sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush()", "it answered '\ufffd\ufffd'"),
        ("sys.exit(3)", "it ended (exit code 3) before it answered"),
        ("os.close(1); time.sleep(600)", "it ended (its output is closed) before it answered"),
        ("os.kill(os.getpid(), 9)", "it ended (signal 9) before it answered"),
        (f"sys.stdout.write('x' * {MOST_ANSWER + 70000}); sys.stdout.flush(); time.sleep(60)",
         "a line of more than 1,048,576 bytes"),
        ("print('x\\ny', flush=True)", "it said 'y' after its answer"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_fails_the_group_in_one_line_and_the_next_is_asked_anew(
    make: Make, tmp_path: Path, answer: str, reason: str
) -> None:
    again = f"if os.path.exists('once'): say({{'rewards': [7.0] * n}}); continue\nopen('once', 'w').close()\n{answer}"
    command = make(again)
    (failed,) = ask(command, "a")
    assert isinstance(failed, Failed)
    assert reason in str(failed)
    assert command.pid is None
    assert str(failed).isprintable()
    assert len(str(failed)) < 250
    assert ask(command, "a", "b") == [7, 7]


def test_words_that_nobody_asked_for_are_not_taken_for_the_next_answer(make: Make, tmp_path: Path) -> None:
    command = make(
        "if count: say({'rewards': [2.0]}); continue\n"
        "say({'rewards': [1.0]}); time.sleep(0.2); say({'rewards': [9.0]})\nopen('said', 'w')"
    )
    first = ask(command, "a")
    if first == [1.0]:  # the second line may be seen with the first
        while not (tmp_path / "said").exists():
            time.sleep(0.01)
        (first,) = ask(command, "a")
    else:
        (first,) = first
    assert "9.0" in str(first)
    assert "before it was asked" in str(first) or "after its answer" in str(first)


def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(make: Make, tmp_path: Path) -> None:
    command = make(
        "import subprocess, signal\nif count == 0 and not os.path.exists('pids'):\n"
        "    signal.signal(signal.SIGTERM, lambda *_: open('asked to leave', 'w').close())\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n    time.sleep(600)\nsay({'rewards': [1.0] * n})",
        seconds=1.5,
    )
    both = ask(command, "a", "b")
    assert [str(failed) for failed in both] == [
        "it did not answer within 1.5 s and was killed; the next group starts it again"
    ] * 2
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    assert not (tmp_path / "asked to leave").exists()
    assert ask(command, "a") == [1.0]


def test_what_a_program_leaves_behind_is_ended_with_it(make: Make, tmp_path: Path) -> None:
    command = make(
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'], stdin=-3, stdout=-3)\n"
        "open('pid', 'w').write(str(child.pid))\nsys.exit(0)"
    )
    (failed,) = ask(command, "a")
    assert "it ended (exit code 0)" in str(failed)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_program_that_never_reads_does_not_hold_up_more_than_the_time_limit(make: Make) -> None:
    command = make("", before="time.sleep(600)", seconds=0.5)
    (failed,) = ask(command, "x" * 10**6)
    assert "did not answer within 0.5 s" in str(failed)


def test_a_program_that_cannot_be_run_fails_the_group(tmp_path: Path) -> None:
    for command in (Command("/no/such/program x"), Command("true", folder=str(tmp_path / "none"))):
        (failed,) = ask(command, "a")
        assert isinstance(failed, Failed)
        assert "exit code 127" in str(failed) or "cannot be started" in str(failed)
        command.close()


def test_a_shell_reads_the_words_only_where_it_was_asked_for(tmp_path: Path) -> None:
    words = """read line; echo '{"rewards": [1]}'"""
    with_shell = Command(words, through_shell=True, folder=str(tmp_path))
    assert ask(with_shell, "a") == [1]
    with_shell.close()
    without = Command("echo $(touch here) '{\"rewards\": [1]}'", folder=str(tmp_path))
    ask(without, "a")
    without.close()
    assert not (tmp_path / "here").exists()


def test_it_has_the_persons_environment_and_not_the_switches_of_the_engine(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WORKBENCH_HUB_OFFLINE", "")
    assert ask(make("say({'rewards': [len(os.environ.get('HF_HUB_OFFLINE', ''))]})"), "a") == [0]


def test_a_program_that_is_ended_twice_closes_nothing_of_others(make: Make) -> None:
    """As the interpreter ends, by it and by the thread that asks."""
    command = make("say({'rewards': [1.0] * n})")
    ask(command, "a")
    running = command._program._running
    assert running is not None
    running.end(now=True)
    others = [os.open(os.devnull, os.O_RDWR) for _ in range(8)]  # they get the numbers that are free now
    running.end(now=True)
    for other in others:
        os.fstat(other)
        os.close(other)


def test_a_program_has_a_moment_to_leave_when_it_is_not_needed_any_more(make: Make, tmp_path: Path) -> None:
    command = make("say({'rewards': [1.0]})")
    with (tmp_path / "score0.py").open("a") as file:
        file.write("time.sleep(0.1)\nopen('left', 'w').close()\n")
    assert ask(command, "a") == [1]
    guard = command.pid
    assert guard is not None
    command.close()
    assert gone(guard)
    assert (tmp_path / "left").exists()


def test_a_program_has_a_moment_to_leave_when_the_process_that_asked_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "score.py"
    path.write_text(
        HEAD + "for line in sys.stdin: say({'rewards': [1.0]})\ntime.sleep(0.1)\nopen('left', 'w').close()\n"
    )
    run = shlex.join([sys.executable, "-I", "-S", str(path)])
    asking = (
        "from engine.rewards.command import Command\n"
        f"c = Command({run!r}, folder={str(tmp_path)!r})\nprint(c(['q'], ['a']))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", asking], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[1.0]\n", "")
    assert (tmp_path / "left").exists()


def test_a_command_that_nobody_holds_any_more_ends_its_program(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(HEAD + "for line in sys.stdin: say({'rewards': [float(os.getpid())]})\n")
    command = Command(shlex.join([sys.executable, "-I", "-S", str(path)]))
    (pid,) = ask(command, "a")
    del command
    assert gone(int(pid))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, 0])
def test_no_program_outlives_the_process_that_asked_it(tmp_path: Path, ending: int) -> None:
    stubborn = tmp_path / "score.py"
    stubborn.write_text(
        f"import signal\n{HEAD}signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.stdin.readline(); say({'rewards': [float(os.getpid())]})\ntime.sleep(600)\n"
    )
    run = shlex.join([sys.executable, "-I", "-S", str(stubborn)])
    asking = (
        "import sys, threading; from engine.rewards.command import Command\n"
        f"c = Command({run!r})\nt = threading.Thread(target=lambda: print(c(['q'], ['a']), c.pid, flush=True))\n"
        "t.start(); t.join(); sys.stdin.read()\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", asking],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
        text=True,
    ) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        pid, guard = asker.stdout.readline().strip("[\n").split("] ")
        assert psutil.pid_exists(int(float(pid)))
        if ending:
            asker.send_signal(ending)
        asker.stdin.close()
        asker.wait(20)
    assert gone(int(float(pid)))
    assert gone(int(guard))


def test_rewards_run_in_the_surroundings_that_the_task_is_loaded_with(tmp_path: Path) -> None:
    task = load_task("arithmetic", 0, 8, ["command run='sleep 60'"], Surroundings(timeout=0.2))
    (scored,) = score_group(task.components, task.prompts[0], ["x"])
    assert scored.failed.startswith("command: it did not answer within 0.2 s")


def test_rewards_that_compare_are_refused_for_a_task_without_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> Task:
        own = arithmetic(8)
        return replace(own, prompts=[replace(prompt, answer="") for prompt in own.prompts])

    monkeypatch.setitem(MAKERS, "arithmetic", without)
    assert load_task("arithmetic", 0, 8, ["length target=3"]).components
    with pytest.raises(UsageError, match="reward exact: it compares with a reference answer"):
        load_task("arithmetic", 0, 8, ["exact"])
