"""What is recorded of TRL's configurations is what its classes have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.peers]

ROOT = Path(__file__).parents[2]
PYTHONS = {"grpo": Path(sys.executable), "ppo": ROOT / ".venv-trl-ppo" / "bin" / "python"}
FIELDS = """
import dataclasses, json, sys, trl
if sys.argv[1] == "grpo":
    from trl import GRPOConfig as Config
else:
    from trl.experimental.ppo import PPOConfig as Config
missing = dataclasses.MISSING
fields = {f.name: None if f.default is missing else repr(f.default) for f in dataclasses.fields(Config)}
print(json.dumps({"version": trl.__version__, "fields": fields}))
"""


@pytest.mark.parametrize("kind", PYTHONS)
def test_the_recorded_fields_are_trls(kind: str) -> None:
    if not PYTHONS[kind].exists():
        pytest.skip(f"{PYTHONS[kind]} is made by `make bench`")
    run = subprocess.run([str(PYTHONS[kind]), "-c", FIELDS, kind], capture_output=True, text=True, check=True)
    recorded = json.loads((ROOT / "tests" / "data" / "trl_fields.json").read_text())[kind]
    assert json.loads(run.stdout.splitlines()[-1]) == recorded
