"""Checkpoints as folders: what is in one, whether it is whole, which are kept. Nothing here reads a tensor.

``checkpoints/STEP/`` (``STEP~k`` where another branch has that name): ``policy/`` (a folder that transformers loads),
``optimizer.safetensors``, ``reference.safetensors`` where the reference was refreshed, ``value.safetensors`` and
``value_optimizer.safetensors`` where there is a value model, ``state.json``, ``rollout.json`` where groups were scored
and not learned from yet, ``manifest.json``. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from sessions import private
from sessions.branches import Branch
from sessions.errors import SessionError
from sessions.hyperparameters import Value
from sessions.records import MAIN, Change, Checkpoint, Group, Rating, Record
from sessions.reward_models import RewardModelState
from sessions.watch_book import WatchBook

_T = TypeVar("_T")
_NAME = re.compile(r"[0-9]{1,15}(~[0-9]{1,6})?")
PARTIAL, REPLACED, DOOMED = ".partial", ".replaced", ".doomed"
"""``.NAME.partial``: being written; ``.NAME.replaced``: the earlier one, until the other has its name;
``.NAME.doomed``: about to be removed."""
MOST_BYTES = {"manifest.json": 2**20, "state.json": 2**26, "rollout.json": 2**31}
"""Most that each of a checkpoint's JSON files may have."""
DAMAGED = "damaged"
"""``.NAME.damaged``: found damaged, and left for people to look at."""


class Manifest(Record):
    """``manifest.json``: the SHA-256 of every other file."""

    files: dict[str, str]


class TrainingState(Record):
    """``state.json``: everything of a branch's training that is neither a tensor nor a rollout.

    There is no state of a random generator: every number is a function of the seed, the step and the place where it
    is used, so ``seed``, ``step`` and the two cursors are all of it.

    :ivar step: finished steps.
    :ivar cursor: prompts taken so far.
    :ivar step_cursor: prompts taken by finished steps; fewer where tries at the next step were dropped, -1: not known.
    :ivar optimizer_steps: optimizer steps taken so far.
    :ivar reference_refreshed: the step whose policy is the reference; 0: the start of RL.
    :ivar last_algorithm: of the newest update.
    :ivar value_model: its kind; empty where there is none.
    :ivar value_steps: optimizer steps that it has taken.
    :ivar value_updates: updates that it has been trained in.
    :ivar branch: whose step it is.
    :ivar seed: of the branch's noise and order of prompts; None: the session's.
    :ivar pending: changes accepted and not applied.
    :ivar watches: what people had made of them.
    :ivar fisher: what TRPO has found out about the model's Fisher products.
    :ivar micro_tokens: that one forward and backward may hold, where memory ran out; 0: as the session was started.
    :ivar reward_model: of the one in use; None where there is none, or the one that the session was started with.
    :ivar reward_ratings: that the session had when it was trained.
    :ivar reward_untold: whether no step that was recorded has the figures of its training.
    :ivar curriculum: what it had measured; None where the task has none.
    """

    step: int
    cursor: int
    optimizer_steps: int
    values: dict[str, Value]
    step_cursor: int = -1
    reference_refreshed: int = 0
    last_algorithm: str = ""
    value_model: str = ""
    value_steps: int = 0
    value_updates: int = 0
    branch: str = MAIN
    seed: int | None = None
    pending: list[Change] = []
    watches: WatchBook | None = None
    fisher: FisherState | None = None
    micro_tokens: int = 0
    reward_model: RewardModelState | None = None
    reward_ratings: int = 0
    reward_untold: bool = False
    curriculum: CurriculumState | None = None


class FisherState(Record):
    """What TRPO has found out about a model's Fisher products; :class:`engine.trust_region.SelfCheck` tells."""

    done: list[str] = []
    exists: bool = True
    agrees: bool = True
    why: str = ""


class CurriculumState(Record):
    """What a curriculum has measured; :mod:`engine.tasks.curriculum` tells.

    :ivar success: level -> moving average of the share of right responses.
    :ivar groups: level -> groups of it that finished steps asked.
    :ivar most: the level that is said to be asked most.
    """

    success: dict[int, float] = {}
    groups: dict[int, int] = {}
    most: int = 0


class HeldRollout(Record):
    """``rollout.json``: groups that were scored when the training left them, before an update learned from them.

    :ivar step: in which they were sampled.
    :ivar taken: prompts that the try at this step has taken.
    :ivar groups: as they were scored, in their order.
    :ivar replaced: dead ones whose places others took.
    :ivar entropies: the sampler's, for every group and response.
    :ivar ratings: that stood.
    :ivar logged: what reward functions logged of them, by metric.
    """

    step: int
    taken: int
    groups: list[Group]
    replaced: list[Group] = []
    entropies: list[list[list[float]]] = []
    ratings: list[Rating] = []
    logged: dict[str, float] = {}


class Damaged(SessionError):
    """A checkpoint that is not what was written."""


class NotFinite(SessionError):
    """Weights that are not numbers any more."""


def check(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    :raises Damaged: naming the file that is missing or not what was written.
    """
    manifest = _read(path, "manifest.json", Manifest)
    for name, digest in manifest.files.items():
        file = PurePosixPath(name)
        if not name or file.is_absolute() or ".." in file.parts:
            raise Damaged(f"checkpoint {path.name}: its manifest names {name!r}, which is outside it")
        try:
            found = sha256(path / file)
        except OSError as error:
            raise Damaged(f"checkpoint {path.name}: {name} cannot be read ({error.strerror or error})") from None
        if found != digest:
            raise Damaged(f"checkpoint {path.name}: {name} is not what was written")
    for part in path.rglob("*.safetensors"):
        if str(part.relative_to(path)) not in manifest.files:
            raise Damaged(f"checkpoint {path.name}: {part.name} is not in its manifest")


def read_state(path: Path) -> TrainingState:
    """The state of a checkpoint, after :func:`check`.

    :raises Damaged: naming the file that is missing or damaged.
    """
    check(path)
    return _read(path, "state.json", TrainingState)


def peek_state(path: Path) -> TrainingState | None:
    """The state of a checkpoint that nobody has checked; None if it cannot be read."""
    try:
        return _read(path, "state.json", TrainingState)
    except Damaged:
        return None


def read_rollout(path: Path) -> HeldRollout | None:
    """The rollout of a checkpoint that was checked, if it has one.

    :raises Damaged: if it cannot be read.
    """
    return _read(path, "rollout.json", HeldRollout) if (path / "rollout.json").exists() else None


def _read(path: Path, name: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(private.read_file(path / name, MOST_BYTES[name]), type=kind)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise Damaged(f"checkpoint {path.name}: {name} cannot be read ({error})") from None


def sha256(path: Path) -> str:
    """The hash of a file."""
    with open(private.open_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names(folder: Path) -> list[str]:
    """The checkpoints of a session's folder by name; whole or damaged."""
    try:
        return sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name) and p.is_dir() and not p.is_symlink())
    except OSError:
        return []


def free_name(step: int, taken: Iterable[str]) -> str:
    """``STEP``, or ``STEP~k`` where a checkpoint of another branch has that name."""
    known = set(taken)
    return next(name for k in range(1_000_000) if (name := f"{step}~{k}" if k else str(step)) not in known)


# ------------------------------------------------------------------------------------------------- what is kept


@dataclass(frozen=True, slots=True)
class KeepRule:
    """Which checkpoints of a branch stay.

    :ivar last: the newest so many.
    :ivar best: so many with the best held-out accuracy.
    :ivar every: those of steps that this divides; 0: none.
    """

    last: int = 3
    best: int = 1
    every: int = 0


def doomed(
    checkpoints: Iterable[Checkpoint],
    branches: Mapping[str, Branch],
    accuracy: Mapping[tuple[str, int], float],
    rule: KeepRule,
) -> list[Checkpoint]:
    """The checkpoints that no rule keeps.

    Kept are, of each branch, those of the rule; what another branch begins at, which is the newest one not after its
    first step; and the start of RL.

    :param accuracy: (branch, step) -> held-out accuracy measured with the weights of that step.
    """
    of: dict[str, list[Checkpoint]] = {}
    for found in checkpoints:
        of.setdefault(found.branch, []).append(found)
    gone = []
    for branch, own in of.items():
        own.sort(key=lambda c: c.step)
        kept = {c.path for c in own[-max(rule.last, 1) :]} | {c.path for c in own if c.step == 0}
        judged = [c for c in own if (branch, c.step) in accuracy]
        judged.sort(key=lambda c: (accuracy[branch, c.step], c.step), reverse=True)
        kept |= {c.path for c in judged[: rule.best]}
        kept |= {c.path for c in own if rule.every and c.step % rule.every == 0}
        for child in branches.values():
            if child.parent == branch and not child.deleted:
                kept |= {c.path for c in [c for c in own if c.step <= child.step][-1:]}
        gone += [c for c in own if c.path not in kept]
    return gone


def remove(folder: Path, paths: Sequence[str]) -> None:
    """Take checkpoints off the disk; one is first renamed, so that no part of it is ever taken for a whole."""
    for name in paths:
        if not _NAME.fullmatch(name):
            continue  # a record that names something else than a checkpoint of this session
        away = folder / f".{name}{DOOMED}"
        shutil.rmtree(away, ignore_errors=True)
        try:
            (folder / name).rename(away)
        except FileNotFoundError:
            continue
        shutil.rmtree(away, ignore_errors=True)


def put_aside(folder: Path, name: str) -> str:
    """Rename a damaged checkpoint, so that it is not tried again.

    :returns: its name from here on.
    """
    for k in range(1, 1_000_000):
        away = folder / f".{name}.{DAMAGED}{k if k > 1 else ''}"
        if not away.exists():
            if (folder / name).exists():
                (folder / name).rename(away)
            return away.name
    raise AssertionError("a million damaged checkpoints")


def tidy(folder: Path) -> None:
    """Remove what an engine that was killed while it wrote has left, and put back what it was about to replace.

    Only while no engine of the session writes.
    """
    for path in folder.glob(f".*{REPLACED}"):
        final = folder / path.name.removeprefix(".").removesuffix(REPLACED)
        if not final.exists():
            path.rename(final)
    for pattern in (f".*{PARTIAL}", f".*{REPLACED}", f".*{DOOMED}"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Have the disk keep a file or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
