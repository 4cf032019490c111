"""The desk: key scripts and the commands they make, and undo as the inverse of rating."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from screens.rate_view import effect, effect_lines
from screens.rating_desk import Desk
from sessions.commands import Command, Rate, Retract, Skip
from sessions.modes import MODES
from sessions.records import Group, GroupHead, Rating, Response, head_of, letters
from sessions.wire import GroupDetail


def group(step: int, number: int = 1, size: int = 4, dead: bool = False) -> Group:
    responses = [
        Response(letter=letters(i), text=f"#### {i}", length=5, ended=True, reward=1.0 if dead else float(i == 0))
        for i in range(size)
    ]
    return Group(
        branch="main", step=step, number=number, prompt_id="p", prompt="how many?", answer="0", temperature=1.0,
        responses=responses,
    )  # fmt: skip


class Engine:
    """What the engine would keep of the desk's commands."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.saved: dict[str, Rating] = {}

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    def take(self, command: Command | None) -> None:
        match command:
            case Rate(group=name, mode=mode, values=values, order=order):
                step, _, number = name.partition(".")
                self.saved[command.id] = Rating(
                    id=command.id, time=self.clock(), who=command.who, branch="main", step=int(step),
                    group=int(number), mode=mode, values=values, order=order,
                )  # fmt: skip
            case Retract(rating=rating):
                self.saved[rating] = msgspec.structs.replace(self.saved[rating], retracted=self.clock())


def desk_with(*groups: Group, engine: Engine | None = None) -> tuple[Desk, Engine]:
    engine = engine or Engine()
    desk = Desk("ann", engine.saved, engine.clock, lambda: int(engine.now * 1000))
    desk.heads = {(g.branch, g.step, g.number): head_of(g) for g in groups}
    desk.next_group()
    for one in groups:
        desk.loaded(GroupDetail(group=one, head=head_of(one)))
    return desk, engine


def press(desk: Desk, key: str) -> Command | None:
    """What a key of the rating screen does to the desk."""
    if key in desk.mode.keys:
        return desk.rate(desk.mode.keys[key][0])
    match key:
        case "u":
            return desk.undo()
        case "ctrl+r":
            return desk.redo()
        case "J" | "K":
            desk.response(1 if key == "J" else -1)
        case "tab":
            desk.next_unrated()
        case "enter":
            desk.next_group()
        case "m":
            desk.next_mode()
        case "x":
            return desk.skip("unsure")
        case "X":
            desk.unskip()
    return None


SCRIPTS = [
    ("likert", "3 5 u", ["rate 12.1 #0=3", "rate 12.1 #1=5", "retract 2"]),
    ("likert", "3 J 5 enter u", ["rate 12.1 #0=3", "rate 12.1 #2=5", "retract 2"]),
    ("likert", "1 enter 2", ["rate 12.1 #0=1", "rate 11.1 #0=2"]),
    ("likert", "1 K 2", ["rate 12.1 #0=1", "rate 12.1 #0=2"]),
    ("likert", "4 u u ctrl+r", ["rate 12.1 #0=4", "retract 1", "rate 12.1 #0=4"]),
    ("likert", "4 u 5 ctrl+r", ["rate 12.1 #0=4", "retract 1", "rate 12.1 #0=5"]),
    ("likert", "x 2", ["skip #0", "rate 12.1 #1=2"]),
    ("likert", "x 2 tab tab 4", ["skip #0", "rate 12.1 #1=2", "rate 12.1 #2=4"]),
    ("likert", "x K X 2", ["skip #0", "rate 12.1 #0=2"]),
    ("likert", "- 6", []),
    ("thumbs", "m = - u", ["rate 12.1 #0=1", "rate 12.1 #1=-1", "retract 2"]),
    ("thumbs", "m 3 =", ["rate 12.1 #0=1"]),
    ("thumbs", "1 m -", ["rate 12.1 #0=1", "rate 12.1 #1=-1"]),
]


@pytest.mark.parametrize(("mode", "keys", "expected"), SCRIPTS)
def test_key_scripts(mode: str, keys: str, expected: list[str]) -> None:
    desk, engine = desk_with(group(12), group(11))
    orders = {visit.key[1]: visit.order for visit in desk.visits.values()}
    said: list[str] = []
    rated: list[str] = []
    for key in keys.split():
        command = press(desk, key)
        orders.update({visit.key[1]: visit.order for visit in desk.visits.values()})
        engine.take(command)
        match command:
            case Rate(group=name, values=values):
                [(letter, value)] = values.items()
                said.append(f"rate {name} #{orders[int(name.split('.')[0])].index(letter)}={value:g}")
                rated.append(command.id)
                assert command.order == orders[int(name.split(".")[0])]
            case Retract(rating=rating):
                said.append(f"retract {rated.index(rating) + 1}")
            case Skip(response=response, reason=reason):
                assert reason == "unsure"
                said.append(f"skip #{orders[12].index(response[-1])}")
    assert said == expected
    assert desk.mode.name == mode


KEYS = st.sampled_from(["1", "2", "3", "4", "5", "-", "=", "m", "J", "K", "tab", "enter", "x", "X"])


@given(st.lists(KEYS, max_size=30), st.booleans())
def test_as_many_undos_as_ratings_return_to_the_start(keys: list[str], answered: bool) -> None:
    """Whether or not the engine has answered in between."""
    groups = [group(step) for step in (12, 11, 10)]
    desk, engine = desk_with(*groups)
    rated = 0
    for key in keys:
        command = press(desk, key)
        rated += isinstance(command, Rate)
        if answered:
            engine.take(command)
    for _ in range(rated):
        command = desk.undo()
        assert isinstance(command, Retract)
        if answered:
            engine.take(command)
    assert desk.undo() is None
    assert all(desk.book.answers((g.branch, g.step, g.number)) == {} for g in groups)
    assert desk.book.today()[0] == 0


@given(st.lists(KEYS, min_size=1, max_size=20), st.integers(1, 20))
def test_redo_gives_back_what_undo_took(keys: list[str], count: int) -> None:
    groups = [group(step) for step in (12, 11)]
    desk, engine = desk_with(*groups)
    for key in keys:
        engine.take(press(desk, key))
    shown = {g.step: {k: a.text for k, a in desk.book.answers((g.branch, g.step, g.number)).items()} for g in groups}
    undone = 0
    for _ in range(count):
        command = desk.undo()
        engine.take(command)
        undone += command is not None
    for _ in range(undone):
        engine.take(desk.redo())
    assert shown == {
        g.step: {k: a.text for k, a in desk.book.answers((g.branch, g.step, g.number)).items()} for g in groups
    }


def test_undo_reaches_ratings_of_earlier_attachments() -> None:
    first, engine = desk_with(group(12), group(11))
    engine.take(first.rate(4))
    first.next_group()
    engine.take(first.rate(2))
    second, _ = desk_with(group(12), group(11), engine=engine)
    undone = [second.undo(), second.undo(), second.undo()]
    assert [type(c) for c in undone] == [Retract, Retract, type(None)]
    assert second.current is not None
    assert second.current.key == ("main", 12, 1)


def test_ratings_of_others_are_not_undone() -> None:
    desk, engine = desk_with(group(12))
    engine.saved["bob"] = Rating(
        id="bob", time=1.0, who="bob", branch="main", step=12, group=1, mode="likert", values={"A": 1}
    )
    assert desk.undo() is None
    assert desk.book.answers(("main", 12, 1)) == {}


def test_a_rejected_rating_is_not_shown_any_more() -> None:
    desk, _ = desk_with(group(12))
    command = desk.rate(4)
    assert command is not None
    assert [a.state for a in desk.book.answers(("main", 12, 1)).values()] == ["saving"]
    desk.book.confirmed(command, failed=True)
    assert desk.book.answers(("main", 12, 1)) == {}


def test_a_confirmed_rating_is_saved_before_its_event_comes() -> None:
    desk, _ = desk_with(group(12))
    command = desk.rate(4)
    assert command is not None
    desk.book.confirmed(command, failed=False)
    assert [a.state for a in desk.book.answers(("main", 12, 1)).values()] == ["saved"]


def test_a_rejected_undo_leaves_the_rating() -> None:
    desk, engine = desk_with(group(12))
    engine.take(desk.rate(4))
    command = desk.undo()
    assert command is not None
    desk.book.confirmed(command, failed=True)
    assert len(desk.book.answers(("main", 12, 1))) == 1
    assert desk.redo() is None


def test_the_newest_come_first_and_the_dead_only_alone() -> None:
    desk, _ = desk_with(group(10), group(12, dead=True), group(11))
    assert [h.step for h in desk.waiting()] == [11, 10]
    alone, _ = desk_with(group(12, dead=True), group(11, dead=True))
    assert [h.step for h in alone.waiting()] == [12, 11]


def test_discarded_groups_and_those_rated_by_others_do_not_wait() -> None:
    desk, _ = desk_with(group(12), group(11))
    gone: GroupHead = msgspec.structs.replace(desk.heads["main", 12, 1], status="discarded")
    rated = msgspec.structs.replace(desk.heads["main", 11, 1], ratings={"A": "4"})
    desk.heads = {("main", 12, 1): gone, ("main", 11, 1): rated}
    assert desk.waiting() == []


def test_after_the_last_group_those_left_unrated_come_again() -> None:
    desk, engine = desk_with(group(12), group(11))
    desk.next_group()
    engine.take(desk.rate(3))
    visit = desk.next_group()
    assert visit is not None
    assert visit.key == ("main", 12, 1)
    engine.take(desk.rate(3))
    assert desk.next_group() is None
    assert desk.current is None


def test_coming_back_shows_the_same_response_in_the_same_order() -> None:
    desk, _ = desk_with(group(12), group(11))
    desk.response(2)
    before = desk.current
    desk.pause()
    desk.resume()
    assert desk.current is before
    assert before is not None
    again, _ = desk_with(group(12), group(11))
    assert again.current is not None
    assert again.current.order == before.order


def test_a_group_that_went_before_it_was_read_leaves_the_desk() -> None:
    desk, _ = desk_with(group(12), group(11))
    read = desk.current
    desk.heads = {}
    desk.forget_gone()
    assert desk.current is read
    desk.open(("main", 99, 1), 4)
    desk.forget_gone()
    assert desk.current is None
    assert ("main", 99, 1) not in desk.visits


def test_orders_are_shuffled() -> None:
    orders = set()
    for step in range(20):
        desk, _ = desk_with(group(step, size=6))
        assert desk.current is not None
        assert sorted(desk.current.order) == list("ABCDEF")
        orders.add("".join(desk.current.order))
    assert len(orders) > 10


def test_blindness_time_and_what_is_superseded_are_recorded() -> None:
    desk, engine = desk_with(group(12))
    first = desk.rate(2)
    assert first is not None
    assert first.blind
    assert first.seconds > 0
    engine.take(first)
    assert desk.current is not None
    desk.current.revealed = True
    desk.response(-1)
    second = desk.rate(3)
    assert second is not None
    assert not second.blind
    assert desk.book.pending[second.id].supersedes == first.id


def test_a_comment_goes_with_the_rating_to_come_or_the_one_given() -> None:
    desk, engine = desk_with(group(12))
    assert desk.comment("unsure about 3") is None
    command = desk.rate(2)
    assert command is not None
    assert command.comment == "unsure about 3"
    engine.take(command)
    desk.response(-1)
    again = desk.comment("sure now")
    assert again is not None
    assert (again.values, again.comment) == (command.values, "sure now")


def test_skips_of_before_are_known_and_a_group_skipped_whole_does_not_wait() -> None:
    desk, _ = desk_with(group(12), group(11))
    desk.skips = {("main", 11, 1): {"B": "unsure"}}
    visit = desk.next_group()
    assert visit is not None
    assert visit.skipped == {"B": "unsure"}
    desk.skips["main", 10, 1] = dict.fromkeys("ABCD", "")
    desk.heads["main", 10, 1] = head_of(group(10))
    assert [head.step for head in desk.waiting()] == [12, 11]
    desk.response(visit.order.index("B") - visit.at)
    assert desk.unskip()


def test_a_large_group_is_asked_in_parts() -> None:
    desk, _ = desk_with(group(12, size=20))
    assert desk.current is not None
    assert desk.current.part == (1, 3)
    desk.response(10)
    assert desk.current.part == (2, 3)


def test_the_effect_is_what_the_formulas_say() -> None:
    desk, engine = desk_with(group(12))
    visit = desk.current
    assert visit is not None
    assert effect(desk, visit, 1.0, (0.0, 1.0), "group") is None
    desk.response(visit.order.index("B"))
    engine.take(desk.rate(5))
    found = effect(desk, visit, 1.0, (0.0, 1.0), "group")
    assert found is not None
    before, after = found
    assert before["A"] == pytest.approx(1.5, abs=1e-3)
    assert before["B"] == pytest.approx(-0.5, abs=1e-3)
    assert after["A"] == after["B"] == pytest.approx(0.866, abs=1e-3)


@pytest.mark.parametrize(("width", "shown"), [(60, 4), (80, 7), (200, 9)])
def test_the_effect_stands_in_two_lines_below_each_other(width: int, shown: int) -> None:
    desk, engine = desk_with(group(12, size=12))
    visit = desk.current
    assert visit is not None
    engine.take(desk.rate(5))
    visit.revealed = True
    lines = effect_lines(desk, {}, {}, None, width)
    assert len(lines) == 3
    assert all(len(line) < width for line in lines[:2])
    assert abs(sum(char in "+-" for char in lines[0].partition("automatic")[2]) - shown) <= 1
    assert "moved less" in lines[2]


def test_with_a_value_model_the_effect_is_told_in_rewards() -> None:
    """Advantages are then of tokens, and the group's mean is not what they are compared with."""
    desk, engine = desk_with(group(12))
    visit = desk.current
    assert visit is not None
    desk.response(visit.order.index("B"))
    engine.take(desk.rate(5))
    visit.revealed = True
    first, second, _ = effect_lines(desk, {}, {"algorithm": "ppo"}, None)
    assert first.split("automatic")[1].split() == ["A+1.00", "B", "0", "C", "0", "D", "0"]
    assert "B+1.00" in second
    assert " rewards: " in first
    group_baseline = effect_lines(desk, {}, {"algorithm": "trpo", "baseline": "group"}, None)
    assert " advantages: " in group_baseline[0]


def test_every_mode_has_a_key_script() -> None:
    assert {mode for mode, _, _ in SCRIPTS} == {mode.name for mode in MODES.values() if mode.slot == "level"}
