"""``reward-model``: a model of what people prefer, trained on a file of preferences, and measured on one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sessions.export import check_free
from sessions.orderings import Census, Ordering, held_out, read_orderings
from sessions.records import Record
from sessions.reward_models import RewardModelFigures, RewardModelReport, RewardModelSettings
from sessions.wire import encode_json
from workbench.output import ProgressLine, emit, say, table

if TYPE_CHECKING:
    from engine.passes import Budget

NOT_KNOWN = "-"


class Trained(Record):
    """What ``reward-model train --json`` prints."""

    folder: str
    model: str
    settings: RewardModelSettings
    report: RewardModelReport


class Evaluated(Record):
    """What ``reward-model evaluate --json`` prints.

    :ivar held_out: on the orderings about held-out prompts, which no reward model is trained on.
    :ivar all: on every one.
    """

    folder: str
    version: int
    held_out: RewardModelFigures
    all: RewardModelFigures


def train(arguments: argparse.Namespace) -> int:
    """``workbench reward-model train``: prints where it is; figures go to stderr."""
    folder = Path(arguments.output)
    check_free(folder)
    settings = RewardModelSettings(
        kind=arguments.kind,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        batch=arguments.batch,
        ties=arguments.ties,
        seed=arguments.seed,
    ).check()
    orderings = _read(Path(arguments.file))
    budget = _begin(arguments)
    from engine.loading import load_policy, model_folder
    from engine.policy import make_accelerator
    from engine.reward_model import RewardModel, need_peft
    from engine.reward_training import train as train_model

    if settings.kind == "lora":
        need_peft()
    policy = load_policy(
        model_folder(arguments.model),
        make_accelerator(arguments.device, "fp32"),
        trust_remote_code=arguments.trust_remote_code,
    )
    model = RewardModel(policy, settings, own=True, budget=budget)
    line = ProgressLine()

    def progress(step: int, steps: int, loss: float) -> None:
        line.update(f"step {step}/{steps}  loss {loss:.3f}")

    report = train_model(model, orderings, progress=progress)
    line.end()
    model.save(folder, orderings)
    for text in describe(report):
        say(text)
    emit(
        encode_json(Trained(folder=str(folder), model=arguments.model, settings=settings, report=report))
        if arguments.json
        else str(folder)
    )
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """``workbench reward-model evaluate``: prints how good it is."""
    folder = Path(arguments.folder)
    orderings = _read(Path(arguments.file))
    budget = _begin(arguments)
    from engine.policy import make_accelerator
    from engine.reward_model import load_reward_model
    from engine.reward_training import encode_orderings, figures

    model = load_reward_model(
        folder, make_accelerator(arguments.device, "fp32"), trust_remote_code=arguments.trust_remote_code
    )
    model.budget = budget
    secret = [ordering for ordering in orderings if held_out(ordering.prompt)]
    found = Evaluated(
        folder=str(folder),
        version=model.version,
        held_out=figures(model, encode_orderings(model, secret)),
        all=figures(model, encode_orderings(model, orderings)),
    )
    emit(encode_json(found) if arguments.json else _columns({"held-out prompts": found.held_out, "all": found.all}))
    return 0


def describe(report: RewardModelReport) -> list[str]:
    """A training in a few lines."""
    held = report.held_out
    lines = [
        f"trained on {report.orderings:,} orderings ({report.pairs:,} preferences) in {report.steps:,} steps, "
        f"{report.seconds:.1f} s; loss {_shown(report.loss)}"
    ]
    if report.left_out:
        lines.append(f"{report.left_out:,} orderings left out: a response is longer than the model's context")
    lines.append(
        f"held out: {held.pairs:,} preferences; accuracy {_share(held.accuracy)}, log loss {_shown(held.log_loss)}, "
        f"calibration error {_shown(held.calibration)}"
    )
    lines.append(
        f"score and length correlate by {_shown(held.length_correlation)}; all heads agree on {_share(held.agreement)}"
    )
    return lines


def _begin(arguments: argparse.Namespace) -> Budget:
    """Set torch's threads, before it is there, and how much a pass may hold."""
    cores = os.cpu_count() or 1
    threads = arguments.threads or max(1, cores // 2 if cores > 4 else cores - 1)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from engine.hub import stay_offline

    stay_offline()
    import torch

    from engine.passes import Budget

    torch.set_num_threads(threads)
    budget = Budget(arguments.micro_tokens)
    budget.on_halved = say
    return budget


def _read(path: Path) -> list[Ordering]:
    """The orderings of a file, counted and told."""
    census, orderings = Census(), []
    for ordering in read_orderings(path):
        census.add(ordering)
        orderings.append(ordering)
    say(f"{path}: {census.describe()}")
    return orderings


def _columns(figures: dict[str, RewardModelFigures]) -> str:
    rows: Sequence[tuple[str, str, bool]] = (
        ("preferences", "pairs", False),
        ("accuracy", "accuracy", True),
        ("log loss", "log_loss", False),
        ("calibration error", "calibration", False),
        ("length correlation", "length_correlation", False),
        ("all heads agree", "agreement", True),
    )
    shown = [["", *figures]]
    for name, field, share in rows:
        values = [getattr(found, field) for found in figures.values()]
        shown.append([name, *(_share(v) if share else f"{v:,}" if field == "pairs" else _shown(v) for v in values)])
    return table(shown, right=frozenset(range(1, len(shown[0]))))


def _shown(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.1%}"
