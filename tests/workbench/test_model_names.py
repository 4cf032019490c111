"""What `--model` takes at the front door, before there is a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import engine
from sessions.errors import InputFileError
from sessions.folders import all_sessions
from workbench.cli import main
from workbench.settings import check_model

TINY = Path(engine.__file__).parent / "tiny_model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_name_is_kept_as_it_is(cache: Path) -> None:
    assert check_model("org/name") == "org/name"
    assert check_model("org/name@v1") == "org/name@v1"


def test_without_a_network_the_cache_must_have_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputFileError, match="org/name: is not in the hub's cache, and HF_HUB_OFFLINE=1 keeps it"):
        check_model("org/name")
    shutil.copytree(TINY, cache / "models--org--name" / "snapshots" / COMMIT)
    assert check_model("org/name", COMMIT) == "org/name"  # of a session that has used it
    with pytest.raises(InputFileError, match="HF_HUB_OFFLINE=1"):
        check_model("org/name")


def test_a_damaged_model_is_refused_before_there_is_a_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (tmp_path / "m.gguf").write_bytes(b"no")
    for given, message in ((folder, "it was not copied whole"), (tmp_path / "m.gguf", "is not a GGUF file")):
        assert main(["run", "--headless", "--model", str(given)]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, err.count("\n")) == ("", 1)
    assert all_sessions() == []
