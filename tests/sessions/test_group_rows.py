"""Groups as rows: every field of every group comes back, and an update leaves what it does not bring."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.group_rows import MEASURED, SAMPLED, STAYS, pack_body, pack_measured, pack_sampled, unpack
from sessions.records import Group, Response, ResponseName
from sessions.store import Store
from tests.sessions.old_databases import write_old
from tests.sessions.samples import group, step_record

on_disk = settings(max_examples=30, deadline=None)
text = st.text(st.characters(codec="utf-8"), max_size=8)
number = st.none() | st.floats(allow_nan=False)
integers = st.lists(st.integers(0, 2**32 - 1), max_size=4)
floats = st.lists(st.floats(width=32, allow_nan=False), max_size=4)
FIELDS = {
    "letter": text,
    "text": text,
    "length": st.integers(0, 2**40),
    "ended": st.booleans(),
    "components": st.dictionaries(text, st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    "failed": text,
    "reward": number,
    "rated_reward": number,
    "advantage": number,
    "automatic_advantage": number,
    "kl": number,
    "heads": st.lists(st.floats(-1e6, 1e6), max_size=4),
    "repetition": number,
    "tokens": integers,
    "ends": integers,
    "logprobs": floats,
    "reference_logprobs": floats,
    "entropies": floats,
    "values": floats,
    "returns": floats,
    "advantages": floats,
}
responses = st.builds(Response, **FIELDS)


def groups(count: int | None = None) -> st.SearchStrategy[Group]:
    """Groups of any content, by default of any size."""
    return st.builds(
        Group,
        branch=st.just("main"),
        step=st.just(3),
        number=st.just(1),
        prompt_id=text,
        prompt=text,
        answer=text,
        temperature=st.floats(0, 10),
        responses=st.lists(responses, min_size=count or 0, max_size=3 if count is None else count),
        status=st.sampled_from(["scored", "updated", "discarded", "replaced"]),
        prompt_tokens=integers,
    )


def read(group: Group, *tokens: bytes | None) -> Group:
    return unpack(group.branch, group.step, group.number, group.status, pack_body(group), *tokens)


def without_tokens(group: Group) -> Group:
    bare = [msgspec.structs.replace(r, **{name: [] for name in (*SAMPLED, *MEASURED)}) for r in group.responses]
    return msgspec.structs.replace(group, responses=bare)


def updated(first: Response, second: Response) -> Response:
    """What is kept of a response after an update: what sampling made stays, and what was not measured again."""
    stays = {name: getattr(second, name) or getattr(first, name) for name in STAYS}
    return msgspec.structs.replace(second, **{name: getattr(first, name) for name in SAMPLED}, **stays)


def test_no_field_of_a_response_is_left_out_here() -> None:
    assert set(FIELDS) == set(Response.__struct_fields__)


@given(groups())
def test_a_group_comes_back_as_it_went_in(made: Group) -> None:
    assert read(made, pack_sampled(made.responses), pack_measured(made.responses)) == made
    assert read(made) == without_tokens(made)


@given(groups(2), groups(2))
def test_an_update_leaves_the_measurements_that_it_does_not_bring(first: Group, second: Group) -> None:
    measured = pack_measured(second.responses, pack_measured(first.responses))
    expected = [updated(then, now) for then, now in zip(first.responses, second.responses, strict=True)]
    assert read(second, pack_sampled(first.responses), measured).responses == expected


@on_disk
@given(st.lists(groups(2), min_size=1, max_size=3))
def test_a_store_keeps_what_the_last_update_left(made: Sequence[Group]) -> None:
    """Scored, and then updated any number of times."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "session.db")
        store.add_groups([made[0]])
        expected = made[0].responses
        for update in made[1:]:
            store.add_step(step_record(3), [update], keep_token_steps=500)
            expected = [updated(then, now) for then, now in zip(expected, update.responses, strict=True)]
        whole = msgspec.structs.replace(made[-1], responses=expected)
        assert store.group(ResponseName(3, 1), "main") == whole
        assert store.group(ResponseName(3, 1), "main", tokens=False) == without_tokens(whole)
        store.close()


@on_disk
@given(groups(), st.sampled_from([1, 2]))
def test_a_group_of_an_earlier_version_is_read_and_moved_as_it_was(made: Group, version: int) -> None:
    for response in made.responses:
        response.heads, response.repetition = [], None
    if version == 1:
        for response in made.responses:
            response.values, response.returns, response.advantages = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.db"
        write_old(path, version, [made])
        for read_only in (True, False, True):
            store = Store(path, read_only=read_only)
            assert store.group(ResponseName(3, 1), "main") == made
            assert store.group(ResponseName(3, 1), "main", tokens=False) == without_tokens(made)
            store.close()


def test_what_is_not_a_number_is_not_known() -> None:
    made = group(rewards=[1.0])
    made.responses[0].kl = made.responses[0].advantage = math.nan
    made.responses[0].automatic_advantage = math.inf
    kept = read(made).responses[0]
    assert (kept.kl, kept.advantage, kept.automatic_advantage, kept.reward) == (None, None, math.inf, 1.0)


def test_a_number_too_large_for_32_bits_is_infinite() -> None:
    made = group(rewards=[1.0])
    made.responses[0].returns = [1e300, -1e300, 1.5]
    assert read(made, None, pack_measured(made.responses)).responses[0].returns == [math.inf, -math.inf, 1.5]


def test_the_messages_of_a_question_are_kept_and_what_is_said_of_it_is_a_conversation_too() -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2="}]
    made = msgspec.structs.replace(group(), messages=messages)
    found = unpack(made.branch, made.step, made.number, made.status, pack_body(made))
    assert found.messages == messages
    assert (found.asked, found.said("4")) == (messages, [{"role": "assistant", "content": "4"}])
    plain = unpack(made.branch, made.step, made.number, made.status, pack_body(group()))
    assert (plain.asked, plain.said("4"), plain.messages) == (plain.prompt, "4", [])
