"""GRPO of this engine beside TRL's, on the same work: speed, memory, and what was learned.

    python benchmarks/grpo_vs_trl.py [--short] [--cases CASE ...] [--seeds 0 1 2] [--steps N] [--held-out 1000]
                                     [--ours-plain NAME ...] [--no-check] [--peer-python PYTHON] [--json FILE]

Needs TRL in an environment of its own: ``make bench-peers`` makes it, ``tests/peers/requirements.txt`` pins it. The
tables go to stdout, to ``benchmarks/results/grpo_vs_trl.md`` and with every run to ``.json``; ``--short`` writes
``grpo_vs_trl-short`` there. With the default sizes it takes the better part of an hour on one core of a small
server; ``--short`` takes about two minutes and shows that the comparison works, no more.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.measure import ROOT
from benchmarks.peers.job import Job
from benchmarks.versus import Case, arguments, check_peer, compare, guarded, plain_sides, report
from sessions.folders import cache_home

PEER = ROOT / "benchmarks" / "peers" / "trl_grpo.py"
SMOLLM2 = cache_home() / "smollm2"

NOTES = """
Every pair of runs takes the same prompts in the same order, G responses each, the same limits and settings, said
explicitly on both sides (`benchmarks/ours.py`, `benchmarks/peers/trl_grpo.py`): fp32, one thread, temperature 1
without truncation of the distribution, no dropout; group standard deviation (n - 1, + 1e-4); the loss is the mean
over all response tokens (TRL's `dapo`); clip 0.2 on both sides, token ratios; divergence k3 in the loss, without
TRL's bias correction; fused AdamW (0.9, 0.999, 1e-8), no weight decay, constant learning rate, gradient norm 1; no
checkpointing of activations. Both compute the entropy of every trained token, decode the responses and log every
step. The tokens themselves differ: each side has its own noise.

What differs in the work: TRL pads every response to the longest and reads the prompt with each; this engine shares a
prompt inside its group. This engine leaves out of the update what has an advantage of exactly 0 when kl_coefficient
is 0 (the same gradient; `--ours-plain skip_zero` adds a row without that), and makes no optimizer step where all
groups are dead. Ours is the learner as a library, without socket and store (`engine_overhead.py` measures those);
TRL is its trainer without a reporting integration. SmolLM2's reward has a part for brevity, so that few responses
have an advantage of 0; at its learning rate a few steps teach nothing, so its held-out answers are not counted.
""".strip()


def tiny(kl_coefficient: float, epochs: int, steps: int) -> Case:
    """The embedded model on two-digit addition, 16 prompts x 8 responses."""
    job = Job(
        algorithm="grpo",
        task="arithmetic",
        model=str(ROOT / "engine" / "tiny_model"),
        reward="exact",
        prompts=[],
        held_out=[],
        steps=steps,
        prompts_per_step=16,
        group_size=8,
        max_new_tokens=12,
        learning_rate=1e-4,
        kl_coefficient=kl_coefficient,
        epochs=epochs,
        max_grad_norm=1.0,
        seed=0,
    )
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return Case(f"tiny, kl {kl_coefficient:g}, {passes}", job, dropped=2)


def smollm2(steps: int) -> Case:
    """SmolLM2-135M-Instruct on sums in words, 2 prompts x 4 responses of at most 48 tokens."""
    small = tiny(0.0, 1, steps).job
    job = replace(
        small,
        task="sums",
        model=str(SMOLLM2),
        reward="brief",
        prompts_per_step=2,
        group_size=4,
        max_new_tokens=48,
        learning_rate=1e-6,
    )
    return Case("smollm2, kl 0, 1 epoch", job, dropped=1, held_out=0)


CASES = {
    "kl0-e1": tiny(0.0, 1, 60),
    "kl0-e2": tiny(0.0, 2, 60),
    "kl0-e4": tiny(0.0, 4, 60),
    "kl0.04-e1": tiny(0.04, 1, 60),
    "kl0.04-e2": tiny(0.04, 2, 60),
    "kl0.04-e4": tiny(0.04, 4, 60),
    "smollm2": smollm2(6),
}
SHORT = {"kl0-e1": 12, "kl0.04-e4": 8}
"""Cases of the short form, and their steps."""


def main() -> None:
    given = arguments(__doc__, list(CASES), ".venv-peers").parse_args()
    check_peer(given.peer_python)
    seeds = given.seeds or ([0] if given.short else [0, 1, 2])
    names = given.cases or list(SHORT if given.short else CASES)
    if "smollm2" in names and not (SMOLLM2 / "config.json").is_file():
        print("smollm2 is left out: it is not here; `make smollm2` fetches it", file=sys.stderr)
        names.remove("smollm2")
    results = "grpo_vs_trl-short" if given.short else "grpo_vs_trl"
    if given.cases and len(given.cases) == 1:
        results += f"-{given.cases[0]}"  # what one case says does not take the place of what all have said
    comparisons, checks = [], []
    for name in names:
        case = plain_sides(CASES[name], given.ours_plain)
        steps = given.steps or (SHORT.get(name) if given.short else None) or case.job.steps
        case = replace(case, job=replace(case.job, steps=steps))
        comparisons.append(compare(case, seeds, given.peer_python, PEER, given.held_out))
        report(results, NOTES, comparisons, checks, given.json, over=False)
    if not (given.no_check or given.short):
        still = tiny(0.0, 1, 30)
        still = replace(still, name=f"{still.name}, learning rate 0", job=replace(still.job, learning_rate=0.0))
        checks.append(compare(still, seeds[:1], given.peer_python, PEER, 0))
    report(results, NOTES, comparisons, checks, given.json)


if __name__ == "__main__":
    guarded(main)
