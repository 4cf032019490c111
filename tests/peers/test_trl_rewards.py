"""The built-in rewards beside TRL's own functions, and the schemas beside jsonschema."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from engine.rewards.functions import exact
from engine.rewards.json_text import strict_json
from engine.rewards.lengths import length, scaled_by_length
from engine.rewards.math_answers import accuracy
from engine.rewards.repeats import repetition
from engine.rewards.schema import compile_schema
from engine.rewards.tags import tagged
from tests.peers.conftest import Compare

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

ANSWERS = [
    r"so \boxed{\frac{2}{6}}", r"\boxed{0.75}", r"\boxed{3/4}", "The final answer is $x + 1$.", r"$x + 1$", "72",
    r"\boxed{72}", r"$7$ but \boxed{3} $8$", r"\boxed{1{,}000}", r"\boxed{50\%}", r"\boxed{5 \text{ cm}}",
    r"\boxed{(1, 2)}", r"\boxed{\{1, 2\}}", r"\boxed{\sqrt{2}}", r"\boxed{x^2 = 4}", r"\boxed{", "",
    r"\boxed{2}, \boxed{3}",
]  # fmt: skip
GOLDS = [r"\frac{1}{3}", "3/4", "$1+x$", "72", "3", "1,000", "0.5", "5", "$(1,2)$", r"$\{2, 1\}$", r"$\sqrt{2}$", "???",
         "", "$x^2=4$"]  # fmt: skip


def chat(texts: list[str]) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def numbers(values: list[Any]) -> list[float]:
    return [-9.0 if value is None else float(value) for value in values]


def test_mathematical_answers(compare: Compare) -> None:
    from trl.rewards import accuracy_reward, reasoning_accuracy_reward

    pairs = [(text, gold) for text in ANSWERS for gold in GOLDS]
    texts, golds = [text for text, _ in pairs], [gold for _, gold in pairs]
    ours, theirs = accuracy([], texts, golds), accuracy_reward(chat(texts), golds)
    assert 10 < sum(value == 1 for value in theirs) < len(pairs)
    assert None in theirs
    compare("TRL accuracy_reward", numbers(ours), numbers(theirs))
    texts = [f"<think>{a}</think>{b}" for a, b in zip(texts, reversed(texts), strict=True)] + texts
    ours = accuracy([], texts, golds * 2, mark="</think>")
    compare("TRL reasoning_accuracy_reward", numbers(ours), numbers(reasoning_accuracy_reward(chat(texts), golds * 2)))


def test_right_and_wrong_scaled_by_length(compare: Compare) -> None:
    from trl.rewards import get_cosine_scaled_reward

    rng = random.Random(0)
    texts = [r"\boxed{5}" if rng.random() < 0.5 else r"\boxed{6}" for _ in range(60)]
    ids = [[1] * rng.randint(0, 70) for _ in texts]
    golds = [rng.choice(["5", "5", "???"]) for _ in texts]
    for values in ((-1.0, -0.5, 0.5, 1.0), (-10.0, 0.0, 1.0, 2.0)):
        theirs = get_cosine_scaled_reward(50, *values)(chat(texts), golds, ids)
        ours = scaled_by_length(accuracy, limit=50, right=(values[3], values[2]), wrong=(values[0], values[1]))
        found = ours(prompts=texts, completions=texts, completion_ids=ids, answer=golds)
        compare("TRL get_cosine_scaled_reward", numbers(list(found)), numbers(theirs))


def test_lengths(compare: Compare) -> None:
    from trl.rewards import get_soft_overlong_punishment

    ids = [[1] * n for n in range(130)]
    for longest, cache in ((100, 20), (100, 100), (64, 1), (50, 0)):
        theirs = get_soft_overlong_punishment(longest, cache)(completion_ids=ids)
        ours = length(target=longest - cache, limit=longest)
        found = ours(prompts=ids, completions=["x"] * 130, completion_ids=ids)
        compare("TRL get_soft_overlong_punishment", list(found), theirs)


def test_repetition(compare: Compare) -> None:
    from trl.rewards import get_repetition_penalty_reward

    rng = random.Random(1)
    ids = [[rng.randrange(4) for _ in range(rng.randrange(30))] for _ in range(200)]
    for n, penalty in ((1, -1.0), (2, -0.5), (3, -1.0), (7, -3.0)):
        theirs = get_repetition_penalty_reward(n, penalty)(completion_ids=ids)
        ours = repetition(n=n, penalty=penalty)(prompts=ids, completions=["x"] * 200, completion_ids=ids)
        compare("TRL get_repetition_penalty_reward", list(ours), theirs)


def test_thinking_in_tags(compare: Compare) -> None:
    """They differ where the page says so: blanks before the first tag, and more than one end of it."""
    from trl.rewards import think_format_reward

    rng = random.Random(2)
    pieces = ["<think>", "</think>", "x", "\n", " ", "<answer>"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 6))) for _ in range(4000)]
    texts = [text for text in texts if text == text.lstrip() and text.count("</think>") < 2]
    theirs = think_format_reward(chat(texts))
    assert sum(theirs) > 50
    compare("TRL think_format_reward", numbers(tagged(["think"])([], texts)), theirs)


def test_messages_as_trl_hands_them_over() -> None:
    assert exact()(prompts=[[]], completions=chat([" 5 "]), answer=["5"], trainer_state=None, log_extra=None) == [1.0]


def test_schemas_hold_where_jsonschema_says_so() -> None:
    from jsonschema import Draft202012Validator

    rng = random.Random(3)
    values = [0, 1, 1.0, -2, 2.5, True, False, None, "", "a", "abc", "é", [], [1], [True], ["a", 1], {}, {"a": 1}]
    values += [{"a": "x", "b": [1]}, {"b": None}, {"a": {"a": 1}}, [[1], [2]], {"a": [1, 2, 3]}]

    def schema(depth: int) -> Any:
        some: dict[str, Any] = {}
        for word in rng.sample(WORDS, rng.randint(0, 3)):
            match word:
                case "type":
                    some[word] = rng.choice(["null", "boolean", "number", "integer", "string", "array", "object",
                                             ["string", "integer"]])  # fmt: skip
                case "enum":
                    some[word] = rng.sample(values, 3)
                case "const":
                    some[word] = rng.choice(values)
                case "required":
                    some[word] = rng.sample(["a", "b"], rng.randint(0, 2))
                case "properties":
                    some[word] = {name: schema(depth - 1) for name in ("a", "b") if depth and rng.random() < 0.7}
                case "items" | "additionalProperties":
                    some[word] = schema(depth - 1) if depth else rng.random() < 0.5
                case "anyOf":
                    some[word] = [schema(depth - 1), schema(depth - 1)] if depth else [True]
                case _:
                    some[word] = rng.randint(0, 3)
        return some

    held = 0
    for _ in range(3000):
        one = schema(2)
        check, theirs = compile_schema(one), Draft202012Validator(one)
        for value in values:
            value = strict_json(json.dumps(value))
            assert check(value) == theirs.is_valid(value), (one, value)
            held += check(value)
    assert 5000 < held < 60_000


WORDS = ["type", "enum", "const", "required", "properties", "items", "additionalProperties", "anyOf",
         "minItems", "maxItems", "minLength", "maxLength",
         "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]  # fmt: skip
