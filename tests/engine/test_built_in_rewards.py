"""The built-in reward functions that are pure, beside counts and searches done by hand, and on hostile text."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rewards.component import Failed
from engine.rewards.functions import exact, numeric
from engine.rewards.json_text import fenced, strict_json, valid_json
from engine.rewards.lengths import length, scaled_by_length
from engine.rewards.loading import MAKERS, Surroundings, load_components
from engine.rewards.patterns import pattern_reward
from engine.rewards.repeats import repetition
from engine.rewards.schema import compile_schema
from engine.rewards.tags import tagged
from engine.rewards.texts import text_of
from engine.scoring import score_group
from engine.tasks.task import Prompt
from sessions.errors import InputFileError
from sessions.reward_kinds import COMMON, REWARD_KINDS, read_rewards

HOSTILE = [
    "",
    " \n\t\u2028\u00a0",
    "a" * 100_000,
    "<think>" * 20_000,
    "[" * 100_000,
    '{"a":' * 50_000,
    "1" * 100_000,
    "\x00\x1b[2J\x07\ufffd\u202e",
    "٣٤٫٥ 四十二 ⅷ ²",
    "```json\n" * 10_000,
    "😀" * 30_000,
    "\ud800 half of a pair",
    "\\boxed{" * 10_000,
    "-" * 50_000 + "." * 50_000,
]


def on(reward, *texts: str, **columns):
    """What a reward gives for texts; columns are the same for all."""
    repeated = {name: [value] * len(texts) for name, value in columns.items()}
    return reward(prompts=["q"] * len(texts), completions=list(texts), **repeated)


# --------------------------------------------------------------------------------------------- what a response says


def test_what_the_assistant_said_last_is_the_response() -> None:
    assert text_of("plain") == "plain"
    said = [{"role": "assistant", "content": "one"}, {"role": "tool", "content": "x"}]
    assert text_of(said) == "one"
    assert text_of([*said, {"role": "assistant", "content": "two"}]) == "two"
    assert text_of([{"role": "user", "content": "x"}]) == ""
    assert text_of([]) == ""
    assert text_of([{"role": "assistant", "content": None}]) == ""
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert text_of([{"role": "assistant", "content": parts}]) == "ab"


@pytest.mark.parametrize("name", sorted(REWARD_KINDS.keys() - {"task", "model", "command", "math"}))
def test_a_chat_message_and_its_text_get_the_same_reward_and_hostile_text_a_number(name: str) -> None:
    options = {
        "cosine": " limit=50 correct=exact unit=words",
        "length": " target=3 limit=9 unit=words",
        "repetition": " unit=words",
        "regex": r" pattern='(\d+)\D*$'",
    }
    components = load_components(read_rewards([name + options.get(name, "")]), {})
    plain = Prompt("p", "question", "42")
    chat = Prompt("p", "question", "42", messages=({"role": "user", "content": "question"},))
    texts = [*HOSTILE, "42", '{"a": 1}', "<think>x</think><answer>42</answer>"]
    as_text, as_chat = score_group(components, plain, texts), score_group(components, chat, texts)
    assert as_text == as_chat
    assert not any(scored.failed for scored in as_text)
    assert all(isinstance(scored.reward, float) for scored in as_text)


# --------------------------------------------------------------------------------------------- exact and last_number


def test_the_blanks_and_the_case_that_count_are_chosen() -> None:
    texts = ["a b", " a b\n", "a  b", "ab", "A B"]
    wanted = {"none": [1, 0, 0, 0, 0], "ends": [1, 1, 0, 0, 0], "runs": [1, 1, 1, 0, 0], "all": [1, 1, 1, 1, 0]}
    for blanks, values in wanted.items():
        assert on(exact(blanks=blanks), *texts, answer="a b") == values
        assert on(exact(blanks=blanks, case=False), *texts, answer="a b") == [*values[:4], 1]
    assert on(exact(case=False), "STRASSE", answer="straße") == [1]


def test_only_what_follows_the_last_mark_is_compared() -> None:
    reward = exact(mark="Answer:")
    assert on(reward, "so Answer: 4", "Answer: 5 no, Answer:4 ", "4", "Answer: 4 Answer:", answer="4") == [1, 1, 0, 0]


def test_without_a_reference_there_is_nothing_to_compare_with() -> None:
    assert on(exact(), "x", "", answer="") == [None, None]
    assert on(numeric(), "7", answer="") == [None]
    assert on(numeric(), "7", "none", answer="no number") == [None, None]


def test_numbers_are_equal_within_the_tolerance_ends_included() -> None:
    assert on(numeric(tolerance=0.1), "3.1", "3.2", "3.21", "3.05", "none", answer="3.1") == [1, 1, 0, 1, 0]
    assert on(numeric(), "3.10", "3.1000001", answer="3.1") == [1, 0]
    assert on(numeric(), "١٨", answer="18") == [1]  # digits are digits in every script


# --------------------------------------------------------------------------------------------- regular expressions


def test_a_pattern_is_searched_for_or_has_to_match_everything() -> None:
    texts = ["ab", "xaby", " ab\n", "a\nb", "AB"]
    assert on(pattern_reward("a.?b"), *texts) == [1, 1, 1, 1, 0]
    assert on(pattern_reward("a.?b", match="full"), *texts) == [1, 0, 1, 1, 0]
    assert on(pattern_reward("a.?b", case=False, value=-2, otherwise=5), *texts) == [-2, -2, -2, -2, -2]
    assert on(pattern_reward("^b", value=3, otherwise=-1), "b", "a\nb") == [3, -1]
    assert on(pattern_reward("start.*end$"), "start" + "-" * 50_000 + "end") == [1]


@given(st.text(alphabet="ab1 \n", max_size=12), st.sampled_from([r"a+b", r"^\s*\d", r"(a)\1", r"b$", r"[^ab]{2}", ""]))
def test_patterns_match_what_the_standard_library_matches(text: str, pattern: str) -> None:
    found = re.search(pattern, text, re.DOTALL) is not None
    whole = re.fullmatch(pattern, text.strip(), re.DOTALL) is not None
    assert on(pattern_reward(pattern), text) == [float(found)]
    assert on(pattern_reward(pattern, match="full"), text) == [float(whole)]


@pytest.mark.parametrize("match", ["search", "full"])
def test_a_pattern_that_backtracks_for_ever_fails_that_response_and_no_other(match: str) -> None:
    slow, quick = on(pattern_reward(r"(x+x+)+y", match=match, seconds=0.1), "x" * 5000, "xxy")
    assert isinstance(slow, Failed)
    assert "5,000 characters after 0.1 s" in str(slow)
    assert quick == 1
    (scored,) = score_group(
        load_components(read_rewards(["regex pattern=x"]), {}) | {"slow": _component(slow)}, Prompt("p", "q", ""), ["x"]
    )
    assert scored.reward is None
    assert scored.failed == f"slow: {slow}"


def _component(result):
    from engine.rewards import Component

    return Component(lambda **_: [result])


# --------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("text", "valid"),
    [('{"a": 1}', 1), (" [1, 2.5e3, null]\n", 1), ('"x"', 1), ("17", 1), ("1" * 5000, 1), ("", 0), ("{'a': 1}", 0),
     ('{"a": 1,}', 0), ("NaN", 0), ("[Infinity]", 0), ('{"a": 1} {"b": 2}', 0), ("so: {}", 0), ("01", 0),
     ('"\x01"', 0), ('"\\ud800"', 1), ("[" * 100_000 + "]" * 100_000, 0)],
)  # fmt: skip
def test_json_is_what_its_standard_says(text: str, valid: int) -> None:
    assert on(valid_json(), text) == [valid]


def test_the_first_fence_that_may_hold_json_is_read() -> None:
    reward = valid_json(part="fence")
    good = 'Look:\n```json\n{"a": 1}\n```\nand\n```\nno\n```'
    python_first = "```python\nprint()\n```\n```JSON\n[1]\n```"
    assert on(reward, good, python_first, "```\n3\n```", '{"a": 1}', "```json\n{}", "``` json\n{}\n```") == [
        1, 1, 1, 0, 0, 1,
    ]  # fmt: skip
    assert fenced("```py\n1\n```") is None


def test_keys_have_to_be_there_and_other_json_gets_the_partial_value() -> None:
    reward = valid_json(keys=("a", "b"), partial=0.25)
    assert on(reward, '{"a": null, "b": 0, "c": 1}', '{"a": 1}', '["a", "b"]', '"ab"', "{") == [1, 0.25, 0.25, 0.25, 0]


def test_a_schema_from_a_file_has_to_hold(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}}}')
    reward = valid_json(schema=str(path), partial=0.5)
    assert on(reward, '{"n": 1}', '{"n": 0}', '{"n": true}', '{"n": 2.0}', "{}", "nothing") == [1, 0.5, 0.5, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [("{", "Expecting"), ("3", "$: a schema is an object"), ('{"pattern": "a"}', "keyword 'pattern'"),
     ('{"properties": {"a": {"$ref": "#"}}}', "$.properties.a: the keyword '$ref'"), ('{"type": "text"}', "no type"),
     ('{"required": "a"}', "$.required: a list"), ('{"minimum": "a"}', "$.minimum: a number"), ("[" * 100_000, ""),
     ('{"enum": 3}', "$.enum"), ('{"anyOf": []}', "$.anyOf"), ('{"properties": []}', "$.properties"),
     ('{"minLength": true}', "$.minLength"), (None, "cannot be read (No such file")],
)  # fmt: skip
def test_a_schema_that_is_not_understood_is_refused_in_one_line(
    tmp_path: Path, schema: str | None, complaint: str
) -> None:
    path = tmp_path / "s.json"
    if schema is not None:
        path.write_text(schema)
    with pytest.raises(InputFileError) as refused:
        valid_json(schema=str(path))
    assert complaint in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


VALUES = ["null", "true", "false", "0", "1", "1.0", "-2.5", "1e400", '""', '"é"', '"abc"', "[]", "[1]", "[true]",
          "[1, 1.0]", "{}", '{"a": 1}', '{"a": "x", "b": []}']  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "valid"),  # written down from the specification
    [
        (True, VALUES),
        (False, []),
        ({}, VALUES),
        ({"type": "integer"}, ["0", "1", "1.0"]),
        ({"type": "number"}, ["0", "1", "1.0", "-2.5", "1e400"]),
        ({"type": ["null", "boolean"]}, ["null", "true", "false"]),
        ({"type": "string", "maxLength": 1}, ['""', '"é"']),
        ({"const": 1}, ["1", "1.0"]),
        ({"const": True}, ["true"]),
        ({"enum": [[1], {"a": 1}, False]}, ["false", "[1]", '{"a": 1}']),
        ({"type": "array", "minItems": 1, "items": {"type": "number"}}, ["[1]", "[1, 1.0]"]),
        ({"type": "array", "maxItems": 1}, ["[]", "[1]", "[true]"]),
        ({"type": "object", "required": ["a"]}, ['{"a": 1}', '{"a": "x", "b": []}']),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, ["{}", '{"a": "x", "b": []}']),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, ["{}", '{"a": 1}']),
        ({"type": "object", "additionalProperties": {"type": "number"}}, ["{}", '{"a": 1}']),
        ({"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]}, ["null", "[]"]),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, ["0"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["1", "1.0"]),
        ({"minLength": 3, "minimum": 2, "minItems": 2, "required": ["b"]},
         ["null", "true", "false", "1e400", '"abc"', "[1, 1.0]", '{"a": "x", "b": []}']),
    ],
)  # fmt: skip
def test_a_schema_holds_for_the_values_that_it_describes(schema, valid: list[str]) -> None:
    check = compile_schema(schema)
    assert [value for value in VALUES if check(strict_json(value))] == valid


# --------------------------------------------------------------------------------------------- tags


def by_hand(text: str, tags: list[str], rest: bool, opened: bool) -> bool:
    """The rule as one regular expression."""
    inside = rf"(?:(?!</?(?:{'|'.join(tags)})>).)*"
    pattern = r"\s*".join(f"<{tag}>{inside}</{tag}>" for tag in tags)
    start = r"\s*"
    if opened:
        pattern, start = pattern.removeprefix(f"<{tags[0]}>"), ""
    return re.fullmatch(start + pattern + (inside if rest else r"\s*"), text, re.DOTALL) is not None


def test_tags_open_and_close_once_each_in_order() -> None:
    rng = random.Random(0)
    pieces = ["<a>", "</a>", "<b>", "</b>", "x", " ", "\n"]
    right = Counter()
    for rest, opened in product((True, False), repeat=2):
        reward = tagged(["a", "b"], rest=rest, opened=opened)
        texts = ["".join(rng.choices(pieces, k=rng.randint(0, 7))) for _ in range(2000)]
        texts += ["".join(p for piece in order for p in (rng.choice(["", "", " ", "x"]), piece)) + rng.choice(["", "x"])
                  for order in [pieces[:4], pieces[1:4]] * 200]  # fmt: skip
        values = on(reward, *texts)
        assert values == [float(by_hand(text, ["a", "b"], rest, opened)) for text in texts]
        right[rest, opened] = sum(values)
    assert min(right.values()) > 20


def test_partial_credit_counts_the_marks_that_stand_there_once() -> None:
    reward = tagged(["a", "b"], partial=True)
    texts = ["<a></a><b></b>", "<a></a><b>", "</b><a></a><b>", "<a><a></a>", "nothing", "<a>x</a> y <b></b>"]
    assert on(reward, *texts) == pytest.approx([1, 3 / 5, 4 / 5, 1 / 5, 0, 4 / 5])


# --------------------------------------------------------------------------------------------- length


def lengths_of(reward, *counts: int):
    return reward(prompts=[""] * len(counts), completions=["x"] * len(counts), completion_ids=[[7] * n for n in counts])


def test_the_shapes_of_length_at_points_worked_out_by_hand() -> None:
    counts = (0, 8, 10, 12, 15, 18, 20, 21, 400)
    assert lengths_of(length(target=10, limit=20), *counts) == pytest.approx([0, 0, 0, -0.2, -0.5, -0.8, -1, -1, -1])
    fifth = (math.cos(math.pi / 5) - 1) / 2
    assert lengths_of(length(target=10, limit=20, shape="cosine"), *counts) == pytest.approx(
        [0, 0, 0, fifth, -0.5, -1 - fifth, -1, -1, -1]
    )
    assert lengths_of(length(target=10, limit=10, shape="distance"), *counts) == pytest.approx(
        [-1, -0.2, 0, -0.2, -0.5, -0.8, -1, -1, -1]
    )


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_without_a_limit_of_its_own_everything_beyond_the_target_costs_all(shape: str) -> None:
    reward = MAKERS["length"]({"target": 10, "limit": 0, "unit": "tokens", "shape": shape}, Surroundings())
    assert lengths_of(reward, 9, 10, 11, 30) == [0, 0, -1, -1]


def test_length_is_counted_in_the_unit_that_was_asked_for() -> None:
    text = "three  little wörds\n"
    ids = {"completion_ids": [[1, 2]]}
    for unit, n in (("tokens", 2), ("words", 3), ("characters", 20)):
        reward = length(target=0, limit=100, unit=unit)
        assert reward(prompts=["q"], completions=[text], **ids) == pytest.approx([-n / 100])
    with pytest.raises(ValueError, match="unit=words"):
        length(target=0, limit=10)(prompts=["q"], completions=[text])


def test_right_and_wrong_are_scaled_along_a_cosine_from_short_to_long() -> None:
    told = [1.0, 1.0, 1.0, 0.0, 0.5, None, Failed("why")]
    reward = scaled_by_length(lambda **_: told, limit=100)
    values = lengths_of(reward, 0, 50, 250, 0, 100, 50, 50)
    assert values[:5] == pytest.approx([1.0, 0.75, 0.5, -1.0, -0.5])
    assert values[5] is None
    assert values[6] is told[6]


def test_a_third_of_the_way_the_cosine_is_at_three_quarters() -> None:
    reward = scaled_by_length(lambda **_: [1.0], limit=3, right=(9.0, 1.0))
    assert lengths_of(reward, 1) == pytest.approx([7.0])  # cos 60 degrees is a half


# --------------------------------------------------------------------------------------------- repetition


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 5), st.floats(-3, 0))
def test_the_penalty_is_the_share_of_runs_that_came_before(tokens: list[int], n: int, penalty: float) -> None:
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    again = sum(run in runs[:i] for i, run in enumerate(runs))
    (value,) = repetition(n=n, penalty=penalty)(prompts=["q"], completions=["x"], completion_ids=[tokens])
    assert value == pytest.approx(penalty * again / len(runs) if runs else 0.0, abs=1e-12)


def test_words_repeat_whatever_their_case() -> None:
    assert on(repetition(n=2, unit="words", penalty=-4), "A b a  B", "a b c d", "a") == pytest.approx([-4 / 3, 0, 0])
    with pytest.raises(ValueError, match="unit=words"):
        on(repetition(), "a")


# --------------------------------------------------------------------------------------------- the table


def test_every_built_in_reward_has_a_maker_and_takes_what_every_reward_takes() -> None:
    assert MAKERS.keys() == REWARD_KINDS.keys() - {"task"}
    assert all(set(COMMON) <= set(REWARD_KINDS[name].options) for name in MAKERS)


def test_options_reach_the_functions() -> None:
    """Each option of the pure rewards, set to something else than its default, changes an outcome."""
    ids = [[1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1], [1]]
    texts = ["Answer: X y", "<think>a</think>b<answer>c</answer>", "5.01", "x</b>"]

    def values(words: str, answer: str) -> list[float | None]:
        function = load_components(read_rewards([words]), {})["it"].function
        return list(function(prompts=["q"] * 4, completions=texts, answer=[answer] * 4, completion_ids=ids))

    changed = [
        ("exact case=false", "answer: x Y"), ("exact blanks=all", "Answer:Xy"), ("exact after=Answer:", "X y"),
        ("last_number tolerance=0.1", "5"), ("regex pattern=x", "", "case=false"), ("regex pattern=X", "", "value=3"),
        ("regex pattern=X", "", "otherwise=3"), ("regex pattern=X", "", "match=full"),
        ("json", "", "part=fence"), ("json", "", "keys=a"), ("json keys=a", "", "partial=0.5"),
        ("format", "", "tags=think"), ("format tags=think", "", "rest=false"), ("format", "", "partial=true"),
        ("format tags=b", "", "opened=true"),
        ("length target=3", "", "limit=10"), ("length target=3", "", "unit=characters"),
        ("length target=8", "", "shape=distance"), ("length target=3 limit=20", "", "shape=cosine"),
        ("repetition", "", "n=2"), ("repetition", "", "penalty=-3"), ("repetition", "", "unit=words"),
        *(("cosine limit=10 correct=exact", "5.01", option) for option in (
            "limit=20", "right_short=7", "right_long=7", "wrong_short=7", "wrong_long=7", "unit=characters",
            "after=Answer:")),
        ("cosine limit=10 correct=exact", "= 5.01", "correct=last_number"),
    ]  # fmt: skip
    for words, answer, *option in changed:
        base, more = (words, option[0]) if option else (words.split()[0], words.split()[1])
        kept = " ".join(word for word in base.split() if word.split("=")[0] != more.split("=")[0])
        before = values(f"{base} name=it", answer)
        assert values(f"{kept} {more} name=it", answer) != before, (words, option)


def test_json_that_python_writes_is_valid() -> None:
    assert on(valid_json(), json.dumps({"é": [1, {"b": None}]}), json.dumps([1e300, -0.0])) == [1, 1]
