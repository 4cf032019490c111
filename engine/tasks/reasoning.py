"""The procedural tasks of the package reasoning-gym, with their own scoring.

An answer is what stands in the last ``<answer>`` tags of a response; where there are none it is the whole response,
unless ``tags=true``. It is scored by the task's ``score_answer``, from 0 to 1; right is what scores 1.

Some scorers of the package run the answer as Python code. What a model writes is never run: those scorers only get
answers that are plain literals or plain arithmetic (:data:`PLAIN`), others are worth what no answer is worth. A task
whose scorer evaluates text and is not known here is refused.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.rewards import Component
from engine.tasks.gym_options import gym_sets, gym_values
from engine.tasks.task import Prompt, Task
from engine.words import one_line
from sessions.errors import UsageError
from sessions.specs import OptionValue, Spec
from sessions.task_kinds import gym_name

HELD_OUT = 50
"""Proposed; at most a tenth of the questions."""
_EVALUATES = re.compile(r"(?<!re\.)\b(eval|exec|parse_expr|sympify|compile|__import__)\s*\(|\b(sp|sympy)\.S\(|pickle")
_TAGS = re.compile(r"<answer>\s?(.*?)\s?</answer>", re.DOTALL)
MOST_CHARACTERS = 4000
"""Of an answer that a scorer would run."""


def plain_literal(answer: str) -> bool:
    """Whether an answer is a list of texts or numbers as Python writes it, with nothing to run in it."""
    if len(answer) > MOST_CHARACTERS:
        return False
    try:
        ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


def plain_arithmetic(answer: str) -> bool:
    """Whether an answer is digits, the four signs and brackets, and no power, which can grow without end."""
    return len(answer) <= 300 and "**" not in answer and bool(re.fullmatch(r"[\d\s+\-*/().]*", answer))


_SMALL_POWER = re.compile(r"(\d{1,2}|\(\s*-?\d{1,2}(\s*/\s*\d{1,2})?\s*\))\s*([-+*/) ].*)?", re.DOTALL)
_FUNCTIONS = {"sin", "cos", "tan", "exp", "log", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh", "pi"}


def plain_formula(answer: str) -> bool:
    """Whether an answer is a formula of single letters, numbers and the functions of school, with small powers only."""
    if len(answer) > 300 or not re.fullmatch(r"[\w\s+\-*/().]*", answer, re.ASCII) or "_" in answer:
        return False
    if re.search(r"[A-Za-z)]\s*\.|\.\s*[A-Za-z(]|\d[A-Za-z]", answer):  # attributes; 0x.., 1e9, 2j
        return False
    if re.search(r"\d{13,}", answer) or any(
        len(word) > 1 and word not in _FUNCTIONS for word in re.findall(r"[A-Za-z]+", answer)
    ):
        return False
    powers = [part.strip() for part in answer.split("**")[1:]]
    small = all(_SMALL_POWER.fullmatch(power) for power in powers)
    chained = any(re.fullmatch(r"[\d\s(/)-]*", power) for power in powers[:-1])
    return small and not chained and len(powers) <= 12 and len(re.findall(r"\)\s*\*\*", answer)) <= 2


def anything(answer: str) -> bool:
    """Of scorers that only evaluate what they wrote themselves, or do so with a reader of their own."""
    return True


PLAIN: dict[str, Callable[[str], bool]] = {
    "binary_matrix": plain_literal,
    "n_queens": plain_literal,
    "spiral_matrix": plain_literal,
    "string_insertion": plain_literal,
    "countdown": plain_arithmetic,
    "puzzle24": plain_arithmetic,
    "intermediate_integration": plain_formula,
    "polynomial_multiplication": plain_formula,
    "simple_integration": plain_formula,
}
"""Task whose scorer runs the answer -> whether an answer is plain enough to be given to it."""


def reasoning_gym_task(spec: Spec, options: Mapping[str, OptionValue], seed: int) -> Task:
    """Make a task.

    :raises UsageError: naming the task, option or value that is wrong.
    """
    name, where = gym_name(spec), f"task {spec.use}"
    given = gym_values(name, options, where)
    size, wanted = int(options["size"]), int(options["held_out"])
    held = wanted or min(HELD_OUT, max(1, size // 10))
    own_seed = seed if options["seed"] == -1 else int(options["seed"])
    try:
        gym_class, config = gym_sets()[name]
        made = config(**given, size=size + held, seed=own_seed)
        if hasattr(made, "validate"):
            made.validate()
        gym = gym_class(config=made)
        entries = [gym[i] for i in range(size + held)]
    except Exception as error:  # noqa: BLE001 - its generators raise many kinds, AssertionError for a bad option first
        raise UsageError(f"{where}: cannot be made so ({one_line(error)})") from None
    system = _system(str(options["system"]))
    prompts = [_prompt(f"{name}:{own_seed}+{i}", entry, system) for i, entry in enumerate(entries)]
    evaluation = _once(prompts[size:], set())
    train = _once(prompts[:size], {p.text for p in evaluation})
    if not train:
        raise UsageError(f"{where}: of {size:,} questions none is left beside the held-out ones; lower held_out")
    scorer = Scorer(gym, name, required=bool(options["tags"]))
    scorer.refuse_unknown(where)
    notes = []
    if missing := size - len(train):
        notes.append(f"{missing:,} of {size:,} questions are repeated or held out and are not asked")
    return Task(
        name=name,
        prompts=train,
        evaluation=evaluation,
        components={"score": Component(scorer.reward)},
        reward_range=(0.0, 1.0),
        judge=scorer.judge,
        notes=tuple(notes),
        fingerprint=hashlib.blake2b(
            "\x1f".join(f"{p.text}\x1e{p.answer}" for p in prompts).encode(), digest_size=16
        ).hexdigest(),
    )


class Scorer:
    """Scores responses as the package does.

    :param required: whether only what stands in tags counts.
    """

    def __init__(self, gym: Any, name: str, *, required: bool) -> None:
        self._gym, self._required = gym, required
        self._name, self._plain = name, PLAIN.get(name, anything)

    def refuse_unknown(self, where: str) -> None:
        """:raises UsageError: if the scorer evaluates text and nobody has looked at it."""
        if self._name not in PLAIN and self._name not in LOOKED_AT and evaluates(type(self._gym)):
            raise UsageError(f"{where}: its scorer may run what the model writes as Python, which is refused")

    def reward(
        self,
        prompts: object,
        completions: Sequence[Any],
        completion_ids: object = None,
        trainer_state: object = None,
        **columns: Sequence[Any],
    ) -> list[float]:
        """The score of each response, 0 to 1; the columns are those of an entry of the package."""
        entries = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [self.score(text_of(c), entry) for c, entry in zip(completions, entries, strict=True)]

    def judge(self, prompt: Prompt, text: str) -> bool:
        """Whether a response scores in full."""
        return self.score(text, prompt.columns) >= 1

    def score(self, text: str, entry: Mapping[str, Any]) -> float:
        """The score of one; what its scorer cannot read scores 0."""
        answer = self.answer(text)
        if answer is not None and not self._plain(answer) and answer != entry["answer"]:
            answer = None
        try:
            return float(self._gym.score_answer(answer=answer, entry=dict(entry)))
        except Exception:  # noqa: BLE001 - the answer is a model's, and scorers trip over what they did not expect
            return 0.0

    def answer(self, text: str) -> str | None:
        """What counts of a response; None: nothing does."""
        found = _TAGS.findall(text)
        if found:
            return str(found[-1]).strip()
        return None if self._required else text.strip()


LOOKED_AT = {
    "basic_arithmetic", "bf", "bitwise_arithmetic", "codeio", "number_sorting", "propositional_logic"
}  # fmt: skip
"""Tasks whose modules evaluate text, though never the response's: read in version 0.1.25."""


def evaluates(gym: type) -> bool:
    """Whether the module of a task has in it what runs text."""
    module: types.ModuleType = sys.modules[gym.__module__]
    return bool(_EVALUATES.search(inspect.getsource(module)))


def text_of(completion: Any) -> str:
    """A response as text, also where it comes as chat messages."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def _prompt(name: str, entry: Mapping[str, Any], system: str) -> Prompt:
    question, answer = str(entry["question"]).strip(), entry["answer"]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}] if system else []
    return Prompt(name, question, "" if answer is None else str(answer), dict(entry), messages)


def _once(prompts: Sequence[Prompt], seen: set[str]) -> list[Prompt]:
    """Each question once, and none that was seen."""
    kept = []
    for prompt in prompts:
        if prompt.text not in seen:
            seen.add(prompt.text)
            kept.append(prompt)
    return kept


def _system(text: str) -> str:
    if not text:
        return ""
    from reasoning_gym.utils import SYSTEM_PROMPTS

    return str(SYSTEM_PROMPTS.get(text, text)).strip()
