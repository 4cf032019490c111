"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(text: str | os.PathLike[str]) -> Path:
    """A path with ``~`` as the home that it stands for; where there is no such user it stays as it is.

    ``Path.expanduser`` raises a RuntimeError there, and what is not found should be told as any other file is.
    """
    return Path(os.path.expanduser(text))
