"""What a model can be named by, and whether its files can be what they should be."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from sessions.errors import InputFileError, InvalidValue, UnknownName
from sessions.model_files import check_model_folder, gguf_architecture, stored_type
from sessions.models import ModelName, hub_cache, need_snapshot, offline_switch, parse_model, pinned, whole_snapshot

TINY = Path(engine.__file__).parent / "tiny_model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


# -------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tiny", ModelName("known", "tiny")),
        ("smollm2", ModelName("known", "smollm2")),
        ("org/name", ModelName("hub", "org/name")),
        ("Qwen/Qwen2.5-0.5B-Instruct", ModelName("hub", "Qwen/Qwen2.5-0.5B-Instruct")),
        ("org/name@v1.0", ModelName("hub", "org/name", "v1.0")),
        ("org/name@refs/pr/3", ModelName("hub", "org/name", "refs/pr/3")),
    ],
)
def test_a_name(text: str, name: ModelName) -> None:
    assert parse_model(text) == name
    assert str(name) == text


def test_what_is_on_the_disk_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_model("org/name").kind == "hub"
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert parse_model("org/name") == ModelName("folder", str(tmp_path / "org" / "name"))
    (tmp_path / "org" / "model.GGUF").touch()
    assert parse_model("org/model.GGUF") == ModelName("gguf", str(tmp_path / "org" / "model.GGUF"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("tinny", UnknownName, "did you mean tiny?"),
        ("missing.gguf", InputFileError, "there is no such GGUF file"),
        ("org/name.gguf", InputFileError, "there is no such GGUF file"),
        ("/nowhere/at/all", InputFileError, "no config.json there; give tiny"),
        ("./here/not", InputFileError, "no config.json there"),
        ("../org/name", InputFileError, "no config.json there"),
        ("org/name/more", InputFileError, "no config.json there"),
        ("org/na--me", InputFileError, "no config.json there"),
        ("org/name@", InputFileError, "no config.json there"),
        ("org/name@../../x", InputFileError, "no config.json there"),
        ("org/né", InputFileError, "no config.json there"),
        ("org/name\n", InputFileError, "no config.json there"),
    ],
)
def test_what_is_no_name(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        parse_model(text)
    assert message in str(caught.value)


def test_a_plain_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputFileError, match="is a file and not a model's folder"):
        parse_model(str(tmp_path / "model.safetensors"))


def test_a_name_at_the_commit_that_was_used() -> None:
    assert pinned("org/name", COMMIT) == pinned("org/name@main", COMMIT) == f"org/name@{COMMIT}"
    assert pinned("/a/folder@home", "") == "/a/folder@home"
    assert str(parse_model("org/name@main").at(COMMIT)) == f"org/name@{COMMIT}"
    assert parse_model("tiny").at("") == parse_model("tiny")
    with pytest.raises(InvalidValue, match="--model-revision v1: tiny is not a model of the hub; leave it out"):
        parse_model("tiny").at("v1")
    with pytest.raises(InvalidValue, match=r"--model-revision: '\.\./x' cannot be one"):
        parse_model("org/name").at("../x")


# ------------------------------------------------------------------------------------------------------ the hub


def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME",
        "XDG_CACHE_HOME",
    ):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_where_the_hubs_client_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    assert hub_cache() == Path.home() / ".cache" / "huggingface" / "hub"
    for name, value, expected in (
        ("XDG_CACHE_HOME", "/x", "/x/huggingface/hub"),
        ("HF_HOME", "/h", "/h/hub"),
        ("HF_HUB_CACHE", "/c", "/c"),
    ):
        monkeypatch.setenv(name, value)
        assert str(hub_cache()) == expected


@pytest.mark.parametrize(("value", "forbids"), [("1", True), ("true", True), ("YES", True), ("0", False), ("", False)])
def test_what_forbids_the_network(value: str, forbids: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    assert offline_switch() == ""
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert offline_switch() == (f"HF_HUB_OFFLINE={value}" if forbids else "")


def test_a_snapshot_is_found_by_its_ref_and_by_its_commit_and_must_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean(monkeypatch)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    name, stored = parse_model("org/name"), tmp_path / "models--org--name"
    assert whole_snapshot(name) is None
    snapshot = Path(shutil.copytree(TINY, stored / "snapshots" / COMMIT))
    assert whole_snapshot(name) is None
    assert whole_snapshot(name.at(COMMIT)) == snapshot
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    assert whole_snapshot(name) == snapshot == need_snapshot(name, "X=1")
    assert whole_snapshot(parse_model("org/name@v1")) is None
    (stored / "refs" / "v1").write_text(f"../snapshots/{COMMIT}")  # no commit, though it leads to a model
    assert whole_snapshot(parse_model("org/name@v1")) is None
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer_config.json").unlink()
    assert whole_snapshot(name) is None
    with pytest.raises(InputFileError, match=r"no tokenizer in its folder .*X=1 keeps the rest away"):
        need_snapshot(name, "X=1")
    with pytest.raises(InputFileError, match="is not in the hub's cache, and X=1 keeps it from being fetched"):
        need_snapshot(parse_model("org/other"), "X=1")


# -------------------------------------------------------------------------------------------------------- files


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def sharded(folder: Path) -> None:
    """The weights in two files with an index, as transformers writes large ones."""
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    names = sorted(header)
    placed = {}
    for part, own in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        body, at = b"", {}
        for name in own:
            begin, end = header[name]["data_offsets"]
            at[name] = {**header[name], "data_offsets": [len(body), len(body) + end - begin]}
            body += data[8 + length + begin : 8 + length + end]
            placed[name] = f"model-{part:05}-of-00002.safetensors"
        text = json.dumps(at).encode()
        (folder / f"model-{part:05}-of-00002.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def refused(folder: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        check_model_folder(folder, "M")
    assert str(caught.value).startswith("model M: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_models_pass(model: Path) -> None:
    check_model_folder(model, "M")
    assert stored_type(model) == "bf16"
    sharded(model)
    check_model_folder(model, "M")
    assert stored_type(model) == "bf16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_encoder_decoder": True, "model_type": "t5"}, "is an encoder-decoder (t5); give a causal language model"),
        ({"architectures": ["BertForMaskedLM"]}, "is a BertForMaskedLM, which does not say the next token"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "which does not say the next token"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "its weights are quantised (gptq) and cannot be trained so",
        ),
        ({"model_type": None}, "names no model_type"),
    ],
)
def test_what_a_configuration_says_against_a_model(model: Path, changes: dict[str, Any], message: str) -> None:
    edit(model / "config.json", **changes)
    assert message in refused(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.json is not JSON; it is damaged"),
        (b"\xff\xfe", "config.json is not JSON"),
        (b"[" * 100_000, "config.json is not JSON"),
        (b"[]", "config.json is not a model's"),
        (b"", "config.json is not JSON"),
    ],
)
def test_a_broken_configuration(model: Path, content: bytes, message: str) -> None:
    (model / "config.json").write_bytes(content)
    assert message in refused(model)


def test_folders_of_something_else(model: Path) -> None:
    (model / "config.json").unlink()
    assert "no config.json there; give tiny" in refused(model)
    (model / "adapter_config.json").write_text("{}")
    assert "holds an adapter and not a model" in refused(model)
    (model / "x.gguf").touch()
    assert "a folder with GGUF files; give the path of one" in refused(model)


def test_a_file_of_weights_that_was_cut_off_or_has_grown(model: Path) -> None:
    path = model / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"has {len(whole) - 1:,} bytes and should have {len(whole):,}; it was not copied whole" in refused(model)
    path.write_bytes(whole + b"x")
    assert "was not copied whole" in refused(model)
    for part in (b"", whole[:7], whole[:100]):
        path.write_bytes(part)
        assert "is cut off or is not safetensors" in refused(model)
    path.write_bytes(whole[:8] + b"x" + whole[9:])
    assert "its header cannot be read" in refused(model)
    path.write_bytes((2**63).to_bytes(8, "little") + whole[8:])
    assert "is cut off or is not safetensors" in refused(model)
    text = b'{"a": {"dtype": "F32", "data_offsets": "no"}}'
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    assert "its header cannot be read" in refused(model)
    path.unlink()
    assert "no model.safetensors there" in refused(model)


def test_parts_of_weights_that_are_missing_or_cut_off(model: Path) -> None:
    sharded(model)
    second = model / "model-00002-of-00002.safetensors"
    whole = second.read_bytes()
    second.write_bytes(whole[:-5])
    assert "model-00002-of-00002.safetensors has" in refused(model)
    second.unlink()
    assert "model-00002-of-00002.safetensors is missing (1 of 2 parts are)" in refused(model)
    second.write_bytes(whole)
    index = model / "model.safetensors.index.json"
    placed = json.loads(index.read_text())["weight_map"]
    for wrong in ("../other.safetensors", "/etc/passwd", "model.bin"):
        index.write_text(json.dumps({"weight_map": {**placed, "lm_head.weight": wrong}}))
        assert f"names {wrong!r}, which is no file of safetensors beside it" in refused(model)
    index.write_text(json.dumps({"weight_map": {**placed, "more": second.name}}))
    assert f"{second.name} lacks more, which" in refused(model)
    for nothing in ({}, {"weight_map": {}}, {"weight_map": {"a": 3}}):
        index.write_text(json.dumps(nothing))
        assert "does not say where its weights are" in refused(model)


def test_a_model_without_its_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert "there is no tokenizer in its folder (tokenizer.json); copy the one" in refused(model)


# --------------------------------------------------------------------------------------------------------- GGUF


def gguf(path: Path, architecture: str | None = "llama", version: int = 3) -> Path:
    """A GGUF file of one tensor, written by the format's description."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    entries = [text("general.name") + struct.pack("<I", 8) + text("é")]
    entries.append(text("numbers") + struct.pack("<IIQ", 9, 4, 3) + struct.pack("<III", 1, 2, 3))
    entries.append(text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"))
    entries.append(text("yes") + struct.pack("<I", 7) + b"\1")
    if architecture is not None:
        entries.append(text("general.architecture") + struct.pack("<I", 8) + text(architecture))
    header = b"GGUF" + struct.pack("<IQQ", version, 1, len(entries)) + b"".join(entries)
    header += text("w") + struct.pack("<IQQIQ", 2, 2, 4, 0, 0)
    header += b"\0" * (-len(header) % 32)
    path.write_bytes(header + np.arange(8, dtype="<f4").tobytes())
    return path


def test_the_header_of_a_gguf_file(tmp_path: Path) -> None:
    assert gguf_architecture(gguf(tmp_path / "m.gguf", "qwen2"), "M") == "qwen2"


def test_a_gguf_file_that_is_damaged(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf")
    whole = path.read_bytes()

    def message(data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(InputFileError) as caught:
            gguf_architecture(path, "M")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is not a GGUF file" in message(b"PK\3\4" + whole[4:])
    assert "is not a GGUF file" in message(b"")
    assert "of version 9, and 2 and 3 are read" in message(whole[:4] + struct.pack("<I", 9) + whole[8:])
    assert "was not copied whole" in message(whole[:-32])
    for cut in range(8, len(whole) - 64, 7):
        assert "is a damaged GGUF file" in message(whole[:cut])
    assert "is a damaged GGUF file" in message(whole.replace(b"\2\0\0\0\0\0\0\0\1\0", b"\2\0\0\0\0\0\0\xff\1\0", 1))
    gguf(path, architecture=None)
    assert "is a GGUF file without a model" in message(path.read_bytes())
