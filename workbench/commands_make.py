"""``fetch``, ``warm-up`` and ``hyperparameters``: models to start from, and what can be set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sessions.errors import InputFileError
from sessions.hyperparameters import HYPERPARAMETERS, reward_weight
from workbench.output import emit, listing, say


def fetch(arguments: argparse.Namespace) -> int:
    """``workbench fetch smollm2``: get the model once; prints where it is."""
    from engine.fetch import fetch_smollm2  # brings torch

    folder = str(fetch_smollm2(say))
    emit(json.dumps({"model": arguments.model, "folder": folder}) if arguments.json else folder)
    return 0


def warm_up(arguments: argparse.Namespace) -> int:
    """``workbench warm-up``: make the embedded model anew; prints where it is."""
    folder = Path(arguments.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputFileError(f"--out {folder}: is there already; give a new or empty folder")
    from engine.warmup import save, warm_up

    def report(step: int, loss: float, accuracy: float) -> None:
        say(f"step {step}/{arguments.steps}  loss {loss:.3f}  held-out {accuracy:.1%}")

    warmed = warm_up(arguments.steps, arguments.seed, report=report)
    save(warmed, folder)
    accuracy = warmed.accuracy[-1][1]
    emit(json.dumps({"folder": str(folder), "accuracy": accuracy}) if arguments.json else str(folder))
    return 0


def hyperparameters(arguments: argparse.Namespace) -> int:
    """``workbench hyperparameters``: every knob, with its default, what is allowed and when a change takes effect."""
    if arguments.json:
        for knob in (*HYPERPARAMETERS.values(), reward_weight("NAME")):
            emit(
                json.dumps(
                    {
                        "name": knob.name,
                        "default": knob.default,
                        "allowed": knob.range_text,
                        "boundary": knob.boundary,
                        "help": knob.help,
                    }
                )
            )
        return 0
    rows = [["name", "default", "allowed", "applies at the next", "what it does"]]
    rows += [
        [k.name, k.show(k.default), k.range_text, k.boundary, k.help]
        for k in (*HYPERPARAMETERS.values(), reward_weight("NAME"))
    ]
    emit(listing(rows))
    return 0
