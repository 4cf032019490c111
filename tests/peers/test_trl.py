"""GRPO beside TRL's: its trainer is built as a user builds it, and its own methods compute loss and advantages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.advantages import group_relative_advantages
from engine.algorithms import grpo
from engine.algorithms.surrogate import Denominators, importance_ratio
from engine.divergences import entropy as entropy_of
from engine.divergences import k3
from tests.peers.conftest import Compare, leaf

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

MODEL = Path(grpo.__file__).parents[1] / "tiny_model"
ROWS, LENGTH, LIMIT = 8, 6, 9
LOW, HIGH, BETA = 0.1, 0.28, 0.3

AGGREGATION = {"grpo": "response", "dapo": "token", "dr_grpo": "constant"}
LOSS_TYPES = sorted(AGGREGATION)
LEVELS = ["token", "sequence"]


def make_trainer(folder: Path, rewards: list[float | None] | None = None, **settings: Any):
    """A trainer on the embedded model whose reward function gives out ``rewards``."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        disable_dropout=True,
        num_generations=4,
        max_completion_length=LIMIT,
        epsilon=LOW,
        epsilon_high=HIGH,
        **{"per_device_train_batch_size": ROWS, **settings},
    )
    trainer = GRPOTrainer(
        model=str(MODEL),
        reward_funcs=lambda completions, **_: list(rewards or []),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["1+2="] * ROWS}),
    )
    trainer.current_gradient_accumulation_steps = arguments.gradient_accumulation_steps
    trainer.model.train()
    return trainer


@dataclass
class Batch:
    """A rollout [ROWS, LENGTH], far enough off-policy for both bounds to act."""

    logprobs: Tensor
    old: Tensor
    reference: Tensor
    entropy: Tensor
    advantages: Tensor
    mask: Tensor

    def inputs(self, rows: slice = slice(None)) -> dict[str, Tensor]:
        """As TRL's loss wants them; ``num_items_in_batch`` is of all rows."""
        ids = torch.full((len(self.mask), 2), 5)
        return {
            "prompt_ids": ids[rows],
            "prompt_mask": torch.ones_like(ids)[rows],
            "completion_ids": torch.full(self.mask.shape, 6)[rows],
            "completion_mask": self.mask.long()[rows],
            "advantages": self.advantages[rows],
            "old_per_token_logps": self.old[rows],
            "ref_per_token_logps": self.reference[rows],
            "num_items_in_batch": self.mask.sum(),
        }

    @property
    def over(self) -> Denominators:
        return Denominators(len(self.mask), int(self.mask.sum()), LIMIT)


def make_batch(seed: int, spread: float = 0.4) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    logprobs = -normal(ROWS, LENGTH).abs() - 0.05
    lengths = torch.randint(1, LENGTH + 1, (ROWS,), generator=generator)
    lengths[0], lengths[1] = LENGTH, 1
    advantages = normal(ROWS)
    advantages[2] = 0.0  # of a dead group
    return Batch(
        logprobs=logprobs,
        old=logprobs + spread * normal(ROWS, LENGTH),
        reference=logprobs + 0.5 * normal(ROWS, LENGTH),
        entropy=normal(ROWS, LENGTH).abs(),
        advantages=advantages,
        mask=torch.arange(LENGTH)[None] < lengths[:, None],
    )


def our_loss(batch: Batch, logprobs: Tensor, entropy: Tensor, loss_type: str, level: str, **more: Any) -> grpo.Loss:
    return grpo.loss(
        logprobs,
        batch.old,
        batch.advantages[:, None].expand(batch.mask.shape),
        batch.mask,
        batch.over,
        clip_low=LOW,
        clip_high=HIGH,
        aggregation=AGGREGATION[loss_type],
        ratio_level=level,
        reference=batch.reference,
        entropy=entropy,
        **more,
    )


def their_loss(trainer, batch: Batch, logprobs: Tensor, entropy: Tensor, rows: slice = slice(None)) -> Tensor:
    """TRL's loss at these log-probabilities and entropies."""
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs[rows], entropy[rows], None)
    return trainer._compute_loss(trainer.model, batch.inputs(rows))


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize(
    ("level", "estimator"),
    [("token", None), ("token", "k3"), ("token", "k3_ratio"), ("sequence", None), ("sequence", "k3")],
)
def test_loss_gradient_and_metrics(
    tmp_path: Path, compare: Compare, loss_type: str, level: str, estimator: str | None
) -> None:
    """Every variant both have, off-policy; the gradient is that of the token log-probabilities."""
    trainer = make_trainer(
        tmp_path,
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=BETA if estimator else 0.0,
        use_bias_correction_kl=estimator == "k3_ratio",
    )
    for seed in range(10):
        batch = make_batch(seed, 0.4 if level == "token" else 1.0)
        ours, theirs = leaf(batch.logprobs), leaf(batch.logprobs)
        more = {"kl_coefficient": BETA, "kl_estimator": estimator} if estimator else {}
        result = our_loss(batch, ours, batch.entropy, loss_type, level, **more)
        result.total.backward()
        trainer._metrics["train"].clear()
        expected = their_loss(trainer, batch, theirs, batch.entropy)
        expected.backward()
        name = f"TRL loss {loss_type}, {level}, {estimator or 'no KL'}"
        compare(f"{name}: value", result.total, expected)
        compare(f"{name}: gradient", ours.grad, theirs.grad)

        metrics, tokens = trainer._metrics["train"], batch.mask.sum()
        assert bool(result.clipped_low.any() or result.clipped_high.any())
        if level == "token":  # at sequence level TRL's fractions are of responses
            compare("TRL clip fraction low", result.clipped_low.sum() / tokens, metrics["clip_ratio/low_mean"][0])
            compare("TRL clip fraction high", result.clipped_high.sum() / tokens, metrics["clip_ratio/high_mean"][0])
        if estimator == "k3":
            mean = k3(batch.logprobs, batch.reference)[batch.mask].mean()
            compare("TRL metric kl", mean.float(), metrics["kl"][0])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("level", LEVELS)
def test_two_micro_batches(tmp_path: Path, compare: Compare, loss_type: str, level: str) -> None:
    """What TRL accumulates over two backward passes is the gradient of the whole."""
    trainer = make_trainer(
        tmp_path,
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=BETA,
        use_bias_correction_kl=False,
        per_device_train_batch_size=ROWS // 2,
        gradient_accumulation_steps=2,
    )
    for seed in range(10):
        batch = make_batch(seed)
        ours, theirs = leaf(batch.logprobs), leaf(batch.logprobs)
        result = our_loss(batch, ours, batch.entropy, loss_type, level, kl_coefficient=BETA, kl_estimator="k3")
        result.total.backward()
        total = 0.0
        for rows in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
            share = their_loss(trainer, batch, theirs, batch.entropy, rows)
            share.backward()
            total += float(share.detach())
        compare(
            f"TRL accumulated loss {loss_type}, {level}: value", result.total, torch.tensor(total, dtype=torch.float64)
        )
        compare(f"TRL accumulated loss {loss_type}, {level}: gradient", ours.grad, theirs.grad)


def test_the_entropy_bonus_over_tokens(tmp_path: Path, compare: Compare) -> None:
    trainer = make_trainer(tmp_path, loss_type="dapo", beta=0.0, entropy_coef=0.05)
    for seed in range(10):
        batch = make_batch(seed)
        ours, theirs = ((leaf(batch.logprobs), leaf(batch.entropy)) for _ in range(2))
        result = our_loss(batch, *ours, "dapo", "token", entropy_bonus=0.05)
        result.total.backward()
        expected = their_loss(trainer, batch, *theirs)
        expected.backward()
        compare("TRL entropy bonus: value", result.total, expected)
        compare("TRL entropy bonus: gradient of entropy", ours[1].grad, theirs[1].grad)
        compare("TRL entropy bonus: gradient", ours[0].grad, theirs[0].grad)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
def test_the_entropy_bonus_of_other_aggregations(tmp_path: Path, compare: Compare, loss_type: str) -> None:
    """A known difference: TRL's bonus is always the mean over tokens, ours is aggregated as the loss is."""
    trainer = make_trainer(tmp_path, loss_type=loss_type, beta=0.0, entropy_coef=0.05)
    batch = make_batch(0)
    expected = their_loss(trainer, batch, batch.logprobs, batch.entropy)
    without = our_loss(batch, batch.logprobs, batch.entropy, loss_type, "token")
    bonus = 0.05 * batch.entropy[batch.mask].mean()
    compare(f"TRL entropy bonus, {loss_type}, put in by hand", without.total - bonus, expected)
    ours = our_loss(batch, batch.logprobs, batch.entropy, loss_type, "token", entropy_bonus=0.05)
    assert abs(float(ours.total) - float(expected)) > 1e-4


def test_the_ratio_of_the_divergence_at_sequence_level(tmp_path: Path, compare: Compare) -> None:
    """A known difference: k3 x rho takes the token's rho here, TRL takes the sequence's."""
    trainer = make_trainer(
        tmp_path, loss_type="grpo", importance_sampling_level="sequence", beta=BETA, use_bias_correction_kl=True
    )
    batch = make_batch(0)
    expected = their_loss(trainer, batch, batch.logprobs, batch.entropy)
    policy = our_loss(batch, batch.logprobs, batch.entropy, "grpo", "sequence").total
    rho = importance_ratio(batch.logprobs, batch.old, batch.mask, "sequence")
    kl = torch.where(batch.mask, k3(batch.logprobs, batch.reference) * rho, 0.0).sum(1) / batch.mask.sum(1)
    compare("TRL loss grpo, sequence, k3 x sequence ratio by hand", policy + BETA * kl.mean(), expected)
    more = {"kl_coefficient": BETA, "kl_estimator": "k3_ratio"}
    ours = our_loss(batch, batch.logprobs, batch.entropy, "grpo", "sequence", **more)
    assert abs(float(ours.total) - float(expected)) > 1e-4


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize(("level", "estimator"), [("token", "k3"), ("token", "k3_ratio"), ("sequence", "k3")])
def test_the_gradient_of_the_weights(
    tmp_path: Path, compare: Compare, loss_type: str, level: str, estimator: str
) -> None:
    """Through the whole model, in single precision: TRL's forward and loss against a plain forward and ours."""
    trainer = make_trainer(
        tmp_path,
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=BETA,
        use_bias_correction_kl=estimator == "k3_ratio",
        entropy_coef=0.05 if loss_type == "dapo" else 0.0,
    )
    model, batch = trainer.model, make_batch(1)
    generator = torch.Generator().manual_seed(7)
    prompts, responses = (torch.randint(4, 60, (ROWS, n), generator=generator) for n in (3, LENGTH))

    def forward() -> tuple[Tensor, Tensor]:
        attention = torch.cat([torch.ones_like(prompts), batch.mask.long()], 1)
        logits = model(input_ids=torch.cat([prompts, responses], 1), attention_mask=attention).logits
        logits = logits[:, prompts.shape[1] - 1 : -1].float()
        return logits.log_softmax(-1).gather(2, responses[..., None]).squeeze(2), entropy_of(logits)

    with torch.no_grad():
        logprobs, _ = forward()
    batch.old = logprobs + batch.old.float() - batch.logprobs.float()
    batch.reference = logprobs + batch.reference.float() - batch.logprobs.float()
    batch.advantages = batch.advantages.float()

    def gradient(loss: Tensor) -> Tensor:
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    bonus = {"entropy_bonus": 0.05} if loss_type == "dapo" else {}
    result = our_loss(batch, *forward(), loss_type, level, kl_coefficient=BETA, kl_estimator=estimator, **bonus).total
    ours = gradient(result)
    inputs = batch.inputs() | {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": responses,
    }
    expected = trainer._compute_loss(model, inputs)
    theirs = gradient(expected)
    assert float(theirs.norm()) > 0.01
    compare("TRL through the model: value", result, expected)
    compare("TRL through the model: gradient of the weights", ours, theirs)


NAN = math.nan
REWARDS = [
    [1.0, 0.0, 0.0, 1.0],
    [None, 0.0, 1.0, 2.0],  # a row without a reward
    [0.5, 0.5, 0.5, 0.5],  # dead: all equal
    [0.1, 0.7, -0.3, 12.25],
    [None, None, 1.0, None],  # dead: one scored
    [None, None, None, None],  # dead: none
    [None, 0.25, None, 0.75],
    [1.0, 1.0, 1.0, 0.0],
]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages(tmp_path: Path, compare: Compare, scale: str) -> None:
    """A real sampling step of TRL's, whose reward function gives known rewards, some of them None."""
    generator = torch.Generator().manual_seed(3)
    drawn = (4 * torch.randn(8, 4, generator=generator)).tolist()
    sparse = [[None if (3 * i + 5 * j) % 4 == 0 else r for j, r in enumerate(row)] for i, row in enumerate(drawn)]
    for rewards in (REWARDS, drawn, sparse):
        flat = [r for group in rewards for r in group]
        trainer = make_trainer(tmp_path, flat, scale_rewards=scale, beta=0.0, per_device_train_batch_size=len(flat))
        output = trainer._generate_and_score_completions([{"prompt": "1+2="} for _ in flat])
        numbers = torch.tensor([[NAN if r is None else r for r in group] for group in rewards], dtype=torch.float64)
        ours, dead = group_relative_advantages(numbers, scale)
        compare(f"TRL advantages, {scale}", ours.flatten(), output["advantages"])
        if rewards is REWARDS:
            assert dead.tolist() == [False, False, True, False, True, True, False, False]
