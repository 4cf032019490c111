"""What a session is: records, hyperparameters, store, checkpoints and the wire.

The ground floor of the house. It imports none of the other packages, and neither torch nor textual. From a script:
``from sessions import open_session`` (:mod:`sessions.library`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessions.library import Session, open_session, session_names

__all__ = ["Session", "open_session", "session_names"]


def __getattr__(name: str) -> Any:
    """What scripts use, imported when it is asked for: the front door starts fast."""
    if name in __all__:
        from sessions import library

        return getattr(library, name)
    raise AttributeError(f"module 'sessions' has no attribute {name!r}")
