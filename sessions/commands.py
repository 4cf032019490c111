"""What a person may ask of an engine: one struct a command, and the words for it.

The same words work after ``workbench send S`` and after ``:`` on every screen; both are read by :func:`parse_words`
from the table :data:`WORDS`, which also makes their help.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from sessions.branches import check_branch_name
from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.hyperparameters import Value, hyperparameter, parse_assignment
from sessions.modes import BOTH_BAD, CRITIQUE, EDIT, LEFT, MODES, MUCH_LEFT, PAIR, RANK, TIE, rating_mode
from sessions.orderings import Ordering
from sessions.people import whoami
from sessions.presets import PRESETS, preset
from sessions.records import Rating, Record, parse_response_name
from sessions.watch_words import parse_watch
from sessions.watches import DEFAULT_WATCHES


def new_id() -> str:
    """An id that no other command, rating or change has."""
    return str(uuid.uuid4())


class Command(msgspec.Struct, kw_only=True, tag_field="command", omit_defaults=True):
    """Base of the commands.

    :ivar id: a UUID; the engine keeps its answer, so a repeat has no second effect.
    :ivar who: who asks: a name as :mod:`sessions.people` has it.
    """

    id: str = msgspec.field(default_factory=new_id)
    who: str = msgspec.field(default_factory=whoami)


class Pause(Command, tag="pause"):
    """Pause at the next safe point, or with ``before_update`` once a step's responses are sampled and scored."""

    before_update: bool = False


class Resume(Command, tag="resume"):
    """Go on."""


class Step(Command, tag="step"):
    """Finish the step in progress if paused inside one, else run one; then pause."""


class Discard(Command, tag="discard"):
    """Drop the samples of the paused step; it starts again with the next prompts."""


class Stop(Command, tag="stop"):
    """Leave at the next safe point, after a checkpoint unless ``now``."""

    now: bool = False


class Set(Command, tag="set"):
    """Change hyperparameters, each at its boundary.

    :ivar expect: name -> the value it should have now; the change is rejected if another has come between.
    :ivar preset: name of published settings, over which ``values`` are laid.
    """

    values: dict[str, Value] = {}
    expect: dict[str, Value] = {}
    preset: str = ""


class Rate(Command, tag="rate"):
    """Rate responses of one group (``812.3``); :class:`~sessions.records.Rating` tells the fields and gets this id."""

    group: str
    mode: str
    values: dict[str, float]
    comment: str = ""
    order: list[str] = []
    blind: bool = False
    seconds: float = 0.0
    text: str = ""
    flags: list[str] = []
    rule: str = ""
    repeats: str = ""
    redoes: str = ""


class Retract(Command, tag="retract"):
    """Take a rating or a skip back; the record of it stays.

    :ivar rating: id of either.
    """

    rating: str


class Skip(Command, tag="skip"):
    """Say that a response will not be rated, with a reason."""

    response: str
    reason: str = ""
    rule: str = ""


class Picked(Command, tag="picked"):
    """A group was put before a person by a rule; kept, so that what was rated can be weighed by how it was chosen."""

    group: str
    rule: str


class TrainRewardModel(Command, tag="reward_model"):
    """Train the reward model anew, beside the steps, from all that people said."""


class Reload(Command, tag="reload"):
    """Load the code of reward functions anew and try it on scored responses: the answer's data is a
    :class:`~sessions.reward_reloads.RewardReload`. With ``use``, score with what was loaded so."""

    use: bool = False


class Returned(Record):
    """A rating that was exported and comes back.

    :ivar texts: letter -> text of the responses judged: the group of the rating's name must have them.
    """

    rating: Rating
    texts: dict[str, str]


class ImportRatings(Command, tag="import_ratings"):
    """Bring ratings back to groups of the session, as they were given: the answer's data is a
    :class:`~sessions.importing.Received`.

    :ivar source: the file, for people.
    """

    source: str
    ratings: list[Returned]


class ImportOrderings(Command, tag="import_orderings"):
    """Keep preferences about responses that no group of the session has, for a reward model: the answer's data is a
    :class:`~sessions.importing.Received`.

    :ivar source: the file, for people.
    """

    source: str
    orderings: list[Ordering]


class TakeCheckpoint(Command, tag="checkpoint"):
    """Write a checkpoint at the next safe point between steps."""


class Preview(Command, tag="preview"):
    """Compute the update that the paused step would make, on a copy: the answer's data is a
    :class:`~sessions.records.Preview`.

    :ivar algorithm: whose update; empty: the running one's.
    """

    algorithm: str = ""


class Rewind(Command, tag="rewind"):
    """Go back to a step of the branch that is trained; what came after it is kept on a branch of its own.

    :ivar expect: the branch that it should be now; the command is rejected if another has come between.
    """

    step: int
    expect: str = ""


class Fork(Command, tag="fork"):
    """Start a branch and train it.

    :ivar name: of the new branch.
    :ivar step: at which it begins; -1: the newest of ``source``.
    :ivar source: the branch whose line has that step; empty: the one that is trained.
    :ivar values: hyperparameters that differ there from the first step on.
    :ivar preset: name of published settings, over which ``values`` are laid.
    :ivar seed: of its noise and its order of prompts; None: its source's.
    :ivar expect: as of :class:`Rewind`.
    """

    name: str
    step: int = -1
    source: str = ""
    values: dict[str, Value] = {}
    preset: str = ""
    seed: int | None = None
    expect: str = ""


class Switch(Command, tag="switch"):
    """Train another branch from its newest step on; the present one stays as it is.

    :ivar expect: as of :class:`Rewind`.
    """

    branch: str
    expect: str = ""


class RenameBranch(Command, tag="rename"):
    """Give a branch another name."""

    branch: str
    name: str


class DeleteBranch(Command, tag="delete"):
    """Forget what a branch learned, and its checkpoints; what people rated on it is kept."""

    branch: str


class Race(Command, tag="race"):
    """Start a branch for each algorithm at the same step and train them in turn, with the same prompts and noise.

    A paused session goes on with it: nobody asks for a race to wait.

    :ivar algorithms: in their order; none: the race that is under way is given up.
    :ivar steps: that each takes.
    :ivar step: at which all begin; -1: the newest.
    :ivar values: hyperparameters that all of them set.
    :ivar expect: as of :class:`Rewind`.
    """

    algorithms: list[str]
    steps: int = 0
    step: int = -1
    values: dict[str, Value] = {}
    expect: str = ""


class Acknowledge(Command, tag="acknowledge"):
    """Acknowledge alarms: one by id, or all."""

    alarm: str = ""


class AddWatch(Command, tag="watch"):
    """Watch with a rule of :mod:`sessions.watch_words`, or with a default watch that is off, by its name."""

    rule: str


class RemoveWatch(Command, tag="unwatch"):
    """Watch with that one no longer: a person's own is gone, a default is off."""

    name: str


class Subscribe(Command, tag="subscribe"):
    """Choose what this client is sent beside events.

    :ivar growing: number of the group of the step in progress whose growing text is sent; 0: the first one that
        still grows, -1: none.
    """

    growing: int = -1


class QuerySeries(Command, tag="series"):
    """Points of metrics; with a range, the points inside it.

    :ivar branch: whose line; empty: that of the branch that is trained.
    """

    names: list[str]
    first: int = 0
    last: int = 2**53
    limit: int = 2000
    branch: str = ""


class QueryGroups(Command, tag="groups"):
    """Heads of groups, newest first.

    :ivar before: only groups of steps before this one; 0: from the newest.
    :ivar unrated: only groups with no standing rating.
    """

    before: int = 0
    limit: int = 200
    unrated: bool = False


class QueryRatings(Command, tag="ratings"):
    """The newest ratings, oldest first, retracted ones too: a list of :class:`~sessions.records.Rating`.

    :ivar before: id of a rating: only those that came before it.
    """

    limit: int = 200
    before: str = ""


class QueryGroup(Command, tag="group"):
    """One group, whole, with its ratings and their uses."""

    group: str


class QueryResponse(Command, tag="response"):
    """One response, whole."""

    response: str


class QueryEvents(Command, tag="events"):
    """Events, newest first, before a sequence number (0: from the newest)."""

    before: int = 0
    limit: int = 200


class QueryStatus(Command, tag="status"):
    """The engine's status."""


class QueryWatches(Command, tag="watches"):
    """Every watch, and how it stands."""


class QueryBranches(Command, tag="branches"):
    """Every branch and what became of it: a list of :class:`~sessions.branches.BranchInfo`."""


class QueryProbes(Command, tag="probes"):
    """The newest answers of a branch's line to the probe prompts: a list of :class:`~sessions.branches.Probe`."""

    branch: str


class QueryRewardModel(Command, tag="reward"):
    """The reward model in use, and how good it is: a :class:`~sessions.reward_models.RewardModelState`, or null."""


class Evaluate(Command, tag="evaluate"):
    """Ask the present policy every held-out prompt.

    :ivar samples: further answers to each, for pass@k; -1: as ``eval_samples`` says.
    """

    samples: int = -1


class QueryEvaluation(Command, tag="evaluation"):
    """An evaluation beside an earlier one: an :class:`~sessions.evaluations.EvaluationView`.

    :ivar step: after which it was made, or the newest one before it; -1: the newest.
    :ivar earlier: of the one that it is compared with; -1: the one before it.
    """

    step: int = -1
    earlier: int = -1


class QueryRose(Command, tag="rose"):
    """The responses whose reward rose most: a :class:`~sessions.rose.Roses`.

    :ivar step: since which; 0: a hundred steps before the newest.
    :ivar limit: rows.
    """

    step: int = 0
    limit: int = 20


class QueryPlan(Command, tag="plan"):
    """What a step takes, and would take with some hyperparameters set: a :class:`~sessions.plans.Plan`.

    :ivar values: name -> value; empty: as it is.
    """

    values: dict[str, Value] = {}


COMMANDS: dict[str, type[Command]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]
    for kind in (
        Pause,
        Resume,
        Step,
        Discard,
        Stop,
        Set,
        Rate,
        Retract,
        Skip,
        Picked,
        TrainRewardModel,
        Reload,
        ImportRatings,
        ImportOrderings,
        TakeCheckpoint,
        Preview,
        Evaluate,
        Rewind,
        Fork,
        Switch,
        RenameBranch,
        DeleteBranch,
        Race,
        Acknowledge,
        AddWatch,
        RemoveWatch,
        Subscribe,
        QuerySeries,
        QueryGroups,
        QueryRatings,
        QueryGroup,
        QueryResponse,
        QueryEvents,
        QueryStatus,
        QueryWatches,
        QueryBranches,
        QueryProbes,
        QueryRewardModel,
        QueryRose,
        QueryEvaluation,
        QueryPlan,
    )
}

QUERIES: tuple[type[Command], ...] = (
    QuerySeries,
    QueryGroups,
    QueryRatings,
    QueryGroup,
    QueryResponse,
    QueryEvents,
    QueryStatus,
    QueryWatches,
    QueryBranches,
    QueryProbes,
    QueryRewardModel,
    QueryRose,
    QueryEvaluation,
    QueryPlan,
    Subscribe,
)
"""Commands that change nothing: they are answered at once, and no record is kept of them."""


# --------------------------------------------------------------------------------------------------- words


@dataclass(frozen=True, slots=True)
class Words:
    """How a command is written.

    :ivar usage: its arguments, for help.
    :ivar read: arguments -> command.
    """

    name: str
    usage: str
    help: str
    read: Callable[[Sequence[str]], Command]


def _plain(kind: type[Command]) -> Callable[[Sequence[str]], Command]:
    def read(arguments: Sequence[str]) -> Command:
        if arguments:
            raise UsageError(f"{kind.__struct_config__.tag} takes no arguments, got {' '.join(arguments)!r}")
        return kind()

    return read


def _read_stop(arguments: Sequence[str]) -> Command:
    if list(arguments) not in ([], ["--now"], ["now"]):
        raise UsageError("stop takes no arguments, or --now to leave without a checkpoint")
    return Stop(now=bool(arguments))


def _read_set(arguments: Sequence[str]) -> Command:
    """``learning_rate=5e-7 group_size=16`` or ``learning_rate 5e-7``; before an old value stands ``--expect``."""
    words, expected = [], []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--expect":
            if not left:
                raise UsageError("--expect needs the value that is there now: --expect learning_rate=1e-4")
            expected.append(left.pop(0))
        elif word.startswith("--expect="):
            expected.append(word.removeprefix("--expect="))
        else:
            words.append(word)
    if not words:
        raise UsageError("set needs a name and a value: set learning_rate=5e-7")
    for text in expected:
        if "=" not in text:
            raise UsageError(f"--expect {text}: give a name and its value: --expect learning_rate=1e-4")
    return Set(values=_read_values(words), expect=_read_values(expected))


def _read_plan(arguments: Sequence[str]) -> Command:
    return QueryPlan(values=_read_values(arguments))


def _read_values(arguments: Sequence[str]) -> dict[str, Value]:
    """Names and values of hyperparameters that can change in a running session."""
    words = list(arguments)
    if "=" not in "".join(words) and len(words) >= 2:
        words = [f"{words[0]}={' '.join(words[1:])}"]
    joined: list[str] = []
    for word in words:  # `rating_gate=wait 2` arrives as two words
        if "=" in word or not joined:
            joined.append(word)
        else:
            joined[-1] += f" {word}"
    values: dict[str, Value] = {}
    for text in joined:
        assignment = parse_assignment(text)
        if assignment.step is not None:
            raise InvalidValue(f"{text!r}: a live change applies at its boundary; @STEP is for `run --set`")
        if hyperparameter(assignment.name).boundary == "restart":
            raise InvalidValue(f"{assignment.name} cannot change in a running session; start a new one")
        values[assignment.name] = assignment.value
    return values


def _read_pause(arguments: Sequence[str]) -> Command:
    if list(arguments) not in ([], ["update"]):
        raise UsageError("pause takes no arguments, or update to pause before the next update")
    return Pause(before_update=bool(arguments))


def _read_preset(arguments: Sequence[str]) -> Command:
    if len(arguments) != 1:
        raise UsageError(f"preset needs one name: {', '.join(PRESETS)}")
    return Set(preset=preset(arguments[0]).name)


def _read_preview(arguments: Sequence[str]) -> Command:
    if len(arguments) > 1:
        raise UsageError("preview takes at most one algorithm")
    knob = hyperparameter("algorithm")
    return Preview(algorithm=str(knob.parse(arguments[0])) if arguments else "")


def _read_rate(arguments: Sequence[str]) -> Command:
    words = list(arguments)
    mode = "likert"
    if "--mode" in words:
        at = words.index("--mode")
        if at + 1 >= len(words):
            raise UsageError(f"--mode needs a name: {', '.join(MODES)}")
        mode = words[at + 1]
        del words[at : at + 2]
    if len(words) < 2:
        raise UsageError(
            "rate needs a response and a value, or a group and an order: rate 812.3C 4, rate 812.3 'B > A = C'"
        )
    name = parse_response_name(words[0])
    group = str(name)[: len(str(name)) - len(name.letter)]
    command = Rate(group=group, mode=mode, values={name.letter: 1.0})
    if not name.letter:
        text = "".join(words[1:])
        tiers, strong, bad = read_order(text)
        fitting = PAIR.name if sum(map(len, tiers)) == 2 else RANK.name
        command.mode = mode = mode if "--mode" in arguments else fitting
        if mode not in (fitting, RANK.name):
            raise InvalidValue(f"{text!r} is an answer in mode {fitting}, not {mode}")
        if mode == PAIR.name:
            left, right = tiers[0][0], tiers[-1][-1]
            code = BOTH_BAD if bad else TIE if len(tiers) == 1 else MUCH_LEFT if strong else LEFT
            command.values = PAIR.answer(code, left, right)
        else:
            command.values = RANK.answer(tiers)
    elif mode == EDIT.name:
        command.text = " ".join(words[1:])
    elif mode == CRITIQUE.name:
        command.flags = [flag.strip() for flag in words[1].split(",") if flag.strip()]
        command.comment = " ".join(words[2:])
    else:
        try:
            command.values = {name.letter: float(words[1])}
        except ValueError:
            raise InvalidValue(f"{words[1]!r} is not a rating; likert takes 1 to 5, thumbs -1 or 1") from None
        command.comment = " ".join(words[2:])
    rating_mode(mode).check(command.values, command.text, command.flags)
    return command


def read_order(text: str) -> tuple[list[list[str]], bool, bool]:
    """Read ``B>A=C`` (B is best, A and C tie), ``A>>B`` (much better) or ``A!B`` (both bad).

    :returns: letters in tiers, best first; whether the first is much better; whether both are bad.
    :raises InvalidValue: if it is none of these.
    """
    bare = "".join(text.split())
    strong, bad = ">>" in bare, "!" in bare
    tiers = [tier.split("=") for tier in bare.replace(">>", ">").replace("!", "=").split(">")]
    found = [letter for tier in tiers for letter in tier]
    plain = all(letter.isalpha() and letter.isupper() and letter.isascii() for letter in found)
    if not plain or len(set(found)) < max(2, len(found)) or ((strong or bad) and len(found) != 2):
        raise InvalidValue(
            f"{text!r} is not an order of a group's responses; write B>A=C for B before A and C, which tie; of two "
            "A>>B for much better, A!B for both bad; to rate one response name it, like 812.3A"
        )
    return tiers, strong, bad


def _read_reward_model(arguments: Sequence[str]) -> Command:
    if list(arguments) not in ([], ["train"]):
        raise UsageError("reward-model says how good it is; `reward-model train` trains it anew")
    return TrainRewardModel() if arguments else QueryRewardModel()


def _read_reload(arguments: Sequence[str]) -> Command:
    if list(arguments) not in ([], ["use"], ["--use"]):
        raise UsageError("reload tries the reward code as it is now; `reload use` then scores with it")
    return Reload(use=bool(arguments))


def _read_ratings(arguments: Sequence[str]) -> Command:
    return QueryRatings(limit=_read_number("ratings", arguments, QueryRatings().limit))


def _read_retract(arguments: Sequence[str]) -> Command:
    if len(arguments) != 1:
        raise UsageError("retract needs the id of one rating")
    return Retract(rating=arguments[0])


def _read_skip(arguments: Sequence[str]) -> Command:
    if not arguments:
        raise UsageError("skip needs a response: skip 812.3C [reason]")
    return Skip(response=str(parse_response_name(arguments[0])), reason=" ".join(arguments[1:]))


def _read_response(arguments: Sequence[str]) -> Command:
    if len(arguments) != 1:
        raise UsageError("response needs one name: response 812.3C")
    name = parse_response_name(arguments[0])
    return QueryResponse(response=str(name)) if name.letter else QueryGroup(group=str(name))


def _read_group(arguments: Sequence[str]) -> Command:
    if len(arguments) != 1:
        raise UsageError("group needs one name: group 812.3")
    return QueryGroup(group=str(parse_response_name(arguments[0])))


def _read_acknowledge(arguments: Sequence[str]) -> Command:
    if len(arguments) > 1:
        raise UsageError("acknowledge takes at most one alarm's id")
    return Acknowledge(alarm=arguments[0] if arguments else "")


def _read_watch(arguments: Sequence[str]) -> Command:
    rule = " ".join(" ".join(arguments).split())
    if rule not in {watch.name for watch in DEFAULT_WATCHES}:
        parse_watch(rule)  # the engine, which knows the task's reward components, reads it again
    return AddWatch(rule=rule)


def _read_unwatch(arguments: Sequence[str]) -> Command:
    if not arguments:
        raise UsageError("unwatch needs the name of a watch; `watches` lists them")
    return RemoveWatch(name=" ".join(" ".join(arguments).split()))


def _whole(text: str, what: str) -> int:
    if not _is_whole(text):
        raise InvalidValue(f"{text!r} is not {what}; give a whole number")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _read_rewind(arguments: Sequence[str]) -> Command:
    words, options = _options(arguments, ("--expect",))
    if len(words) != 1:
        raise UsageError("rewind needs the step to go back to: rewind 640 [--expect BRANCH]")
    return Rewind(step=_whole(words[0], "a step"), expect=options.get("--expect", ""))


def _read_fork(arguments: Sequence[str]) -> Command:
    usage = "fork needs a name: fork NAME [--at STEP] [--from BRANCH] [--seed N] [--preset P] [NAME=VALUE ...]"
    words, options = _options(arguments, ("--at", "--from", "--seed", "--preset", "--expect"))
    if not words or "=" in words[0]:
        raise UsageError(usage)
    return Fork(
        name=check_branch_name(words[0]),
        step=_whole(options["--at"], "a step") if "--at" in options else -1,
        source=options.get("--from", ""),
        values=_read_values(words[1:]),
        preset=preset(options["--preset"]).name if "--preset" in options else "",
        seed=_whole(options["--seed"], "a seed") if "--seed" in options else None,
        expect=options.get("--expect", ""),
    )


def _options(arguments: Sequence[str], known: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What is no option, and the options with their values."""
    words, options, left = [], {}, list(arguments)
    while left:
        word = left.pop(0)
        if word.startswith("--"):
            name, given, value = word.partition("=")
            if name not in known:
                raise UnknownName("option", name, known)
            if not given and not left:
                raise UsageError(f"{name} needs a value")
            options[name] = value if given else left.pop(0)
        else:
            words.append(word)
    return words, options


def _read_switch(arguments: Sequence[str]) -> Command:
    words, options = _options(arguments, ("--expect",))
    if len(words) != 1:
        raise UsageError("switch needs the name of a branch; `branches` lists them")
    return Switch(branch=words[0], expect=options.get("--expect", ""))


def _read_rename(arguments: Sequence[str]) -> Command:
    if len(arguments) != 2:
        raise UsageError("rename needs a branch and its new name: rename main~1 too-hot")
    return RenameBranch(branch=arguments[0], name=check_branch_name(arguments[1]))


def _read_delete(arguments: Sequence[str]) -> Command:
    if len(arguments) != 1:
        raise UsageError("delete needs the name of a branch; `branches` lists them")
    return DeleteBranch(branch=arguments[0])


def _read_race(arguments: Sequence[str]) -> Command:
    if list(arguments) == ["stop"]:
        return Race(algorithms=[])
    words, options = _options(arguments, ("--at", "--expect"))
    if len(words) < 2:
        raise UsageError("race needs algorithms and steps: race grpo,ppo,trpo 50 [--at STEP] [NAME=VALUE ...]; or stop")
    steps = _whole(words[1], "a number of steps")
    if steps < 1:
        raise InvalidValue("a race takes at least 1 step")
    knob = hyperparameter("algorithm")
    algorithms = [str(knob.parse(name)) for name in words[0].split(",") if name]
    if len(set(algorithms)) != len(algorithms) or len(algorithms) < 2:
        raise InvalidValue(f"a race needs at least two algorithms, each once: {words[0]!r}")
    at = _whole(options["--at"], "a step") if "--at" in options else -1
    values = _read_values(words[2:])
    return Race(algorithms=algorithms, steps=steps, step=at, values=values, expect=options.get("--expect", ""))


def _read_probes(arguments: Sequence[str]) -> Command:
    if len(arguments) != 1:
        raise UsageError("probes needs the name of a branch; `branches` lists them")
    return QueryProbes(branch=arguments[0])


def _read_number(command: str, arguments: Sequence[str], default: int) -> int:
    if len(arguments) > 1 or not all(map(_is_whole, arguments)):
        raise UsageError(f"{command} takes at most one whole number")
    return int(arguments[0]) if arguments else default


def _read_evaluation(arguments: Sequence[str]) -> Command:
    if len(arguments) > 2 or not all(map(_is_whole, arguments)):
        raise UsageError("evaluation takes at most two steps: evaluation 640 600")
    step, earlier = [*map(int, arguments), -1, -1][:2]
    return QueryEvaluation(step=step, earlier=earlier)


def _read_series(arguments: Sequence[str]) -> Command:
    if not arguments:
        raise UsageError("series needs a metric: series reward/mean")
    return QuerySeries(names=list(arguments))


WORDS: dict[str, Words] = {
    words.name: words
    for words in (
        Words("pause", "[update]", "pause at the next safe point, or before the next update", _read_pause),
        Words("resume", "", "go on", _plain(Resume)),
        Words("step", "", "finish the step in progress, or run one, then pause", _plain(Step)),
        Words("discard", "", "drop the samples of the paused step", _plain(Discard)),
        Words("checkpoint", "", "write a checkpoint", _plain(TakeCheckpoint)),
        Words(
            "set", "NAME=VALUE ... [--expect NAME=VALUE ...]",
            "change hyperparameters, each at its boundary; refused if one is not as expected", _read_set,
        ),
        Words("preset", "NAME", f"published settings: {', '.join(PRESETS)}", _read_preset),
        Words("preview", "[ALGORITHM]", "what the paused step's update would do, tried on a copy", _read_preview),
        Words(
            "rewind", "STEP [--expect BRANCH]", "go back to a step; what came after it stays on a branch of its own",
            _read_rewind,
        ),
        Words(
            "fork", "NAME [--at STEP] [--from BRANCH] [--seed N] [--preset P] [--expect BRANCH] [NAME=VALUE ...]",
            "start a branch and train it", _read_fork,
        ),
        Words("switch", "BRANCH [--expect BRANCH]", "train another branch from its newest step on", _read_switch),
        Words("rename", "BRANCH NAME", "give a branch another name", _read_rename),
        Words("delete", "BRANCH", "forget a branch and its checkpoints; ratings are kept", _read_delete),
        Words(
            "race", "A,B,... STEPS [--at STEP] [--expect BRANCH] [NAME=VALUE ...] | stop",
            "a branch for each algorithm from the same step, trained in turn", _read_race,
        ),
        Words(
            "rate",
            "RESPONSE VALUE [--mode M] [comment] | GROUP ORDER",
            "rate a response (rate 812.3C 4; --mode thumbs 1; --mode edit BETTER TEXT; --mode critique FLAG,FLAG LINE) "
            "or compare a group's (rate 812.3 'B>A=C'; of two A>>B, A=B, A!B: both bad)",
            _read_rate,
        ),
        Words("retract", "RATING", "take a rating or a skip back", _read_retract),
        Words("ratings", "[COUNT]", "the newest ratings", _read_ratings),
        Words("reward-model", "[train]", "how good the reward model is; train: train it anew", _read_reward_model),
        Words(
            "reload", "[use]",
            "load the reward functions' code anew and show what it changes; use: score with it from then on",
            _read_reload,
        ),
        Words("skip", "RESPONSE [reason]", "say that a response will not be rated", _read_skip),
        Words(
            "acknowledge",
            "[ALARM]",
            "acknowledge one alarm, or all",
            _read_acknowledge,
        ),
        Words("watch", "RULE", "raise an alarm when a rule holds, such as: kl/k3 > 0.2 for 3 pause", _read_watch),
        Words("unwatch", "NAME", "take a watch away; `watch NAME` brings a default one back", _read_unwatch),
        Words("stop", "[--now]", "stop the session, after a checkpoint unless --now", _read_stop),
        Words("status", "", "the engine's status", _plain(QueryStatus)),
        Words("watches", "", "every watch, and how it stands", _plain(QueryWatches)),
        Words("branches", "", "every branch, and what became of it", _plain(QueryBranches)),
        Words("probes", "BRANCH", "what a branch answered to the probe prompts", _read_probes),
        Words(
            "evaluate", "[SAMPLES]",
            "ask the present policy every held-out prompt, and so many times more for pass@k (as eval_samples says)",
            lambda a: Evaluate(samples=_read_number("evaluate", a, -1)),
        ),
        Words(
            "evaluation", "[STEP [EARLIER]]",
            "what was answered to the held-out prompts after a step, and what has turned right or wrong since an "
            "earlier one",
            _read_evaluation,
        ),
        Words(
            "rose", "[STEP]", "the responses whose reward rose most since a step, or since a hundred steps ago",
            lambda a: QueryRose(step=_read_number("rose", a, 0)),
        ),
        Words("plan", "[NAME=VALUE ...]", "memory and seconds of a step, as it is or with changes", _read_plan),
        Words("series", "METRIC ...", "points of metrics", _read_series),
        Words(
            "groups", "[N]", "heads of the newest groups",
            lambda a: QueryGroups(limit=_read_number("groups", a, 20)),
        ),
        Words("group", "GROUP", "one group, whole", _read_group),
        Words("response", "RESPONSE", "one response, whole", _read_response),
        Words(
            "events", "[N]", "the newest events",
            lambda a: QueryEvents(limit=_read_number("events", a, 20)),
        ),
    )
}  # fmt: skip


def parse_words(words: str | Sequence[str]) -> Command:
    """Read a command from words, as ``send`` gets them or as one line.

    :raises UsageError: saying what is wrong with them.
    """
    if isinstance(words, str):
        try:
            words = shlex.split(words)
        except ValueError as error:
            raise UsageError(f"cannot read {words!r}: {error}") from None
    if not words:
        raise UsageError(f"no command; there are: {', '.join(WORDS)}")
    if words[0] not in WORDS:
        raise UnknownName("command", words[0], WORDS)
    return WORDS[words[0]].read(words[1:])
