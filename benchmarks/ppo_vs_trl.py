"""PPO of this engine beside TRL's last one (1.12.0), on the same work: speed, memory, and what was learned.

    python benchmarks/ppo_vs_trl.py [--short] [--cases CASE ...] [--seeds 0 1 2] [--steps N] [--held-out 1000]
                                    [--ours-plain NAME ...] [--no-check] [--peer-python PYTHON] [--json FILE]

Needs that TRL in an environment of its own: ``make bench-peers`` makes it, ``benchmarks/peers/requirements-ppo.txt``
pins it. The tables go to stdout, to ``benchmarks/results/ppo_vs_trl.md`` and with every run to ``.json``; ``--short``
writes ``ppo_vs_trl-short`` there. With the default sizes it takes half an hour to an hour on one core of a small
server; ``--short`` takes about a minute and a half and shows that the comparison works, no more.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.measure import ROOT
from benchmarks.peers.job import Job
from benchmarks.versus import Case, Side, arguments, check_peer, compare, guarded, plain_sides, report

PEER = ROOT / "benchmarks" / "peers" / "trl_ppo.py"
UNCLIPPED = 1e6
"""A gradient norm that is never reached: TRL's PPO does not clip."""

NOTES = """
Every pair of runs takes the same prompts in the same order, the same number of responses to each, the same limits
and settings, said explicitly on both sides (`benchmarks/ours.py`, `benchmarks/peers/trl_ppo.py`): fp32, one thread,
temperature 1, no dropout; one minibatch; gamma 1, lambda 0.95, advantages whitened over the rollout's tokens; clip
0.2 for ratios and values; loss the mean over tokens; divergence k1 in the reward; fused AdamW (0.9, 0.999, 1e-8) at
the same constant learning rate for policy and value model, no weight decay; no clipping of the gradient, which TRL's
PPO does not have, and no early stop; no checkpointing of activations. The side `separate` has what TRL has: a value
model of its own, as large as the policy. The side `head` is this engine's default, a head on the policy. The tokens
themselves differ: each side has its own noise.

What differs in the work: TRL always makes the pass of the reference, with kl_coefficient 0 too, pads to the longest
response, makes logits for prompts too, and reads the prompt with each response. It also asks Python for a garbage
collection twice a step, a constant that weighs much beside a tiny model: a column leaves it out. What differs in what
is learned: TRL puts the score one place after the end token, where its value model estimates once more; its value
head is drawn and reads the state, ours begins at the mean score and reads the state's direction.
""".strip()


def tiny(kl_coefficient: float, epochs: int, prompts: int = 16) -> Case:
    """The embedded model on two-digit addition, 128 responses a step."""
    job = Job(
        algorithm="ppo",
        task="arithmetic",
        model=str(ROOT / "engine" / "tiny_model"),
        reward="exact",
        prompts=[],
        held_out=[],
        steps=40,
        prompts_per_step=prompts,
        group_size=128 // prompts,
        max_new_tokens=12,
        learning_rate=1e-4,
        kl_coefficient=kl_coefficient,
        epochs=epochs,
        max_grad_norm=UNCLIPPED,
        seed=0,
        options={"value_model": "separate"},
    )
    passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    sides = (Side("separate", {"value_model": "separate"}), Side("head", {"value_model": "head"}))
    return Case(f"tiny, {prompts} x {128 // prompts}, kl {kl_coefficient:g}, {passes}", job, dropped=2, sides=sides)


CASES = {
    "kl0-e1": tiny(0.0, 1),
    "kl0-e4": tiny(0.0, 4),
    "kl0.05-e4": tiny(0.05, 4),
    "kl0-e4-64x2": tiny(0.0, 4, prompts=64),
}
SHORT = {"kl0-e1": 8}
"""Cases of the short form, and their steps."""


def main() -> None:
    given = arguments(__doc__, list(CASES), ".venv-trl-ppo").parse_args()
    check_peer(given.peer_python)
    seeds = given.seeds or ([0] if given.short else [0, 1, 2])
    results = "ppo_vs_trl-short" if given.short else "ppo_vs_trl"
    if given.cases and len(given.cases) == 1:
        results += f"-{given.cases[0]}"  # what one case says does not take the place of what all have said
    comparisons, checks = [], []
    for name in given.cases or list(SHORT if given.short else CASES):
        case = plain_sides(CASES[name], given.ours_plain)
        steps = given.steps or (SHORT.get(name) if given.short else None) or case.job.steps
        case = replace(case, job=replace(case.job, steps=steps))
        comparisons.append(compare(case, seeds, given.peer_python, PEER, given.held_out))
        report(results, NOTES, comparisons, checks, given.json, over=False)
    if not (given.no_check or given.short):
        still = CASES["kl0-e1"]
        job = replace(still.job, learning_rate=0.0, steps=30)
        still = replace(still, name=f"{still.name}, learning rate 0", job=job, sides=still.sides[:1])
        checks.append(compare(still, seeds[:1], given.peer_python, PEER, 0))
    report(results, NOTES, comparisons, checks, given.json)


if __name__ == "__main__":
    guarded(main)
