"""``python -m engine.tasks.fetch NAME CONFIG SPLIT``: put a dataset of the hub into its cache; says how, as JSON."""

from __future__ import annotations

import json
import sys

from engine.tasks.hub import reason


def main(name: str, config: str, split: str) -> int:
    """Fetch it; the last line on stdout holds the error, empty where there is none."""
    import datasets

    datasets.disable_progress_bars()
    try:
        datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # noqa: BLE001 - the package and its network raise many kinds
        print(json.dumps({"error": reason(error, config, split)}), flush=True)
        return 1
    print(json.dumps({"error": ""}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
