"""The words of ``--lora``, and folders of adapters, without torch and peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sessions import adapters
from sessions.adapters import ALL_LINEAR, LoraOptions, adapted, base_of, check_lora, is_adapter, read_config, read_lora
from sessions.errors import InputFileError, UsageError


def folder(place: Path, **config: Any) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    (place / "adapter_model.safetensors").write_bytes(b"")
    return place


def test_words_are_read_with_the_defaults_of_trl() -> None:
    assert read_lora("r=16") == LoraOptions(16, 32.0, (ALL_LINEAR,), (), (), rslora=False, start=None)
    assert read_lora("r=4") == LoraOptions(r=4, alpha=32.0)  # as in TRL, alpha does not follow r
    words = "r=8 alpha=12.5 targets=q_proj,v_proj exclude=k_proj layers=0,4-6 rslora=yes dropout=0"
    assert read_lora(words) == LoraOptions(8, 12.5, ("q_proj", "v_proj"), ("k_proj",), (0, 4, 5, 6), rslora=True)


def test_checked_words_read_as_the_same_options_and_have_absolute_paths(tmp_path: Path, monkeypatch) -> None:
    assert check_lora("") == ""
    assert check_lora("alpha=64   r=8") == "r=8 alpha=64.0"
    assert check_lora("dropout=0") == "r=16"
    place = folder(tmp_path / "with blank")
    monkeypatch.chdir(tmp_path)
    words = check_lora("from='with blank'")
    assert read_lora(words).start == place
    assert check_lora(words) == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rank=4", "unknown option of run --lora: 'rank'"),
        ("16", "'16' should read key=value"),
        ("r=0", "r '0' is out of bounds"),
        ("r=1e3", "r '1e3' is out of bounds"),
        ("alpha=nan", "alpha 'nan' is out of bounds"),
        ("alpha=0", "alpha '0' is out of bounds"),
        ("alpha=inf", "alpha 'inf' is out of bounds"),
        ("r=4 r=5", "r is given twice"),
        ("dropout=0.05", "dropout 0.05: only 0 is allowed"),
        ("targets=,", "names of layers with commas, or all-linear alone"),
        ("targets=all-linear,q_proj", "all-linear alone"),
        ("layers=1-x", "numbers of layers with commas"),
        ("layers=5-2", "5-2 ends before it begins"),
        ("rslora=perhaps", "neither true nor false"),
        ("from=x r=4", "has r of its own; leave r= out"),
    ],
)
def test_words_that_cannot_be_used_are_one_line(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        read_lora(words)
    assert "\n" not in str(raised.value)


def test_without_peft_there_is_one_line_that_says_what_brings_it(monkeypatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"^--lora needs the package peft; `pip install 'rl-workbench\[lora\]'` brings it"
    ):
        check_lora("r=16")
    assert check_lora("") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ('{"peft_type": "IA3"}', "is of 'IA3'; only LORA"),
        ("{}", "is of 'None'; only LORA"),
        ("[" * 100_000, "cannot be read"),
        ("x" * (2**22 + 1), "more than 4,194,304 bytes"),
    ],
)
def test_a_folder_that_holds_no_lora_is_refused(text: str, message: str, tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    (place / "adapter_config.json").write_text(text)
    with pytest.raises(InputFileError, match=message):
        check_lora(f"from={place}")
    assert check_lora(f"from={place}", started=True)  # the session has its own by now


def test_a_folder_without_weights_or_none_at_all_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "a")
    assert read_config(place)["peft_type"] == "LORA"
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(InputFileError, match=r"no adapter_model\.safetensors there"):
        read_config(place)
    with pytest.raises(InputFileError, match="No such file"):
        check_lora(f"from={tmp_path / 'nowhere'}")


def test_a_folder_of_adapters_stands_for_its_base_and_them(tmp_path: Path) -> None:
    assert adapted("tiny", "r=4") == ("tiny", "r=4")
    place = folder(tmp_path / "a b", base_model_name_or_path="org/base")
    assert is_adapter(place)
    assert not is_adapter(tmp_path)
    base, words = adapted(str(place), "")
    assert base == "org/base"
    assert read_lora(words).start == place
    assert adapted(str(place), words) == (base, words)
    for other in ("r=4", f"from={tmp_path}"):
        with pytest.raises(UsageError, match="which are trained further; leave --lora out"):
            adapted(str(place), other)
    (place / "adapter_base.json").write_text('{"model": "tiny"}')
    assert base_of(place) == "tiny"


@pytest.mark.parametrize("named", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": 5}])
def test_adapters_that_do_not_name_their_base_ask_for_it(named: dict[str, Any], tmp_path: Path) -> None:
    place = folder(tmp_path / "a", **named)
    with pytest.raises(UsageError, match=f"give --model BASE --lora from={place}"):
        adapted(str(place), "")
