"""TRPO and advantage estimation beside stable-baselines3: its solver, its whole step, its buffer and its metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from engine.advantages import generalised_advantages
from engine.algorithms.ppo import explained_variance
from engine.algorithms.trpo import Attempt, conjugate_gradient, line_search, step_length
from engine.divergences import full_kl
from tests.peers.conftest import Compare

gymnasium = pytest.importorskip("gymnasium")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their solver starts from 1e-4 of random noise; ours from 0. Without the noise iterates can be compared."""
    monkeypatch.setattr("sb3_contrib.common.utils.th.randn_like", torch.zeros_like)


def system(seed: int, n: int, smallest: float = 0.05) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, generator=generator, dtype=torch.float64)
    matrix = root @ root.T / n + smallest * torch.eye(n, dtype=torch.float64)
    return matrix, torch.randn(n, generator=generator, dtype=torch.float64)


def their_solution(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, squared: float = 1e-24) -> Tensor:
    from sb3_contrib.common.utils import conjugate_gradient_solver

    return conjugate_gradient_solver(product, b, max_iter=iterations, residual_tol=squared)


@pytest.mark.parametrize("damping", [0.0, 0.1, 1.0])
@pytest.mark.usefixtures("from_zero")
def test_every_iterate_of_conjugate_gradient(compare: Compare, damping: float) -> None:
    for seed in range(20):
        n = 2 + seed
        matrix, b = system(seed, n)
        damped = matrix + damping * torch.eye(n, dtype=torch.float64)
        for iterations in (1, 2, 5, n):
            ours = conjugate_gradient(
                lambda v, m=matrix: m @ v, b, iterations=iterations, tolerance=1e-12, damping=damping
            )
            theirs = their_solution(lambda v, m=damped: m @ v, b, iterations)
            compare(f"SB3 conjugate gradient, damping {damping}", ours.x, theirs)


def test_solutions_of_conjugate_gradient_from_their_random_start(compare: Compare) -> None:
    for seed in range(20):
        matrix, b = system(seed, 12, smallest=0.5)
        torch.manual_seed(seed)
        ours = conjugate_gradient(lambda v, m=matrix: m @ v, b, iterations=40, tolerance=1e-10)
        compare("SB3 conjugate gradient, converged", ours.x, their_solution(lambda v, m=matrix: m @ v, b, 40))


class Bandit(gymnasium.Env):
    """Four actions, an observation that says which pays best, episodes of eight steps."""

    observation_space = gymnasium.spaces.Box(-3, 3, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 8
        self.seen = self.np_random.normal(size=3).clip(-3, 3).astype(np.float32)
        return self.seen, {}

    def step(self, action):
        reward = float(np.sin(self.seen @ [1.0, -2.0, 0.5] + action))
        self.left -= 1
        self.seen = self.np_random.normal(size=3).clip(-3, 3).astype(np.float32)
        return self.seen, reward, self.left == 0, False, {}


def make_model(seed: int, **settings):
    """Their TRPO with one rollout in its buffer, its policy in double precision."""
    from sb3_contrib import TRPO
    from stable_baselines3.common.torch_layers import FlattenExtractor

    class Double(FlattenExtractor):
        def forward(self, observations: Tensor) -> Tensor:
            return super().forward(observations).double()

    model = TRPO(
        "MlpPolicy",
        Bandit(),
        n_steps=128,
        batch_size=128,
        n_critic_updates=0,
        policy_kwargs={"net_arch": {"pi": [8], "vf": [8]}, "features_extractor_class": Double},
        seed=seed,
        device="cpu",
        **settings,
    )
    model.policy.double()
    _, callback = model._setup_learn(total_timesteps=128)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=128)
    return model


def flat(gradients: Iterable[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def our_step(policy, rollout, target_kl: float, damping: float, scale: float) -> tuple[list[Attempt], float]:
    """Move the policy by our functions, with two of their conventions: damping counts in the length of the step, and
    the divergence is KL(new, old).

    :returns: the tries, and the surrogate before the step.
    """
    actions, old_logprobs = rollout.actions.long(), rollout.old_log_prob.double()
    advantages = rollout.advantages.double()
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    actor = [p for name, p in policy.named_parameters() if "value" not in name]

    def logits() -> Tensor:
        return policy.get_distribution(rollout.observations).distribution.logits

    def surrogate(new: Tensor) -> Tensor:
        return (advantages * (new.log_softmax(-1).gather(1, actions).squeeze(1) - old_logprobs).exp()).mean()

    old, start = logits().detach(), parameters_to_vector(actor).detach()
    before = float(surrogate(old))
    gradient = flat(torch.autograd.grad(surrogate(logits()), actor))
    kl_gradient = flat(torch.autograd.grad(full_kl(logits(), old).mean(), actor, create_graph=True))
    found = conjugate_gradient(
        lambda v: flat(torch.autograd.grad(kl_gradient @ v, actor, retain_graph=True)),
        gradient,
        iterations=8,
        tolerance=1e-5 / float(gradient.norm()),  # theirs is absolute
        damping=damping,
    )
    step = scale * step_length(target_kl, found.curvature + damping * float(found.x @ found.x)) * found.x

    @torch.no_grad()
    def attempt(fraction: float) -> tuple[float, float]:
        vector_to_parameters(start + fraction * step, actor)
        new = logits()
        return float(full_kl(new, old).mean()), float(surrogate(new)) - before

    tries = line_search(attempt, target_kl, 10)
    if not tries[-1].accepted:
        vector_to_parameters(start, actor)
    return tries, before


@pytest.mark.parametrize(
    ("target_kl", "scale", "outcome"),
    [
        (0.01, 1.0, "accepted"),
        (2.0, 1.0, "backtracked"),  # where the quadratic is far off
        (0.01, -1.0, "rejected"),  # the search direction turned round: nothing improves, all is put back
    ],
)
@pytest.mark.usefixtures("from_zero")
def test_a_whole_step_of_trpo(
    monkeypatch: pytest.MonkeyPatch, compare: Compare, target_kl: float, scale: float, outcome: str
) -> None:
    """Their train() against our functions, on the same rollout."""
    from sb3_contrib.trpo import trpo

    solver = trpo.conjugate_gradient_solver
    monkeypatch.setattr(trpo, "conjugate_gradient_solver", lambda *a, **k: scale * solver(*a, **k))
    backtracked = 0
    for seed in range(6):
        damping = (1e-4, 0.1)[seed % 2]
        model = make_model(seed, target_kl=target_kl, cg_damping=damping, cg_max_steps=8)
        ours, before = copy.deepcopy(model.policy), parameters_to_vector(model.policy.parameters())
        rollout = next(model.rollout_buffer.get(batch_size=None))
        model.train()
        tries, surrogate = our_step(ours, rollout, target_kl, damping, scale)
        backtracked += len(tries) - 1
        after, expected = (parameters_to_vector(p.parameters()) for p in (ours, model.policy))
        assert tries[-1].accepted == (outcome != "rejected")
        assert torch.equal(expected, before) == (outcome == "rejected")
        compare(f"SB3 TRPO step, {outcome}: change of the weights", after - before, expected - before)
        if outcome != "rejected":
            logged = model.logger.name_to_value
            compare(f"SB3 TRPO step, {outcome}: KL", tries[-1].kl, logged["train/kl_divergence_loss"])
            compare(
                f"SB3 TRPO step, {outcome}: surrogate", tries[-1].gain + surrogate, logged["train/policy_objective"]
            )
    assert outcome == "accepted" or backtracked > 0


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0)])
def test_generalised_advantages_and_explained_variance(compare: Compare, gamma: float, gae_lambda: float) -> None:
    """One environment a response, each ending at its own length; their buffer cuts at the ends of episodes."""
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.utils import explained_variance as theirs

    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(5, 9, generator=generator) for _ in range(2))
    lengths = torch.tensor([9, 1, 4, 8, 6])
    mask = torch.arange(9)[None] < lengths[:, None]
    buffer = RolloutBuffer(
        9, Bandit.observation_space, Bandit.action_space, "cpu", gae_lambda=gae_lambda, gamma=gamma, n_envs=5
    )
    for t in range(9):
        starts = (lengths == t) | (t == 0)  # what comes after a response is another episode
        zero = np.zeros((5, 3), np.float32)
        buffer.add(zero, np.zeros((5, 1)), rewards[:, t].numpy(), starts.numpy(), values[:, t], torch.zeros(5))
    buffer.compute_returns_and_advantage(torch.zeros(5), np.ones(5))
    ours, returns = generalised_advantages(rewards, values, mask, gamma, gae_lambda)
    compare("SB3 GAE: advantages", ours[mask], torch.from_numpy(buffer.advantages.T.copy())[mask])
    compare("SB3 GAE: returns", returns[mask], torch.from_numpy(buffer.returns.T.copy())[mask])
    predicted, true = values[mask].double(), returns[mask].double()
    compare("SB3 explained variance", explained_variance(predicted, true), theirs(predicted.numpy(), true.numpy()))
