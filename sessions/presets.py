"""Published settings by name: each sets the hyperparameters it names and nothing else.

Sizes and learning rates are left alone: they belong to the model and the machine. The trpo preset's damping and share
of groups are this project's own, measured on language models (docs/algorithms.md): a Fisher matrix of far fewer
tokens than parameters needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sessions.errors import UnknownName
from sessions.hyperparameters import Value

OVERLONG_SHARE = 5
"""DAPO's penalty begins a fifth of the limit before it (4,096 of 20,480 tokens)."""

_GRPO: dict[str, Value] = {
    "algorithm": "grpo",
    "epochs": 1,
    "minibatches": 1,
    "ratio_level": "token",
    "entropy_bonus": 0.0,
    "dynamic_sampling": 0,
    "overlong_penalty": 0,
}
_KL_IN_LOSS: dict[str, Value] = {"kl_placement": "loss", "kl_estimator": "k3"}
_KL_IN_REWARD: dict[str, Value] = {"kl_placement": "reward", "kl_estimator": "k1", "kl_coefficient": 0.05}


@dataclass(frozen=True, slots=True)
class Preset:
    """A published recipe.

    :ivar overlong: whether it penalises the last fifth of ``max_new_tokens``.
    """

    name: str
    source: str
    values: Mapping[str, Value]
    overlong: bool = False

    def settings(self, max_new_tokens: int) -> dict[str, Value]:
        """The values it sets beside that limit."""
        if not self.overlong or max_new_tokens < 2:
            return dict(self.values)
        return {**self.values, "overlong_penalty": max(1, max_new_tokens // OVERLONG_SHARE)}


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "deepseekmath",
            "arXiv 2402.03300",
            _GRPO
            | _KL_IN_LOSS
            | {
                "kl_coefficient": 0.04,
                "clip_low": 0.2,
                "clip_high": 0.2,
                "advantage_scale": "group",
                "loss_aggregation": "response",
            },
        ),
        Preset(
            "dapo",
            "arXiv 2503.14476",
            _GRPO
            | _KL_IN_LOSS
            | {
                "kl_coefficient": 0.0,
                "clip_low": 0.2,
                "clip_high": 0.28,
                "advantage_scale": "group",
                "loss_aggregation": "token",
                "dynamic_sampling": 8,
            },
            overlong=True,
        ),
        Preset(
            "dr-grpo",
            "arXiv 2503.20783",
            _GRPO
            | _KL_IN_LOSS
            | {
                "kl_coefficient": 0.0,
                "clip_low": 0.2,
                "clip_high": 0.2,
                "advantage_scale": "none",
                "loss_aggregation": "constant",
            },
        ),
        Preset(
            "gspo",
            "arXiv 2507.18071",
            _GRPO
            | _KL_IN_LOSS
            | {
                "kl_coefficient": 0.0,
                "clip_low": 3e-4,
                "clip_high": 4e-4,
                "advantage_scale": "group",
                "loss_aggregation": "response",
                "ratio_level": "sequence",
                "minibatches": 4,
            },
        ),
        Preset(
            "ppo",
            "arXiv 1707.06347, 2009.01325",
            _KL_IN_REWARD
            | {
                "algorithm": "ppo",
                "epochs": 4,
                "minibatches": 1,
                "clip_low": 0.2,
                "clip_high": 0.2,
                "gamma": 1.0,
                "gae_lambda": 0.95,
                "value_model": "head",
                "value_clip": 0.2,
                "value_warmup_steps": 5,
                "stop_kl": 0.02,
            },
        ),
        Preset(
            "trpo",
            "arXiv 1502.05477",
            _KL_IN_REWARD
            | {
                "algorithm": "trpo",
                "baseline": "group",
                "advantage_scale": "group",
                "trust_region": 0.01,
                "cg_iterations": 10,
                "cg_tolerance": 0.1,
                "damping": 1.0,
                "damping_scale": "curvature",
                "backtracks": 10,
                "fisher_product": "auto",
                "fisher_fraction": 0.25,
            },
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    :raises UnknownName: naming those there are.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]
