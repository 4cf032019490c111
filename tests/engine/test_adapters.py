"""Adapters: what they compute, what moves, what is shared, what is kept, and what is refused; peft is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from engine import decode_weights
from engine.adapters import attach, fingerprint, linear_names
from engine.checkpointing import policy_weights
from engine.control import Control
from engine.fisher import DifferenceProduct, ExactProduct, relative_difference
from engine.knobs import Knobs
from engine.learner import Learner
from engine.lengths import survival
from engine.loading import load_policy
from engine.memory import Held, check_memory, need
from engine.old_policy import OldPolicy
from engine.passes import batch_of, score
from engine.plan import Planner
from engine.policy import Policy, make_accelerator
from engine.preview import preview
from engine.reward_model import RewardModel
from engine.sampling import sample
from engine.sizes import count
from engine.start import start
from engine.supervised import FineTuning, Lesson
from engine.warmup import character_tokenizer
from engine.work import Rollout
from sessions.adapters import BASE, CONFIG, WEIGHTS, read_lora
from sessions.errors import InputFileError, Refused, SessionError, UnknownName, UsageError
from sessions.folders import SessionFolder
from sessions.records import SessionSettings
from sessions.reward_models import RewardModelSettings
from sessions.shortcuts import SHORTCUTS
from tests.engine.live import live, session
from tests.engine.small import (
    SMALL,
    make_knobs,
    make_learner,
    random_policy,
    rollout_group,
    same_weights,
    small_task,
    weights_of,
)
from tests.engine.test_sampling import PROMPTS, G, noise_for
from workbench.merging import merge_into

FAMILIES = ("llama", "gpt2", "qwen2")
IN_REWARD = {"kl_placement": "reward", "kl_estimator": "k1", "kl_coefficient": 0.05}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"kl_coefficient": 0.04},
    "ppo": {**IN_REWARD, "value_model": "shared", "value_warmup_steps": 0, "minibatches": 2},
    "trpo": {**IN_REWARD, "cg_iterations": 3, "reference_every": 1},
}


def bare(family: str, seed: int = 0) -> Any:
    """A random model of a family, far enough from uniform for a mistake to show."""
    if family == "llama":
        return random_policy(seed, spread=8.0).model
    tokenizer = character_tokenizer()
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "gpt2":
            model: Any = GPT2LMHeadModel(
                GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2, **ends)
            )
        else:
            model = Qwen2ForCausalLM(
                Qwen2Config(
                    vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                    intermediate_size=32, max_position_embeddings=64, tie_word_embeddings=False, **ends,
                )
            )  # fmt: skip
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(8)
    model.generation_config.eos_token_id = [2, 10, 20, 30, 40, 50, 60]
    return model


def adapted(family: str = "llama", words: str = "r=4", seed: int = 0, place: Path | None = None) -> Policy:
    """A policy with adapters; what it was before is saved where it is told."""
    model = bare(family)
    if place is not None:
        model.save_pretrained(place)
        model.name_or_path = str(place)
    adapters = attach(model, read_lora(words), seed)
    return Policy(model, character_tokenizer(), make_accelerator("cpu", "fp32"), adapters=adapters)


def stir(policy: Policy, scale: float = 0.2) -> None:
    """Give the adapters something to add, as after some training."""
    with torch.no_grad():
        for i, parameter in enumerate(policy.parameters):
            parameter.add_(scale * torch.linspace(-1, 1, parameter.numel()).roll(i).view_as(parameter))


def base_of(policy: Policy) -> dict[str, Tensor]:
    """Everything but the adapters, copied."""
    return {n: t.clone() for n, t in policy.model.state_dict().items() if "lora_" not in n}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


IDS = torch.tensor([[5, 9, 13, 21, 34, 8], [7, 30, 4, 4, 55, 11]])


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def saved(policy: Policy, place: Path) -> Path:
    """Its adapters as a checkpoint has them."""
    place.mkdir()
    policy.save(place, policy.weights())
    return place


def by_peft(base: Path, adapters: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(model, str(adapters))


ROWS = [
    *rollout_group(lengths=[4, 2], number=1).rows(),
    *rollout_group(lengths=[3, 5], number=2, prompt_tokens=[9]).rows(),
]


@torch.no_grad()
def by_rows(model: Any) -> list[list[float]]:
    """Log-probabilities of ROWS, each read alone through a model's own forward pass."""
    found = []
    for row in ROWS:
        ids = torch.tensor([[*row.prompt, *row.tokens]])
        said = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[0, len(row.prompt) - 1 : -1]
        found.append(said.gather(1, torch.tensor(row.tokens)[:, None]).squeeze(1).tolist())
    return found


def assert_close(one: list[list[float]], other: list[list[float]], by: float = 2e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, abs=by)


# ------------------------------------------------------------------------------------------- what they compute


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_adapters_say_through_peft_what_the_policy_says(family: str, tmp_path: Path) -> None:
    policy = adapted(family, place=tmp_path / "base")
    before = by_rows(by_peft(tmp_path / "base", saved(policy, tmp_path / "first")))
    assert_close(before, score(policy, policy.plain_scorer, ROWS))
    stir(policy)
    loaded = by_peft(tmp_path / "base", saved(policy, tmp_path / "stirred"))
    now = by_rows(loaded)
    assert_close(now, score(policy, policy.plain_scorer, ROWS))
    assert max(abs(x - y) for a, b in zip(now, before, strict=True) for x, y in zip(a, b, strict=True)) > 0.1
    reference = policy.make_reference(load_file(tmp_path / "first" / WEIGHTS))
    with loaded.disable_adapter():
        assert_close(by_rows(loaded), score(policy, reference, ROWS))
    assert_close(before, score(policy, reference, ROWS))


@pytest.mark.parametrize(("words", "scale"), [("r=4 alpha=6", 6 / 4), ("r=4 rslora=yes", 32 / 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_whose_weights_hold_the_product_says_the_same(
    family: str, words: str, scale: float, tmp_path: Path
) -> None:
    policy = adapted(family, words, place=tmp_path / "base")
    stir(policy, 0.1)
    expected = logits(policy.model)
    kept = load_file(saved(policy, tmp_path / "a") / WEIGHTS)
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    plain = logits(dense)
    weights = dict(dense.named_parameters())
    for name in [n for n in kept if n.endswith("lora_A.weight")]:
        product = scale * kept[name.replace("lora_A", "lora_B")] @ kept[name]
        weight = weights[name.removeprefix("base_model.model.").replace("lora_A.", "")]
        weight.data += product.T if family == "gpt2" else product
    assert torch.allclose(logits(dense), expected, atol=1e-4)
    assert (plain - expected).abs().max() > 0.1
    assert 2 * len(linear_names(dense)) == len(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_by_export_they_say_the_same(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.loading.model_folder", Path)
    policy = adapted(family, place=tmp_path / "base")
    stir(policy, 0.02)
    merge_into(str(tmp_path / "base"), saved(policy, tmp_path / "a"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("adapter_*"))
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert whole.dtype == torch.float32
    assert torch.allclose(logits(whole).log_softmax(-1), logits(policy.model).log_softmax(-1), atol=1e-5)
    changed = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    next(changed.parameters()).data[3, 3] += 1e-3
    changed.save_pretrained(tmp_path / "base")
    with pytest.raises(SessionError, match="trained on other weights than it has now"):
        merge_into(str(tmp_path / "base"), tmp_path / "a", tmp_path / "again")


def test_they_begin_at_nothing_and_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = adapted(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(logits(one.model), logits(bare("llama")))
    torch.manual_seed(2)
    assert same(one.weights(), adapted(seed=3).weights())
    assert not same(one.weights(), adapted(seed=4).weights())
    random = [t for n, t in one.weights().items() if "lora_A" in n]
    assert all(t.abs().max() <= t.shape[1] ** -0.5 and t.abs().max() > 0.5 * t.shape[1] ** -0.5 for t in random)


# --------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapters_move_and_the_reference_is_the_base(family: str, algorithm: str, tmp_path: Path) -> None:
    policy = adapted(family, place=tmp_path / "base")
    learner = make_learner(tmp_path / "s", policy=policy, algorithm=algorithm, **ALGORITHMS[algorithm])
    base, first = base_of(policy), weights_of(policy)
    for _ in range(2):
        metrics = learner.run_step()
    assert same(base, base_of(policy))
    assert not same_weights(first, policy.parameters)
    assert metrics["sampler_gap/max"] < 1e-4
    assert metrics["update/relative_size"] > 0
    if algorithm == "trpo":
        assert metrics["trpo/kl_realised"] <= learner.knobs.number("trust_region")
        assert metrics["trpo/step_fraction"] > 0
    loaded = by_peft(tmp_path / "base", saved(policy, tmp_path / "now"))
    assert_close(by_rows(loaded), score(policy, policy.plain_scorer, ROWS))
    with loaded.disable_adapter():
        assert_close(by_rows(loaded), score(policy, learner.reference._loaded(), ROWS))
    assert learner.audit([]) == []


def test_a_reference_and_a_what_if_copy_share_the_base_and_nothing_else(tmp_path: Path) -> None:
    policy = adapted()
    stir(policy)
    learner = make_learner(tmp_path, policy=policy)
    own = {n: t.data_ptr() for n, t in policy.model.state_dict().items()}
    for model in (learner.reference._loaded().model, policy.make_reference().model, policy.shadow().model):
        for name, tensor in model.state_dict().items():
            assert (tensor.data_ptr() == own[name]) == ("lora_" not in name), name
    weights, base = weights_of(policy), base_of(policy)
    groups = learner.sample(1)
    preview(learner.training, 1, 0, lambda _: groups, {}, values=learner.knobs.values)
    assert same_weights(weights, policy.parameters)
    assert same(base, base_of(policy))


def test_a_refreshed_reference_is_the_adapters_of_that_moment(tmp_path: Path) -> None:
    policy = adapted(place=tmp_path / "base")
    learner = make_learner(tmp_path / "s", policy=policy, reference_refresh_steps=2)
    learner.run_step()
    learner.run_step()
    second = saved(policy, tmp_path / "second")
    learner.run_step()
    expected = by_rows(by_peft(tmp_path / "base", second))
    assert_close(expected, score(policy, learner.reference._loaded(), ROWS))
    learner.save("test")
    other = make_learner(tmp_path / "s", policy=adapted(), save=False, reference_refresh_steps=2)
    other.load(tmp_path / "s" / "3")
    assert score(policy, other.reference._loaded(), ROWS) == score(policy, learner.reference._loaded(), ROWS)


@pytest.mark.parametrize(
    "values",
    [
        {"kl_coefficient": 0.04},
        {"algorithm": "ppo", **IN_REWARD, "value_model": "separate", "value_warmup_steps": 0},
        {"algorithm": "trpo", **IN_REWARD, "cg_iterations": 2},
    ],
    ids=["grpo", "ppo", "trpo"],
)
def test_a_session_goes_on_from_a_checkpoint_of_adapters_bit_for_bit(values: dict[str, Any], tmp_path: Path) -> None:
    whole = make_learner(tmp_path, policy=adapted(), **values)
    for _ in range(2):
        whole.run_step()
    whole.save("test")
    files = {p.name: p.stat().st_size for p in (tmp_path / "2").rglob("*.safetensors")}
    assert files[WEIGHTS] < 4 * sum(p.numel() for p in whole.policy.parameters) + 4000
    assert "model.safetensors" not in files
    resumed = make_learner(tmp_path, policy=adapted(), save=False, **values)
    resumed.load(tmp_path / "2")
    for learner in (whole, resumed):
        learner.run_step()
    assert same_weights(weights_of(whole.policy), resumed.policy.parameters)
    assert same(base_of(whole.policy), base_of(resumed.policy))
    resumed.load(tmp_path / "0")
    assert torch.equal(logits(resumed.policy.model), logits(bare("llama")))


def test_a_separate_value_model_is_adapters_of_its_own_on_the_same_base(tmp_path: Path) -> None:
    policy = adapted()
    values = {**IN_REWARD, "value_model": "separate", "value_learning_rate": 1e-2, "value_warmup_steps": 2}
    learner = make_learner(tmp_path, policy=policy, algorithm="ppo", **values)
    base, first = base_of(policy), weights_of(policy)
    learner.run_step()  # its head begins at zeros, so nothing reaches the trunk yet
    learner.run_step()
    value = learner.training.value_model
    assert value is not None
    assert same(base, base_of(policy))
    assert same_weights(first, policy.parameters)  # it is trained alone at first
    trunk = value.trunk.state_dict()
    moved = {n for n, t in policy.model.base_model.state_dict().items() if not torch.equal(t, trunk[n])}
    assert moved
    assert all("lora_" in n for n in moved)
    shared = {n for n, t in policy.model.base_model.state_dict().items() if t.data_ptr() == trunk[n].data_ptr()}
    assert shared == {n for n in trunk if "lora_" not in n}
    shadow = value.shadow(learner.knobs).trunk.state_dict()
    assert all((t.data_ptr() == trunk[n].data_ptr()) == ("lora_" not in n) for n, t in shadow.items())
    assert {n.startswith(("head.", "trunk.base_model.model.")) for n in value.tensors()} == {True}


def test_both_fisher_products_agree_on_adapters(tmp_path: Path) -> None:
    policy = adapted(words="r=2")
    stir(policy, 0.05)
    batches = [batch_of(policy, ROWS)]
    tokens = sum(len(row.tokens) for row in ROWS)
    n = sum(p.numel() for p in policy.parameters)
    v = torch.linspace(-1, 1, n).roll(7)
    exact = ExactProduct(policy, batches, tokens, lambda: None)(v)
    assert len(exact) == n
    difference = DifferenceProduct(OldPolicy(policy, batches), tokens, lambda: None)(v)
    assert relative_difference(difference, exact) < 1e-2


def test_trpo_asks_for_the_memory_of_adapters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = adapted(words="r=1 targets=q_proj")
    (n,) = {sum(p.numel() for p in policy.parameters)}
    assert n == 16 + 16
    monkeypatch.setattr("engine.memory.available_memory", lambda device: 6 * 4 * n)
    check_memory("trpo", policy)
    monkeypatch.setattr("engine.memory.available_memory", lambda device: 6 * 4 * n - 1)
    with pytest.raises(Refused, match="copies of the 32 trainable parameters"):
        check_memory("trpo", policy)
    sizes = count(policy)
    assert (sizes.parameters, sizes.trainable, sizes.learned, sizes.trunk) == (32, 128, 128, 128)
    assert sizes.weights > 10_000


def test_a_plan_counts_adapters_where_a_whole_model_would_be_copied(tmp_path: Path) -> None:
    policy = adapted(words="r=1 targets=q_proj")
    learner = make_learner(tmp_path, policy=policy, kl_coefficient=0.04, checkpoint_steps=5)
    planner = Planner(learner)
    sizes = planner.sizes
    before = planner._kept_now()
    learner.reference._loaded()
    assert planner._kept_now() - before == 128
    alive = survival([4], [False], 4)
    kept = need(
        sizes, Rollout(1, 2, 4, 4, 4, 4), alive, learner.knobs, 1000, set(SHORTCUTS), Held(), evaluated=1
    )  # fmt: skip
    assert kept.kept == {"weights": sizes.weights, "optimizer": 256, "reference": 128, "checkpoint": 128 + 256}
    assert kept.phases["loading the reference"] == {"the reference's file": 128}


def test_adapters_are_fp32_on_a_base_that_is_not(tmp_path: Path) -> None:
    model = bare("llama").to(torch.bfloat16)
    attach(model, read_lora("r=2"), 0)
    types = {n: p.dtype for n, p in model.named_parameters()}
    assert all((t == torch.float32) == ("lora_" in n) for n, t in types.items())


def test_a_checkpoint_of_other_adapters_is_not_taken(tmp_path: Path) -> None:
    make_learner(tmp_path, policy=adapted(words="r=2"))
    for words in ("r=3", "r=2 targets=q_proj"):
        other = make_learner(tmp_path, policy=adapted(words=words), save=False)
        weights = weights_of(other.policy)
        with pytest.raises(SessionError, match="of another model, or of other layers or ranks"):
            other.load(tmp_path / "0")
        assert same_weights(weights, other.policy.parameters)


@pytest.mark.parametrize("kind", ["head", "lora", "full"])
def test_a_reward_model_begins_at_the_start_of_rl_and_leaves_the_policy_alone(kind: str, tmp_path: Path) -> None:
    policy = adapted()
    stir(policy)
    learner = make_learner(tmp_path, policy=policy)
    first = logits(policy.model)
    learner.run_step()
    base, now = base_of(policy), weights_of(policy)
    made = learner.new_reward_model(RewardModelSettings(kind=kind, rank=2))
    whole = made._whole_model()
    dense = bare("llama")
    dense.load_state_dict(whole)
    assert torch.allclose(logits(dense), first, atol=1e-4)
    assert all(("lora_" in n) == (kind == "lora") for n, p in made._trunk.named_parameters() if p.requires_grad)
    for parameter in made.trunk_parameters:
        parameter.data.add_(1)
    assert same(base, base_of(policy))
    assert same_weights(now, policy.parameters)
    made.save(tmp_path / "rm")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "rm") is not None
    embedding = made._trunk.get_input_embeddings().weight
    assert (embedding.data_ptr() == policy.model.get_input_embeddings().weight.data_ptr()) == (kind != "full")
    assert isinstance(made.successor(), RewardModel)


def test_a_warm_up_trains_adapters_alone() -> None:
    policy = adapted()
    base = base_of(policy)
    rows = [Lesson([5, 6, 7], [8, 9, 2]), Lesson([6], [30, 2])]
    training = FineTuning(policy, rows, lambda _: [0, 1], 8, learning_rate=1e-2, micro_tokens=1000, rise=1)
    losses = [training.step(i + 1)["warmup/loss"] for i in range(8)]
    assert losses[-1] < losses[0]
    assert same(base, base_of(policy))


# --------------------------------------------------------------------------------------------------- decoding


@pytest.fixture
def packs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every layer and model were large enough to gain."""
    monkeypatch.setattr(decode_weights, "PACKED_LAYER", 1)
    monkeypatch.setattr(decode_weights, "PACKED_MODEL", 1)


def sampled_both_ways(policy: Policy) -> None:
    noise = noise_for(len(PROMPTS) * G, 20, 1)
    fast = sample(policy, PROMPTS, G, 20, 0.9, noise)
    plain = sample(policy, PROMPTS, G, 20, 0.9, noise, shortcuts=set(SHORTCUTS) - {"decode_weights"})
    assert fast.tokens == plain.tokens
    assert len({len(tokens) for tokens in plain.tokens}) > 2
    for one, other in zip(fast.logprobs, plain.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert fast.logprobs != plain.logprobs  # other products made them


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_weights_laid_out_for_decoding_hold_the_adapters(family: str) -> None:
    policy = adapted(family)
    stir(policy)
    with decode_weights.decode_weights(policy, 8, 20):
        replaced = [m for m in policy.model.modules() if "forward" in vars(m)]
        assert len(replaced) == len(policy.parameters) // 2
        assert all(hasattr(m, "lora_A") for m in replaced)
    sampled_both_ways(policy)
    stir(policy)
    sampled_both_ways(policy)


@pytest.mark.usefixtures("packs_all")
def test_packed_weights_hold_the_adapters() -> None:
    policy = adapted()
    stir(policy)
    with decode_weights.decode_weights(policy, 8, 20):
        replaced = [m for m in policy.model.modules() if "forward" in vars(m)]
        assert sum(hasattr(m, "lora_A") for m in replaced) == len(policy.parameters) // 2
    sampled_both_ways(policy)


def test_on_cuda_adapters_are_computed_beside_in_bf16_as_in_training() -> None:
    policy = adapted("qwen2")
    stir(policy)
    on_cuda: Any = SimpleNamespace(model=policy.model, device=SimpleNamespace(type="cuda"), bf16=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = policy.model(input_ids=IDS).logits
        with decode_weights.decode_weights(on_cuda, 8, 20):
            rounded = [m for m in policy.model.modules() if "forward" in vars(m)]
            assert len(rounded) == 3 * len(policy.parameters) // 2 + 1  # the layer, A and B; and the head
            assert torch.equal(policy.model(input_ids=IDS).logits, expected)


# ------------------------------------------------------------------------------------- continued, and refused


def test_adapters_are_trained_further_from_where_they_were(tmp_path: Path) -> None:
    policy = adapted(words="r=3 alpha=5 targets=q_proj,down_proj rslora=yes", place=tmp_path / "base")
    stir(policy)
    place = saved(policy, tmp_path / "a")
    further = adapted(words=f"from={place}", place=tmp_path / "base")
    assert torch.equal(logits(further.model), logits(policy.model))
    assert same(further.weights(), policy.weights())
    learner = make_learner(tmp_path / "s", policy=further)
    learner.run_step()
    assert not same(further.weights(), policy.weights())
    assert_close(by_rows(by_peft(tmp_path / "base", place)), score(policy, learner.reference._loaded(), ROWS))
    config = peft.LoraConfig.from_pretrained(str(tmp_path / "s" / "0" / "policy"))
    assert (config.r, config.lora_alpha, config.use_rslora) == (3, 5, True)
    assert config.target_modules == {"q_proj", "down_proj"}


def test_adapters_of_peft_itself_are_trained_further(tmp_path: Path) -> None:
    bare("gpt2").save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=2, lora_dropout=0.1, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    made = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config).eval()
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    made.save_pretrained(tmp_path / "a")
    policy = adapted("gpt2", f"from={tmp_path / 'a'}")
    assert torch.allclose(logits(policy.model), logits(made), atol=1e-5)
    assert all(m.p == 0 for m in policy.model.modules() if isinstance(m, nn.Dropout))


def spoiled(policy: Policy, place: Path, **changed: Any) -> Path:
    saved(policy, place)
    (place / BASE).unlink()
    config = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps(config | changed))
    return place


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_dora": True}, "uses use_dora"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"bias": "all"}, "uses bias"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"init_lora_weights": "pissa_niter_4"}, "began by pissa_niter_4"),
        ({"peft_type": "PREFIX_TUNING"}, "is of 'PREFIX_TUNING'; only LORA"),
        ({"target_modules": ["c_attn"]}, "no adapters can be put into the model"),
        ({"target_modules": "("}, r"no adapters can be put into the model \(missing \)"),
        ({"target_modules": ["q_proj", "lm_head"]}, "the output layer or the embedding would have adapters"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "the output layer or the embedding would have adapters"),
        ({"target_modules": ["q_proj"]}, "for another model than"),
        ({"r": 5}, "for another model than"),
        ({"r": -5}, "cannot be used|can be put"),
        ({"r": "four"}, "cannot be used|can be put"),
    ],
)
def test_adapters_that_cannot_be_trained_further_are_one_line(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    place = spoiled(adapted(), tmp_path / "a", **changed)
    with pytest.raises(UsageError, match=message) as raised:
        adapted(words=f"from={place}")
    assert "\n" not in str(raised.value)


def test_adapters_for_another_model_are_refused_with_its_name(tmp_path: Path) -> None:
    place = saved(adapted(place=tmp_path / "base"), tmp_path / "a")
    told = json.loads((place / BASE).read_text())
    assert told["model"] == str(tmp_path / "base")
    for family in ("gpt2", "qwen2"):
        with pytest.raises(InputFileError, match=rf"for another model than .*{tmp_path / 'base'}"):
            adapted(family, f"from={place}")
    other = random_policy(1, spread=8.0).model  # of the same shapes
    with pytest.raises(InputFileError, match="for another model than"):
        attach(other, read_lora(f"from={place}"), 0, "other")
    wide = random_policy(hidden=32).model
    (place / BASE).unlink()
    with pytest.raises(InputFileError, match="for another model than wide"):
        attach(wide, read_lora(f"from={place}"), 0, "wide")
    with pytest.raises(InputFileError, match="for another model than") as raised:
        adapted("qwen2", f"from={place}")
    assert str(tmp_path / "base") in str(raised.value)


def test_adapters_with_numbers_that_are_none_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    policy = adapted()
    policy.parameters[0].data[0, 0] = float("nan")
    with pytest.raises(InputFileError, match="numbers that are not finite"):
        adapted(words=f"from={saved(policy, tmp_path / 'nan')}")
    place = saved(adapted(), tmp_path / "cut")
    (place / WEIGHTS).write_bytes((place / WEIGHTS).read_bytes()[:100])
    with pytest.raises(InputFileError, match=f"{WEIGHTS} cannot be read"):
        adapted(words=f"from={place}")
    (place / WEIGHTS).unlink()
    with pytest.raises(InputFileError, match=f"no {WEIGHTS} there"):
        adapted(words=f"from={place}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("targets=q_prj", r"unknown layer of --lora 'q_prj'; did you mean q_proj\?"),
        ("exclude=k_prj", r"unknown layer of --lora 'k_prj'; did you mean k_proj\?"),
        ("targets=lm_head", "lm_head is the output layer or the embedding"),
        ("targets=embed_tokens", "embed_tokens is the output layer or the embedding"),
        ("layers=1", "there is no layer 1; the model's are 0 to 0"),
        ("targets=q_proj exclude=q_proj", "no adapters can be put into the model"),
    ],
)
def test_layers_that_are_not_there_are_refused_with_the_nearest(words: str, message: str) -> None:
    with pytest.raises((UnknownName, UsageError), match=message):
        adapted(words=words)


def test_targets_exclusions_and_layers_choose_where_adapters_are() -> None:
    def where(words: str, family: str = "qwen2") -> set[str]:
        names = (n.split(".lora_")[0] for n in adapted(family, words).weights())
        return {n.removeprefix("base_model.model.model.") for n in names}

    assert where("targets=q_proj,v_proj layers=1") == {"layers.1.self_attn.q_proj", "layers.1.self_attn.v_proj"}
    assert len(where("r=2")) == 14
    assert where("r=2 layers=0") == {n for n in where("r=2") if n.startswith("layers.0.")}
    assert {n.rpartition(".")[2] for n in where("exclude=down_proj,k_proj")} == {
        "q_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
    }  # fmt: skip


def test_a_fingerprint_knows_every_number_whatever_the_adapters_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.adapters._SAMPLE", 8)  # of each tensor, in its order; the sum knows the others
    model = bare("qwen2")
    first = fingerprint(model)
    assert fingerprint(bare("qwen2")) == first
    attach(model, read_lora("r=2"), 0)
    assert fingerprint(model) == first
    weight = model.get_input_embeddings().weight.data
    for change in (lambda: weight[7, 3].mul_(1 + 1e-6), lambda: weight[10:20].copy_(weight[10:20].flip(0))):
        kept = weight.clone()
        change()
        assert fingerprint(model) != first
        weight.copy_(kept)
    assert fingerprint(model) == first


# --------------------------------------------------------------------------------------------------- sessions


def started(name: str, **settings: Any) -> tuple[Any, Learner]:
    folder = session(name, sets=[f"{k}={v}" for k, v in SMALL.items() if k != "learning_rate"], **settings)
    learner, _ = start(folder.settings(), Control(), folder)
    return folder, learner


def test_adapters_have_a_learning_rate_of_their_own_under_the_tasks(tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps({"question": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(9)))
    rates = [
        started("own", lora="r=2")[1].knobs.number("learning_rate"),
        started("file", lora="r=2", task=str(task))[1].knobs.number("learning_rate"),
        started("whole", task=str(task))[1].knobs.number("learning_rate"),
    ]
    assert rates == [1e-4, 5e-5, 1e-6]
    folder = session("set", lora="r=2", task=str(task), sets=["learning_rate=3e-6"])
    assert start(folder.settings(), Control(), folder)[1].number("learning_rate") == 3e-6


def test_a_session_whose_model_has_changed_is_not_resumed(tmp_path: Path) -> None:
    source = random_policy(spread=8.0)
    source.model.save_pretrained(tmp_path / "m")
    source.tokenizer.save_pretrained(tmp_path / "m")
    folder, learner = started("a", lora="r=2", model=str(tmp_path / "m"))
    learner.save("start of RL")
    learner.run_step()
    learner.save("test")
    again, _ = start(folder.settings(), Control(), folder)
    again.load(learner.folder / "1")
    assert same_weights(again.policy.parameters, learner.policy.parameters)
    source.model.get_input_embeddings().weight.data[5, 5] += 1e-4
    source.model.save_pretrained(tmp_path / "m")
    with pytest.raises(SessionError, match=r"the session's adapters were trained on other weights than it has now"):
        start(folder.settings(), Control(), folder)


def test_a_session_outlives_the_folder_that_it_continued(tmp_path: Path) -> None:
    policy = load_policy(
        Path("engine/tiny_model").resolve(),
        make_accelerator("cpu", "fp32"),
        attach=lambda m: attach(m, read_lora("r=3"), 0),
    )
    stir(policy, 0.01)
    place = saved(policy, tmp_path / "a")
    folder, learner = started("a", lora=f"from={place}")
    learner.save("start of RL")
    for path in place.iterdir():
        path.unlink()
    again, _ = start(folder.settings(), Control(), folder)
    assert same(again.policy.weights(), policy.weights())
    assert same(policy_weights(folder.checkpoints / "0"), policy.weights())


def test_a_damaged_checkpoint_0_is_not_what_adapters_begin_at(tmp_path: Path) -> None:
    folder, learner = started("a", lora="r=2")
    learner.save("start of RL")
    file = folder.checkpoints / "0" / "policy" / WEIGHTS
    weights = {n: t + 1 for n, t in load_file(file).items()}
    save_file(weights, file)
    again, _ = start(folder.settings(), Control(), folder)
    assert same(again.policy.weights(), learner.policy.weights())


def test_a_folder_of_adapters_is_a_model(tmp_path: Path) -> None:
    _, learner = started("a", lora="r=2")
    stir(learner.policy, 0.01)
    place = saved(learner.policy, tmp_path / "a")
    _, further = started("b", model=str(place))
    assert further.settings.model == "tiny"
    assert further.settings.lora == f"from={place}"
    assert same(further.policy.weights(), learner.policy.weights())


async def test_an_engine_goes_back_and_goes_on_with_adapters_bit_for_bit() -> None:
    def build(settings: SessionSettings, control: Control, where: SessionFolder) -> tuple[Learner, Knobs]:
        knobs = make_knobs(kl_coefficient=0.04)
        return Learner(settings, small_task(), adapted(), knobs, control, where.checkpoints), knobs

    folder = session("engine", steps=0)
    seen = []
    async with live(folder, build=build) as tested:
        for _ in range(3):
            await tested.step()
            seen.append(tested.weights)
        answer = await tested.do("rewind 1")
        assert answer.status == "applied", answer
        await tested.until(lambda: tested.engine.control.phase == "idle" and tested.engine.control.paused)
        assert same_weights(tested.weights, seen[0])
        await tested.step()
        assert same_weights(tested.weights, seen[1])
    async with live(folder, build=build) as tested:
        assert tested.engine.learner.step == 2
        assert same_weights(tested.weights, seen[1])
        await tested.step()
        assert same_weights(tested.weights, seen[2])
