"""From a task's prompts to scored groups of responses, and to answers that are judged: what the policy says.

Several processes share the prompts of a step, whole groups to a rank; each ends up knowing the groups of all.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate.utils import gather_object

from engine.control import Control
from engine.knobs import Knobs
from engine.policy import Policy
from engine.randomness import evaluation_noise, held_out_noise, response_noise
from engine.rewards.named import unlogged
from engine.rollout import RolloutGroup
from engine.sampling import Growth, Samples, sample
from engine.scoring import Scored, score_group
from engine.scoring_pool import Round, ScoringPool
from engine.shaping import shape_rewards
from engine.soundness import UnusablePrompt
from engine.statistics import repetition
from engine.tasks import Prompt, Task
from engine.tasks.curriculum import level_accuracy
from engine.truncation import Truncation
from sessions.errors import SessionError, UsageError
from sessions.evaluations import ACCURACY, LENGTH, HeldOutAnswer, Sample, metrics_of
from sessions.records import Group, Response, letters
from sessions.shortcuts import SHORTCUTS

EVALUATION_ROWS = 250
"""Held-out prompts answered at once."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Answers to the held-out prompts, in the order of these.

    :ivar metrics: what :func:`~sessions.evaluations.metrics_of` says of them.
    """

    answers: list[HeldOutAnswer]
    metrics: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Share judged right; NaN where nothing was judged."""
        return self.metrics.get(ACCURACY, math.nan)

    @property
    def length(self) -> float:
        """Mean tokens of the first answers."""
        return self.metrics.get(LENGTH, 0.0)


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
    :ivar steps: that the session makes; 0: no end is set.
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
        self.steps = 0
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
        state, weights = self._state(step), self._knobs.reward_weights()
        read = lambda place, tokens: self._read(asked[place], tokens, state, weights)  # noqa: E731
        with self._left_alone(), self._pool.round(read, self._control.wake) as scoring:
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
                    drawing=prompts[i].drawing,
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
            try:
                self._tokens[prompt.id] = self._policy.encode_prompt(prompt.messages or prompt.text)
            except UsageError as error:
                raise UnusablePrompt(f"prompt {prompt.id}: {error}") from None
        tokens, context = self._tokens[prompt.id], self._policy.context
        if context is not None and len(tokens) + self._knobs.whole("max_new_tokens") > context:
            raise UnusablePrompt(
                f"prompt {prompt.id} has {len(tokens):,} tokens, and the model's context of {context:,} leaves no room "
                "for max_new_tokens; set that lower, or leave the prompt out"
            )
        return tokens

    def _state(self, step: int) -> dict[str, Any]:
        """What reward functions are told of the run: as the trainer's state has it in TRL."""
        return {"global_step": step - 1, "max_steps": self.steps}

    @contextlib.contextmanager
    def _left_alone(self) -> Iterator[None]:
        """Where the step is left, nobody wants the answer of a reward function any more."""
        try:
            yield
        except BaseException:
            if self.task.named is not None:
                self.task.named.process.leave()
            raise

    def _read(
        self,
        prompt: Prompt,
        tokens: Sequence[Sequence[int]],
        state: Mapping[str, Any],
        weights: Mapping[str, float],
    ) -> list[Read]:
        """On the scoring thread: the responses to a prompt as text, and the automatic reward of each."""
        texts = [self._policy.token_ends(row) for row in tokens]
        scored = score_group(self.task.components, prompt, [text for text, _ in texts], tokens, state, weights)
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

    def evaluate(
        self, most: int | None = None, samples: int | None = None, *, beside: bool = False, finished: int = 0
    ) -> Evaluation:
        """Answer the held-out prompts, greedily with ``eval_temperature`` 0; draws no random number of training.

        :param most: only the first so many; None: all.
        :param samples: further answers to each prompt, for pass@k; None: ``eval_samples``.
        :param beside: whether it is made inside another phase, which neither counts it nor lets it pause.
        :param finished: steps, which reward functions are told.
        :raises SessionError: if the task has none.
        """
        if not self.task.evaluation:
            raise SessionError(f"the task {self.task.name} holds no prompts out; nothing can be evaluated")
        count = self._knobs.whole("eval_samples") if samples is None else samples
        prompts = self.task.evaluation[:most]
        if beside:
            self._control.aside = f"evaluating 0/{len(prompts)}"
        else:
            self._control.begin("evaluating", len(prompts))
        mine = list(prompts[self._rank :: self._ranks])
        rows = max(1, EVALUATION_ROWS // max(1, count))
        answers: list[HeldOutAnswer] = []

        def look(finished: int) -> None:
            """Between decode steps, with how many of the responses asked for at once have ended."""
            answered = len(answers) + finished // (1 + count)
            if beside:
                self._control.aside = f"evaluating {answered}/{len(mine)}"
                self._control.raise_wishes()
            else:
                self._control.advance(answered, len(mine))

        try:
            for start in range(0, len(mine), rows):
                asked = mine[start : start + rows]
                answers += self._answer(asked, count, self._state(finished + 1), look, beside=beside)
                if not beside:
                    look(0)
        finally:
            self._control.aside = ""
        if self._ranks > 1:
            parts = gather_object([answers])
            answers = [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]
        levels = level_accuracy([p.level for p in prompts], [bool(a.greedy.right) for a in answers])
        by_level = {f"eval/accuracy_{level}": share for level, share in levels.items()}
        return Evaluation(answers, metrics_of(answers) | by_level)

    def _answer(
        self,
        prompts: Sequence[Prompt],
        count: int,
        state: Mapping[str, Any],
        look: Callable[[int], None],
        *,
        beside: bool,
    ) -> list[HeldOutAnswer]:
        """The answer to each prompt, and ``count`` samples of it, judged and scored as responses are."""
        length, temperature = self._knobs.whole("max_new_tokens"), self._knobs.number("eval_temperature")
        seed, weights = self._evaluation_seed, self._knobs.reward_weights()
        noise = np.stack([evaluation_noise(seed, p.id, length) for p in prompts]) if temperature else None
        first = self._ask_held_out(prompts, 1, temperature or 1.0, noise, look)
        more = Samples()
        if count:
            drawn = [held_out_noise(seed, p.id, i, length) for p in prompts for i in range(count)]
            at = temperature or self._knobs.number("temperature")
            more = self._ask_held_out(prompts, count, at, np.stack(drawn), lambda ended: look(len(prompts) + ended))
        own = [[i, *range(len(prompts) + i * count, len(prompts) + (i + 1) * count)] for i in range(len(prompts))]
        tokens, ended = [*first.tokens, *more.tokens], [*first.ended, *more.ended]

        def read(place: int, rows: list[list[int]]) -> list[tuple[str, Scored, bool | None]]:
            texts = [self._policy.decode(row) for row in rows]
            with unlogged():
                scored = score_group(self.task.components, prompts[place], texts, rows, state, weights)
            right = [self._judged(prompts[place], text) for text in texts]  # here, as a judge may take long, too
            return list(zip(texts, scored, right, strict=True))

        found = []
        left = contextlib.nullcontext() if beside else self._left_alone()
        with left, self._pool.round(read, self._control.wake) as scoring:
            for place, rows in enumerate(own):
                scoring.submit(place, [tokens[row] for row in rows])
            for place, rows in enumerate(own):
                self._control.wait_for(lambda place=place: scoring.done(place), pauses=not beside)  # type: ignore[misc]
                texts = scoring.result(place)
                answered = [
                    Sample(
                        text=text,
                        length=len(tokens[row]),
                        ended=ended[row],
                        right=right,
                        reward=scored.reward,
                    )
                    for row, (text, scored, right) in zip(rows, texts, strict=True)
                ]
                found.append(
                    HeldOutAnswer(
                        prompt_id=prompts[place].id,
                        prompt=prompts[place].text,
                        reference=prompts[place].answer,
                        greedy=answered[0],
                        components=texts[0][1].components,
                        samples=answered[1:],
                    )
                )
        return found

    def _judged(self, prompt: Prompt, text: str) -> bool | None:
        return None if self.task.judge is None else bool(self.task.judge(prompt, text))

    def _ask_held_out(
        self,
        prompts: Sequence[Prompt],
        count: int,
        temperature: float,
        noise: npt.NDArray[np.float64] | None,
        look: Callable[[int], None],
    ) -> Samples:
        return sample(
            self._policy,
            [self._encode(p) for p in prompts],
            count,
            self._knobs.whole("max_new_tokens"),
            temperature,
            noise,
            truncation=self._truncation("eval_"),
            shortcuts=self._shortcuts,
            safe_point=lambda ended, rows: look(ended),
        )


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
