"""How fast a policy follows somebody who rates it, and how well a reward model learns what they like.

    python -m benchmarks.teaching [--steps N] [--seeds N]

A simulated rater with a hidden preference for short answers rates two groups of every step at the rating desk; nothing
else teaches. Printed is the share of short answers to held-out prompts on the way, then what a reward model trained on
those ratings is worth on its held-out preferences, and the share after twenty and forty steps of it alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile

from sessions.commands import QueryRewardModel, TrainRewardModel
from sessions.reward_models import RewardModelState


async def one(mode: str, seed: int, steps: int) -> str:
    """A line of the table."""
    import msgspec

    from tests.test_human_teaches import WANTED, Rater, short_share, training

    async with training(seed, f"{mode}-{seed}", rating_gate=f"wait {WANTED}", learning_rate=1.5e-3) as tested:
        await tested.first("resume")
        rater = Rater(tested, mode)
        await rater.sit(steps)
        taught = short_share(tested)
        await tested.first(TrainRewardModel())
        await tested.until(lambda: any("is trained" in text for text in tested.notes("reward model")))
        await tested.first("set rating_gate=async reward_model_weight=1")
        there = tested.engine.learner.step
        await tested.until(lambda: tested.engine.learner.step > there + 40)
        alone = short_share(tested)
        state = msgspec.convert(await tested.client.query_json(QueryRewardModel()), RewardModelState)
    report = state.reports[-1]
    accuracy = "-" if report.held_out.accuracy is None else f"{report.held_out.accuracy:.0%}"
    shares = "  ".join(f"{share:4.0%}" for share in taught[:: max(1, len(taught) // 5)])
    after = "  ".join(f"{share:4.0%}" for share in alone[len(taught) :][3::4])
    return (
        f"{mode:7} {seed}  {rater.given:4} ratings  {shares}  -> {taught[-1]:4.0%}   reward model {report.pairs:4} "
        f"pairs, {accuracy:>4} of {report.held_out.pairs:3} held out   alone {after}"
    )


async def _all(steps: int, seeds: int) -> None:
    for mode in ("likert", "pair", "rank"):
        for seed in range(seeds):
            print(await one(mode, seed, steps), flush=True)


def main() -> None:
    """Measure, in a home of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=30, help="that are rated")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wb-") as home:
        os.environ["WORKBENCH_HOME"] = home
        asyncio.run(_all(arguments.steps, arguments.seeds))


if __name__ == "__main__":
    main()
