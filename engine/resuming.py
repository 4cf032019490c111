"""Going on where a branch is: from its newest whole checkpoint, and from there by its records.

Records are newer than weights. The steps after the checkpoint are computed again, each from its recorded groups,
ratings and changes, so nothing is sampled twice and no reward function is asked twice; on a CPU in fp32 that gives the
same bits. What is computed is compared with what was recorded; steps that come out otherwise move to a branch of their
own, and training goes on from the step before them.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.control import Discarded, Leaving, Stopping
from engine.rollout import RolloutGroup
from engine.words import one_line
from sessions import checkpoints
from sessions.branches import Dropped, Segment, line_of, seed_of
from sessions.checkpoints import HeldRollout, TrainingState
from sessions.errors import InvalidValue, SessionError
from sessions.hyperparameters import hyperparameter, parse_assignment
from sessions.records import Change, Checkpoint, Group, Rating, ResponseName, StepRecord, parse_response_name
from sessions.store import Store

if TYPE_CHECKING:
    from engine.engine import Engine

COMPARED = ("loss/policy", "grad/norm", "kl/k3", "reward/mean", "trpo/kl", "value/loss")
"""Metrics of a step that say whether it came out as it was recorded."""
TOLERANCE = 0.02
"""Relative difference of a compared metric up to which a step counts as the one that was recorded: kernels that add
in another order differ by less, another step by more."""
NEGLIGIBLE = 1e-6
"""Differences below this are none: of a loss that is 0 but for rounding."""


@dataclass(frozen=True)
class Place:
    """Where a branch can go on.

    :ivar seed: of its noise and order of prompts, and ``seeds``: of the parts of its line.
    :ivar checkpoints: of its line, newest first.
    :ivar tip: its newest recorded step; 0: none.
    :ivar changes: of its line, in the order in which they were accepted.
    :ivar recorded: the ids of all changes, of other branches too.
    """

    branch: str
    seed: int
    seeds: list[tuple[Segment, int]]
    checkpoints: list[Checkpoint]
    tip: int
    changes: list[Change]
    recorded: set[str]


@dataclass
class Unfinished:
    """What is left of a step that was in progress when its engine ended.

    :ivar groups: scored ones that no update has learned from.
    :ivar replaced: those of the same try whose places they took.
    :ivar dropped: what tries at it have used up.
    """

    step: int
    groups: list[Group] = field(default_factory=list)
    replaced: list[Group] = field(default_factory=list)
    dropped: Dropped | None = None


def look(store: Store, branch: str, session_seed: int) -> Place:
    """On the store's thread: where a branch can go on."""
    branches = store.branches()
    last = store.last_step(branch)
    return Place(
        branch=branch,
        seed=seed_of(branches, branch, session_seed),
        seeds=[(part, seed_of(branches, part.branch, session_seed)) for part in line_of(branches, branch)],
        checkpoints=list(reversed(store.checkpoints(branch))),
        tip=last.step if last else 0,
        changes=store.changes(branch, limit=100_000),
        recorded=store.change_ids(),
    )


def adopt(store: Store, folder: Path) -> list[str]:
    """On the store's thread, before anything is written: let the records and the checkpoints' folder say the same.

    An engine may have been killed between the folder and its row, or between a row and its folder's end.

    :returns: the recorded checkpoints that are not on the disk any more.
    """
    checkpoints.tidy(folder)
    there = set(checkpoints.names(folder))
    rows = store.all_checkpoints()
    missing = [row.path for row in rows if row.path not in there]
    store.forget_checkpoints(missing)
    branches = store.branches()
    for name in sorted(there - {row.path for row in rows}):
        state = checkpoints.peek_state(folder / name)
        if state is None or state.branch not in branches:
            continue  # damaged, or of a branch that was renamed since: nothing is known of it
        size = sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
        when = (folder / name / "state.json").stat().st_mtime
        store.put_checkpoint(
            Checkpoint(
                step=state.step, time=when, path=name, bytes=size, reason="found on the disk", branch=state.branch
            )
        )
    return missing


async def go_to(engine: Engine, branch: str) -> None:
    """Bring the learner to the newest step of a branch.

    :raises SessionError: if no checkpoint of it is whole.
    """
    path = await _at_the_newest(engine, branch)
    await _take_up(engine, path)


async def _at_the_newest(engine: Engine, branch: str) -> Path | None:
    """Load, and compute again what comes after.

    :returns: the checkpoint, where no step was made since.
    """
    while True:
        place = await engine.write(look, engine.store, branch, engine.settings.seed)
        engine.step = place.tip  # what is said meanwhile is of there
        state, path = await _load(engine, place)
        engine.branch = branch
        _set_knobs(engine, place, state)
        await engine.show_branch()
        differs = await _compute_again(engine, place)
        engine.learner.work_on(branch, place.seed)
        if differs is None:
            return path if state is not None and state.step == engine.learner.step else None
        await _set_aside(engine, *differs)


# ----------------------------------------------------------------------------------------------- the checkpoint


async def _load(engine: Engine, place: Place) -> tuple[TrainingState | None, Path | None]:
    """Load the newest whole checkpoint; None where training begins with the model as it came."""
    for saved in place.checkpoints:
        try:
            path = engine.folder.checkpoint(saved.path)
            state = await engine.compute(checkpoints.read_state, path)
            await engine.compute(engine.learner.load, path, state)
        except SessionError as error:
            await _put_aside(engine, saved, str(error))
            continue
        engine.learner.work_on(place.branch, place.seed)
        engine.untouched = False
        return msgspec.structs.replace(state, branch=place.branch), path
    if not engine.untouched:
        raise SessionError(f"branch {place.branch}: none of its checkpoints is whole; the session must be run again")
    if place.tip and engine.settings.warm_up:
        raise SessionError(
            f"branch {place.branch}: none of its checkpoints is whole, and its steps began with a warm-up; "
            "start another session, this one's records stay"
        )
    engine.learner.work_on(place.branch, place.seed)
    return None, None


async def _put_aside(engine: Engine, saved: Checkpoint, why: str) -> None:
    left = ""
    if saved.path in checkpoints.names(engine.folder.checkpoints):
        left = f"; it is left as {checkpoints.put_aside(engine.folder.checkpoints, saved.path)}"
    await engine.write(engine.store.forget_checkpoints, [saved.path])
    text = f"a checkpoint is damaged, and an earlier one is used: {why}{left}"
    await engine.alarm("checkpoint", text, remedy="check the disk: what was written there has changed")


def _set_knobs(engine: Engine, place: Place, state: TrainingState | None) -> None:
    """Go back to the hyperparameters of the checkpoint, and to the changes that come after it.

    :raises Refused: if there is not the memory for an algorithm that runs or will.
    """
    values = dict(engine.first_values)
    if state is not None:
        values |= {hyperparameter(name).name: value for name, value in state.values.items()}
    schedule = [a for a in map(parse_assignment, engine.settings.sets) if a.step is not None]
    changes = place.changes
    if state is not None:  # those it knew of and the records do not; what a rewind has left behind they do know
        lost = [c for c in state.pending if c.id not in place.recorded and c.branch == place.branch]
        changes = [*lost, *changes]
    step, knobs = engine.learner.step, engine.knobs
    knobs.go_back(values, schedule, changes, step, place.tip, place.branch)
    coming = {str(a.value) for a in schedule if a.name == "algorithm" and (a.step or 0) > step}
    coming |= {str(change.new) for change in knobs.pending if change.name == "algorithm"}
    for algorithm in {knobs.text("algorithm"), *coming}:
        engine.learner.check_algorithm(algorithm)


# -------------------------------------------------------------------------------------------- computing again


async def _compute_again(engine: Engine, place: Place) -> tuple[int, str] | None:
    """Compute the recorded steps after the learner's again.

    :returns: the first that came out otherwise, and how; None if none did.
    """
    first, tip = engine.learner.step + 1, place.tip
    if first > tip:
        return None
    worst = 0.0
    for step in range(first, tip + 1):
        engine.step = step
        engine.again = f"computes steps {first} to {tip} again from their records"
        engine.service.beat_now()
        seed = next(seed for part, seed in place.seeds if part.after < step <= part.last)
        engine.learner.work_on(place.branch, seed)  # those of the branch that it began on had another
        try:
            off, why = await engine.compute(_again, engine, step)
        except (Stopping, Leaving):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the record cannot be had again
            traceback.print_exc()
            off, why = 0.0, one_line(error)
        finally:
            engine.control.end_step()
            engine.again = ""
        if why:
            return step, why
        worst = max(worst, off)
        await _keep_on_the_way(engine, step, tip)
    steps = f"step {tip} was" if first == tip else f"steps {first} to {tip} were"
    exactly = "bit for bit" if worst == 0 else f"within {worst:.1g} of what was recorded"
    await engine.note("resumed", f"from checkpoint {first - 1}; {steps} computed again from the records, {exactly}")
    return None


async def _keep_on_the_way(engine: Engine, step: int, tip: int) -> None:
    """A checkpoint now and then, so that what was computed again need not be a third time."""
    if step == tip or not engine.checkpoint_is_due:
        return
    record = await engine.write(engine.store.step, engine.branch, step)
    if record is not None and record.branch == engine.branch:
        await engine.checkpoint("on the way to the newest step")


def _again(engine: Engine, step: int) -> tuple[float, str]:
    """On the compute thread: one step, from its records.

    :returns: the largest relative difference of a compared metric, and why it is not the step that was recorded;
        empty if it is.
    """
    learner, knobs, control = engine.learner, engine.knobs, engine.control
    recorded = engine.write_now(_recorded, engine.store, engine.branch, step)
    if isinstance(recorded, str):
        return 0.0, recorded
    record, inputs, held, late = recorded.record, recorded.record.inputs, recorded.held, recorded.late
    assert inputs is not None
    try:
        knobs.begin_step(step)
    except InvalidValue:
        knobs.begin_step(step)  # it was left out then too
    while True:
        try:
            control.begin_step(step)
            break
        except Discarded:
            continue  # there is nothing of this step that anybody could drop
    knobs.count_from(step, {"minibatch": inputs.minibatches})
    knobs.apply("rollout", step)
    learner.cursor = inputs.cursor
    if held is None:
        again = learner.sample(step, inputs.number, recorded=recorded.scored)
        found = {g.record.number: [r.text for r in g.record.responses] for g in (*again, *learner.replaced)}
        if any(found.get(number) != texts for number, texts in recorded.texts.items()):
            return 0.0, "its responses came out otherwise"
        groups = again
    else:
        groups = learner.take_up(held)
    control.begin("updating")
    knobs.apply("update", step)
    learner.measure_reference(step, groups)
    joining = learner.late_groups(late)
    if joining:
        learner.measure_reference(step, joining)
    learner.advantages([*groups, *joining], recorded.ratings)
    metrics = learner.update(step, [*groups, *joining], lambda: (knobs.apply("minibatch", step), None)[1])
    learner.reward_untold = False
    if knobs.values != record.values:
        differing = sorted(n for n, value in knobs.values.items() if record.values.get(n, value) != value)
        if differing:
            return 0.0, f"{', '.join(differing)} came out otherwise"
    return _difference(record, metrics)


def _difference(record: StepRecord, metrics: dict[str, float]) -> tuple[float, str]:
    """How far a step that was computed again is from its record, and what is too far."""
    worst = 0.0
    for name in COMPARED:
        before, now = record.metrics.get(name), metrics.get(name)
        if before is None or now is None:
            continue
        gap = abs(now - before)
        size = max(abs(now), abs(before))
        if gap > max(TOLERANCE * size, NEGLIGIBLE):
            return worst, f"{name} came out as {now:.6g}, not {before:.6g}"
        if size > NEGLIGIBLE:
            worst = max(worst, gap / size)
    return worst, ""


@dataclass(frozen=True)
class _Recorded:
    """All that is known of a step.

    :ivar held: its groups; None where their tokens are not kept any more.
    :ivar texts: group number -> the texts of its responses.
    :ivar scored: group number -> the group; those too whose places others took.
    """

    record: StepRecord
    held: HeldRollout | None
    texts: dict[int, list[str]]
    scored: dict[int, Group]
    late: list[Group]
    ratings: dict[str, list[Rating]]


def _recorded(store: Store, branch: str, step: int) -> _Recorded | str:
    """On the store's thread: what a step was made of; or why that is not known."""
    record = store.step(branch, step)
    if record is None:
        return "it was not recorded"
    if record.inputs is None:
        return "an earlier version recorded it, without what its update was given"
    inputs = record.inputs
    try:
        groups = [store.group(ResponseName(step, number), record.branch) for number in inputs.groups]
        replaced = store.groups_with(record.branch, step, "replaced", inputs.number)
        late = [store.group(parse_response_name(name), branch) for name in inputs.late]
    except InvalidValue as error:
        return str(error)
    ratings = {}
    for name, ids in inputs.ratings.items():
        found = [store.rating(rating) for rating in ids]
        ratings[name] = [rating for rating in found if rating is not None]
        if len(ratings[name]) != len(ids):
            return f"a rating of {name} is missing"
    if late and not all(r.tokens for g in late for r in g.responses):
        return "the tokens of a late-rated group are no longer kept"
    for group in (*groups, *replaced):
        for response in group.responses:  # measured anew, all together, as they were
            response.reference_logprobs = []
    taken = max([inputs.number - 1, *(g.number for g in (*groups, *replaced))]) - inputs.number + 1
    held = None
    if all(r.tokens or not r.length for g in groups for r in g.responses):
        held = HeldRollout(
            step=step,
            taken=taken,
            groups=groups,
            replaced=replaced,
            entropies=[[r.entropies for r in g.responses] for g in groups],
        )
    texts = {g.number: [r.text for r in g.responses] for g in groups}
    return _Recorded(record, held, texts, {g.number: g for g in (*groups, *replaced)}, late, ratings)


async def _set_aside(engine: Engine, step: int, why: str) -> None:
    """The steps from ``step`` on are not those that the weights would learn: they stay, on a branch of their own."""
    branch, store = engine.branch, engine.store
    branches = await engine.write(store.branches)
    begins = branches[branch].step if branch in branches and branches[branch].parent else -1
    if step > begins:
        name, moved = await engine.write(store.set_aside, branch, step - 1, f"step {step} came out otherwise: {why}")
        told = f"{moved} recorded steps from {step} on are kept on {name}"
    else:  # they belong to the branch that this one begins on
        await engine.write(store.put_branch, msgspec.structs.replace(branches[branch], step=step - 1))
        told = f"{branch} begins at step {step - 1}"
    await engine.note("resumed", f"step {step} could not be computed again ({why}); {told}")


# ------------------------------------------------------------------------------------------- the step in progress


async def _take_up(engine: Engine, path: Path | None) -> None:
    """See what is left of the step that was in progress when the branch was left.

    :param path: the checkpoint that was loaded, if no step was made since.
    """
    learner, step = engine.learner, engine.learner.step + 1
    engine.step = learner.step
    engine.held, engine.unfinished = None, await engine.write(_unfinished, engine.store, engine.branch, step)
    if (dropped := engine.unfinished.dropped) is not None:
        engine.knobs.count_from(step, dropped.passes)
        learner.cursor = learner.step_cursor + dropped.prompts
    held = await engine.compute(checkpoints.read_rollout, path) if path is not None else None
    scored = {g.number: g for g in engine.unfinished.groups}
    # a rewind leaves the checkpoint where it was, and takes the groups along
    if held is not None and held.step == step and {g.number for g in held.groups} == set(scored):
        own = [scored[g.number] for g in held.groups]
        engine.held = msgspec.structs.replace(held, groups=own)
        engine.knobs.sampled(step)


def _unfinished(store: Store, branch: str, step: int) -> Unfinished:
    """On the store's thread. An update of which no step was recorded has not been: what it used of ratings is open."""
    store.forget_uses(branch, step - 1)
    dropped = store.dropped(branch, step)
    replaced = store.groups_with(branch, step, "replaced", dropped.prompts + 1)
    return Unfinished(step, store.unlearned(branch, step), replaced, dropped)


def as_they_were(unfinished: Unfinished, groups: Sequence[RolloutGroup]) -> bool:
    """Whether groups that were sampled again are those that an engine had scored before it ended."""
    before = {g.number: [r.tokens for r in g.responses] for g in unfinished.groups}
    return before == {g.record.number: [r.tokens for r in g.record.responses] for g in groups}


def rated(store: Store, groups: Iterable[Group]) -> bool:
    """On the store's thread: whether a person has rated any of them."""
    return any(store.standing_ratings(ResponseName(g.step, g.number), g.branch) for g in groups)


def hold(store: Store, branch: str, step: int, groups: Sequence[RolloutGroup], number: int, taken: int) -> HeldRollout:
    """On the store's thread: the scored groups of a step as they were sampled, for a checkpoint.

    :param number: of the first group that the try at the step sampled, and ``taken``: how many prompts it took.
    """
    kept = {g.number: g for g in store.unlearned(branch, step)}
    ratings = store.standing_of_step(branch, step)
    return HeldRollout(
        step=step,
        taken=taken,
        groups=[kept[g.record.number] for g in groups],
        replaced=store.groups_with(branch, step, "replaced", number),
        entropies=[g.entropies or [[] for _ in g.record.responses] for g in groups],
        ratings=[rating for of_group in ratings.values() for rating in of_group],
    )
