"""What comes into a session from files: once each, as it was given, and nothing that cannot be used."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions import importing
from sessions.commands import ImportOrderings, ImportRatings, Returned
from sessions.errors import InputFileError, WorkbenchError
from sessions.export import export
from sessions.folders import SessionFolder, new_session
from sessions.importing import ImportFile, Received, foresee, pages, receive
from sessions.limits import COMMAND, check_line
from sessions.orderings import Ordering, check_ordering, ordering_id
from sessions.records import Group, Rating, ResponseName, SessionSettings
from sessions.store import Store
from sessions.wire import Imported, decode_command, encode
from tests.sessions.samples import group, rating

CHAT = [{"role": "user", "content": "q"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def folder() -> SessionFolder:
    return new_session("s", SessionSettings(name="s"))


@pytest.fixture
def store(folder: SessionFolder) -> Iterator[Store]:
    opened = Store(folder.database)
    yield opened
    opened.close()


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def bring(store: Store, path: Path, who: str = "bo") -> tuple[Received, Received, Received]:
    """Import a file: what became of ratings and of preferences, and what could not be used."""
    file = ImportFile(path, store)
    ratings, preferences = Received(), Received()
    for page in pages(file.each(), path.name, who):
        foreseen = foresee(store, page)
        got = receive(store, page, 50.0)
        assert (foreseen.new + foreseen.known, foreseen.unusable) == (got.new + got.known, got.unusable)
        (ratings if isinstance(page, ImportRatings) else preferences).add(got)
    return ratings, preferences, file.unusable


def kept(store: Store) -> list[Ordering]:
    return [ordering for _, ordering in store.orderings()]


def told(store: Store) -> list[Imported]:
    return [event for event in reversed(store.events()) if isinstance(event, Imported)]


def named(texts: dict[str, str], step: int = 3, number: int = 1) -> Group:
    """A group whose responses have texts of their own."""
    made = group(step, number, [1.0] * len(texts))
    for response, (letter, text) in zip(made.responses, texts.items(), strict=True):
        response.letter, response.text = letter, text
    return made


# ------------------------------------------------------------------------------------------ preferences


def test_preferences_of_every_kind_become_orderings(store: Store, tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "c", "margin": 2},
        {"prompt": CHAT, "chosen": said("x"), "rejected": said("y")},
        {"chosen": CHAT + said("m"), "rejected": CHAT + said("n")},
        {"prompt": "r", "completions": ["1", "2", "3"], "ranks": [2, 1, 2]},
    )
    _, preferences, unusable = bring(store, path)
    assert (preferences.new, preferences.known, unusable.unusable) == (5, 0, 0)
    assert [(o.prompt, o.tiers, o.margin) for o in kept(store)] == [
        ("p", [["a"], ["b"]], 0.0),
        ("p", [["a"], ["c"]], 2.0),
        (CHAT, [[said("x")], [said("y")]], 0.0),
        (CHAT, [[said("m")], [said("n")]], 0.0),
        ("r", [["2"], ["1", "3"]], 0.0),
    ]
    assert [o.source for o in kept(store)] == [f"pairs.jsonl:{n}" for n in range(1, 6)]
    [event] = told(store)
    assert (event.who, event.source, event.orderings, event.ratings) == ("bo", "pairs.jsonl", 5, 0)


def test_a_second_import_brings_nothing_new_and_tells_nothing(store: Store, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 7}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(2500)]
    path = write(tmp_path / "pairs.jsonl", *rows, rows[0])
    _, first, _ = bring(store, path)
    _, second, _ = bring(store, write(tmp_path / "renamed.jsonl", *reversed(rows)))
    assert (first.new, first.known) == (2500, 1)
    assert (second.new, second.known) == (0, 2500)
    numbers = []
    after = 0
    while page := store.orderings(after, limit=999):
        numbers += [ordering.tiers[0][0] for _, ordering in page]
        after = page[-1][0]
    assert numbers == [f"a{i}" for i in range(2500)]
    assert [event.orderings for event in told(store)] == [1000, 1000, 500]


def test_what_says_the_same_has_one_id_and_what_does_not_has_another() -> None:
    one = Ordering(prompt="p", tiers=[["a"], ["b", "c"]], source="x:1")
    assert ordering_id(one) == ordering_id(Ordering(prompt="p", tiers=[["a"], ["c", "b"]], source="y:2"))
    assert ordering_id(Ordering(prompt="p", tiers=[[said("a")], [said("b")]])) == ordering_id(
        Ordering(prompt="p", tiers=[["a"], ["b"]])
    )
    others = [
        Ordering(prompt="p", tiers=[["b", "c"], ["a"]]),
        Ordering(prompt="p", tiers=[["a"], ["b"], ["c"]]),
        Ordering(prompt="p", tiers=[["a", "b"], ["c"]]),
        Ordering(prompt="q", tiers=[["a"], ["b", "c"]]),
        Ordering(prompt="p", tiers=[["a"], ["bc"]]),
        Ordering(prompt="p", tiers=[["a"], ["b"]]),
        Ordering(prompt="p", tiers=[["a"], ["b"]], margin=1),
    ]
    assert len({ordering_id(o) for o in [one, *others]}) == len(others) + 1


def test_labels_of_one_prompt_and_one_person_make_pairs_and_lone_ones_are_told(store: Store, tmp_path: Path) -> None:
    def label(prompt: str, completion: str, good: bool, who: str = "") -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": good} | ({"who": who} if who else {})

    path = write(
        tmp_path / "u.jsonl",
        label("p", "a", True),
        label("q", "lonely", True),
        label("p", "b", False),
        label("p", "c", True),
        label("p", "a", True),
        label("r", "x", True, "ann"),
        label("r", "y", False, "bo"),
        label("t", "changed", True),
        label("t", "changed", False),
        label("t", "good", True),
        {"prompt": "p", "completion": "d", "label": 1},
        {"prompt": "p", "label": True},
    )
    _, preferences, unusable = bring(store, path)
    assert [(o.prompt, o.tiers) for o in kept(store)] == [
        ("p", [["a", "c"], ["b"]]),
        ("t", [["good"], ["changed"]]),
    ]
    assert preferences.new == 2
    assert unusable.unusable == 5
    assert unusable.why == "line 11: its label is neither true nor false"


def test_many_labels_make_orderings_that_may_be_sent(store: Store, tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completion": f"{'good' if i % 4 else 'bad'} {i}", "label": bool(i % 4)} for i in range(200)
    ]
    bring(store, write(tmp_path / "u.jsonl", *rows))
    found = kept(store)
    for ordering in found:
        check_ordering(ordering)
        assert all(str(t).startswith("good") for t in ordering.tiers[0])
        assert all(str(t).startswith("bad") for t in ordering.tiers[1])
    assert {t for o in found for t in o.responses} == {row["completion"] for row in rows}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "line 1: not a JSON object ("),
        ("[1]", "line 1: not a JSON object (Expected `object`"),
        ("{}", "line 1: neither a preference nor a rating; give TRL's"),
        ('{"prompt": "p", "completion": "a"}', "line 1: a completion without a label prefers nothing"),
        ('{"prompt": "p", "chosen": "a"}', "line 1: there is no 'rejected'"),
        ('{"chosen": "a", "rejected": "a"}', "line 1: chosen and rejected are the same"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}', "line 1: its margin is not a number"),
        ('{"prompt": "p", "chosen": "' + "a" * COMMAND + '", "rejected": "b"}', "at most 1,044,480 are taken"),
        ('{"mode": "likert", "values": {"A": 4}}', "line 1: Object missing required field `id`"),
        ("[" * 100_000, "line 1: "),
        ("\udcff", "line 1: "),
    ],
)
def test_a_line_that_cannot_be_used_is_told_and_the_others_are_taken(
    store: Store, tmp_path: Path, line: str, why: str
) -> None:
    path = tmp_path / "x.jsonl"
    good = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"})
    path.write_bytes(f"{line}\n\n{good}".encode("utf-8", "surrogateescape"))
    _, preferences, unusable = bring(store, path)
    assert (preferences.new, unusable.unusable) == (1, 1)
    assert why in unusable.why
    assert unusable.why.count("line 1") == 1
    assert len(unusable.why) < 500


def test_a_longer_line_than_may_be_is_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "LINE_LIMIT", 100)
    long = {"prompt": "p", "chosen": "a" * 950, "rejected": "b"}
    path = write(tmp_path / "x.jsonl", long, {"prompt": "p", "chosen": "a", "rejected": "b"}, long)
    _, preferences, unusable = bring(store, path)
    assert (preferences.new, unusable.unusable, unusable.why) == (1, 2, "line 1: longer than 100 bytes")


def test_what_has_to_be_held_is_bounded(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "HELD", 50)
    rows = [{"prompt": "p", "completion": "x" * 20, "label": True}] * 3
    with pytest.raises(InputFileError, match="more than 50 characters of ratings and labels; cut the file"):
        bring(store, write(tmp_path / "u.jsonl", *rows))
    with pytest.raises(InputFileError, match="cannot be read"):
        bring(store, tmp_path / "none.jsonl")


# ---------------------------------------------------------------------------------------------- ratings

TEXTS = {"A": "one", "B": "two", "C": "three", "D": "four"}
GIVEN = [
    rating(values={"A": 5.0}, id="l1", time=1.0, order=["C", "A", "B", "D"], blind=True, seconds=3.5, rule="random"),
    rating(values={"B": 2.0}, id="l2", time=2.0),
    rating(values={"B": 1.0}, id="l3", time=3.0, supersedes="l2", comment="worse\n\x1b[31m"),
    rating(values={"A": 4.0}, id="again", time=4.0, repeats="l1"),
    rating(values={"C": 2.0, "D": 0.0}, id="p", mode="pair", time=5.0, who="bo"),
    rating(values={"A": 1.0, "B": 2.0, "C": 2.0}, id="r", mode="rank", time=6.0),
    rating(values={"D": 1.0}, id="e", mode="edit", text="better", time=7.0),
    rating(values={"D": 1.0}, id="c", mode="critique", flags=["wrong"], comment="why", time=8.0),
    rating(values={"C": 1.0, "A": 1.0}, id="t", mode="pair", time=8.5),
    rating(values={"A": 0.0, "B": 0.0}, id="bad", mode="pair", time=8.6),
    rating(values={"C": 3.0}, id="back", time=9.0),
]


def rated(folder: SessionFolder, store: Store, given: list[Rating] = GIVEN) -> None:
    store.add_groups([named(TEXTS)])
    for one in given:
        store.add_rating(one)
    if any(r.id == "back" for r in given):
        store.retract("back", "ann", 10.0)


def other(name: str = "t") -> tuple[SessionFolder, Store]:
    made = new_session(name, SessionSettings(name=name))
    return made, Store(made.database)


def test_exported_ratings_come_back_as_they_were_given_and_once(folder, store, tmp_path: Path) -> None:
    rated(folder, store)
    export(folder, "jsonl", tmp_path / "out")
    _, fresh = other()
    fresh.add_groups([named(TEXTS)])
    for turn in range(2):
        ratings, preferences, unusable = bring(fresh, tmp_path / "out" / "ratings.jsonl")
        assert (ratings.new, ratings.known) == ((10, 0), (0, 10))[turn]
        assert (preferences.new, preferences.known, unusable.unusable) == (0, 0, 0)
    back = fresh.ratings_of(ResponseName(3, 1), "main")
    assert back == [one for one in GIVEN if one.id != "back"]
    assert fresh.standing_ratings(ResponseName(3, 1), "main") == store.standing_ratings(ResponseName(3, 1), "main")
    assert fresh.unsettled_ratings("main")  # the next update takes them in, by the rules of late ratings
    assert [(e.who, e.ratings) for e in told(fresh)] == [("bo", 10)]
    fresh.close()


def test_export_import_export_is_equal(folder, store, tmp_path: Path) -> None:
    rated(folder, store, GIVEN[:-1])
    fresh_folder, fresh = other()
    fresh.add_groups([named(TEXTS)])
    export(folder, "jsonl", tmp_path / "a")
    bring(fresh, tmp_path / "a" / "ratings.jsonl")
    export(fresh_folder, "jsonl", tmp_path / "b")
    fresh.close()
    assert (tmp_path / "a" / "ratings.jsonl").read_bytes() == (tmp_path / "b" / "ratings.jsonl").read_bytes()


def test_ratings_of_other_groups_become_what_they_teach(folder, store, tmp_path: Path) -> None:
    rated(folder, store)
    export(folder, "jsonl", tmp_path / "out")
    _, fresh = other()
    fresh.add_groups([named({**TEXTS, "B": "another text"})])  # one response differs: what judges it is of elsewhere
    ratings, preferences, unusable = bring(fresh, tmp_path / "out" / "ratings.jsonl")
    assert unusable.unusable == 0
    assert sorted(r.id for r in fresh.ratings_of(ResponseName(3, 1), "main")) == ["again", "c", "e", "l1", "p", "t"]
    assert [(o.prompt, o.tiers, o.margin) for o in kept(fresh)] == [("5+7=", [["one"], ["two", "three"]], 0.0)]
    assert (ratings.new, preferences.new) == (6, 1)
    fresh.close()


def test_ratings_of_a_session_that_is_elsewhere_are_orderings_by_person_and_mode(folder, store, tmp_path) -> None:
    rated(folder, store)
    export(folder, "jsonl", tmp_path / "out")
    _, fresh = other()
    _, preferences, unusable = bring(fresh, tmp_path / "out" / "ratings.jsonl")
    assert [(o.tiers, o.margin) for o in kept(fresh)] == [
        ([["one"], ["two"]], 0.0),
        ([["three"], ["four"]], 1.0),
        ([["one"], ["two", "three"]], 0.0),
        ([["better"], ["four"]], 0.0),
    ]
    assert (preferences.new, unusable.unusable) == (4, 0)
    fresh.close()


def test_of_an_answer_and_the_one_in_its_place_only_that_is_learned_from(folder, store, tmp_path: Path) -> None:
    rated(
        folder,
        store,
        [
            rating(values={"A": 1.0, "B": 0.0}, mode="pair", id="p1", time=1.0),
            rating(values={"B": 2.0, "A": 0.0}, mode="pair", id="p2", time=2.0, supersedes="p1"),
        ],
    )
    export(folder, "jsonl", tmp_path / "out")
    _, fresh = other()
    bring(fresh, tmp_path / "out" / "ratings.jsonl")
    assert [(o.tiers, o.margin) for o in kept(fresh)] == [([["two"], ["one"]], 1.0)]
    fresh.close()


def test_a_rating_of_another_prompt_is_of_another_group(folder, store, tmp_path: Path) -> None:
    """Also right after one of the group that has the name."""
    rated(folder, store, [rating(values={"A": 1.0, "B": 2.0}, mode="rank", id="r1")])
    export(folder, "jsonl", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "ratings.jsonl").read_text())
    path = write(tmp_path / "x.jsonl", row, {**row, "id": "r2", "prompt": "another"})
    _, fresh = other()
    fresh.add_groups([named(TEXTS)])
    ratings, preferences, _ = bring(fresh, path)
    assert (ratings.new, preferences.new) == (1, 1)
    assert [o.prompt for o in kept(fresh)] == ["another"]
    fresh.close()


def test_a_later_answer_of_the_same_person_stays_and_an_earlier_one_gives_way(folder, store, tmp_path: Path) -> None:
    rated(folder, store, [rating(values={"A": 5.0}, id="x", time=10.0), rating(values={"B": 5.0}, id="y", time=10.0)])
    export(folder, "jsonl", tmp_path / "out")
    _, fresh = other()
    fresh.add_groups([named(TEXTS)])
    fresh.add_rating(rating(values={"A": 1.0}, id="later", time=20.0))
    fresh.add_rating(rating(values={"B": 1.0}, id="earlier", time=5.0))
    fresh.add_rating(rating(values={"B": 2.0}, id="others", time=50.0, who="cleo"))
    ratings, _, _ = bring(fresh, tmp_path / "out" / "ratings.jsonl")
    assert (ratings.new, ratings.unusable) == (1, 1)
    assert ratings.why == "ann has answered the question of rating x again since"
    assert {r.id for r in fresh.standing_ratings(ResponseName(3, 1), "main")} == {"later", "y", "others"}
    fresh.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"who": "\x1b[31m"}, "is not a name"),
        ({"mode": "stars"}, "unknown rating mode 'stars'"),
        ({"values": {"A": 9}}, "9 is not an answer"),
        ({"values": {}}, "it rates no response"),
        ({"values": {"a": 4}}, "'a' is not a letter"),
        ({"group": "3"}, "'3' is not a response"),
        ({"id": ""}, "a rating needs an id"),
        ({"comment": "x" * 4001}, "comment: 4,001 characters"),
        ({"seconds": -1}, "its times are not"),
        ({"texts": {}}, "the rating has no texts"),
        ({"texts": {"B": "two"}}, "has not the texts of the responses that it judges"),
    ],
)
def test_a_rating_that_nobody_can_have_given_is_not_taken(folder, store, tmp_path, change, why) -> None:
    rated(folder, store, GIVEN[:1])
    export(folder, "jsonl", tmp_path / "out")
    row = json.loads((tmp_path / "out" / "ratings.jsonl").read_text())
    ratings, preferences, unusable = bring(store, write(tmp_path / "x.jsonl", {**row, **change}))
    assert (ratings.new, preferences.new, unusable.unusable) == (0, 0, 1)
    assert why in unusable.why
    assert len(store.recent_ratings()) == 1


def test_the_database_takes_no_rating_for_other_texts(store: Store) -> None:
    """Whoever sends one may have looked before a rewind."""
    store.add_groups([named(TEXTS)])
    for texts in ({"A": "other"}, {}, {"B": "two"}):
        found = receive(store, ImportRatings(source="x", ratings=[Returned(rating=GIVEN[0], texts=texts)]), 1.0)
        assert (found.new, found.unusable) == (0, 1)
        assert "response main/3.1A has another text in this session" in found.why
    gone = msgspec.structs.replace(GIVEN[0], step=99)
    found = receive(store, ImportRatings(source="x", ratings=[Returned(rating=gone, texts={"A": "one"})]), 1.0)
    assert found.why == "no group 99.1 on branch main"
    assert store.recent_ratings() == []


# ------------------------------------------------------------------------------------------------ pages


def test_pages_are_commands_that_an_engine_takes(store: Store) -> None:
    numbers = random.Random(1)
    sizes = [numbers.choice([1, 100, 50_000, 400_000]) for _ in range(80)] + [1] * 2500
    items: list[Ordering | Returned] = [
        Ordering(prompt=str(i), tiers=[["ä" * (size // 2)], ["b"]]) for i, size in enumerate(sizes)
    ]
    items[40:40] = [Returned(rating=msgspec.structs.replace(GIVEN[0], id=str(i)), texts={"A": "one"}) for i in range(3)]
    made = list(pages(items, "f.jsonl", "ann"))
    carried: list[Ordering | Returned] = []
    for page in made:
        line = encode(page)
        check_line(line)
        assert decode_command(line) == page
        carried += page.orderings if isinstance(page, ImportOrderings) else page.ratings
    assert carried == items
    assert len(made) < 40
    assert sum(isinstance(page, ImportRatings) for page in made) == 1


@pytest.mark.parametrize(
    "ordering",
    [
        Ordering(prompt="p", tiers=[]),
        Ordering(prompt="p", tiers=[["a"]]),
        Ordering(prompt="p", tiers=[["a"], []]),
        Ordering(prompt="p", tiers=[["a"], ["b"] * 64]),
        Ordering(prompt="p", tiers=[["a"], ["b"]], margin=-1),
        Ordering(prompt="p", tiers=[["a"], ["b"]], margin=101),
        Ordering(prompt=[], tiers=[["a"], ["b"]]),
        Ordering(prompt=[{"role": "user"}], tiers=[["a"], ["b"]]),
        Ordering(prompt="p", tiers=[[[{"role": "robot", "content": "x"}]], ["b"]]),
    ],
)
def test_what_is_no_ordering_is_refused(ordering: Ordering) -> None:
    with pytest.raises(WorkbenchError, match=r"preference|margin"):
        check_ordering(ordering)


VALUES = (
    st.text(max_size=5)
    | st.floats()
    | st.integers()
    | st.none()
    | st.booleans()
    | st.just({"A": 4.0})
    | st.just({"A": "x"})
)
ROWS = st.dictionaries(
    st.sampled_from(
        [
            "prompt",
            "chosen",
            "rejected",
            "completion",
            "label",
            "mode",
            "values",
            "id",
            "time",
            "who",
            "group",
            "texts",
            "kind",
            "ranks",
            "completions",
        ]
    ),
    VALUES | st.lists(VALUES, max_size=2) | st.sampled_from(["likert", "3.1", "rating", "retracted"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30) | ROWS.map(lambda row: json.dumps(row).encode()), max_size=4))
def test_any_bytes_are_taken_or_counted(tmp_path_factory: pytest.TempPathFactory, rows: list[bytes]) -> None:
    base = tmp_path_factory.getbasetemp()
    store = Store(base / "any.db")
    path = base / "any.jsonl"
    path.write_bytes(b"\n".join(rows))
    file = ImportFile(path, store)
    for item in file.each():
        check_ordering(item) if isinstance(item, Ordering) else item.rating
    assert "\n" not in file.unusable.why
    store.close()
