"""The learning: models, sampling, rewards, algorithms and the async engine that runs them.

Imports ``sessions`` and nothing else of the house; never textual. From a script: ``from engine import make_policy,
make_task, make_learner`` (:mod:`engine.library`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.library import make_learner, make_policy, make_task

__all__ = ["make_learner", "make_policy", "make_task"]


def __getattr__(name: str) -> Any:
    """What scripts use, imported when it is asked for: it brings torch."""
    if name in __all__:
        from engine import library

        return getattr(library, name)
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
