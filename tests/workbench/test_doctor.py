"""The doctor: each check tells what is so on a machine that is well and on one that is not, and never breaks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections import namedtuple
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from sessions.folders import socket_folder
from workbench import doctor_machine, doctor_software
from workbench.cli import main
from workbench.doctor import CHECKS, examine, shown
from workbench.doctor_machine import (
    check_disk,
    check_home,
    check_logout,
    check_memory,
    check_runtime,
    file_system,
    kills_at_logout,
    memory,
)
from workbench.doctor_software import (
    check_locale,
    check_packages,
    check_python,
    check_sqlite,
    check_terminal,
    check_torch,
)
from workbench.findings import Finding, output_of

Patch = pytest.MonkeyPatch
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


def files(folder: Path) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*"))


def is_whole(finding: Finding) -> bool:
    """A result with a line; what is not well has something to do about it."""
    one_line = "\n" not in finding.what + finding.remedy and finding.what != ""
    return one_line and (finding.result == "ok") == (finding.remedy == "")


# ------------------------------------------------------------------------------------------------------ as a whole


def test_a_machine_that_is_well(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].split() == ["check", "result", "what"]
    assert [name for name in CHECKS if not any(line.startswith(name) for line in lines)] == []
    assert "torch " in printed.out
    assert files(home) == []  # nothing is left behind
    assert list(socket_folder().iterdir()) == []


def test_as_json_in_a_process_without_a_terminal_or_an_environment(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "doctor", "--json"],
        env={"PATH": os.environ["PATH"], "WORKBENCH_HOME": str(home), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["check"] for row in found] == list(CHECKS)
    assert all(set(row) == {"check", "result", "what", "remedy"} for row in found)
    assert done.returncode == int(any(row["result"] == "fail" for row in found))
    assert not home.exists()


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch: Patch) -> None:
    def breaks() -> Finding:
        raise RuntimeError("of\nall things")

    for name in CHECKS:
        monkeypatch.setitem(CHECKS, name, breaks if name != "python" else check_python)
    found = examine()
    assert [f.check for f in found] == list(CHECKS)
    assert [f.result for f in found if f.check == "python"] == ["ok"]
    for finding in found:
        assert is_whole(finding)
        if finding.check != "python":
            assert finding.result == "warn"
            assert "this check could not be made (RuntimeError: of all things)" in finding.what


@pytest.mark.parametrize(("results", "code"), [("ok warn", 0), ("ok warn fail", 1), ("warn", 0), ("fail", 1)])
def test_only_a_failure_is_an_error(
    results: str, code: int, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "workbench.doctor.CHECKS",
        {r: lambda r=r: Finding(r, "so", "" if r == "ok" else "`do`") for r in results.split()},
    )
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.count("-> `do`") == len(results.replace("ok", "").split())


def test_remedies_stand_under_what_they_are_for() -> None:
    text = shown(
        [Finding("ok", "fine", check="a"), Finding("warn", "thin", "`eat`", "b"), Finding("ok", "x", check="c")]
    )
    assert text.splitlines()[1:] == [
        "a      ok      fine",
        "b      warn    thin",
        " " * 15 + "-> `eat`",
        "c      ok      x",
    ]


# ----------------------------------------------------------------------------------------------------- the machine


def test_a_home_that_is_there_or_will_be(home: Path) -> None:
    assert "which will be made in" in check_home().what
    assert not home.exists()
    home.mkdir()
    found = check_home()
    assert str(home) in found.what
    assert is_whole(found)


@pytest.mark.parametrize(
    ("kind", "result", "words"),
    [
        ("nfs4", "warn", "other machines share"),
        ("tmpfs", "warn", "gone when"),
        ("ext4", "ok", "on ext4"),
        ("", "ok", ""),
    ],
)
def test_the_file_system_of_the_home(home: Path, monkeypatch: Patch, kind: str, result: str, words: str) -> None:
    home.mkdir(mode=0o700)
    monkeypatch.setattr(doctor_machine, "file_system", lambda _: kind)
    found = check_home()
    assert (found.result, words in found.what) == (result, True)
    assert is_whole(found)
    assert result == "ok" or "export WORKBENCH_HOME=" in found.remedy


def test_the_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "ab").mkdir()
    root = str(tmp_path).replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"proc /proc proc rw 0 0\n/dev/x / ext4 rw 0 0\nhost:/x {root} nfs4 rw 0 0\n"
        f"none {root}/a\\040b tmpfs rw 0 0\nshort\n/dev/y {root}/ab xfs rw 0 0\n/dev/z {root}/ab btrfs rw 0 0\n"
    )
    kinds = {path: file_system(path, mounts) for path in (Path("/"), tmp_path, tmp_path / "a b", tmp_path / "ab")}
    assert list(kinds.values()) == ["ext4", "nfs4", "tmpfs", "btrfs"]
    assert file_system(tmp_path / "abc", mounts) == "nfs4"
    assert file_system(tmp_path, tmp_path / "none") == ""


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["os.fsync", "fcntl.flock", "tempfile.NamedTemporaryFile"])
def test_a_home_that_takes_no_files(home: Path, monkeypatch: Patch, call: str) -> None:
    home.mkdir()
    monkeypatch.setattr(call, lambda *_, **__: refuse())
    found = check_home()
    assert found.result == "fail"
    assert "cannot be written, locked and synced" in found.what
    assert is_whole(found)


def test_a_home_that_is_a_file(home: Path) -> None:
    home.write_text("")
    assert (check_home().result, check_home().what) == ("fail", f"{home} is not a folder")


def test_a_home_that_others_may_change(home: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor_machine, "file_system", lambda _: "ext4")
    home.mkdir()
    home.chmod(0o777)
    assert (check_home().result, check_home().remedy) == ("warn", f"`chmod go-w {home}`")
    home.chmod(0o755)
    assert check_home().result == "ok"


def test_sessions_in_a_link(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "sessions").symlink_to(tmp_path)
    assert check_home().result == "fail"
    assert "is a link or belongs to another user" in check_home().what


@as_root
def test_sessions_of_another(home: Path) -> None:
    (home / "sessions").mkdir(parents=True)
    os.chown(home / "sessions", 65534, -1)
    assert check_home().result == "fail"


@pytest.mark.parametrize(("free", "result"), [(10**8, "fail"), (10**9, "warn"), (10**12, "ok")])
def test_the_disk(monkeypatch: Patch, free: int, result: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**13, 0, free))
    found = check_disk()
    assert found.result == result
    assert is_whole(found)


def test_a_disk_with_room_for_no_more_files(monkeypatch: Patch) -> None:
    room = namedtuple("room", "f_files f_favail")
    monkeypatch.setattr(os, "statvfs", lambda _: room(1000, 12))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**13, 0, 10**12))
    assert (check_disk().result, check_disk().what) == ("warn", "room for only 12 more files")
    monkeypatch.setattr(os, "statvfs", lambda _: room(0, 0))  # btrfs has no such bound
    assert check_disk().result == "ok"


def test_the_runtime_folder(home: Path, monkeypatch: Patch) -> None:
    found = check_runtime()
    assert found.result == "ok"
    assert str(home.parent / "run" / "workbench") in found.what
    (home.parent / "run").chmod(0o755)
    assert (check_runtime().result, check_runtime().remedy) == ("warn", f"`chmod 700 {home.parent / 'run'}`")
    monkeypatch.setattr(tempfile, "tempdir", str(home.parent))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert check_runtime().result == "ok"
    assert "XDG_RUNTIME_DIR is not set, which is fine" in check_runtime().what
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    found = check_runtime()
    assert (found.result, "XDG_RUNTIME_DIR=/nonexistent is not a folder of yours" in found.what) == ("warn", True)
    assert is_whole(found)
    assert list((home.parent / f"workbench-{os.getuid()}").iterdir()) == []


def test_a_runtime_folder_that_is_a_link(home: Path) -> None:
    (home.parent / "run" / "workbench").symlink_to(home.parent)
    found = check_runtime()
    assert (found.result, "is not a folder of yours" in found.what) == ("fail", True)
    assert is_whole(found)


def test_a_socket_that_cannot_be_bound(monkeypatch: Patch) -> None:
    """It is really bound: a file system without sockets says so only then."""
    monkeypatch.setattr(socket.socket, "bind", refuse)
    found = check_runtime()
    assert (found.result, "no socket can be made: [Errno 28]" in found.what) == ("fail", True)


@pytest.mark.parametrize(
    ("written", "kills"),
    [
        ({}, False),
        ({"a/logind.conf": "[Login]\nKillUserProcesses=yes\n"}, True),
        ({"a/logind.conf": "#KillUserProcesses=yes\n"}, False),
        ({"a/logind.conf": "KillUserProcesses = true\nKillExcludeUsers=ann\n"}, False),
        ({"a/logind.conf": "KillUserProcesses=yes\nKillExcludeUsers=bob\n"}, True),
        ({"a/logind.conf": "KillUserProcesses=no\n", "b/logind.conf": "KillUserProcesses=yes\n"}, False),
        ({"a/logind.conf": "KillUserProcesses=no\n", "b/logind.conf.d/9.conf": "KillUserProcesses=1\n"}, True),
        (
            {"a/logind.conf.d/9.conf": "KillUserProcesses=0", "b/logind.conf.d/9.conf": "KillUserProcesses=1"},
            False,
        ),
        (
            {"a/logind.conf.d/1.conf": "KillUserProcesses=1", "b/logind.conf.d/2.conf": "KillUserProcesses=0"},
            False,
        ),
    ],
)
def test_what_logind_is_told(tmp_path: Path, monkeypatch: Patch, written: dict[str, str], kills: bool) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert kills_at_logout([str(tmp_path / "a"), str(tmp_path / "b")]) == kills


@pytest.fixture
def systemd(monkeypatch: Patch, tmp_path: Path) -> Callable[..., None]:
    """A machine with systemd whose programs answer as told."""
    monkeypatch.setattr(doctor_machine, "_has_systemd", lambda: True)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.setattr(doctor_machine, "LINGER", tmp_path)

    def answers(kills: str | None, linger: str | None = None, spared: str = 'as 1 "root"') -> None:
        said = {"KillUserProcesses": kills, "KillExcludeUsers": spared, "--property=Linger": linger}
        monkeypatch.setattr(doctor_machine, "output_of", lambda words: said[words[-1]])

    return answers


def test_logout(systemd: Callable[..., None], tmp_path: Path) -> None:
    systemd("b false\n")
    assert check_logout().result == "ok"
    systemd("b true\n", "Linger=no\n")
    found = check_logout()
    assert (found.result, found.remedy) == ("warn", "`loginctl enable-linger`")
    systemd("b true\n", "Linger=yes\n")
    assert (check_logout().result, "you linger" in check_logout().what) == ("ok", True)
    systemd("b true\n", "Linger=no\n", 'as 2 "root" "ann"')
    assert check_logout().result == "ok"
    systemd("b true\n", None)
    (tmp_path / "ann").touch()
    assert check_logout().result == "ok"


def test_without_systemd_nothing_kills(monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor_machine, "_has_systemd", lambda: False)
    assert check_logout().what == "no systemd here: nothing ends a session's engine at logout"


@pytest.mark.parametrize(
    ("meminfo", "limit", "expected"),
    [
        ("MemTotal: 8000 kB\nMemAvailable: 4000 kB\n", {}, (8_192_000, 4_096_000)),
        ("MemTotal: 8000 kB\nMemAvailable: 4000 kB\n", {"max": "max", "current": "5"}, (8_192_000, 4_096_000)),
        ("MemTotal: 8000 kB\nMemAvailable: 4000 kB\n", {"max": "1000", "current": "400"}, (1000, 600)),
        ("MemTotal: 8000 kB\nMemAvailable: 4000 kB\n", {"max": "1000", "current": "4000"}, (1000, 0)),
    ],
)
def test_memory(tmp_path: Path, meminfo: str, limit: dict[str, str], expected: tuple[int, int]) -> None:
    (tmp_path / "meminfo").write_text(meminfo)
    for name, text in limit.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory(tmp_path / "meminfo", tmp_path) == expected


@pytest.mark.parametrize(
    ("total", "free", "result"), [(0, 0, "ok"), (10**9, 10**8, "fail"), (10**10, 10**9, "warn"), (10**11, 10**11, "ok")]
)
def test_little_memory(monkeypatch: Patch, total: int, free: int, result: str) -> None:
    monkeypatch.setattr(doctor_machine, "memory", lambda: (total, free))
    assert check_memory().result == result
    assert is_whole(check_memory())


# ---------------------------------------------------------------------------------------------------- the software


@pytest.mark.parametrize(
    ("version", "result"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "fail")]
)
def test_the_interpreter(monkeypatch: Patch, version: tuple[int, ...], result: str) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert check_python().result == result
    assert is_whole(check_python())


def test_the_range_of_interpreters_is_the_packages_own() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (first, beyond) = doctor_software.PYTHON
    assert f'requires-python = ">={first[0]}.{first[1]},<{beyond[0]}.{beyond[1]}"' in text


def versions(name: str) -> str:
    known = {"textual": "8.2.1", "torch": "2.13.0+cpu"}
    if name not in known:
        raise PackageNotFoundError(name)
    return known[name]


def test_packages() -> None:
    fine = ["textual>=8.2,<9", "torch>=2.9", "gguf>=1; extra == 'smollm2'"]
    found = check_packages(fine, versions)
    assert (found.result, found.what) == ("ok", "textual 8.2.1, torch 2.13.0+cpu")
    found = check_packages(["textual>=9", "missing", "torch<2.9"], versions)
    assert found.result == "fail"
    assert "textual is 8.2.1, needed is >=9" in found.what
    assert "missing is missing, needed is any" in found.what
    assert found.remedy == "`pip install 'textual>=9' 'missing' 'torch<2.9'`"


def test_packages_that_were_never_installed(monkeypatch: Patch) -> None:
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor_software.metadata, "requires", none)
    assert check_packages().result == "warn"


def test_sqlite(home: Path, monkeypatch: Patch) -> None:
    home.mkdir()
    assert (check_sqlite().result, "journal mode wal" in check_sqlite().what) == ("ok", True)
    assert files(home) == []
    monkeypatch.setattr(doctor_software, "keep_log", lambda db, _: db.execute("PRAGMA journal_mode=TRUNCATE"))
    found = check_sqlite()
    assert (found.result, "journal mode truncate" in found.what) == ("warn", True)
    assert is_whole(found)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 20, 0))
    assert check_sqlite().result == "fail"


@pytest.mark.parametrize(
    ("code", "result", "words"),
    [
        ("import time; time.sleep(60)", "fail", "did not answer within 0.5 s"),
        ("import sys; sys.exit('libcudart.so.12: cannot open')", "fail", "torch cannot be used: libcudart.so.12"),
        ("import os; os.kill(os.getpid(), 11)", "fail", "torch cannot be used: it ended with -11"),
        ("print('hello')", "fail", "printed something else"),
        ("print('{}')", "fail", "printed something else"),
        ("pass", "fail", "printed something else"),
        (
            'print(\'warning\'); print(\'{"version":"9","device":"GPU","memory":80000000000,"threads":4}\')',
            "ok",
            "torch 9 on GPU, 80 GB, 4 threads",
        ),
    ],
)
def test_a_broken_torch_is_reported(code: str, result: str, words: str) -> None:
    found = check_torch(0.5 if "sleep" in code else 30, code)
    assert (found.result, words in found.what) == (result, True), found
    assert is_whole(found)


class Terminal:
    """Stands for stdout."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 99


@pytest.mark.parametrize(
    ("environment", "size", "result", "words"),
    [
        ({"TERM": "xterm-256color"}, (160, 48), "ok", "160x48, 256 colours"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, (160, 48), "ok", "true colour"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, (160, 48), "ok", "no colours (NO_COLOR)"),
        ({"TERM": "xterm"}, (160, 48), "warn", "8 colours"),
        ({"TERM": "screen", "TMUX": "x"}, (160, 48), "warn", "8 colours, in tmux"),
        ({"TERM": "screen", "STY": "x"}, (160, 48), "warn", "8 colours, in screen"),
        ({"TERM": "tmux-256color", "TMUX": "x"}, (160, 48), "ok", "256 colours, in tmux"),
        ({"TERM": "xterm-256color"}, (59, 48), "warn", "less than 60x16"),
        ({"TERM": "xterm-256color"}, (60, 15), "warn", "less than 60x16"),
        ({"TERM": "xterm-256color"}, (60, 16), "ok", "60x16"),
        ({"TERM": "dumb"}, (160, 48), "fail", "nothing can be drawn"),
        ({}, (160, 48), "fail", "TERM is not set"),
    ],
)
def test_the_terminal(
    monkeypatch: Patch, environment: dict[str, str], size: tuple[int, int], result: str, words: str
) -> None:
    for name in ("TERM", "COLORTERM", "NO_COLOR", "TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda _=0: os.terminal_size(size))
    found = check_terminal()
    monkeypatch.undo()
    assert (found.result, words in found.what) == (result, True), found
    assert is_whole(found)
    assert not ("TMUX" in environment and result == "warn") or "tmux set" in found.remedy


def test_no_terminal() -> None:
    assert check_terminal().what.startswith("none here")


@pytest.mark.parametrize(
    ("encoding", "result", "marks"), [("utf-8", "ok", "braille"), ("ascii", "warn", "ascii"), (None, None, "")]
)
def test_the_locale(monkeypatch: Patch, encoding: str | None, result: str | None, marks: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stdout = Terminal()
    stdout.encoding = encoding
    monkeypatch.setattr(sys, "stdout", stdout)
    found = check_locale()
    monkeypatch.undo()
    assert result is None or (found.result, f"charts in {marks}" in found.what) == (result, True)
    assert is_whole(found)


def test_a_program_that_is_not_there_or_does_not_end_says_nothing() -> None:
    assert output_of(["/nonexistent"]) is None
    assert output_of([sys.executable, "-c", "import time; time.sleep(60)"], 0.3) is None
    assert output_of([sys.executable, "-c", "import sys; print(1); sys.exit(3)"]) is None
    assert output_of([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'\\xff')"]) is None
    assert output_of([sys.executable, "-c", "print(1)"]) == "1\n"
