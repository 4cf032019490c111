"""What a session can be exported as: named here, so that who offers it need not load what writes it."""

from __future__ import annotations

FORMATS = ("jsonl", "parquet", "preferences", "model")
