"""``workbench export`` as people run it, on sessions that run or have ended; transformers loads its model."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from engine.policy import Policy
from sessions.export import Wanted, export
from sessions.folders import SessionFolder, new_session, session_folder
from sessions.records import SessionSettings
from sessions.store import Store
from tests.engine.small import random_policy
from tests.engine.test_checkpointing import save
from tests.sessions.samples import group, rating, step_record
from workbench.cli import main
from workbench.merging import merge_into


@pytest.fixture
def recorded() -> SessionFolder:
    """A session that has ended, with two steps and two ratings."""
    folder = new_session("s", SessionSettings(name="s"))
    store = Store(folder.database)
    for step in (1, 2):
        store.add_groups([group(step, 1)])
        store.add_step(step_record(step), [], 500)
    store.add_rating(rating(1, 1, {"A": 5.0, "B": 1.0}))
    store.close()
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("words", ["s --to jsonl OUT", "--to jsonl s OUT", "s OUT --to jsonl"])
def test_what_was_written_is_said_on_stderr_and_nothing_on_stdout(recorded, tmp_path: Path, capsys, words) -> None:
    out = str(tmp_path / "out")
    assert main(["export", *words.replace("OUT", out).split()]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "workbench: steps.jsonl: 2 rows",
        "workbench: responses.jsonl: 8 rows",
        "workbench: held_out.jsonl: 0 rows",
        "workbench: ratings.jsonl: 1 row",
        "workbench: skips.jsonl: 0 rows",
        "workbench: changes.jsonl: 0 rows",
        "workbench: alarms.jsonl: 0 rows",
        f"workbench: s is in {out}",
    ]


def test_json_says_it_as_one_line_of_data(recorded, tmp_path: Path, capsys) -> None:
    assert main(["export", "s", "--to", "preferences", str(tmp_path / "out"), "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert (said["session"], said["to"], said["folder"]) == ("s", "preferences", str(tmp_path / "out"))
    assert [(f["file"], f["rows"]) for f in said["files"]] == [
        ("preferences.jsonl", 1),
        ("unpaired.jsonl", 2),
        ("demonstrations.jsonl", 0),
    ]
    assert len(lines(tmp_path / "out" / "preferences.jsonl")) == 1


@pytest.mark.parametrize(
    ("given", "steps"), [("1:2", [1, 2]), ("2:", [2]), (":1", [1]), ("2", [2]), ("1", [1]), ("1:1", [1]), ("5:9", [])]
)
def test_steps_are_chosen_with_both_ends(recorded, tmp_path: Path, given: str, steps: list[int]) -> None:
    assert main(["export", "s", "--to", "jsonl", str(tmp_path / "out"), "--steps", given]) == 0
    assert [row["step"] for row in lines(tmp_path / "out" / "steps.jsonl")] == steps


def test_options_reach_the_export(recorded, tmp_path: Path) -> None:
    assert main(["export", "s", "--to", "jsonl", str(tmp_path / "a"), "--tokens", "--branch", "main"]) == 0
    assert lines(tmp_path / "a" / "responses.jsonl")[0]["tokens"] == [0, 1, 2]
    assert main(["export", "s", "--to", "preferences", str(tmp_path / "b"), "--conversational", "--all-branches"]) == 0
    assert lines(tmp_path / "b" / "preferences.jsonl")[0]["prompt"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["s", "--to", "csv"], 2, "invalid choice: 'csv'"),
        (["s"], 2, "the following arguments are required: --to"),
        (["nobody", "--to", "jsonl"], 2, "no session named 'nobody'"),
        (["s", "--to", "jsonl", "--steps", "a:b"], 2, "--steps a:b: give the first and the last step"),
        (["s", "--to", "jsonl", "--steps", ":"], 2, "--steps :: give the first and the last step"),
        (["s", "--to", "jsonl", "--steps", "9:3"], 2, "--steps 9:3: the first step comes after the last"),
        (["s", "--to", "jsonl", "--branch", "mian"], 2, "unknown branch 'mian'; did you mean main?"),
        (["s", "--to", "jsonl", "--branch", "main", "--all-branches"], 2, "leave one out"),
        (["s", "--to", "jsonl", "--best"], 2, "--best goes with --to model, not with jsonl"),
        (["s", "--to", "jsonl", "--step", "0"], 2, "--step goes with --to model, not with jsonl"),
        (["s", "--to", "jsonl", "--merge"], 2, "--merge goes with --to model, not with jsonl"),
        (["s", "--to", "model", "--tokens"], 2, "--tokens goes with --to jsonl or parquet, not with model"),
        (["s", "--to", "model", "--steps", "1:2"], 2, "--steps goes with --to jsonl or parquet or preferences"),
        (["s", "--to", "model", "--all-branches"], 2, "--all-branches goes with"),
        (["s", "--to", "parquet", "--conversational"], 2, "--conversational goes with --to preferences"),
        (["s", "--to", "model", "--step", "2", "--best"], 2, "leave one out"),
        (["s", "--to", "model"], 1, "session 's' has no checkpoint of branch main on disk"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    recorded, tmp_path: Path, capsys, words: list[str], code: int, message: str
) -> None:
    assert main(["export", *words, str(tmp_path / "out")]) == code
    said = capsys.readouterr()
    assert said.out == ""
    [line] = said.err.splitlines()
    assert line.startswith("workbench: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(recorded, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", "s", "--to", "jsonl", str(tmp_path)]) == 2
    assert capsys.readouterr().err.rstrip().endswith("is there already; give a new or empty folder")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_session_that_runs_is_exported_and_goes_on(workbench, tmp_path: Path) -> None:
    with workbench.running("s", step=0.001) as folder:
        done = workbench("export", "s", "--to", "jsonl", str(tmp_path / "out"), "--json")
        assert done.returncode == 0, done.stderr
        assert folder.running()
    rows = lines(tmp_path / "out" / "steps.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert json.loads(done.stdout)["files"][0]["rows"] == len(rows)


# --------------------------------------------------------------------------------------------------- model


def checkpointed(policy: Policy, step: int = 3) -> SessionFolder:
    folder = new_session("m", SessionSettings(name="m"))
    store = Store(folder.database)
    store.put_checkpoint(save(folder.checkpoints, step, policy))
    store.close()
    return folder


IDS = torch.tensor([[5, 6, 7, 8]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_transformers_loads_the_model_and_it_computes_what_the_policy_does(tmp_path: Path, capsys) -> None:
    policy = random_policy(seed=3)
    checkpointed(policy)
    assert main(["export", "m", "--to", "model", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded), logits(policy.model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("5+7=")["input_ids"] == policy.encode_prompt("5+7=")


def test_adapters_are_merged_into_the_model_that_they_were_trained_on(tmp_path: Path, monkeypatch) -> None:
    base = random_policy(seed=1)
    base.model.save_pretrained(tmp_path / "base")
    monkeypatch.setattr("engine.loading.model_folder", lambda name: tmp_path / name)
    adapted = peft.get_peft_model(base.model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    expected = logits(adapted)
    folder = checkpointed(base)
    place = folder.checkpoints / "3"
    for path in (place / "policy").glob("model*"):
        path.unlink()
    adapted.save_pretrained(place / "policy")
    (place / "manifest.json").unlink()
    written = [p for p in place.rglob("*") if p.is_file()]
    hashes = {str(p.relative_to(place)): _sha256(p) for p in written}
    (place / "manifest.json").write_text(json.dumps({"files": hashes}))
    export(folder, "model", tmp_path / "apart")
    assert (tmp_path / "apart" / "adapter_model.safetensors").exists()
    export(folder, "model", tmp_path / "out", Wanted(merge=lambda a, b: merge_into("base", a, b)))
    assert not list((tmp_path / "out").glob("adapter_*"))
    assert not (tmp_path / "out" / ".adapters").exists()
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(merged), expected, atol=1e-4)
    assert not torch.allclose(logits(LlamaForCausalLM.from_pretrained(tmp_path / "base")), expected, atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("5+7=")["input_ids"] == base.encode_prompt("5+7=")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_merging_without_peft_is_one_line(tmp_path: Path, capsys, monkeypatch) -> None:
    checkpointed(random_policy())
    monkeypatch.setattr("workbench.merging.find_spec", lambda name: None)
    assert main(["export", "m", "--to", "model", str(tmp_path / "out"), "--merge"]) == 2
    assert "--merge needs the package peft; `pip install peft` brings it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_merging_a_whole_model_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    checkpointed(random_policy())
    monkeypatch.setattr("workbench.merging.find_spec", lambda name: object())
    assert main(["export", "m", "--to", "model", str(tmp_path / "out"), "--merge"]) == 2
    assert "step 3 has no adapters to merge: the model is whole; leave --merge out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- --track


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "unknown tracker 'tensorbord'; did you mean tensorboard?"),
        ("wandb", "--track wandb: the package wandb is not installed; `pip install wandb` brings it"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_there_is_a_session(
    home: Path, capsys, monkeypatch, name: str, message: str
) -> None:
    monkeypatch.setattr("sessions.trackers.find_spec", lambda _: None)
    assert main(["run", "--headless", "--track", name]) == 2
    assert message in capsys.readouterr().err
    assert not (home / "sessions").exists()


def test_where_a_session_is_mirrored_to_is_kept_and_may_be_given_anew(workbench, tmp_path: Path) -> None:
    for name in ("tensorboard", "trackio"):  # found, and never imported: the engine is a fake
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    workbench.environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    words = ["run", "--headless", "--name", "s", "--steps"]
    assert workbench(*words, "2", "--track", "tensorboard", "--track", "tensorboard").returncode == 0
    folder = session_folder("s")
    assert folder.settings().track == ["tensorboard"]
    assert workbench(*words, "3").returncode == 0
    assert folder.settings().track == ["tensorboard"]
    assert workbench(*words, "4", "--track", "trackio").returncode == 0
    assert (folder.settings().track, folder.settings().steps) == (["trackio"], 4)
