"""Reward models beside TRL: the loss of pairs as its reward trainer computes it."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from engine.preference_losses import bradley_terry, centering
from tests.peers.conftest import Compare, leaf

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

PAIRS = 12


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("coefficient", [None, 0.01])
def test_the_loss_of_pairs(compare: Compare, margin: bool, coefficient: float | None) -> None:
    """TRL's method is run on itself, with a model that gives the scores out."""
    from trl import RewardTrainer

    def same(x: torch.Tensor) -> torch.Tensor:
        return x

    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        scores = 3 * torch.randn(2 * PAIRS, 1, generator=generator)
        margins = torch.rand(PAIRS, generator=generator)
        ours, theirs = leaf(scores), leaf(scores)
        trainer = SimpleNamespace(
            model=SimpleNamespace(training=True),
            args=SimpleNamespace(center_rewards_coefficient=coefficient),
            accelerator=SimpleNamespace(gather_for_metrics=same, gather=same),
            _metrics=defaultdict(lambda: defaultdict(list)),
            _total_train_tokens=0,
            _tp_size=1,
        )
        inputs = {"attention_mask": torch.ones(2 * PAIRS, 3), **({"margin": margins} if margin else {})}
        their_loss = RewardTrainer.compute_loss(
            trainer, lambda scores=theirs, **_: SimpleNamespace(logits=scores), inputs
        )
        two = ours.squeeze(-1).view(2, PAIRS)
        our_loss = bradley_terry(two[0], two[1], margins if margin else 0.0).mean()
        our_loss = our_loss + (coefficient or 0.0) * centering(two.t()).mean()
        their_loss.backward()
        our_loss.backward()
        compare("TRL reward loss: value", our_loss, their_loss)
        compare("TRL reward loss: gradient", ours.grad, theirs.grad)
