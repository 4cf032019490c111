"""A group as the three blobs of its row: what is kept for ever, and what is kept for each token.

The body is a MessagePack array: prompt, answer, and the scalars and the text of every response. Per-token fields are in
two such arrays, those that sampling makes and those that an update measures: for each field its length in every
response, and the values of all responses one after the other: integers as MessagePack has them, of as many bytes as
they need, and floats of 32 bits in this machine's order. A field that no response has is nil.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from struct import pack
from typing import Any

import msgspec

from sessions.records import Group, Response

SAMPLED = ("tokens", "ends", "logprobs")
MEASURED = ("reference_logprobs", "entropies", "values", "returns", "advantages")
"""Fields of a response with one value a token."""
STAYS = ("reference_logprobs", "entropies")
"""Those that are measured once: an update that brings none of a response's leaves what there is."""
_INTEGERS = ("tokens", "ends")


class _Response(msgspec.Struct, array_like=True):
    """A response without its tokens; further fields may only come last, and with a default."""

    letter: str
    text: str
    length: int
    ended: bool
    components: dict[str, float | None]
    failed: str
    reward: float | None
    rated_reward: float | None
    advantage: float | None
    automatic_advantage: float | None
    kl: float | None
    heads: list[float] = []
    repetition: float | None = None


class _Body(msgspec.Struct, array_like=True):
    """A group without its name, its status and its tokens; further fields as for a response."""

    prompt_id: str
    prompt: str
    answer: str
    temperature: float
    prompt_tokens: list[int]
    responses: list[_Response]
    drawing: str = ""
    messages: list[dict[str, str]] = []


_Column = tuple[list[int], list[int] | bytes]
"""A field's length in every response, and its values."""
_Lists = Sequence[list[Any]]
"""A field's values in every response."""
_encoder = msgspec.msgpack.Encoder()
_body = msgspec.msgpack.Decoder(_Body)
_columns = msgspec.msgpack.Decoder(list[_Column | None])
_scalars = attrgetter(*_Response.__struct_fields__)
_of_group = attrgetter(*_Body.__struct_fields__[:5])
_sampled, _measured = attrgetter(*SAMPLED), attrgetter(*MEASURED)


def pack_body(group: Group) -> bytes:
    """What is kept of a group for ever, but for its name and status."""
    rest = (group.drawing, group.messages) if group.drawing or group.messages else ()
    return _encoder.encode((*_of_group(group), [_scalars(r) for r in group.responses], *rest))


def pack_sampled(responses: Sequence[Response]) -> bytes | None:
    """The per-token fields that sampling makes; None where there are none."""
    return _pack(SAMPLED, [*zip(*map(_sampled, responses), strict=True)])


def pack_measured(responses: Sequence[Response], before: bytes | None = None) -> bytes | None:
    """The per-token fields that an update measures; None where there are none.

    :param before: what was kept so far. The fields of :data:`STAYS` stay where a response has none.
    """
    fields: list[_Lists] = [*zip(*map(_measured, responses), strict=True)]
    if before:
        for place, (name, column) in enumerate(zip(MEASURED, _columns.decode(before), strict=True)):
            if column is not None and name in STAYS:
                fields[place] = [now or then for now, then in zip(fields[place], _split(column), strict=True)]
    return _pack(MEASURED, fields)


def _pack(names: Sequence[str], fields: Sequence[_Lists]) -> bytes | None:
    """Pack all of a group's lists, field by field; there is no field where there is no response."""
    if not any(map(any, fields)):
        return None
    columns = [_column(name, lists) if any(lists) else None for name, lists in zip(names, fields, strict=True)]
    return _encoder.encode(columns)


def _column(name: str, lists: _Lists) -> _Column:
    values = [*chain.from_iterable(lists)]
    return [*map(len, lists)], values if name in _INTEGERS else _floats(values)


def _floats(values: Sequence[float]) -> bytes:
    try:
        return pack(f"{len(values)}f", *values)
    except OverflowError:  # a number over the largest of 32 bits becomes infinite
        return array("f", values).tobytes()


def unpack(
    branch: str,
    step: int,
    number: int,
    status: str,
    body: bytes,
    sampled: bytes | None = None,
    measured: bytes | None = None,
) -> Group:
    """A group from its row; without the per-token fields whose blobs are None."""
    kept = _body.decode(body)
    columns = _unpacked(SAMPLED, sampled) | _unpacked(MEASURED, measured)
    return Group(
        branch=branch,
        step=step,
        number=number,
        prompt_id=kept.prompt_id,
        prompt=kept.prompt,
        answer=kept.answer,
        temperature=kept.temperature,
        responses=[
            _response(r, {name: lists[place] for name, lists in columns.items()})
            for place, r in enumerate(kept.responses)
        ],
        status=status,
        prompt_tokens=kept.prompt_tokens,
        drawing=kept.drawing,
        messages=kept.messages,
    )


def _response(kept: _Response, arrays: dict[str, list[Any]]) -> Response:
    return Response(
        letter=kept.letter,
        text=kept.text,
        length=kept.length,
        ended=kept.ended,
        components=kept.components,
        failed=kept.failed,
        reward=_known(kept.reward),
        rated_reward=_known(kept.rated_reward),
        advantage=_known(kept.advantage),
        automatic_advantage=_known(kept.automatic_advantage),
        kl=_known(kept.kl),
        heads=kept.heads,
        repetition=_known(kept.repetition),
        **arrays,
    )


def _known(number: float | None) -> float | None:
    """JSON, which carries records on, has no NaN."""
    return None if number is None or number != number else number


def _unpacked(names: Sequence[str], blob: bytes | None) -> dict[str, list[list[Any]]]:
    """Field -> its lists, one a response."""
    columns = _columns.decode(blob) if blob else [None] * len(names)
    return {name: _split(column) for name, column in zip(names, columns, strict=True) if column is not None}


def _split(column: _Column) -> list[list[Any]]:
    """A field's values, one list a response."""
    lengths, data = column
    values: list[Any] = data if isinstance(data, list) else array("f", data).tolist()
    lists, at = [], 0
    for length in lengths:
        lists.append(values[at : at + length])
        at += length
    return lists
