"""Every kind of reward, once: its name, its options and what they do.

Validation, help, the documentation and ``workbench new`` come from here; ``engine/rewards`` makes the functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessions import reward_checks as checks
from sessions.errors import InputFileError, InvalidValue, UnknownName, UsageError
from sessions.paths import expanded
from sessions.records import REWARD_MODEL
from sessions.reward_files import check_reward_file
from sessions.specs import Kind, Option, OptionValue, Spec, kinds, parse_spec

_NAMED = re.compile(r"(?P<where>.+):(?P<function>[A-Za-z_][\w.]*)")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
COMPONENT_NAME = re.compile(r"[^\W\d]\w{0,39}")
"""What a component can be called."""

TAKEN = (
    "mean",
    "std",
    "automatic",
    "length_correlation",
    "repetition_correlation",
    "overlong",
    "truncation",
    REWARD_MODEL,
)
"""Names that no component can have: ``reward/NAME`` is another metric, or the engine's own component."""

COMMON = (
    Option("weight", "number", 1.0, "of the component; 0: measured and shown, and does not teach", low=-1e6, high=1e6),
    Option("name", "text", "", "of the component, where the reward's own name will not do"),
)
"""What every reward takes."""

BOUNDS = (
    Option("low", "number", 0.0, "least value that it gives: people's ratings map onto the range of the whole reward"),
    Option("high", "number", 1.0, "greatest value that it gives"),
)
"""What those take whose values only the person knows."""

_UNIT = Option(
    "unit", "text", "tokens", "what is counted; the end token is one", choices=("tokens", "words", "characters")
)
_AFTER = Option("after", "text", "", "compare only what follows the last of these, such as </think>; without one: 0")

REWARD_KINDS = kinds(
    Kind("task", "the task's own components, as they come with it", (), example="task"),
    Kind(
        "exact",
        "1 when the response is the answer; else 0",
        (
            Option("case", "switch", True, "whether upper and lower case differ"),
            Option(
                "blanks",
                "text",
                "ends",
                "that do not count: at both ends, how long runs between words are, all, or none",
                choices=("ends", "runs", "all", "none"),
            ),
            _AFTER,
            *COMMON,
        ),
        example="exact case=false blanks=runs",
    ),
    Kind(
        "last_number",
        "1 when the last number of the response is that of the answer; else 0",
        (
            Option("tolerance", "number", 0.0, "largest difference that counts as equal", low=0, high=1e300),
            *COMMON,
        ),
        example="last_number tolerance=0.01",
    ),
    Kind(
        "math",
        "1 when the response's LaTeX answer is mathematically the answer; else 0",
        (_AFTER, *COMMON),
        needs="math",
        example="math after='</think>'",
        counterpart="TRL: accuracy_reward; with after='</think>' reasoning_accuracy_reward",
        check=checks.check_math,
    ),
    Kind(
        "cosine",
        "right or wrong, scaled by length: right answers are worth more when short, wrong ones when long",
        (
            Option("limit", "whole", None, "length at which and beyond which the long values hold", low=1, high=1e9),
            Option("correct", "text", "math", "what says which are right", choices=("math", "exact", "last_number")),
            Option("right_short", "number", 1.0, "of a right response of no length", low=-1e6, high=1e6),
            Option("right_long", "number", 0.5, "of a right one at the limit", low=-1e6, high=1e6),
            Option("wrong_short", "number", -1.0, "of a wrong one of no length", low=-1e6, high=1e6),
            Option("wrong_long", "number", -0.5, "of a wrong one at the limit", low=-1e6, high=1e6),
            _UNIT,
            _AFTER,
            *COMMON,
        ),
        example="cosine limit=512 correct=last_number",
        counterpart="TRL: get_cosine_scaled_reward",
        check=checks.check_cosine,
    ),
    Kind(
        "regex",
        "a value when a regular expression matches, another when not",
        (
            Option("pattern", "text", None, "as Python's re reads it; . matches a line's end too"),
            Option("match", "text", "search", "anywhere, or all of the response", choices=("search", "full")),
            Option("case", "switch", True, "whether upper and lower case differ"),
            Option("value", "number", 1.0, "when it matches", low=-1e6, high=1e6),
            Option("otherwise", "number", 0.0, "when it does not", low=-1e6, high=1e6),
            *COMMON,
        ),
        example=r"regex pattern='#### -?\d+$'",
        check=checks.check_regex,
    ),
    Kind(
        "json",
        "1 when the response is valid JSON with what is asked for; else 0",
        (
            Option("part", "text", "whole", "all of it, or its first fenced block", choices=("whole", "fence")),
            Option("keys", "names", "", "that have to be there; any make it an object"),
            Option("schema", "path", "", "a JSON Schema file: types, values, properties, items and bounds"),
            Option("partial", "number", 0.0, "for JSON that is not what is asked for", low=-1e6, high=1e6),
            *COMMON,
        ),
        example="json part=fence keys=name,age",
        check=checks.check_json,
    ),
    Kind(
        "format",
        "1 when tags open and close once each, in order; else 0",
        (
            Option("tags", "names", "think,answer", "in their order"),
            Option("rest", "switch", True, "whether text may follow the last tag"),
            Option("opened", "switch", False, "the prompt ends with the first tag already"),
            Option("partial", "switch", False, "parts of 1: for each mark that stands there once, and for the whole"),
            *COMMON,
        ),
        example="format tags=think weight=0.1",
        counterpart="TRL: think_format_reward, with tags=think",
        check=checks.check_format,
    ),
    Kind(
        "length",
        "a penalty from -1 to 0 for length",
        (
            Option("target", "whole", None, "length without a penalty", low=0, high=1e9),
            Option(
                "limit",
                "whole",
                0,
                "length of the full penalty (linear, cosine); 0: beyond the target",
                low=0,
                high=1e9,
            ),
            Option(
                "shape",
                "text",
                "linear",
                "0 up to the target, then down to the limit; or down on both sides of the target",
                choices=("linear", "cosine", "distance"),
            ),
            _UNIT,
            *COMMON,
        ),
        example="length target=384 limit=512",
        counterpart="TRL: get_soft_overlong_punishment(max_completion_len=limit, soft_punish_cache=limit-target)",
        check=checks.check_length,
    ),
    Kind(
        "repetition",
        "a penalty for n-grams that came before in the response",
        (
            Option("n", "whole", 3, "length of an n-gram", low=1, high=1000),
            Option("penalty", "number", -1.0, "when all is repetition; in proportion before", low=-1e6, high=0),
            Option("unit", "text", "tokens", "of what an n-gram consists", choices=("tokens", "words")),
            *COMMON,
        ),
        example="repetition n=4 penalty=-0.5",
        counterpart="TRL: get_repetition_penalty_reward(ngram_size=n, max_penalty=penalty)",
    ),
    Kind(
        "model",
        "the logit of a reward model: sequence classification with one label",
        (
            Option("path", "path", None, "folder of the model, its tokenizer beside it"),
            Option("chat", "switch", False, "put plain prompts through its chat template too, as the user's message"),
            *COMMON,
            *BOUNDS,
        ),
        example="model path=my-reward-model",
        counterpart="TRL: a model's name or folder among reward_funcs",
        check=checks.check_model,
    ),
    Kind(
        "command",
        "what a program says that reads a line of JSON for each group and writes one",
        (
            Option("run", "text", None, "the program and its arguments"),
            Option("folder", "path", "", "where it runs (where the session was started)"),
            Option("shell", "switch", False, "have /bin/sh read run"),
            *COMMON,
            *BOUNDS,
        ),
        example="command run='python score.py'",
        check=checks.check_command,
    ),
)
"""Built-in rewards by name."""

NEED_ANSWERS = frozenset({"exact", "last_number", "math", "cosine"})
"""Those that do not apply where there is no reference answer."""

NAMED = Kind("named", "a function of a module or a file, with TRL's signature", (*COMMON, *BOUNDS))

_RANGES: dict[str, Callable[[Mapping[str, Any]], tuple[float, ...]]] = {
    "cosine": lambda o: (o["right_short"], o["right_long"], o["wrong_short"], o["wrong_long"]),
    "regex": lambda o: (o["value"], o["otherwise"]),
    "json": lambda o: (0.0, 1.0, o["partial"]),
    "length": lambda o: (-1.0, 0.0),
    "repetition": lambda o: (o["penalty"], 0.0),
}
"""Kind -> values between which all of its values are; others have ``low`` and ``high``, or 0 and 1."""


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One ``--reward``, read.

    :ivar kind: whose options ``options`` holds, all of them.
    :ivar name: of the component.
    """

    spec: Spec
    kind: Kind
    name: str
    weight: float
    options: dict[str, OptionValue]

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that it gives, unweighted."""
        ends = (self.options.get("low", 0.0), self.options.get("high", 1.0))
        values = _RANGES[self.kind.name](self.options) if self.kind.name in _RANGES else ends
        numbers = [float(value) for value in values]
        return min(numbers), max(numbers)


def range_of(rewards: Iterable[RewardSpec], own: tuple[float, float]) -> tuple[float, float]:
    """The range of the weighted sum of some rewards, as they are weighed at the start.

    :param own: that of the task's own components together.
    """
    low = high = 0.0
    for reward in rewards:
        ends = own if reward.kind.name == "task" else tuple(reward.weight * end for end in reward.bounds)
        low, high = low + min(ends), high + max(ends)
    return (low, high) if low < high else own


def reward_kind(spec: Spec) -> Kind:
    """What kind of reward a spec names.

    :raises UnknownName: if nothing answers to it.
    :raises UsageError: if it is a file or a module, and no function of it.
    """
    if spec.use in REWARD_KINDS:
        return REWARD_KINDS[spec.use]
    if _NAMED.fullmatch(spec.use):
        return NAMED
    if spec.use.removesuffix(":").endswith(".py"):
        path = spec.use.removesuffix(":")
        raise UsageError(f"reward {spec.use}: which function of that file? {path}:FUNCTION")
    if _DOTTED.fullmatch(spec.use):
        module, _, function = spec.use.rpartition(".")
        raise UsageError(f"reward {spec.use}: a function of a module has a colon before its name: {module}:{function}")
    raise UnknownName("reward", spec.use, (*REWARD_KINDS, "module:function", "file.py:function"))


def named_parts(use: str) -> tuple[str, str]:
    """``module:function`` or ``file.py:function`` as its two parts.

    :raises InvalidValue: if it is neither.
    """
    found = _NAMED.fullmatch(use)
    if found is None:
        raise InvalidValue(f"reward {use!r} should read module:function or file.py:function")
    return found["where"], found["function"]


def read_rewards(texts: list[str]) -> list[RewardSpec]:
    """Every reward of a session, in order.

    :raises UsageError: if one cannot be read, or two would have the same name.
    """
    read: list[RewardSpec] = []
    for text in texts:
        spec = parse_spec(text, "reward")
        kind = reward_kind(spec)
        options = kind.read(spec, "reward")
        name = str(options.get("name", "")) or _own_name(spec, kind)
        if not COMPONENT_NAME.fullmatch(name):
            raise InvalidValue(
                f"reward {spec.use}: {name!r} cannot name a component: letters, digits and _, at most 40; add name=..."
            )
        if name in TAKEN:
            raise UsageError(f"reward {spec.use}: {name} is the name of something else; add name=... to it")
        if (low := options.get("low", 0.0)) >= (high := options.get("high", 1.0)):  # type: ignore[operator]
            raise InvalidValue(f"reward {spec.use}: low={low} is not below high={high}")
        if any(other.name == name for other in read):
            raise UsageError(f"reward {spec.use}: there is another component {name}; add name=... to one of them")
        read.append(RewardSpec(spec, kind, name, float(options.get("weight", 1.0)), options))
    return read


def check_rewards(texts: list[str]) -> list[str]:
    """The words of every reward with its options checked and paths absolute; none where they are the task's own.

    :raises UsageError: one line that says what, where and what to do.
    """
    checked = [str(_absolute(reward.kind.canonical(reward.spec, "reward"))) for reward in read_rewards(texts)]
    return [] if checked == ["task"] else checked


def check_answers(rewards: list[RewardSpec], task: str) -> None:
    """Of a task without reference answers: whether the rewards can do without them.

    :raises UsageError: naming the reward that cannot.
    """
    for reward in rewards:
        if reward.kind.name in NEED_ANSWERS:
            raise UsageError(
                f"reward {reward.spec.use}: it compares with a reference answer, and the task {task} has none; "
                "name the column with answer=COLUMN, or choose another reward"
            )


def has_modules(texts: list[str]) -> bool:
    """Whether a reward is a function of a module, which has to be looked for."""
    read = [reward for reward in read_rewards(texts) if reward.kind is NAMED]
    return any(not named_parts(reward.spec.use)[0].endswith(".py") for reward in read)


def _own_name(spec: Spec, kind: Kind) -> str:
    return named_parts(spec.use)[1].rsplit(".", 1)[-1] if kind is NAMED else spec.use.replace("-", "_")


def _absolute(spec: Spec) -> Spec:
    if spec.use == "command" and "folder" not in spec.options:
        return reward_kind(spec).canonical(Spec(spec.use, {**spec.options, "folder": str(Path.cwd())}), "reward")
    if reward_kind(spec) is not NAMED:
        return spec
    where, function = named_parts(spec.use)
    if not where.endswith(".py"):
        if "/" in where or Path(where).is_file():
            raise InputFileError(
                f"reward {spec.use}: {where} is no file of Python; functions are in FILE.py, or a module"
            )
        return spec
    path = expanded(where)
    if not path.is_file():
        raise InputFileError(f"reward {spec.use}: no such file")
    check_reward_file(path.resolve(), function)
    return Spec(f"{path.resolve()}:{function}", spec.options)
