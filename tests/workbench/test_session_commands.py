"""``list``, ``status``, ``follow``, ``send`` and ``stop`` against an engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import msgspec

from screens.session_rows import read_session
from sessions.branches import Branch
from sessions.folders import EngineInfo, SessionFolder, new_session, session_folder, sessions_home
from sessions.records import SessionSettings
from sessions.store import Store
from tests.workbench.conftest import Workbench, poll
from workbench.daemon import last_step


def test_list(workbench: Workbench) -> None:
    empty = workbench("list")
    assert (empty.returncode, empty.stdout) == (0, "")
    assert "no sessions yet" in empty.stderr
    workbench("run", "--headless", "--steps", "2", "--name", "done")
    with workbench.running("busy"):
        text = workbench("list").stdout.splitlines()
        assert text[0].split() == ["session", "state", "step", "reward", "model", "task", "size"]
        assert {tuple(line.split()[:2]) for line in text[1:]} == {("busy", "RUN"), ("done", "DONE")}
        rows = {row["session"]: row for row in map(json.loads, workbench("list", "--json").stdout.splitlines())}
        assert (rows["done"]["state"], rows["done"]["finished_steps"], rows["done"]["reward"]) == ("DONE", 2, 0.02)
        assert rows["busy"]["state"] == "RUN"


def test_a_session_whose_supervisor_died_is_done_if_its_engine_left_in_order(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "2", "--name", "s")
    folder = session_folder("s")
    folder.forget_exit()
    assert json.loads(workbench("list", "--json").stdout)["state"] == "DONE"
    assert read_session(folder).state == "DONE"
    # an engine that is killed leaves behind where it could be reached
    folder.write_engine(EngineInfo(pid=1, socket="/nowhere", started=1.0, version="0"))
    assert json.loads(workbench("list", "--json").stdout)["state"] == "FAILED"
    assert read_session(folder).state == "FAILED"


def test_an_unreadable_session_is_still_listed(workbench: Workbench) -> None:
    folder = new_session("odd", SessionSettings(name=""))
    (folder.path / "session.toml").write_text("steps = many")
    folder.database.write_text("not a database, but long enough to be taken for one " * 20)
    done = workbench("list", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["session"] == "odd"


def test_what_is_sent_and_who_follows_is_in_the_name_that_was_given(workbench: Workbench) -> None:
    with workbench.running("s", "--steps", "100000"):
        following = workbench.start("follow", "s", "--as", "eve")
        poll(lambda: "eve follow read-only" in workbench.now("s")["clients"])
        for words in (
            ["send", "s", "--as", "tuner", "set", "learning_rate=1e-4", "--expect", "learning_rate=2e-4"],
            ["send", "s", "set", "learning_rate=1e-4", "--expect=learning_rate=2e-4", "--as", "tuner", "--no-wait"],
            ["send", "s", "set", "learning_rate=1e-4", "--expect", "learning_rate=2e-4", "--no-wait", "--as=tuner"],
        ):
            assert workbench(*words).returncode == 0
        events = workbench("send", "s", "events", "100000").stdout
        assert events.count("tuner asked for {'learning_rate': 0.0001}, expecting {'learning_rate': 0.0002}") == 3
        bad = workbench("send", "s", "pause", "--as", "a,b")
        assert bad.returncode == 2
        assert "--as: 'a,b' is not a name" in bad.stderr
        assert workbench("stop", "s", "--as", "bob").returncode == 0
        out, _ = workbench.finish(following)
        assert "bob stops the session" in out


def test_a_session_is_listed_with_the_branch_that_it_trains(workbench: Workbench) -> None:
    workbench("run", "--headless", "--steps", "4", "--name", "s")
    folder = session_folder("s")
    store = Store(folder.database)
    store.add_branch(Branch(name="lower", parent="main", step=2, time=1.0))
    (record,) = [r for r in store.steps("main") if r.step == 3]
    metrics = record.metrics | {"reward/mean": 9.0}
    store.use_branch("lower")
    store.add_step(msgspec.structs.replace(record, branch="lower", metrics=metrics), [], 500)
    assert store.active == "lower"
    store.close()
    line = read_session(folder)
    assert (line.step, line.best) == (3, (3, 9.0))
    last = last_step(folder)
    assert last is not None
    assert (last.branch, last.step) == ("lower", 3)


def test_status(workbench: Workbench) -> None:
    with workbench.running("s", "--steps", "100000"):
        shown = json.loads(workbench("status", "s", "--json").stdout)
        assert (shown["session"], shown["state"], shown["phase"], shown["steps"]) == ("s", "RUN", "sampling", 100_000)
        text = workbench("status", "s").stdout
        assert "state:" in text
        assert "RUN" in text


def test_an_engine_that_does_not_answer_is_stale(workbench: Workbench) -> None:
    folder = new_session("s", SessionSettings(name=""))
    lock = folder.lock()
    assert json.loads(workbench("status", "s", "--json").stdout)["state"] == "LOADING"
    folder.write_engine(EngineInfo(pid=os.getpid(), socket="/nowhere", started=1.0, version="x"))
    shown = json.loads(workbench("status", "s", "--json").stdout)
    assert shown["state"] == "STALE"
    assert "no engine answers on /nowhere" in shown["note"]
    done = workbench("follow", "s")
    assert done.returncode == 1
    assert "no engine answers on /nowhere" in done.stderr
    os.close(lock)


def test_send_applies_and_says_where(workbench: Workbench) -> None:
    with workbench.running("s"):
        done = workbench("send", "s", "set", "temperature=0.9")
        assert done.returncode == 0, done.stderr
        accepted, applied = done.stdout.splitlines()
        assert accepted == "accepted: due at the next rollout"
        assert applied.startswith("applied at step ")
        quick = workbench("send", "--no-wait", "s", "set", "temperature=0.8")
        assert quick.stdout == "accepted: due at the next rollout\n"
        answers = [
            json.loads(x) for x in workbench("send", "s", "set", "temperature=0.7", "--json").stdout.splitlines()
        ]
        assert [answer["status"] for answer in answers] == ["accepted", "applied"]


def test_a_refusal_fails(workbench: Workbench) -> None:
    with workbench.running("s"):
        done = workbench("send", "s", "rate", "1.1A", "-1", "--mode", "thumbs")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "workbench: error: rejected: nothing is rated here\n"
        done = workbench("send", "s", "rate", "1.1A", "4", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["status"] == "rejected"


def test_a_change_to_a_paused_session_does_not_wait_for_ever(workbench: Workbench) -> None:
    with workbench.running("s"):
        assert workbench("send", "s", "pause").stdout.startswith("applied at step ")
        assert json.loads(workbench("status", "s", "--json").stdout)["state"] == "PAUSED"
        done = workbench("send", "s", "set", "temperature=0.9")
        assert done.returncode == 0
        assert done.stdout == "accepted: due at the next rollout\n"
        assert "the session is paused: it applies when it goes on" in done.stderr
        assert workbench("send", "s", "resume").returncode == 0


def test_queries(workbench: Workbench) -> None:
    with workbench.running("s"):
        poll(lambda: workbench.now("s")["finished_steps"] >= 2)
        response = json.loads(workbench("send", "s", "response", "1.1A", "--json").stdout)
        assert response["text"] == "first\x1b[31m\nline"
        assert "first\x1b[31m\nline" in workbench("send", "s", "response", "1.1A").stdout
        group = json.loads(workbench("send", "s", "group", "1.1", "--json").stdout)
        assert group["group"]["prompt"] == "5+7="
        assert "--- 1.1A ---" in workbench("send", "s", "group", "1.1").stdout
        heads = workbench("send", "s", "groups", "2").stdout.splitlines()
        assert (len(heads), heads[0].split()[0]) == (3, "group")
        series = json.loads(workbench("send", "s", "series", "reward/mean", "--json").stdout)
        assert series[0]["values"][:2] == [0.01, 0.02]
        assert workbench("send", "s", "series", "reward/mean").stdout.split()[:4] == [
            "step",
            "reward/mean",
            "1",
            "0.01",
        ]
        events = workbench("send", "s", "events", "3").stdout.splitlines()
        assert len(events) == 3
        risen = workbench("send", "s", "rose", "1").stdout.splitlines()
        assert risen[0].endswith("compared with what was earned up to step 1")
        assert risen[1:] == ["none of them earned more than was earned before"]
        assert json.loads(workbench("send", "s", "rose", "1", "--json").stdout)["since"] == 1
        never = workbench("send", "s", "rose", "999999")
        assert (never.returncode, never.stdout) == (1, "")
        assert "step 999999 is not before the newest one" in never.stderr
        watches = workbench("send", "s", "watches").stdout.splitlines()
        assert watches == ["watch  state  rule", "cut    holds  response/length > 9"]
        assert json.loads(workbench("send", "s", "watches", "--json").stdout)[0]["rule"] == "response/length > 9"
        missing = workbench("send", "s", "response", "1.9A")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "no group 1.9 on branch main" in missing.stderr


def test_plan(workbench: Workbench) -> None:
    with workbench.running("s"):
        lines = workbench("plan", "s", "group_size=16").stdout.splitlines()
        assert lines[0] == "with group_size 16 (grpo):"
        assert lines[1] == "memory about 1.0 -> 2.0 of 8.0 GB   step about 0.5 -> 1.0 s (x2)"
        assert lines[-1] == "basis: a guess"
        assert workbench("send", "s", "plan", "group_size", "16").stdout.splitlines() == lines
        as_json = workbench("plan", "s", "group_size=16", "epochs=2", "--json")
        assert json.loads(as_json.stdout)["values"] == {"group_size": 16, "epochs": 2}
        assert workbench("plan", "s").stdout.startswith("as it is (grpo):")
        wrong = workbench("plan", "s", "group_size=1")
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "group_size: 1 is out of bounds" in wrong.stderr


def test_follow_misses_nothing_however_slowly_it_is_read(workbench: Workbench) -> None:
    """The pipe is full long before it is read, and the engine ends meanwhile."""
    process = workbench.start("run", "--headless", "--name", "s", "--steps", "1500", fate="followed", step=0.0)
    poll(lambda: SessionFolder(sessions_home() / "s").engine() is not None)
    follower = workbench.start("follow", "s", "--json")
    assert follower.stdout is not None
    first = json.loads(follower.stdout.readline())
    assert process.wait(timeout=120) == 0
    rest = [json.loads(line) for line in follower.stdout.read().splitlines()]
    follower.communicate(timeout=60)
    assert follower.returncode == 0
    seqs = [event["seq"] for event in [first, *rest]]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert rest[-1]["record"]["step"] == 1500


def test_follow_for_people(workbench: Workbench) -> None:
    process = workbench.start("run", "--headless", "--name", "s", fate="followed-kill")
    poll(lambda: SessionFolder(sessions_home() / "s").engine() is not None)
    done = workbench("follow", "s")
    process.wait(timeout=60)
    assert done.returncode == 1
    assert "step 3 done: reward 0.030, kl 0.0010" in done.stdout
    assert done.stderr == "workbench: error: the engine of 's' ended: killed by SIGKILL\n"


def test_leaving_what_is_followed(workbench: Workbench) -> None:
    with workbench.running("s"):
        process = workbench.start("follow", "s")
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert workbench.finish(process)[1] == ""
        assert process.returncode == 0


def test_stop(workbench: Workbench) -> None:
    with workbench.running("s") as folder:
        done = workbench("stop", "s", "--now")
        assert done.returncode == 0, done.stderr
        assert "s has stopped; `workbench run --name s` continues it" in done.stderr
        assert not folder.running()
        again = workbench("stop", "s")
        assert (again.returncode, again.stderr) == (0, "workbench: s has no engine; there is nothing to stop\n")


def test_nothing_is_left(workbench: Workbench) -> None:
    with workbench.running("s") as folder:
        engine = folder.engine()
        assert engine is not None
        socket = engine.socket
        assert os.path.exists(socket)
    assert not os.path.exists(socket)
    assert folder.engine() is None
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder.path) not in left
