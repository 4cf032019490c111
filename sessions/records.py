"""What happened, as plain records: the same objects in the engine, the store, on the wire and on the screen.

Times are seconds since the epoch. A response is named ``STEP.GROUPLETTER`` (``812.3C``), with ``BRANCH/`` before it
when it is not on the active branch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import msgspec

from sessions.errors import InvalidValue
from sessions.hyperparameters import Value

MAIN = "main"
"""The first branch."""
WARM_UP = "warm-up"
"""The branch of the warm-up's steps, which come before those of every other."""
REWARD_MODEL = "reward_model"
"""The reward component that holds the score of a reward model."""


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of the records: fields by name, defaults left out of the encoding."""


# --------------------------------------------------------------------------------------------------- names


def letters(index: int) -> str:
    """The label of the response at ``index`` in its group: A to Z, then AA, AB, ..."""
    label = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        label = chr(ord("A") + rest) + label
    return label


_RESPONSE_NAME = re.compile(r"^(?:([\w.~-]+)/)?([0-9]{1,15})\.([0-9]{1,15})([A-Z]{0,2})$")


class ResponseName(msgspec.Struct, frozen=True):
    """A response (or, with an empty letter, a group) by name."""

    step: int
    group: int
    letter: str = ""
    branch: str = ""

    def __str__(self) -> str:
        prefix = f"{self.branch}/" if self.branch else ""
        return f"{prefix}{self.step}.{self.group}{self.letter}"


def parse_response_name(text: str) -> ResponseName:
    """Read ``812.3C``, ``812.3`` or ``main~1/812.3C``.

    :raises InvalidValue: if it is none of these.
    """
    match = _RESPONSE_NAME.match(text.strip())
    if match is None:
        raise InvalidValue(f"{text!r} is not a response; they are named like 812.3C (step 812, group 3, response C)")
    return ResponseName(int(match[2]), int(match[3]), match[4], match[1] or "")


# ------------------------------------------------------------------------------------------------- samples


class Response(Record):
    """One answer with its tokens.

    :ivar ended: whether it closed with an end token; false means cut at ``max_new_tokens``.
    :ivar components: reward component -> value; None means that it does not apply.
    :ivar failed: the component that failed on this response, with the reason; such a response teaches nothing.
    :ivar reward: the automatic reward: weighted sum of the components that apply; None when none does.
    :ivar rated_reward: the reward after ratings, as the newest update used it; None if no rating reached one.
    :ivar advantage: as the newest update that held this response used it; with a value model the mean over its
        tokens.
    :ivar automatic_advantage: what it is without ratings.
    :ivar kl: mean k3 to the reference over its tokens, where measured.
    :ivar heads: raw score of each head of the reward model that scored it: the sigmoid of the difference of two
        responses' is the chance that the one is preferred. Its component is their normalised mean.
    :ivar repetition: share of its runs of four tokens that it had before; None where it has no four.
    :ivar ends: for each token, where its text ends in ``text`` (characters).
    :ivar values: the value model's estimate before each token, where there was one.
    :ivar returns: what each of them was trained on.
    :ivar advantages: of each token, where a value model made them differ.
    """

    letter: str
    text: str
    length: int
    ended: bool
    components: dict[str, float | None] = {}
    failed: str = ""
    reward: float | None = None
    rated_reward: float | None = None
    advantage: float | None = None
    automatic_advantage: float | None = None
    kl: float | None = None
    heads: list[float] = []
    repetition: float | None = None
    tokens: list[int] = []
    ends: list[int] = []
    logprobs: list[float] = []
    reference_logprobs: list[float] = []
    entropies: list[float] = []
    values: list[float] = []
    returns: list[float] = []
    advantages: list[float] = []


class GroupHead(Record):
    """What a list shows of a group.

    :ivar rewards: one per response, after ratings where an update used them; None for the unscored.
    :ivar ratings: letter -> the newest rating, as its mode shows it.
    :ivar status: ``scored`` (its update is still to come), ``updated``, ``discarded`` or ``replaced`` (dead, and
        another prompt's group took its place: dynamic sampling).
    :ivar flags: any of dead, truncated, rated, failed, high_kl.
    :ivar discord: share of comparisons in which two reward components order two responses in opposite ways; None where
        fewer than two components tell any two of them apart.
    :ivar doubt: of the two responses that the reward model can tell apart least, in [0, 1]; None without one.
    """

    branch: str
    step: int
    number: int
    prompt: str
    mean: float | None
    std: float | None
    rewards: list[float | None]
    status: str = "scored"
    flags: list[str] = []
    ratings: dict[str, str] = {}
    kl: float | None = None
    discord: float | None = None
    doubt: float | None = None

    @property
    def name(self) -> str:
        """``812.3``."""
        return f"{self.step}.{self.number}"


class Group(Record):
    """The responses sampled for one prompt, whole.

    :ivar prompt: the question, without the chat template around it.
    :ivar messages: the same as chat messages, where the task has it so; else empty.
    :ivar answer: the reference answer, where the task has one.
    :ivar drawing: what the screens can draw of the responses, such as ``maze``; empty: nothing.
    :ivar temperature: at which it was sampled; its log-probabilities are of that tempered distribution.
    """

    branch: str
    step: int
    number: int
    prompt_id: str
    prompt: str
    answer: str
    temperature: float
    responses: list[Response]
    status: str = "scored"
    prompt_tokens: list[int] = []
    messages: list[dict[str, str]] = []
    drawing: str = ""

    @property
    def asked(self) -> str | list[dict[str, str]]:
        """The question as the model was given it: the messages, where it has them, else the text."""
        return self.messages or self.prompt

    def said(self, text: str) -> str | list[dict[str, str]]:
        """A response in the same form."""
        return [{"role": "assistant", "content": text}] if self.messages else text

    @property
    def name(self) -> str:
        """``812.3``."""
        return f"{self.step}.{self.number}"


def shorten(text: str, length: int = 120) -> str:
    """Text cut to ``length`` characters, with dots where it was cut."""
    return text if len(text) <= length else text[: length - 2] + ".."


def head_of(group: Group, ratings: dict[str, str] | None = None) -> GroupHead:
    """The head of a group, as lists show it."""
    rewards: list[float | None] = []
    scored, kls = [], []
    truncated = failed = False
    for r in group.responses:  # one loop: a step makes the heads of its groups twice
        reward = r.reward if r.rated_reward is None else r.rated_reward
        rewards.append(reward)
        if r.failed:
            failed = True
        elif reward is not None:
            scored.append(reward)
        if not r.ended:
            truncated = True
        if r.kl is not None:
            kls.append(r.kl)
    mean = sum(scored) / len(scored) if scored else None
    std = None
    if mean is not None and len(scored) > 1:
        std = (sum([(x - mean) * (x - mean) for x in scored]) / (len(scored) - 1)) ** 0.5
    flags = []
    if std is None or std < 1e-6:
        flags.append("dead")
    if truncated:
        flags.append("truncated")
    if failed:
        flags.append("failed")
    if ratings:
        flags.append("rated")
    if kls and max(kls) > 0.5:
        flags.append("high_kl")
    return GroupHead(
        branch=group.branch,
        step=group.step,
        number=group.number,
        prompt=shorten(group.prompt),
        mean=mean,
        std=std,
        rewards=rewards,
        status=group.status,
        flags=flags,
        ratings=ratings or {},
        kl=sum(kls) / len(kls) if kls else None,
        discord=discord(group.responses),
        doubt=max((doubt for _, _, doubt in doubts(group.responses)), default=None),
    )


def discord(responses: Sequence[Response]) -> float | None:
    """How often two reward components of a group's responses disagree: see :attr:`GroupHead.discord`."""
    names = [name for name, value in responses[0].components.items() if value is not None] if responses else []
    if len(names) < 2:
        return None
    opposed = compared = 0
    for one, other in combinations(responses, 2):
        signs = []
        for name in names:
            a, b = one.components.get(name), other.components.get(name)
            if a is not None and b is not None and a != b:
                signs.append(a > b)
        agreeing = sum(signs)
        compared += len(signs) * (len(signs) - 1) // 2
        opposed += agreeing * (len(signs) - agreeing)
    return opposed / compared if compared else None


def doubts(responses: Sequence[Response]) -> list[tuple[str, str, float]]:
    r"""How unsure a reward model is of which of two responses is better, for every two with different texts.

    .. math:: 1 - |2 \bar p - 1|, \quad \bar p = mean over heads of sigmoid(s_i - s_j)

    :returns: (letter, letter, doubt in [0, 1]); empty where no reward model has scored them.
    """
    found = []
    for one, other in combinations(responses, 2):
        if one.heads and len(one.heads) == len(other.heads) and one.text != other.text:
            chances = [1 / (1 + math.exp(min(b - a, 500))) for a, b in zip(one.heads, other.heads, strict=True)]
            found.append((one.letter, other.letter, 1 - abs(2 * sum(chances) / len(chances) - 1)))
    return found


class Try(Record):
    """One try of a line search.

    :ivar fraction: of the full step.
    :ivar kl: the realised KL(old, new), nats a token.
    :ivar gain: the surrogate's improvement.
    """

    fraction: float
    kl: float | None
    gain: float | None
    accepted: bool = False


class TrustRegionStep(Record):
    """How a TRPO update found its step.

    :ivar product: ``exact`` or ``difference``.
    :ivar residuals: of conjugate gradient after each iteration, relative to the gradient.
    :ivar curvature: x'Fx of the direction that it found, undamped.
    :ivar damping: what was added to the Fisher matrix's diagonal.
    :ivar predicted_gain: g's of the full step.
    :ivar tries: the line search, full step first.
    :ivar product_error: the largest relative difference that the self-check saw, where it ran.
    :ivar note: what a person should know: why no step was taken, or another product than the one asked for.
    """

    product: str = ""
    residuals: list[float] = []
    curvature: float | None = None
    damping: float | None = None
    predicted_gain: float | None = None
    tries: list[Try] = []
    product_error: float | None = None
    note: str = ""


class PreviewedResponse(Record):
    """What an update would do to one response.

    :ivar logprob: of the whole response under the policy, nats.
    :ivar change: of that by the update.
    """

    name: str
    reward: float | None
    advantage: float
    logprob: float
    change: float


class Preview(Record):
    """The update that a step would make, computed on a copy.

    :ivar kl_old_new: mean of (rho - 1) - log rho over tokens after it, nats.
    :ivar note: why the policy would not move, or what else a person should know.
    """

    step: int
    algorithm: str
    loss: float | None = None
    kl_old_new: float | None = None
    ratio_min: float | None = None
    ratio_max: float | None = None
    grad_norm: float | None = None
    trust_region: TrustRegionStep | None = None
    note: str = ""
    metrics: dict[str, float | None] = {}
    responses: list[PreviewedResponse] = []
    seconds: float = 0.0

    def describe(self, most: int = 10) -> str:
        """Lines for people.

        :param most: responses to list: those that would move furthest.
        """

        def shown(value: float | None) -> str:
            return "-" if value is None else f"{value:.4g}"

        lines = [
            f"what {self.algorithm} would do with step {self.step} (nothing has changed; {self.seconds:.1f} s):",
            f"loss {shown(self.loss)}   grad norm {shown(self.grad_norm)}   "
            f"KL old-new {shown(self.kl_old_new)} (estimated)   "
            f"ratio {shown(self.ratio_min)} to {shown(self.ratio_max)}",
        ]
        if self.note:
            lines.append(self.note)
        if self.trust_region is not None:
            lines += [
                f"line search: {shown(t.fraction)} of the step: KL {shown(t.kl)}, gain {shown(t.gain)}"
                + ("  accepted" if t.accepted else "")
                for t in self.trust_region.tries
            ]
        furthest = sorted(self.responses, key=lambda r: -abs(r.change))[:most]
        lines += [
            f"{r.name}  reward {shown(r.reward)}  advantage {r.advantage:+.3f}  "
            f"log p {r.logprob:.3f} -> {r.logprob + r.change:.3f}"
            for r in furthest
        ]
        if len(self.responses) > len(furthest):
            lines.append(f"and {len(self.responses) - len(furthest)} more responses (send ... preview --json has all)")
        return "\n".join(lines)


class UpdateInputs(Record):
    """What the update of a step was given, beside the weights: with it, the step can be computed again.

    :ivar cursor: prompts taken before its first group.
    :ivar number: of its first group; above 1 where earlier tries at the step were dropped.
    :ivar groups: numbers of its groups, in the order in which they were learned from.
    :ivar late: names of the groups of earlier steps that joined it, in order.
    :ivar ratings: group -> ids of the ratings that it was learned with.
    :ivar minibatches: that dropped tries at the step had begun.
    """

    cursor: int
    number: int = 1
    groups: list[int] = []
    minibatches: int = 0
    late: list[str] = []
    ratings: dict[str, list[str]] = {}


class StepRecord(Record):
    """What one step measured.

    :ivar metrics: name -> value; a metric that was not measured is absent.
    :ivar nonfinite: names whose value was NaN or infinite; their value here is None.
    :ivar advantages: the advantages of the step's responses, for the histogram.
    :ivar values: the hyperparameters the step ended with.
    :ivar trust_region: how TRPO found its step.
    :ivar inputs: what the update was given; None where nothing was learned.
    :ivar reward_code: component -> hash of the code that scored its responses, of functions that people brought.
    """

    branch: str
    step: int
    time: float
    metrics: dict[str, float | None]
    nonfinite: list[str] = []
    advantages: list[float] = []
    values: dict[str, Value] = {}
    trust_region: TrustRegionStep | None = None
    inputs: UpdateInputs | None = None
    reward_code: dict[str, str] = {}


# ------------------------------------------------------------------------------------------------- ratings


class Rating(Record):
    """What a person said about responses of one group; records are only ever appended.

    :ivar values: letter -> answer, in the terms of ``mode``.
    :ivar order: letters in the order shown; empty when there was none, as from a script.
    :ivar seconds: time spent.
    :ivar supersedes: id of the rater's earlier rating of the same response.
    :ivar retracted: time of the retraction; 0 while it stands.
    :ivar text: the better text that an edit gives.
    :ivar flags: that a critique raises.
    :ivar rule: by which the question was picked; empty where the rater went to it, or a script.
    :ivar repeats: id of the rating whose question this asks a second time, silently: it measures how far a person
        agrees with themselves, and counts for nothing else.
    :ivar redoes: id of the undone rating that this gives again.
    """

    id: str
    time: float
    who: str
    branch: str
    step: int
    group: int
    mode: str
    values: dict[str, float]
    comment: str = ""
    order: list[str] = []
    blind: bool = False
    seconds: float = 0.0
    supersedes: str = ""
    retracted: float = 0.0
    text: str = ""
    flags: list[str] = []
    rule: str = ""
    repeats: str = ""
    redoes: str = ""

    @property
    def names(self) -> list[str]:
        """The responses judged, by name."""
        return [f"{self.step}.{self.group}{letter}" for letter in self.values]

    def said(self) -> str:
        """The answer in short: ``C=4``, ``A=1, F=0``, ``C=1, wrong, format``, with the better text of an edit."""
        parts = [f"{letter}={value:g}" for letter, value in self.values.items()] + self.flags
        return ", ".join(parts) + (f": {shorten(' '.join(self.text.split()), 60)}" if self.text else "")

    def fate(self, use: RatingUse | None) -> str:
        """What became of it, one line: ``used in update 813, on time, retracted after``."""
        if use is None:
            return "taken back" if self.retracted else "waits for an update"
        return use.describe() + (", retracted after" if self.retracted and use.step else "")


RatingFate = Literal["on_time", "late", "reward_model_only", "unused"]


class RatingUse(Record):
    """In which update a rating was used, or why in none.

    :ivar step: the update; 0 when it was used in none.
    :ivar kl: mean k3(old, now) on the group's tokens when the update was reached.
    :ivar advantages: the group's advantages with the ratings, by letter.
    :ivar automatic: the same without them.
    :ivar branch: whose update that was.
    """

    rating: str
    group: str
    fate: RatingFate
    branch: str = "main"
    step: int = 0
    kl: float | None = None
    why: str = ""
    advantages: dict[str, float] = {}
    automatic: dict[str, float] = {}

    def describe(self) -> str:
        """One line for people: ``used in update 813, late (KL 0.0031)``."""
        if self.fate == "on_time":
            return f"used in update {self.step}, on time"
        if self.fate == "late":
            return f"used in update {self.step}, late (KL {self.kl or 0:.4f})"
        if self.fate == "reward_model_only":
            return f"not used in an update: {self.why}; kept for the reward model"
        return f"not used: {self.why}"


class SkipRecord(Record):
    """A person chose not to rate.

    :ivar letter: empty: the whole group.
    :ivar rule: by which the question was picked.
    :ivar retracted: when it was taken back; 0 while it stands.
    """

    id: str
    time: float
    who: str
    branch: str
    step: int
    group: int
    letter: str
    reason: str = ""
    rule: str = ""
    retracted: float = 0.0


# ------------------------------------------------------------------------------------- changes, alarms, more


class Change(Record):
    """A hyperparameter that a person changed.

    :ivar status: ``pending`` until its boundary, then ``applied``; ``superseded`` by a later change before it.
    :ivar accepted_step: the step in progress when it was accepted.
    :ivar applied_step: the first step that it touched; 0 while pending.
    :ivar passed_step: the newest step that had passed the boundary when it was accepted: where an engine goes back
        and runs that step again, the change still waits for the next boundary.
    :ivar passed_place: how often that step had passed it.
    :ivar command: id of the command it came with; those of one command belong together.
    :ivar applied_place: how often that step had passed the boundary before it was applied: minibatches made.
    :ivar branch: that it was made on.
    """

    id: str
    time: float
    who: str
    name: str
    old: Value
    new: Value
    boundary: str
    status: Literal["pending", "applied", "superseded"] = "pending"
    accepted_step: int = 0
    applied_step: int = 0
    passed_step: int = 0
    passed_place: int = 0
    command: str = ""
    applied_place: int = 0
    branch: str = "main"

    @property
    def step(self) -> int:
        """The step that it belongs to: the first that it touched, or else the one in which it was accepted."""
        return self.applied_step or self.accepted_step


class Alarm(Record):
    """A rule that fired; it stays until acknowledged.

    :ivar responses: names of responses that caused it.
    :ivar remedy: what to try, one line.
    """

    id: str
    time: float
    step: int
    rule: str
    message: str
    level: Literal["warn", "error"] = "warn"
    responses: list[str] = []
    remedy: str = ""
    acknowledged: float = 0.0
    acknowledged_by: str = ""
    branch: str = "main"


class Checkpoint(Record):
    """A moment of training on disk.

    :ivar step: finished steps.
    :ivar path: of its folder in the session's ``checkpoints``.
    :ivar reason: why it was taken, for people.
    :ivar branch: whose step that is.
    """

    step: int
    time: float
    path: str
    bytes: int
    reason: str
    branch: str = "main"


class SessionSettings(Record):
    """What a session was started with: ``session.toml``.

    :ivar sets: ``name=value[@STEP]`` as given.
    :ivar preset: name of published settings, over which ``sets`` are laid.
    :ivar steps: stop after so many; 0: never.
    :ivar threads: of torch; 0: physical cores less one, at least 1.
    :ivar model: name, folder, GGUF file or hub name.
    :ivar model_revision: branch, tag or commit of a hub model, once loaded the commit; empty: its main branch.
    :ivar task: its words: a name, file or dataset, and options (:mod:`sessions.task_kinds`).
    :ivar rewards: words of each reward (:mod:`sessions.reward_kinds`); empty: the task's own.
    :ivar reward_timeout: seconds that a reward function may take for a group.
    :ivar reward_folder: in which reward functions work and modules are looked for; empty: no reward needs it.
    :ivar lora: options of adapters that are trained instead of the model, as words; empty: the model is.
    :ivar evaluation_rows: held-out prompts; 0: as many as the task proposes.
    :ivar micro_tokens: prompt and response tokens, padding included, that one forward and backward may hold.
    :ivar plain: shortcuts of the engine that are turned off (:mod:`sessions.shortcuts`).
    :ivar allow_sampler_mismatch: whether training may sample from another distribution than the policy's.
    :ivar reward_model: folder of a reward model that was trained before; empty: none.
    :ivar trust_remote_code: whether Python code in the model's folder may be run.
    :ivar keep_last: newest checkpoints that a branch keeps.
    :ivar keep_best: checkpoints of a branch that are kept for their held-out accuracy.
    :ivar keep_every: checkpoints of steps that this divides are kept for ever; 0: none.
    :ivar track: where its metrics are mirrored to (:mod:`sessions.trackers`).
    :ivar watches: rules of watches that it begins with (:mod:`sessions.watch_words`), beside the defaults.
    :ivar warm_up: a file of prompts and completions to fine-tune on before RL; empty: none.
    :ivar warm_up_epochs: how often the warm-up goes through it.
    :ivar warm_up_learning_rate: after a linear rise.
    :ivar warm_up_batch: examples in one optimizer step of the warm-up.
    """

    name: str
    model: str = "tiny"
    model_revision: str = ""
    task: str = "arithmetic"
    rewards: list[str] = []
    reward_timeout: float = 60.0
    reward_folder: str = ""
    lora: str = ""
    seed: int = 0
    steps: int = 0
    sets: list[str] = []
    preset: str = ""
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    nice: bool = True
    chat_template: bool = True
    micro_tokens: int = 16_384
    plain: list[str] = []
    allow_sampler_mismatch: bool = False
    trust_remote_code: bool = False
    reward_model: str = ""
    evaluation_rows: int = 0
    keep_token_steps: int = 500
    keep_last: int = 3
    keep_best: int = 1
    keep_every: int = 0
    paused: bool = False
    track: list[str] = []
    watches: list[str] = []
    warm_up: str = ""
    warm_up_epochs: int = 1
    warm_up_learning_rate: float = 2e-5
    warm_up_batch: int = 32


class TaskInfo(Record):
    """What the screens need to know of a task."""

    name: str
    reward_range: tuple[float, float]
    components: dict[str, float]
    prompts: int
    evaluation_prompts: int


class SeriesData(Record):
    """A metric over steps, possibly reduced to the extremes of each bucket.

    :ivar steps: ascending.
    :ivar values: one per step; None where the value was not finite.
    """

    name: str
    steps: list[int]
    values: list[float | None]


State = Literal["LOADING", "RUN", "PAUSED", "WAIT", "DONE", "FAILED"]
Phase = Literal[
    "loading", "warming up", "sampling", "scoring", "waiting", "updating", "saving", "evaluating", "idle"
]  # fmt: skip


class Status(Record):
    """The heartbeat: state, phase and progress; sent every second and whenever the state changes.

    :ivar branch: the active one; ``warm-up`` as long as that lasts.
    :ivar step: the step in progress, or the last one when idle.
    :ivar done: finished parts of the phase.
    :ivar total: parts of the phase; 0 when unknown.
    :ivar note: one line for people: who paused and when, what is being waited for.
    """

    time: float
    session: str
    branch: str
    state: State
    phase: Phase
    algorithm: str = ""
    step: int = 0
    finished_steps: int = 0
    steps: int = 0
    done: int = 0
    total: int = 0
    note: str = ""
    elapsed: float = 0.0
    left: float | None = None
    tokens_per_second: float | None = None
    pid: int = 0
    clients: list[str] = []
    checkpoint_step: int = 0
    checkpoint_time: float = 0.0
    device: str = ""
    cpu_percent: float | None = None
    memory_bytes: int = 0
    memory_total: int = 0
    disk_free: int = 0
    rating_queue: int = 0
