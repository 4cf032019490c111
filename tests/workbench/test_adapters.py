"""Adapters at the front door: what is refused before an engine is started, and what a session is written with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions.errors import UsageError
from sessions.records import SessionSettings
from workbench.cli import main
from workbench.settings import check_settings


def adapters(place: Path, base: str) -> Path:
    place.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": base}
    (place / "adapter_config.json").write_text(json.dumps(config))
    (place / "adapter_model.safetensors").write_bytes(b"")
    return place


def test_a_session_is_written_with_checked_words(tmp_path: Path) -> None:
    checked = check_settings(SessionSettings(name="a", lora="targets=q_proj   r=4"))
    assert (checked.model, checked.lora) == ("tiny", "r=4 targets=q_proj")
    assert check_settings(checked) == checked


def test_a_model_that_is_adapters_is_written_as_its_base_and_them(tmp_path: Path) -> None:
    place = adapters(tmp_path / "a", "tiny")
    checked = check_settings(SessionSettings(name="a", model=str(place)))
    assert (checked.model, checked.lora) == ("tiny", f"from={place}")
    for path in place.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="No such file"):
        check_settings(checked)
    assert check_settings(checked, warmed=True) == checked  # it has adapters of its own by now


def test_adapters_whose_base_is_not_here_say_what_to_give(tmp_path: Path) -> None:
    place = adapters(tmp_path / "a", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="adapters for a model that is not found here") as raised:
        check_settings(SessionSettings(name="a", model=str(place)))
    assert str(tmp_path / "gone") in str(raised.value)
    assert f"--model MODEL --lora from={place}" in str(raised.value)


@pytest.mark.parametrize("words", ["rank=4", "dropout=0.1", "from=/nowhere", "r=0"])
def test_words_that_cannot_be_used_start_nothing(
    words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", "--headless", "--name", "a", "--lora", words]) == 2
    assert capsys.readouterr().err.startswith("workbench: error: ")
    assert not list(tmp_path.rglob("session.toml"))
