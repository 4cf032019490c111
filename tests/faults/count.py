"""How many faults were put in, and what became of the sessions they were put into."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


class Count:
    """The counts of one run of the tests.

    :ivar injected: kind of fault -> how many.
    :ivar recovered: the same of those whose session was found whole afterwards.
    :ivar acknowledged: ratings that an engine said it had saved.
    :ivar lost: those of them that were missing, changed or there twice afterwards.
    """

    def __init__(self) -> None:
        self.injected: Counter[str] = Counter()
        self.recovered: Counter[str] = Counter()
        self.acknowledged = self.lost = 0

    def lines(self) -> list[str]:
        """A table for people."""
        width = max(map(len, self.injected), default=0)
        rows = [
            f"{kind:{width}}  {count:6,} injected  {self.recovered[kind]:6,} recovered"
            for kind, count in sorted(self.injected.items())
        ]
        return [
            *rows,
            f"faults injected: {self.injected.total():,}; sessions recovered: {self.recovered.total():,}; "
            f"ratings acknowledged: {self.acknowledged:,}; ratings lost: {self.lost:,}",
        ]

    def write(self, path: Path) -> None:
        """Keep them as JSON."""
        kinds = {kind: {"injected": n, "recovered": self.recovered[kind]} for kind, n in sorted(self.injected.items())}
        totals = {
            "injected": self.injected.total(),
            "recovered": self.recovered.total(),
            "ratings_acknowledged": self.acknowledged,
            "ratings_lost": self.lost,
        }
        path.write_text(json.dumps({"totals": totals, "kinds": kinds}, indent=1) + "\n")
