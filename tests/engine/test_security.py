"""Models, checkpoints and data sets come from anywhere: none of them runs code, reads elsewhere, or ends in a trace."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
import transformers

from engine.checkpointing import write_checkpoint
from engine.loading import TINY, load_policy
from engine.policy import Policy, make_accelerator
from engine.snapshot import Snapshot, TrainingState
from engine.tasks import load_task
from sessions import checkpoints
from sessions.checkpoints import names, read_state
from sessions.errors import InputFileError, SessionError
from sessions.examples import read_examples
from workbench.settings import check_task

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path(__file__).parent.joinpath("ran").touch()
Path({marker!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


class Bomb:
    """Unpickled, it touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (os.system, (f"touch {self.path}",))


def load(folder: Path, **options: bool) -> Policy:
    return load_policy(folder, make_accelerator("cpu", "fp32"), **options)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


# -------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "x.ckpt"])
def test_pickled_weights_are_refused_unread(model: Path, tmp_path: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    pickle.loads((model / name).read_bytes())  # it does go off
    (tmp_path / "ran").unlink()
    with pytest.raises(InputFileError, match=rf"its weights are pickled \({name}\).*give a folder with .safetensors"):
        load(model)
    assert not (tmp_path / "ran").exists()


def test_weights_that_torch_saved_are_refused_though_they_are_harmless(model: Path) -> None:
    """It is not what is in them that is looked at."""
    weights = transformers.LlamaForCausalLM.from_pretrained(model).state_dict()
    torch.save(weights, model / "pytorch_model.bin")
    load(model)  # beside safetensors nobody reads it
    (model / "model.safetensors").unlink()
    with pytest.raises(InputFileError, match="its weights are pickled"):
        load(model)


def test_a_pickled_adapter_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(InputFileError, match=r"pickled .adapter_model.bin"):
        load(model)
    assert not (tmp_path / "ran").exists()


def test_transformers_is_told_to_read_safetensors_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in the folder, and however a later version of it chooses by itself."""
    seen = {}
    real = transformers.AutoModelForCausalLM.from_pretrained

    def spy(path: Path, **options: object) -> object:
        seen.update(options)
        return real(path, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", spy)
    load(model)
    assert (seen["use_safetensors"], seen["trust_remote_code"], seen["local_files_only"]) == (True, False, True)


@pytest.fixture
def own_code(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with an architecture of its own, in Python beside it."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    config = json.loads((model / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    return model


def test_a_models_own_code_is_not_run(own_code: Path, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="needs Python code of its own; read it, and add --trust-remote-code"):
        load(own_code)
    assert not (tmp_path / "ran").exists()


def test_a_models_own_code_is_run_when_asked_for_by_name(own_code: Path, tmp_path: Path) -> None:
    policy = load(own_code, trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert type(policy.model).__name__ == "OwnForCausalLM"


# -------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path, small: Policy) -> Path:
    state = TrainingState(step=2, cursor=1, optimizer_steps=1, values={})
    write_checkpoint(tmp_path, Snapshot(state, small.model.state_dict(), {"optimizer": {}}, "test"), small)
    return tmp_path / "2"


def with_manifest(path: Path, name: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../secret", "policy/../../secret", "/etc/hostname", "", ".."])
def test_a_manifest_names_nothing_outside_its_checkpoint(
    checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkpoint.parent / "secret").write_text("x")
    with_manifest(checkpoint, name)
    read = []
    real = checkpoints.sha256
    monkeypatch.setattr(checkpoints, "sha256", lambda path: (read.append(path), real(path))[1])
    with pytest.raises(SessionError, match=r"names '.*', which is outside it"):
        read_state(checkpoint)
    assert all(".." not in path.parts and path.is_relative_to(checkpoint) for path in read)


def test_weights_that_the_manifest_does_not_know_are_refused(checkpoint: Path) -> None:
    shutil.copy(checkpoint / "policy" / "model.safetensors", checkpoint / "policy" / "model-2.safetensors")
    with pytest.raises(SessionError, match=r"model-2\.safetensors is not in its manifest"):
        read_state(checkpoint)


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "policy/model.safetensors"])
def test_a_link_in_a_checkpoint_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).rename(checkpoint.parent / "elsewhere")
    (checkpoint / name).symlink_to(checkpoint.parent / "elsewhere")
    with pytest.raises(SessionError, match="is a link"):
        read_state(checkpoint)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"files": 3}', '{"files": {"a": 1}}', '{"files": {}}\xff'])
def test_a_hostile_manifest_is_one_line(checkpoint: Path, content: str) -> None:
    (checkpoint / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SessionError, match="cannot be read") as caught:
        read_state(checkpoint)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_what_is_read_of_a_checkpoint_is_bounded(checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoints.MOST_BYTES, name, 10)
    with pytest.raises(SessionError, match=rf"{name}: more than the 10 bytes that it may have"):
        read_state(checkpoint)


def test_a_folder_with_a_strange_number_is_no_checkpoint(checkpoint: Path) -> None:
    """``"²".isdigit()`` is true, and ``int("²")`` fails; ``int("٣")`` is 3."""
    for name in ("²", "٣"):
        shutil.copytree(checkpoint, checkpoint.parent / name)
    assert names(checkpoint.parent) == [checkpoint.name]


# ---------------------------------------------------------------------------------------------------- data sets

ROWS = {
    "deep": b"[" * 100_000,
    "deep in a column": b'{"question": "1+1", "answer": "2", "other": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": b'{"question": "\xff", "answer": "2"}',
    "many digits": b'{"question": ' + b"9" * 10_000 + b', "answer": "2"}',
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_hostile_row_of_a_data_set_is_one_line(tmp_path: Path, row: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"question": "1+1", "answer": "2"}\n' + row + b"\n")
    with pytest.raises(InputFileError, match=r"line 2: (not a JSON object|is not UTF-8)") as caught:
        load_task(str(path), 0)
    assert len(str(caught.value)) < 400
    with pytest.raises(InputFileError, match="line 1: "):
        read_examples(path)
    path.write_bytes(row.replace(b"question", b"prompt").replace(b"answer", b"completion") + b"\n")
    with pytest.raises(InputFileError, match="line 1: not a JSON object"):
        read_examples(path)


def test_a_hostile_first_row_is_one_line_at_the_front_door(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(ROWS["deep"] + b"\n")
    with pytest.raises(InputFileError, match="begins a JSON array") as caught:
        check_task(str(path))
    assert len(str(caught.value)) < 400
    path.write_bytes(b'{"a": ' * 100_000 + b"\n")
    with pytest.raises(InputFileError, match="its first line is not JSON"):
        check_task(str(path))


def test_the_state_of_a_checkpoint_is_json(checkpoint: Path) -> None:
    """What goes on from a checkpoint needs no more than JSON and safetensors."""
    assert {p.suffix for p in checkpoint.rglob("*") if p.is_file()} <= {".json", ".safetensors", ".jinja", ".txt"}
    assert msgspec.json.decode((checkpoint / "state.json").read_bytes())["step"] == 2
