"""From a task's prompts to scored groups of responses, and to answers that are judged: what the policy says.

Several processes share the prompts of a step, whole groups to a rank; each ends up knowing the groups of all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from accelerate.utils import gather_object

from engine.control import Control
from engine.knobs import Knobs
from engine.policy import Policy
from engine.randomness import evaluation_noise, response_noise
from engine.rollout import RolloutGroup
from engine.sampling import Growth, Samples, sample
from engine.scoring import Scored, score_group
from engine.scoring_pool import Round, ScoringPool
from engine.shaping import shape_rewards
from engine.statistics import repetition
from engine.tasks import Prompt, Task
from engine.truncation import Truncation
from sessions.branches import PROBES
from sessions.records import Group, Response, letters
from sessions.shortcuts import SHORTCUTS

EVALUATION_ROWS = 250
"""Held-out prompts answered at once."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Answers to the held-out prompts.

    :ivar accuracy: share judged right.
    :ivar length: mean tokens.
    :ivar answers: to the first :data:`PROBES` prompts, in their order.
    """

    accuracy: float
    length: float
    answers: list[Answered] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one of the first held-out prompts.

    :ivar place: of the prompt.
    """

    place: int
    prompt: Prompt
    text: str
    right: bool


OnStart = Callable[[Sequence[Prompt], Growth], None]
"""Given this process's prompts and their growing responses, before the first token."""


@dataclass(frozen=True, slots=True)
class Read:
    """A response as text, and what it is worth.

    :ivar ends: where in the text each token ends, characters.
    :ivar repetition: as :func:`~engine.statistics.repetition` has it.
    """

    text: str
    ends: list[int]
    scored: Scored
    repetition: float | None


class GroupSampler:
    """Asks the policy a task's questions.

    :param shortcuts: that sampling takes (:mod:`sessions.shortcuts`).
    :ivar seed: of the noise of training; held-out prompts are answered with that of the beginning on every branch.
    :ivar branch: that groups belong to.
    :ivar scoring_seconds: that the compute thread has waited for scores since it was last set to 0.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        knobs: Knobs,
        control: Control,
        seed: int,
        branch: str,
        shortcuts: Collection[str] = SHORTCUTS,
    ) -> None:
        self._policy, self.task, self._knobs, self._control = policy, task, knobs, control
        self.seed, self.branch, self._shortcuts = seed, branch, shortcuts
        self._evaluation_seed = seed
        self._rank, self._ranks = policy.accelerator.process_index, policy.accelerator.num_processes
        self._tokens: dict[str, list[int]] = {}
        self._pool = ScoringPool()
        self.scoring_seconds = 0.0

    def sample(
        self,
        step: int,
        prompts: Sequence[Prompt],
        first_number: int,
        on_start: OnStart,
        before: Sequence[Prompt] = (),
    ) -> list[RolloutGroup]:
        """Sample and score a group for each prompt.

        :param first_number: of the groups.
        :param before: prompts that this step has asked already.
        :returns: the groups of all ranks, in the order of their prompts.
        """
        group_size, temperature = self._knobs.whole("group_size"), self._knobs.number("temperature")
        mine = list(range(self._rank, len(prompts), self._ranks))
        self._control.begin("sampling", len(mine) * group_size)
        asked = [prompts[i] for i in mine]
        with self._pool.round(lambda place, tokens: self._read(asked[place], tokens), self._control.wake) as scoring:
            samples = self._sample(step, prompts, mine, on_start, before, scoring) if mine else Samples()
            began = self._control.clock()
            answers = self._scored(scoring, len(mine))
            self.scoring_seconds += self._control.clock() - began
        groups = []
        for place, i in enumerate(mine):
            rows = range(place * group_size, (place + 1) * group_size)
            groups.append(
                Group(
                    branch=self.branch,
                    step=step,
                    number=first_number + i,
                    prompt_id=prompts[i].id,
                    prompt=prompts[i].text,
                    answer=prompts[i].answer,
                    temperature=temperature,
                    responses=[
                        _response(letter, row, samples, answer)
                        for letter, (row, answer) in enumerate(zip(rows, answers[place], strict=True))
                    ],
                    prompt_tokens=self._encode(prompts[i]),
                    messages=[dict(message) for message in prompts[i].messages],
                )
            )
        shape_rewards([RolloutGroup(group) for group in groups], self._knobs)
        everywhere = self._all_ranks(groups)
        for place, group in enumerate(group for group in everywhere if group.own):
            group.entropies = samples.entropies[place * group_size : (place + 1) * group_size]
        return everywhere

    def _sample(
        self,
        step: int,
        prompts: Sequence[Prompt],
        mine: Sequence[int],
        on_start: OnStart,
        before: Sequence[Prompt],
        scoring: Round[list[Read]],
    ) -> Samples:
        group_size, length = self._knobs.whole("group_size"), self._knobs.whole("max_new_tokens")
        noise = []
        for i in mine:
            earlier = sum(
                p.id == prompts[i].id for p in (*before, *prompts[:i])
            )  # a small task repeats prompts inside a step
            for index in range(group_size):
                noise.append(response_noise(self.seed, step, prompts[i].id, index, length, earlier))
        return sample(
            self._policy,
            [self._encode(prompts[i]) for i in mine],
            group_size,
            length,
            self._knobs.number("temperature"),
            np.stack(noise),
            truncation=self._truncation(),
            shortcuts=self._shortcuts,
            safe_point=self._control.advance,
            on_start=lambda growth: on_start([prompts[i] for i in mine], growth),
            on_finished=scoring.submit,
        )

    def _encode(self, prompt: Prompt) -> list[int]:
        if prompt.id not in self._tokens:
            if len(self._tokens) > 100_000:
                self._tokens.clear()
            self._tokens[prompt.id] = self._policy.encode_prompt(prompt.messages or prompt.text)
        return self._tokens[prompt.id]

    def _read(self, prompt: Prompt, tokens: Sequence[Sequence[int]]) -> list[Read]:
        """On the scoring thread: the responses to a prompt as text, and the automatic reward of each."""
        texts = [self._policy.token_ends(row) for row in tokens]
        scored = score_group(self.task.components, prompt, [text for text, _ in texts])
        return [
            Read(text, ends, result, repetition(row))
            for (text, ends), result, row in zip(texts, scored, tokens, strict=True)
        ]

    def _scored(self, scoring: Round[list[Read]], count: int) -> list[list[Read]]:
        """What the scoring thread has made of every group, waiting for what is not done yet."""
        self._control.begin("scoring", count)
        answers = []
        for place in range(count):
            self._control.wait_for(lambda place=place: scoring.done(place))  # type: ignore[misc]
            answers.append(scoring.result(place))
            self._control.advance(place + 1, count)
        return answers

    def _all_ranks(self, groups: list[Group]) -> list[RolloutGroup]:
        """Every rank's groups, in the order of their numbers; each rank trains its own."""
        own = {group.number for group in groups}
        everywhere = gather_object(groups) if self._ranks > 1 else groups
        ordered = sorted(everywhere, key=lambda group: group.number)
        return [RolloutGroup(group, own=group.number in own) for group in ordered]

    def _truncation(self, kind: str = "") -> Truncation:
        """What is cut off the distribution, when training (off unless the session allows it) or evaluating."""
        knobs = self._knobs
        return Truncation(
            knobs.whole(f"{kind}top_k"), knobs.number(f"{kind}top_p"), knobs.number(f"{kind}min_p")
        )  # fmt: skip

    def evaluate(self, most: int | None = None) -> Evaluation:
        """Answer the held-out prompts, greedily with ``eval_temperature`` 0; draws no random number of training.

        :param most: only the first so many; None: all.
        """
        length, temperature = self._knobs.whole("max_new_tokens"), self._knobs.number("eval_temperature")
        prompts = self.task.evaluation[:most]
        self._control.begin("evaluating", len(prompts))
        right = tokens = 0
        mine = list(prompts[self._rank :: self._ranks])
        answers: list[Answered] = []
        for start in range(0, len(mine), EVALUATION_ROWS):
            part = mine[start : start + EVALUATION_ROWS]
            noise = (
                np.stack([evaluation_noise(self._evaluation_seed, p.id, length) for p in part]) if temperature else None
            )
            samples = sample(
                self._policy,
                [self._encode(p) for p in part],
                1,
                length,
                temperature or 1.0,
                noise,
                truncation=self._truncation("eval_"),
                shortcuts=self._shortcuts,
                safe_point=lambda done, total: self._control.safe_point(),
            )
            for place, (prompt, answer) in enumerate(zip(part, samples.tokens, strict=True), start):
                text = self._policy.decode(answer)
                good = self.task.judge(prompt, text)
                right += good
                if self._rank + place * self._ranks < PROBES:
                    answers.append(Answered(self._rank + place * self._ranks, prompt, text, bool(good)))
            tokens += sum(map(len, samples.tokens))
            self._control.advance(start + len(part), len(mine))
        if self._ranks > 1:
            parts = gather_object([(right, tokens, answers)])
            right, tokens = sum(p[0] for p in parts), sum(p[1] for p in parts)
            answers = sorted((a for p in parts for a in p[2]), key=lambda a: a.place)
        return Evaluation(right / len(prompts), tokens / len(prompts), answers)


def _response(place: int, row: int, samples: Samples, read: Read) -> Response:
    return Response(
        letter=letters(place),
        text=read.text,
        length=len(samples.tokens[row]),
        ended=samples.ended[row],
        components=read.scored.components,
        failed=read.scored.failed,
        reward=read.scored.reward,
        tokens=samples.tokens[row],
        ends=read.ends,
        repetition=read.repetition,
        logprobs=samples.logprobs[row],
    )
