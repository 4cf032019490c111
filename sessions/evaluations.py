"""Evaluations: what a policy answers to prompts that it never learns from, and how two of them differ.

An evaluation asks every held-out prompt once, greedily unless ``eval_temperature`` says otherwise, and as many times
more as ``eval_samples`` says, from the distribution that training samples from. Of n such samples, c of them right,

    pass@k = 1 - C(n - c, k) / C(n, k)

is the chance that at least one of k of them is right, without bias (Chen et al. 2021, arXiv 2107.03374).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from sessions.errors import InvalidValue, SessionError
from sessions.records import Record

ACCURACY, REWARD, LENGTH = "eval/accuracy", "eval/reward", "eval/length"
MOST_BYTES = 2**29
"""Of an evaluation that is read, unpacked: a damaged one must not fill the memory."""
MOST_ROWS = 2000
"""Answers that are sent at once."""


class Sample(Record):
    """One answer.

    :ivar length: tokens, the end token included.
    :ivar ended: whether it closed with an end token.
    :ivar right: what the task's judge says; None: the task has none.
    :ivar reward: the automatic reward; None where no component applies or one failed.
    """

    text: str
    length: int = 0
    ended: bool = True
    right: bool | None = None
    reward: float | None = None


class HeldOutAnswer(Record):
    """What was answered to one held-out prompt.

    :ivar reference: the right answer, where the task has one.
    :ivar components: reward component -> value, of the greedy answer.
    :ivar samples: further answers, for pass@k.
    """

    prompt_id: str
    prompt: str
    reference: str
    greedy: Sample
    components: dict[str, float | None] = {}
    samples: list[Sample] = []


class HeldOut(Record):
    """One evaluation.

    :ivar step: after which it was made.
    :ivar who: asked for it; empty: the schedule.
    :ivar temperature: of the first answer to each prompt; 0: greedy.
    :ivar metrics: what is charted of it.
    :ivar total: prompts, where ``answers`` holds only some of them.
    """

    branch: str
    step: int
    time: float
    answers: list[HeldOutAnswer]
    who: str = ""
    temperature: float = 0.0
    metrics: dict[str, float] = {}
    total: int = 0


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that at least one of k samples is right, estimated from n of which some are.

    :raises ValueError: unless 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass@{k} of {n} samples, {right} of them right")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def ks(n: int) -> list[int]:
    """The k for which n samples are told: powers of two, and n."""
    return sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n} - {0})


def metrics_of(answers: Sequence[HeldOutAnswer]) -> dict[str, float]:
    """``eval/accuracy``, ``eval/length``, ``eval/reward`` and ``eval/pass@K``, those that there are."""
    if not answers:
        return {}
    found = {LENGTH: math.fsum(a.greedy.length for a in answers) / len(answers)}
    judged = [a for a in answers if a.greedy.right is not None]
    if judged:
        found[ACCURACY] = sum(bool(a.greedy.right) for a in judged) / len(judged)
    rewards = [a.greedy.reward for a in answers if a.greedy.reward is not None]
    if rewards:
        found[REWARD] = math.fsum(rewards) / len(rewards)
    sampled = [a for a in judged if a.samples]
    n = min((len(a.samples) for a in sampled), default=0)
    for k in ks(n):
        passes = [pass_at_k(len(a.samples), sum(bool(s.right) for s in a.samples), k) for a in sampled]
        found[f"eval/pass@{k}"] = math.fsum(passes) / len(passes)
    return found


def words_of(metrics: dict[str, float]) -> str:
    """An evaluation's figures in one line."""
    parts = [f"held-out {metrics[ACCURACY]:.1%}"] if ACCURACY in metrics else []
    passes = sorted((int(name.partition("@")[2]), value) for name, value in metrics.items() if "pass@" in name)
    parts += [f"pass@{k} {value:.1%}" for k, value in passes]
    parts += [f"reward {metrics[REWARD]:.3f}"] if REWARD in metrics else []
    parts += [f"{metrics[LENGTH]:.1f} tokens"] if LENGTH in metrics else []
    return ", ".join(parts)


class Turned(Record):
    """A held-out prompt whose answer two evaluations judge differently."""

    now: HeldOutAnswer
    before: HeldOutAnswer


def turned(now: HeldOut, before: HeldOut) -> tuple[list[Turned], list[Turned]]:
    """What has become right, and what wrong, in the order of the later one's prompts."""
    earlier = {answer.prompt_id: answer for answer in before.answers}
    pairs = [Turned(now=a, before=earlier[a.prompt_id]) for a in now.answers if a.prompt_id in earlier]
    differ = [p for p in pairs if p.now.greedy.right != p.before.greedy.right and p.before.greedy.right is not None]
    return [p for p in differ if p.now.greedy.right], [p for p in differ if not p.now.greedy.right]


class EvaluationView(Record):
    """What is shown of an evaluation: its answers, beside those of the one before it.

    :ivar earlier: step of the one that it is compared with; -1: there is none.
    :ivar steps: of all evaluations of the branch's line, in order.
    :ivar better: prompts whose answer has become right since.
    :ivar worse: prompts whose answer has become wrong since.
    """

    now: HeldOut
    earlier: int = -1
    earlier_metrics: dict[str, float] = {}
    steps: list[int] = []
    better: list[Turned] = []
    worse: list[Turned] = []


def view(now: HeldOut, before: HeldOut | None, steps: Iterable[int], limit: int = MOST_ROWS) -> EvaluationView:
    """An evaluation beside an earlier one.

    :param limit: most answers, and most that have turned each way.
    """
    better, worse = turned(now, before) if before is not None else ([], [])
    shown = msgspec.structs.replace(now, answers=now.answers[:limit], total=len(now.answers))
    return EvaluationView(
        now=shown,
        earlier=before.step if before is not None else -1,
        earlier_metrics=before.metrics if before is not None else {},
        steps=list(steps),
        better=better[:limit],
        worse=worse[:limit],
    )


def pack(evaluation: HeldOut) -> bytes:
    """An evaluation as it is kept: MessagePack, deflated, for its prompts repeat each other."""
    return zlib.compress(msgspec.msgpack.encode(evaluation), 3)


def unpack(body: bytes, branch: str) -> HeldOut:
    """What :func:`pack` made.

    :param branch: that it belongs to now.
    :raises SessionError: if it cannot be read.
    """
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(body, MOST_BYTES)
        if inflate.unconsumed_tail:
            raise InvalidValue(f"more than {MOST_BYTES:,} bytes")
        return msgspec.structs.replace(msgspec.msgpack.decode(raw, type=HeldOut), branch=branch)
    except (zlib.error, msgspec.MsgspecError, InvalidValue, ValueError) as error:
        raise SessionError(f"an evaluation of {branch} cannot be read ({error})") from None
