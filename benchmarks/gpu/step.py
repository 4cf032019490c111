"""Sampling and updating on a device, and how much of its roofline they reach; TRL's step beside them where it is.

    python -m benchmarks.gpu.step MODEL... [--device cuda] [--tiny] [--steps 5] [--prompts 8] [--group 8]
                                  [--prompt 128] [--length 256] [--out FOLDER]

MODEL is a folder that transformers loads, ``billion`` (a random Llama of about 1.1 billion parameters) or ``tiny`` (a
random Llama of the embedded model's shape). Responses never end early, so both sides do the same work and the counts
are exact. A line of JSON a model goes to stdout, and all of them to ``OUT/gpu.json`` with a table in ``OUT/gpu.md``.

sampling's share    bytes that decoding must move (weights and cache, :mod:`benchmarks.gpu.counts`) over what the
                    measured bandwidth could have moved in the time that sampling took, the prompts' pass included
updating's share    operations that an update must do over what the measured matrix rate could have done
TRL                 GRPO of the same sizes in a process of its own, after ours, if this Python imports trl; wall-clock
                    time, so the quotient means nothing on a CPU, where ours is processor time
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import counts, roofline
from benchmarks.measure import ROOT, facts, table
from benchmarks.workload import BILLION, TINY, Phases, Shape, make_learner, never_ends, random_policy, task, timed_step
from engine.loading import load_policy
from engine.policy import Policy, make_accelerator

NAMED = {"billion": BILLION, "tiny": TINY}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a step."""

    prompts: int
    group: int
    prompt: int
    length: int


def load(model: str, sizes: Sizes, device: str) -> Policy:
    """The policy, in the precision that the device trains in."""
    if model in NAMED:
        return random_policy(NAMED[model], sizes.prompt + sizes.length, device, "auto")
    return load_policy(Path(model), make_accelerator(device), chat_template=False)


def ours(policy: Policy, sizes: Sizes, steps: int) -> tuple[list[Phases], int]:
    """Steps of this engine after one that does not count, and the tokens that a prompt really has."""
    never_ends(policy)
    values = {"prompts_per_step": sizes.prompts, "group_size": sizes.group, "max_new_tokens": sizes.length}
    asked = task(sizes.prompt)
    with tempfile.TemporaryDirectory() as folder:
        learner = make_learner(policy, asked, Path(folder), **values)
        timed_step(learner)
        phases = [timed_step(learner) for _ in range(steps)]
    return phases, len(policy.encode_prompt(asked.prompts[0].text))


def shares(shape: Shape, sizes: Sizes, phases: Sequence[Phases], limits: roofline.Roofline, *, bf16: bool) -> Any:
    """Medians, and what share of the limits they are.

    :param sizes: with the tokens that a prompt really has.
    """
    sampling = statistics.median(p.sampling for p in phases)
    updating = statistics.median(p.updating for p in phases)
    rows = sizes.prompts * sizes.group
    moved = counts.sampling_bytes(shape, sizes.prompt, sizes.length, rows, 2 if bf16 else 4)
    flops = counts.update_flops(shape, [(sizes.prompt, [sizes.length] * sizes.group)] * sizes.prompts)
    return {
        "sampling s": sampling,
        "updating s": updating,
        "sampled tokens/s": rows * sizes.length / sampling,
        "step tokens/s": rows * sizes.length / (sampling + updating),
        "GB moved a decode step": moved / max(sizes.length - 1, 1) / 1e9,
        "sampling, % of bandwidth": 100 * moved / sampling / limits.bandwidth,
        "update TFLOP": flops / 1e12,
        "updating, % of matrix rate": 100 * flops / updating / (limits.bf16 if bf16 else limits.fp32),
    }


def trl(model: str, sizes: Sizes, steps: int, device: str) -> dict[str, Any] | None:
    """TRL's step of the same sizes, in a process of its own; None if there is no TRL."""
    if importlib.util.find_spec("trl") is None:
        return None
    job = json.dumps({"model": model, "sizes": asdict(sizes), "steps": steps, "device": device})
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.trl_step", job],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(model: str, sizes: Sizes, steps: int, device: str, limits: roofline.Roofline) -> dict[str, Any]:
    """One model, ours and then TRL's."""
    policy = load(model, sizes, device)
    shape, bf16 = Shape.of(policy.model), policy.bf16
    parameters = sum(p.numel() for p in policy.parameters)
    on_gpu = policy.device.type == "cuda"
    phases, prompt = ours(policy, sizes, steps)
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None
    del policy
    if on_gpu:
        torch.cuda.empty_cache()
    real = Sizes(sizes.prompts, sizes.group, prompt, sizes.length)
    found = {
        "model": Path(model).name,
        "parameters": parameters,
        "precision": "bf16" if bf16 else "fp32",
        **asdict(real),
        "steps": steps,
        **shares(shape, real, phases, limits, bf16=bf16),
        "peak GB": peak,
    }
    theirs = trl(model, sizes, steps, device)
    if theirs is not None:
        found["trl"] = theirs
        if "step s" in theirs:
            found["times TRL's speed"] = theirs["step s"] / (found["sampling s"] + found["updating s"])
    return found


def report(payload: dict[str, Any], folder: Path) -> None:
    """Keep the figures, with a table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(payload, indent=1) + "\n")
    limits = payload["roofline"]
    names = [name for name in payload["models"][0] if name != "trl"]
    rows = [{"": name} | {m["model"]: m.get(name) for m in payload["models"]} for name in names[1:]]
    text = table(rows, list(rows[0]))
    lines = [
        f"# On {limits['device']}",
        "",
        f"Measured by `benchmarks/gpu.sh`, {payload['facts']['date']}: {limits['bandwidth'] / 1e9:.0f} GB/s of copies, "
        f"{limits['fp32'] / 1e12:.1f} TFLOP/s in fp32, {limits['bf16'] / 1e12:.1f} in bf16.",
        "",
        "```",
        text,
        "```",
    ]
    (folder / "gpu.md").write_text("\n".join(lines) + "\n")
    print(f"\n{text}", file=sys.stderr)


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds on a CPU")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--prompt", type=int, help="characters of a prompt: tokens of a random Llama")
    parser.add_argument("--length", type=int, help="tokens of a response")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(words)
    usual = (2, 2, 2, 8, 6) if given.tiny else (5, 8, 8, 128, 256)
    steps, *rest = (
        value or other
        for value, other in zip(
            (given.steps, given.prompts, given.group, given.prompt, given.length), usual, strict=True
        )
    )
    limits = roofline.measure(torch.device(given.device), tiny=given.tiny)
    models = []
    for model in given.models:
        models.append(measure(model, Sizes(*rest), steps, given.device, limits))
        print(json.dumps(models[-1]), flush=True)
    report({"facts": facts(), "roofline": asdict(limits), "models": models}, given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
