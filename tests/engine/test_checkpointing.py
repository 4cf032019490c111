"""Checkpoints: complete, checked, pruned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engine import checkpointing
from engine.checkpointing import policy_weights, tensors, write_checkpoint
from engine.policy import Policy, load_weights, make_accelerator
from engine.snapshot import Copies, Snapshot
from engine.warmup import character_tokenizer
from sessions.checkpoints import TrainingState, names, read_state, tidy
from sessions.errors import SessionError
from tests.engine.small import make_learner, random_policy, same_weights, weights_of


def state(step: int) -> TrainingState:
    return TrainingState(step=step, cursor=16 * step, optimizer_steps=step, values={"group_size": 8, "clip_low": 0.2})


def save(folder: Path, step: int, policy: Policy, reason: str = "test"):
    optimizer = {"0.exp_avg": torch.arange(3.0) / 3} if step else {}
    snapshot = Snapshot(state(step), policy.model.state_dict(), {"optimizer": optimizer}, reason)
    return write_checkpoint(folder, snapshot, policy)


def test_a_round_trip_is_bit_equal(tmp_path: Path, small: Policy) -> None:
    saved = save(tmp_path, 4, small)
    assert (saved.step, saved.path, saved.reason) == (4, "4", "test")
    folder = tmp_path / "4"
    assert saved.bytes == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert read_state(folder) == state(4)
    other = random_policy(seed=5)
    assert not same_weights(weights_of(other), weights_of(small))
    load_weights(other.model, policy_weights(folder))
    assert same_weights(weights_of(other), weights_of(small))
    assert torch.equal(tensors(folder, "optimizer")["0.exp_avg"], torch.arange(3.0) / 3)
    assert tensors(folder, "reference") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4"]


def test_it_is_a_folder_that_transformers_loads(tmp_path: Path, small: Policy) -> None:
    save(tmp_path, 1, small)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "1" / "policy")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, small.model(ids).logits)


def test_saving_a_step_again_replaces_it(tmp_path: Path, small: Policy) -> None:
    other = random_policy(seed=5)
    save(tmp_path, 3, small)
    save(tmp_path, 3, other)
    read_state(tmp_path / "3")
    weights = policy_weights(tmp_path / "3")
    assert torch.equal(weights["model.embed_tokens.weight"], other.model.model.embed_tokens.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["policy", "value"])
def test_weights_that_are_not_finite_are_refused_and_push_out_nothing(
    tmp_path: Path, small: Policy, number: float, where: str
) -> None:
    save(tmp_path, 1, small)
    other = random_policy(seed=5)
    value = {"head.weight": torch.zeros(3)}
    with torch.no_grad():
        (other.parameters[-1] if where == "policy" else value["head.weight"]).view(-1)[-1] = number
    snapshot = Snapshot(state(2), other.model.state_dict(), {"value": value})
    with pytest.raises(SessionError, match="the weights of step 2 are not finite"):
        write_checkpoint(tmp_path, snapshot, other)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_infinities_that_nobody_trains_are_kept(tmp_path: Path) -> None:
    policy = random_policy()
    policy.model.register_buffer("mask", torch.full((2,), -math.inf))
    save(tmp_path, 1, policy)
    assert policy_weights(tmp_path / "1")["mask"].isinf().all()


@pytest.mark.parametrize("name", ["policy/model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_file_is_refused(tmp_path: Path, small: Policy, name: str) -> None:
    save(tmp_path, 2, small)
    path = tmp_path / "2" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SessionError, match=f"{name} is not what was written"):
        read_state(tmp_path / "2")


@pytest.mark.parametrize("name", ["policy/model.safetensors", "state.json", "manifest.json"])
def test_a_missing_file_is_refused(tmp_path: Path, small: Policy, name: str) -> None:
    save(tmp_path, 2, small)
    (tmp_path / "2" / name).unlink()
    with pytest.raises(SessionError, match="cannot be read"):
        read_state(tmp_path / "2")


def test_what_was_left_half_written_is_not_a_checkpoint(tmp_path: Path, small: Policy) -> None:
    assert names(tmp_path / "none") == []
    save(tmp_path, 2, small)
    (tmp_path / ".4.partial").mkdir()
    assert names(tmp_path) == ["2"]


def test_what_a_killed_engine_left_is_tidied(tmp_path: Path, small: Policy) -> None:
    """Killed while it wrote step 6, and between the two renames of step 4; step 2's earlier one was not yet removed."""
    for step in (2, 4):
        save(tmp_path, step, small)
    (tmp_path / "4").rename(tmp_path / ".4.replaced")
    (tmp_path / ".2.replaced").mkdir()
    (tmp_path / ".6.partial" / "policy").mkdir(parents=True)
    tidy(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4"]
    assert [read_state(tmp_path / name).step for name in ("2", "4")] == [2, 4]
    tidy(tmp_path / "none")


def test_a_failure_while_writing_leaves_the_earlier_one(
    tmp_path: Path, small: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 2, small)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "sync", full)
    with pytest.raises(OSError, match="space"):
        save(tmp_path, 2, random_policy(seed=5))
    monkeypatch.undo()
    assert read_state(tmp_path / "2").step == 2
    weights = policy_weights(tmp_path / "2")
    assert torch.equal(weights["model.embed_tokens.weight"], small.model.model.embed_tokens.weight)


def llama(*, tied: bool) -> Policy:
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=64, tie_word_embeddings=tied, eos_token_id=2, pad_token_id=0, **sizes)
    return Policy(LlamaForCausalLM(config), tokenizer, make_accelerator("cpu", "fp32"))


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_stay_tied(tmp_path: Path, tied: bool) -> None:
    policy = llama(tied=tied)
    reference = policy.make_reference().model.state_dict()
    copied = Copies().take({"policy": policy.model.state_dict(), "reference": reference})
    write_checkpoint(tmp_path, Snapshot(state(1), copied["policy"], {"reference": copied["reference"]}), policy)
    for weights in (policy_weights(tmp_path / "1"), tensors(tmp_path / "1", "reference")):
        other = llama(tied=tied)
        for parameter in other.model.parameters():
            parameter.data.zero_()
        load_weights(other.model, weights)
        head, table = other.model.lm_head.weight, other.model.model.embed_tokens.weight
        assert (head is table) == tied
        assert same_weights(list(other.model.parameters()), list(policy.model.parameters()))


def test_weights_of_another_model_are_refused(small: Policy) -> None:
    weights = dict(random_policy().model.state_dict())
    missing = {k: v for k, v in weights.items() if "norm" not in k}
    with pytest.raises(SessionError, match="of another model"):
        load_weights(random_policy().model, missing)
    with pytest.raises(SessionError, match="extra"):
        load_weights(random_policy().model, {**weights, "extra": torch.zeros(1)})


def test_an_untied_head_may_not_be_missing() -> None:
    policy = llama(tied=False)
    weights = {k: v for k, v in policy.model.state_dict().items() if k != "lm_head.weight"}
    with pytest.raises(SessionError, match=r"lm_head\.weight"):
        load_weights(policy.model, weights)


def test_the_state_is_readable_by_people(tmp_path: Path, small: Policy) -> None:
    save(tmp_path, 2, small)
    text = (tmp_path / "2" / "state.json").read_text()
    assert json.loads(text)["cursor"] == 32
    assert "\n" in text


def test_no_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="weights are missing"):
        policy_weights(tmp_path / "0")


def test_a_learner_saves_its_first_checkpoint_without_an_optimizer(tmp_path: Path) -> None:
    make_learner(tmp_path)
    assert tensors(tmp_path / "0", "optimizer") is None
    assert read_state(tmp_path / "0").cursor == 0
