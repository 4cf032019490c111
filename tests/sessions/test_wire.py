"""The messages: round trips, what is tolerated and what is refused."""

from __future__ import annotations

import asyncio
import json
import math
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import wire
from sessions.commands import COMMANDS, QueryGroup, Rate, Set
from sessions.errors import FrameTooLarge, MalformedFrame
from sessions.records import SeriesData, TaskInfo, head_of
from tests.sessions.samples import (
    alarm,
    change,
    checkpoint,
    group,
    rating,
    skip,
    status,
    step_record,
    use,
)

EVENTS: list[wire.AnyEvent] = [
    wire.StepDone(time=1.0, step=3, seq=9, record=step_record()),
    wire.GroupsScored(time=1.0, step=3, heads=[head_of(group())]),
    wire.GroupsChanged(time=1.0, step=3, heads=[head_of(group(), {"A": "4"})]),
    wire.RatingSaved(time=1.0, step=3, rating=rating(comment="ünïcode \x1b[31m \u2028", order=["B", "A"], blind=True)),
    wire.RatingRetracted(time=1.0, step=3, rating="r1", who="ann", used_in=4),
    wire.RatingUsed(time=1.0, step=3, use=use()),
    wire.Skipped(time=1.0, step=3, skip=skip()),
    wire.GroupPicked(time=1.0, step=3, group="3.1", rule="random", who="ann"),
    wire.Imported(time=1.0, step=3, who="ann", source="pairs.jsonl", ratings=1, orderings=20),
    wire.Evaluated(time=1.0, step=3, branch="main", metrics={"eval/accuracy": 0.5, "eval/pass@4": None}, who="ann"),
    wire.Changed(time=1.0, step=3, change=change(status="applied", applied_step=4)),
    wire.AlarmRaised(time=1.0, step=3, alarm=alarm(responses=["3.1A"], acknowledged=2.0)),
    wire.CheckpointSaved(time=1.0, step=3, checkpoint=checkpoint()),
    wire.Noted(time=1.0, step=3, kind="paused", text="ann paused", who="ann"),
]

MESSAGES: list[wire.ToClient] = [
    wire.Welcome(protocol=1, version="0.1.0", session="s", database="d", seq=4, pid=7),
    wire.Snapshot(
        seq=4,
        status=status(left=3.5, clients=["screen"]),
        task=TaskInfo(name="t", reward_range=(0.0, 1.0), components={"a": 1.0}, prompts=3, evaluation_prompts=2),
        values={"learning_rate": 1e-4, "group_size": 8, "rating_gate": "wait 2"},
        start_values={"learning_rate": 1e-4},
        series=[SeriesData(name="kl/k3", steps=[1, 2], values=[None, 0.5])],
        heads=[head_of(group())],
        ratings=[rating()],
        uses=[use()],
        changes=[change()],
        alarms=[alarm()],
        checkpoints=[checkpoint()],
        events=EVENTS,
        last_step=step_record(),
    ),
    wire.Delta(events=EVENTS),
    wire.Beat(status=status("PAUSED")),
    wire.Growing(step=3, group=1, groups=2, prompt="5+7=", texts=["1", ""], ended=[True, False]),
    wire.Answer(id="c", status="data", step=3, text="", data='{"a": 1}', page=1, pages=2),
    wire.Complaint(code="malformed", text="no", fatal=True),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_every_event_round_trips(event: wire.AnyEvent) -> None:
    assert wire.decode_event(wire.encode_event(event)) == event
    kind, line = wire.describe(event)
    assert kind
    assert line


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_round_trips(message: wire.ToClient) -> None:
    line = wire.encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert wire.decode_to_client(line) == message


@pytest.mark.parametrize("events", [EVENTS[:0], EVENTS[:1], EVENTS])
def test_events_encoded_one_by_one_make_the_line_of_a_delta(events: list[wire.AnyEvent]) -> None:
    assert wire.encode_delta(map(wire.encode_part, events)) == wire.encode(wire.Delta(events=events))


def test_the_lists_above_are_whole() -> None:
    assert {type(e) for e in EVENTS} == set(typing.get_args(wire.AnyEvent))
    assert {type(m) for m in MESSAGES} == set(typing.get_args(wire.ToClient))


def test_hello_round_trips() -> None:
    hello = wire.Hello(protocol=1, client="screen", seq=4, rate=2.0, read_only=True, terminal="pts/1")
    assert wire.decode_hello(wire.encode(hello)) == hello


@pytest.mark.parametrize("line", [b"", b"\n", b"{}", b"[]", b'{"type":"welcome"}', b"\xff\xfe", b'{"type":"hello"}'])
def test_a_bad_hello(line: bytes) -> None:
    with pytest.raises(MalformedFrame, match="expected hello"):
        wire.decode_hello(line)


def extended(line: bytes) -> bytes:
    """The same object with a field that this version does not know, at every level."""

    def extend(value: object) -> object:
        if isinstance(value, dict):
            return {k: extend(v) for k, v in value.items()} | {"from_the_future": [1, {"x": None}]}
        return [extend(v) for v in value] if isinstance(value, list) else value

    return json.dumps(extend(json.loads(line))).encode()


@pytest.mark.parametrize("message", [m for m in MESSAGES if isinstance(m, wire.Welcome | wire.Beat | wire.Complaint)])
def test_unknown_fields_are_ignored(message: wire.ToClient) -> None:
    assert wire.decode_to_client(extended(wire.encode(message))) == message


def test_unknown_fields_of_commands_are_ignored() -> None:
    command = QueryGroup(group="3.1")
    assert wire.decode_command(extended(wire.encode(command))) == command


def test_unknown_commands_are_refused_by_name() -> None:
    with pytest.raises(wire.BadCommand, match="unknown command 'teleport'; known: acknowledge, ") as caught:
        wire.decode_command(b'{"command":"teleport","id":"7","where":"Mars"}')
    assert caught.value.id == "7"


@pytest.mark.parametrize("body", [{"values": 1}, {"values": [1]}, {"values": {"x": {}}}])
def test_bad_fields_name_the_command(body: dict[str, object]) -> None:
    with pytest.raises(wire.BadCommand, match=r"^set: ") as caught:
        wire.decode_command(json.dumps({"command": "set", "id": "9", **body}).encode())
    assert caught.value.id == "9"


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"pause\n",
        b"[]",
        b'{"id":"1"}',
        b'{"command":3}',
        b"\xff",
        b'{"command":"pause"',
        b'{"\x93":1}',
        b'{"command":"\x93"}',
    ],
)
def test_malformed_lines(line: bytes) -> None:
    with pytest.raises(MalformedFrame, match="not a command"):
        wire.decode_command(line)


@pytest.mark.parametrize("line", [b"", b"{}", b'{"type":"song"}', b"null", b'{"type":"beat"}'])
def test_malformed_answers(line: bytes) -> None:
    with pytest.raises(MalformedFrame, match="not a message"):
        wire.decode_to_client(line)


def test_numbers_that_are_not_finite_travel_as_null() -> None:
    record = step_record(**{"kl/k3": math.nan, "loss/policy": -math.inf, "entropy": 1.0})
    event = wire.decode_event(wire.encode_event(wire.StepDone(time=1.0, step=3, record=record)))
    assert isinstance(event, wire.StepDone)
    assert event.record.metrics["kl/k3"] is None
    assert event.record.metrics["loss/policy"] is None
    assert event.record.metrics["entropy"] == 1.0


def test_every_command_has_a_tag_of_its_own() -> None:
    assert all(kind.__struct_config__.tag == name for name, kind in COMMANDS.items())


@pytest.mark.parametrize("size", [0, 1, wire.PAGE, wire.PAGE + 1, 3 * wire.PAGE])
def test_paging(size: int) -> None:
    answer = wire.Answer(id="c", status="data", step=3, data="é" * size)
    pages = wire.pages_of(answer)
    assert "".join(page.data for page in pages) == answer.data
    assert [page.page for page in pages] == list(range(len(pages)))
    assert {page.pages for page in pages} == {len(pages)}
    assert len(pages) == max(1, math.ceil(size / wire.PAGE))
    assert all(page.id == "c" and page.step == 3 for page in pages)


def test_the_worst_page_fits_in_a_line() -> None:
    page = wire.pages_of(wire.Answer(id="c", status="data", data="\x01" * (2 * wire.PAGE)))[0]
    assert len(wire.encode(page)) < wire.LINE_LIMIT


def test_lines_over_the_limit_are_not_sent() -> None:
    with pytest.raises(FrameTooLarge, match=r"Rate of [0-9]+ bytes is over the limit"):
        wire.encode(Rate(group="3.1", mode="likert", values={"A": 4}, comment="x" * wire.LINE_LIMIT))


@given(data=st.data())
def test_lines_split_and_merged_anywhere_read_the_same(data: st.DataObject) -> None:
    sent = [wire.encode(m) for m in MESSAGES if not isinstance(m, wire.Snapshot)]
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    async def read() -> list[wire.ToClient]:
        reader = asyncio.StreamReader(limit=wire.LINE_LIMIT)
        for piece in pieces:
            if piece:
                reader.feed_data(piece)
        reader.feed_eof()
        return [wire.decode_to_client(line) async for line in reader]

    assert asyncio.run(read()) == [m for m in MESSAGES if not isinstance(m, wire.Snapshot)]


@given(
    values=st.dictionaries(
        st.text(max_size=8),
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1) | st.text(),
    )
)
def test_any_values_round_trip(values: dict[str, float | int | str]) -> None:
    command = Set(values=values)
    assert wire.decode_command(wire.encode(command)) == command


def test_json_of_records() -> None:
    assert json.loads(wire.encode_json([rating()]))[0]["who"] == "ann"
    detail = wire.GroupDetail(group=group(), head=head_of(group()), ratings=[rating()], uses=[use()])
    assert msgspec.json.decode(wire.encode_json(detail), type=wire.GroupDetail) == detail


@pytest.mark.parametrize("line", [b'{"command":"set","values":' + b"[" * 100_000, b"[" * 100_000])
def test_nesting_without_end_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedFrame):
        wire.decode_command(line)
    with pytest.raises(MalformedFrame):
        wire.decode_hello(line)


def test_an_empty_id_is_refused_and_a_missing_one_is_made() -> None:
    """Answers are kept by id: an empty one would be everybody's."""
    with pytest.raises(wire.BadCommand, match="an id of its own"):
        wire.decode_command(b'{"command":"pause","id":""}')
    assert wire.decode_command(b'{"command":"pause"}').id
