"""One thread of torch and its deterministic algorithms, as in the engine's own process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from engine.loading import TINY, load_policy
from engine.policy import Policy, make_accelerator
from tests.engine.small import random_policy

settings.register_profile("engine", deadline=None, derandomize=True)
settings.load_profile("engine")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


@pytest.fixture(scope="session")
def embedded() -> Policy:
    """The model that travels with the package; tests that train it load their own."""
    return load_policy(TINY, make_accelerator("cpu", "fp32"))


@pytest.fixture(scope="session")
def small() -> Policy:
    """A random policy that no test trains."""
    return random_policy()
