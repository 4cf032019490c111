"""The desk: key scripts and the commands they make, and undo as the inverse of rating."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from screens.rate_view import effect, effect_lines
from screens.rating_desk import Desk
from sessions.agreement import self_agreement
from sessions.commands import Command, Rate, Retract, Skip
from sessions.modes import MODES, RANK, replaces
from sessions.records import (
    Group,
    GroupHead,
    Rating,
    Response,
    SkipRecord,
    head_of,
    letters,
    parse_response_name,
)
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
    """What the engine would keep of the desk's commands, by the engine's own rules."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.saved: dict[str, Rating] = {}
        self.skips: dict[str, SkipRecord] = {}

    def clock(self) -> float:
        self.now += 1.0
        return self.now

    def standing(self) -> dict[str, Rating]:
        kept = {r.id: r for r in self.saved.values() if not r.retracted}
        replaced = {r.supersedes for r in kept.values()}
        return {name: r for name, r in kept.items() if name not in replaced}

    def take(self, command: Command | None, desk: Desk | None = None) -> None:
        match command:
            case Rate(group=name):
                place = parse_response_name(name)
                MODES[command.mode].check(command.values, command.text, command.flags)
                mine = [
                    r for r in self.standing().values()
                    if (r.step, r.group) == (place.step, place.group) and not r.repeats
                    and replaces(command.mode, command.values, r.mode, r.values)
                ]  # fmt: skip
                assert not command.repeats or command.repeats in {r.id for r in mine}
                rating = Rating(
                    id=command.id, time=self.clock(), who=command.who, branch="main", step=place.step,
                    group=place.group, mode=command.mode, values=command.values, order=command.order,
                    supersedes=mine[-1].id if mine and not command.repeats else "", text=command.text,
                    flags=command.flags, comment=command.comment, rule=command.rule, repeats=command.repeats,
                    redoes=command.redoes, seconds=command.seconds, blind=command.blind,
                )  # fmt: skip
                self.saved[command.id] = rating
                if desk is not None:
                    desk.confirmed(command, failed=False)
                    desk.book.saw(rating)
            case Skip(response=name, reason=reason):
                place = parse_response_name(name)
                skip = SkipRecord(
                    id=command.id, time=self.clock(), who=command.who, branch="main", step=place.step,
                    group=place.group, letter=place.letter, reason=reason, rule=command.rule,
                )  # fmt: skip
                self.skips[skip.id] = skip
                if desk is not None:
                    desk.confirmed(command, failed=False)
                    desk.book.saw(skip)
            case Retract(rating=name):
                if name in self.skips:
                    assert not self.skips[name].retracted
                    self.skips[name] = msgspec.structs.replace(self.skips[name], retracted=self.clock())
                    if desk is not None:
                        desk.book.saw(self.skips[name])
                else:
                    assert not self.saved[name].retracted
                    self.saved[name] = msgspec.structs.replace(self.saved[name], retracted=self.clock())
                    if desk is not None:
                        desk.book.saw_retracted(name, self.now)
                if desk is not None:
                    desk.confirmed(command, failed=False)

    def said(self) -> list[object]:
        """What stands, whatever the ids."""
        names = self.standing()
        first = {r.id: (r.step, r.group, sorted(r.values)) for r in self.saved.values()}
        ratings = [
            (r.step, r.group, r.mode, sorted(r.values.items()), r.text, list(r.flags), r.comment, first.get(r.repeats))
            for r in names.values()
        ]  # fmt: skip
        skips = [(s.step, s.group, s.letter, s.reason) for s in self.skips.values() if not s.retracted]
        return [sorted(ratings, key=repr), sorted(skips)]


def desk_with(*groups: Group, engine: Engine | None = None, mode: str = "", share: float = 0.0) -> tuple[Desk, Engine]:
    """A desk that has just been sat down to, with what the engine has on record."""
    engine = engine or Engine()
    desk = Desk("ann", engine.clock, mode)
    desk.book.load([*engine.saved.values(), *engine.skips.values()])
    desk.share = share
    desk.between = 0
    desk.heads = {(g.branch, g.step, g.number): head_of(g) for g in groups}
    desk.next_group()
    read(desk, groups)
    return desk, engine


def read(desk: Desk, groups: Iterable[Group]) -> None:
    for one in groups:
        desk.loaded(GroupDetail(group=one, head=head_of(one)))


def press(desk: Desk, key: str) -> Command | None:
    """What a key of the rating screen does to the desk."""
    if key in desk.keys_of.keys:
        return desk.answer(desk.keys_of.keys[key][0])
    word, _, text = key.partition(":")
    match word:
        case "u":
            return desk.undo()
        case "ctrl+r":
            return desk.redo()
        case "J" | "K":
            desk.response(1 if key == "J" else -1)
        case "tab":
            desk.next_unrated()
        case "enter":
            return desk.enter()
        case "m":
            desk.next_mode()
        case "x":
            return desk.skip(text or "unsure")
        case "X":
            return desk.unskip()
        case "f":
            desk.flagging = not desk.flagging
        case "c":
            return desk.comment(text)
        case "i":
            return desk.edit(desk.letter, text)
    return None


def told(desk: Desk, command: Command | None, ids: list[str], orders: Mapping[str, list[str]]) -> str:
    """A command in short, responses by their place on the screen."""

    def place(group: str, letter: str) -> str:
        return f"#{orders[group].index(letter)}"

    match command:
        case Rate(group=group, mode="pair", values=values, order=order):
            ids.append(command.id)
            return f"pair {group} {values[order[0]]:g}:{values[order[1]]:g}"
        case Rate(group=group, mode="rank", values=values):
            ids.append(command.id)
            ranked = " > ".join("=".join(place(group, k) for k in tier) for tier in RANK.tiers(values))
            return f"rank {group} {ranked}"
        case Rate(group=group, mode=mode, values=values):
            ids.append(command.id)
            [(letter, value)] = values.items()
            said = {"edit": command.text, "critique": ",".join([*command.flags, command.comment])}.get(
                mode, f"{value:g}"
            )
            return f"{mode} {group} {place(group, letter)}={said}"
        case Retract(rating=name):
            return f"retract {ids.index(name) + 1}"
        case Skip(response=response, reason=reason):
            ids.append(command.id)
            name = parse_response_name(response)
            letter = place(f"{name.step}.{name.group}", name.letter) if name.letter else ""
            return f"skip {name.step}.{name.group} {letter} {reason}".replace("  ", " ")
    return ""


SCRIPTS = [
    ("likert", "3 5 u", ["likert 12.1 #0=3", "likert 12.1 #1=5", "retract 2"]),
    ("likert", "3 J 5 enter u", ["likert 12.1 #0=3", "likert 12.1 #2=5", "retract 2"]),
    ("likert", "1 enter 2", ["likert 12.1 #0=1", "likert 11.1 #0=2"]),
    ("likert", "1 K 2", ["likert 12.1 #0=1", "likert 12.1 #0=2"]),
    ("likert", "4 u u ctrl+r", ["likert 12.1 #0=4", "retract 1", "likert 12.1 #0=4"]),
    ("likert", "4 u 5 ctrl+r", ["likert 12.1 #0=4", "retract 1", "likert 12.1 #0=5"]),
    ("likert", "x 2", ["skip 12.1 #0 unsure", "likert 12.1 #1=2"]),
    ("likert", "x 2 tab tab 4", ["skip 12.1 #0 unsure", "likert 12.1 #1=2", "likert 12.1 #2=4"]),
    ("likert", "x K X 2", ["skip 12.1 #0 unsure", "retract 1", "likert 12.1 #0=2"]),
    ("likert", "x u 2", ["skip 12.1 #0 unsure", "retract 1", "likert 12.1 #0=2"]),
    ("likert", "- 6 t h = backspace", []),
    ("likert", "f 1 5 enter 4", ["critique 12.1 #0=wrong,too long,", "likert 12.1 #0=4"]),
    ("likert", "f 1 f 4", ["likert 12.1 #0=4"]),
    ("likert", "c:so-so 4 u u", ["critique 12.1 #0=so-so", "likert 12.1 #0=4", "retract 2", "retract 1"]),
    ("likert", "i:better 4", ["edit 12.1 #0=better", "likert 12.1 #0=4"]),
    ("thumbs", "m = - u", ["thumbs 12.1 #0=1", "thumbs 12.1 #1=-1", "retract 2"]),
    ("thumbs", "m 3 =", ["thumbs 12.1 #0=1"]),
    ("thumbs", "1 m -", ["likert 12.1 #0=1", "thumbs 12.1 #1=-1"]),
    ("pair", "h l", ["pair 12.1 1:0", "pair 12.1 0:1"]),
    ("pair", "H L t 0", ["pair 12.1 2:0", "pair 12.1 0:2", "pair 12.1 1:1", "pair 12.1 0:0"]),
    ("pair", "h h h h h h l", [*["pair 12.1 1:0"] * 6, "pair 11.1 0:1"]),
    ("pair", "h enter l u u", ["pair 12.1 1:0", "pair 11.1 0:1", "retract 2", "retract 1"]),
    ("pair", "x l", ["skip 12.1 unsure", "pair 11.1 0:1"]),
    ("pair", "1 5 - = backspace", []),
    ("rank", "3 1 4 2 1 2 enter", ["rank 12.1 #2 > #0 > #3 > #1", "rank 11.1 #0 > #1"]),
    ("rank", "1 = 2 enter u ctrl+r", ["rank 12.1 #0=#1", "retract 1", "rank 12.1 #0=#1"]),
    ("rank", "1 2 backspace 3 enter", ["rank 12.1 #0 > #2"]),
    ("rank", "1 = backspace 2 enter", ["rank 12.1 #0 > #1"]),
    ("rank", "1 = = 2 3 4", ["rank 12.1 #0 > #1 > #2 > #3"]),
    ("rank", "1 1 9 h enter 2 enter", ["rank 12.1 #0 > #1"]),
    ("rank", "1 = 2 3 = 4", ["rank 12.1 #0=#1 > #2=#3"]),
    ("edit", "i:better i: u", ["edit 12.1 #0=better", "retract 1"]),
    ("edit", "i:one i:two", ["edit 12.1 #0=one", "edit 12.1 #1=two"]),
    ("edit", "1 5 h i:one enter i:two", ["edit 12.1 #0=one", "edit 11.1 #0=two"]),
    ("critique", "1 9 enter 2 2 enter", ["critique 12.1 #0=wrong,repetitive,"]),
    ("critique", "1 c:why 3 enter u", ["critique 12.1 #0=wrong,why", "critique 12.1 #1=off topic,", "retract 2"]),
    ("critique", "1 enter K 1 enter", ["critique 12.1 #0=wrong,", "critique 12.1 #0="]),
    ("critique", "1 J K 2 enter", ["critique 12.1 #0=wrong,invalid step,"]),
]


@pytest.mark.parametrize(("mode", "keys", "expected"), SCRIPTS)
def test_key_scripts(mode: str, keys: str, expected: list[str]) -> None:
    groups = [group(12), group(11)]
    desk, engine = desk_with(*groups, mode="" if "m" in keys.split() else mode)
    said: list[str] = []
    ids: list[str] = []
    for key in keys.split():
        orders = {f"{visit.key[1]}.1": visit.order for visit in desk.visits.values()}
        command = press(desk, key)
        read(desk, groups)
        engine.take(command, desk)
        if command is not None:
            said.append(told(desk, command, ids, orders))
    assert said == expected
    assert desk.mode.name == mode


def test_every_mode_has_a_key_script() -> None:
    assert {mode for mode, _, _ in SCRIPTS} == set(MODES)


KEYS = st.sampled_from(
    [
        "1", "2", "3", "4", "5", "-", "=", "h", "l", "H", "L", "t", "0", "backspace", "m", "m", "J", "K", "tab",
        "enter", "x", "x:off", "X", "f", "c:so", "c:", "i:better", "i:best", "u", "ctrl+r",
    ]
)  # fmt: skip
GROUPS = [group(step) for step in (12, 11, 10)]


def play(desk: Desk, engine: Engine, keys: list[str], answered: bool) -> list[Command]:
    """Press keys; what the engine was told."""
    sent = []
    for key in keys:
        command = press(desk, key)
        read(desk, GROUPS)
        if command is not None:
            sent.append(command)
            engine.take(command, desk if answered else None)
    return sent


def shown(desk: Desk) -> list[object]:
    """What the screens of all groups show as answered, in every mode."""
    keys = [(g.branch, g.step, g.number) for g in GROUPS]
    answers = [
        sorted(
            (k, a.value, a.rating.mode, a.rating.text, tuple(a.rating.flags))
            for k, a in desk.book.answers(key, slot).items()
        )
        for key in keys
        for slot in dict.fromkeys(mode.slot for mode in MODES.values())
    ]
    return [answers, [sorted(desk.book.skipped(key)) for key in keys]]


@settings(max_examples=150)
@given(
    st.lists(KEYS, max_size=40), st.booleans(), st.booleans(), st.sampled_from(list(MODES)), st.sampled_from([0.0, 0.5])
)
def test_undo_takes_everything_back_and_redo_gives_it_again(
    keys: list[str], answered: bool, restarted: bool, mode: str, share: float
) -> None:
    """Any script in any modes; whether or not the engine has answered in between, and over a restart of the screen."""
    desk, engine = desk_with(*GROUPS, mode=mode, share=share)
    start = shown(desk)
    sent = play(desk, engine, keys, answered)
    done = sum(isinstance(command, Rate | Skip) for command in sent) - sum(isinstance(c, Retract) for c in sent)
    before = engine.said(), shown(desk)
    if restarted:
        desk, _ = desk_with(*GROUPS, engine=engine, mode=mode, share=share)
        assert shown(desk) == before[1]
    undone = play(desk, engine, ["u"] * done, answered)
    assert [type(command) for command in undone] == [Retract] * done
    assert desk.undo() is None
    assert engine.said() == [[], []]
    assert shown(desk) == start
    assert desk.book.today()[0] == 0
    if restarted:
        desk, _ = desk_with(*GROUPS, engine=engine, mode=mode, share=share)
    play(desk, engine, ["ctrl+r"] * done, answered)
    assert (engine.said(), shown(desk)) == before


@given(st.lists(KEYS, max_size=30), st.integers(0, 10))
def test_what_can_be_undone_and_redone_is_the_same_after_a_restart(keys: list[str], undone: int) -> None:
    desk, engine = desk_with(*GROUPS)
    play(desk, engine, [*keys, *["u"] * undone], True)
    again, _ = desk_with(*GROUPS, engine=engine)
    assert [act.id for act in again.book.newest_first()] == [act.id for act in desk.book.newest_first()]
    while (act := desk.book.undone) is not None:
        assert again.book.undone is not None
        assert again.book.undone.id == act.id
        for each in (desk, again):
            press(each, "ctrl+r")
    assert again.book.undone is None


def test_undo_reaches_ratings_of_earlier_attachments() -> None:
    first, engine = desk_with(group(12), group(11))
    engine.take(first.answer(4))
    first.next_group()
    engine.take(first.answer(2))
    second, _ = desk_with(group(12), group(11), engine=engine)
    undone = [second.undo(), second.undo(), second.undo()]
    assert [type(c) for c in undone] == [Retract, Retract, type(None)]
    assert second.current is not None
    assert second.current.key == ("main", 12, 1)


def test_ratings_of_others_are_not_undone() -> None:
    desk, _ = desk_with(group(12))
    desk.book.saw(
        Rating(id="bob", time=1.0, who="bob", branch="main", step=12, group=1, mode="likert", values={"A": 1})
    )
    assert desk.undo() is None
    assert desk.book.answers(("main", 12, 1)) == {}


def test_a_rejected_rating_is_not_shown_any_more() -> None:
    desk, _ = desk_with(group(12))
    command = desk.answer(4)
    assert command is not None
    assert [a.state for a in desk.book.answers(("main", 12, 1)).values()] == ["saving"]
    desk.book.confirmed(command, failed=True)
    assert desk.book.answers(("main", 12, 1)) == {}


def test_a_confirmed_rating_is_saved_before_its_event_comes() -> None:
    desk, _ = desk_with(group(12))
    command = desk.answer(4)
    assert command is not None
    desk.book.confirmed(command, failed=False)
    assert [a.state for a in desk.book.answers(("main", 12, 1)).values()] == ["saved"]


def test_a_rejected_undo_leaves_the_rating() -> None:
    desk, engine = desk_with(group(12))
    engine.take(desk.answer(4))
    command = desk.undo()
    assert command is not None
    desk.book.confirmed(command, failed=True)
    assert len(desk.book.answers(("main", 12, 1))) == 1
    assert desk.redo() is None
    again = desk.undo()
    assert again is not None
    assert again.rating == command.rating


def test_the_newest_come_first_and_the_dead_only_when_asked_for() -> None:
    desk, _ = desk_with(group(10), group(12, dead=True), group(11))
    assert [h.step for h in desk.waiting()] == [11, 10]
    assert desk.queue.hidden() == (1, 0)
    desk.queue.everything = True
    assert [h.step for h in desk.waiting()] == [12, 11, 10]
    assert desk.queue.hidden() == (0, 0)


def test_discarded_groups_and_those_rated_by_others_do_not_wait() -> None:
    desk, _ = desk_with(group(12), group(11), group(10))
    gone: GroupHead = msgspec.structs.replace(desk.heads["main", 12, 1], status="discarded")
    rated = msgspec.structs.replace(desk.heads["main", 11, 1], ratings={"A": "4"})
    replaced = msgspec.structs.replace(desk.heads["main", 10, 1], status="replaced")
    desk.heads = {("main", 12, 1): gone, ("main", 11, 1): rated, ("main", 10, 1): replaced}
    assert desk.waiting() == []
    assert desk.queue.hidden() == (0, 1)
    desk.queue.everything = True
    assert [h.step for h in desk.waiting()] == [11]


def test_after_the_last_group_those_left_unrated_come_again() -> None:
    desk, engine = desk_with(group(12), group(11))
    desk.next_group()
    engine.take(desk.answer(3))
    visit = desk.next_group()
    assert visit is not None
    assert visit.key == ("main", 12, 1)
    engine.take(desk.answer(3))
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
    first = desk.answer(2)
    assert first is not None
    assert first.blind
    assert first.seconds > 0
    engine.take(first)
    assert desk.current is not None
    desk.current.revealed = True
    desk.response(-1)
    second = desk.answer(3)
    assert second is not None
    assert not second.blind
    assert desk.book._acts[second.id].supersedes == first.id


def test_a_comment_is_kept_beside_the_rating_and_replaces_the_one_before() -> None:
    desk, engine = desk_with(group(12))
    assert desk.comment("") is None
    first = desk.comment("unsure about 3")
    assert first is not None
    engine.take(first)
    engine.take(desk.answer(2))
    desk.response(-1)
    again = desk.comment("sure now")
    assert again is not None
    engine.take(again)
    assert engine.saved[again.id].supersedes == first.id
    assert desk.comment("sure now") is None
    assert [r.mode for r in engine.standing().values()] == ["likert", "critique"]


def test_skips_of_before_are_known_and_a_group_skipped_whole_does_not_wait() -> None:
    first, engine = desk_with(group(12), group(11), group(10))
    engine.take(first.skip("unsure"))
    skipped = first.current.order[0] if first.current else ""
    first.use(MODES["pair"])
    first.next_group()
    engine.take(first.skip(""))
    desk, _ = desk_with(group(12), group(11), group(10), engine=engine)
    assert [head.step for head in desk.waiting()] == [12, 10]
    assert desk.current is not None
    assert list(desk.skipped(desk.current)) == [skipped]
    desk.response(desk.current.order.index(skipped) - desk.current.at)
    assert desk.unskip() is not None
    assert desk.skipped(desk.current) == {}
    assert desk.unskip() is None


def test_a_large_group_is_asked_in_parts() -> None:
    desk, _ = desk_with(group(12, size=20))
    assert desk.current is not None
    assert desk.current.part == (1, 3)
    assert [len(part) for part in desk.current.parts] == [6, 7, 7]
    desk.response(10)
    assert desk.current.part == (2, 3)
    assert desk.current.order[10] in desk.current.here


def test_the_effect_is_what_the_formulas_say() -> None:
    desk, engine = desk_with(group(12))
    visit = desk.current
    assert visit is not None
    assert effect(desk, visit, 1.0, (0.0, 1.0), "group") is None
    desk.response(visit.order.index("B"))
    engine.take(desk.answer(5))
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
    engine.take(desk.answer(5))
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
    engine.take(desk.answer(5))
    visit.revealed = True
    first, second, _ = effect_lines(desk, {}, {"algorithm": "ppo"}, None)
    assert first.split("automatic")[1].split() == ["A+1.00", "B", "0", "C", "0", "D", "0"]
    assert "B+1.00" in second
    assert " rewards: " in first
    group_baseline = effect_lines(desk, {}, {"algorithm": "trpo", "baseline": "group"}, None)
    assert " advantages: " in group_baseline[0]


# ---------------------------------------------------------------------------------------------- rules and repeats


def test_a_rule_orders_the_groups_and_is_recorded_where_it_picked() -> None:
    heads = {
        ("main", s, 1): msgspec.structs.replace(head_of(group(s)), std=std)
        for s, std in ((12, 0.1), (11, 0.5), (10, 0.3))
    }
    desk = Desk("ann", Engine().clock)
    desk.queue.use("spread")
    desk.heads = heads
    seen = []
    for _ in range(3):
        visit = desk.next_group()
        assert visit is not None
        seen.append(visit.key[1])
        command = desk.answer(3)
        assert command is not None
        assert command.rule == "spread"
    assert seen == [11, 10, 12]
    assert [(p.group, p.rule) for p in desk.picked] == [("11.1", "spread"), ("10.1", "spread"), ("12.1", "spread")]


def test_a_group_that_a_person_went_to_was_picked_by_no_rule() -> None:
    desk, _ = desk_with(group(12), group(11))
    desk.picked.clear()
    desk.open(("main", 11, 1), 4)
    command = desk.answer(3)
    assert command is not None
    assert command.rule == ""
    assert desk.picked == []


def test_a_step_that_waits_was_picked_by_no_rule() -> None:
    desk, _ = desk_with(group(12), group(11))
    desk.awaited = ("main", 11)
    desk.picked.clear()
    visit = desk.next_group()
    assert visit is not None
    assert (visit.key, visit.rule, desk.picked) == (("main", 11, 1), "", [])


def rated(count: int, mode: str, keys: list[str]) -> tuple[Desk, Engine, list[Group]]:
    """Somebody who has answered so many groups with the same keys."""
    groups = [group(step) for step in range(100 + count, 100, -1)]
    desk, engine = desk_with(*groups, mode=mode)
    for _ in range(count):
        for key in keys:
            engine.take(press(desk, key), desk)
            read(desk, groups)
        if mode == "likert":
            desk.next_group()
            read(desk, groups)
    return desk, engine, groups


@pytest.mark.parametrize(
    ("mode", "keys", "again"),
    [("likert", ["4"], ["2"]), ("pair", ["h", "enter"], ["h"] * 6), ("rank", [*"1234"], [*"4321"])],
)
def test_a_repeat_looks_like_a_new_question_and_is_recorded_as_one_asked_again(
    mode: str, keys: list[str], again: list[str]
) -> None:
    """More than twenty questions later, in another order, with nothing of the first answer shown."""
    desk, engine, groups = rated(30, mode, keys)
    desk.between = Desk("ann").between
    groups += [group(step) for step in range(200, 190, -1)]
    desk.heads = {(g.branch, g.step, g.number): head_of(g) for g in groups}
    desk.share = 1.0
    place, total = desk._places, desk.total
    visit = desk.next_group()
    read(desk, groups)
    assert visit is not None
    assert visit.key[1] < 190
    asked = [r for r in engine.saved.values() if (r.step, r.group) == visit.key[1:]]
    assert asked
    assert list(engine.saved).index(asked[-1].id) < len(engine.saved) - 20
    first = next(r for r in engine.saved.values() if r.id == visit.repeats)
    assert visit.order != Desk("ann").open(visit.key, 4).order
    assert desk.answers(visit) == {}
    assert (visit.place, desk.total) == (place + 1, total)
    sent = []
    for key in again:
        command = press(desk, key)
        engine.take(command, desk)
        if isinstance(command, Rate):
            sent.append(command)
        if mode == "likert":
            desk.response(visit.order.index(next(iter(first.values))) - visit.at) if not sent[0].repeats else None
    if mode == "likert" and not sent[0].repeats:
        command = press(desk, "2")
        engine.take(command, desk)
        assert isinstance(command, Rate)
        sent.append(command)
    assert visit.repeats in {command.repeats for command in sent}
    assert all(command.repeats or set(command.values) != set(first.values) for command in sent)
    assert len(engine.standing()) == len(engine.saved)
    agreement, _ = desk.book.figures()
    assert agreement is not None
    assert agreement.count == sum(bool(command.repeats) for command in sent)
    assert agreement.value == self_agreement(engine.saved.values()).value


def test_a_repeat_comes_once_at_its_place_whoever_presses_enter() -> None:
    desk, engine, groups = rated(30, "likert", ["4"])
    desk.share = 1.0
    assert desk.next_group() is not None
    assert desk.current is not None
    assert desk.current.repeats
    visit = desk.next_group()
    assert visit is None or not visit.repeats
    assert not any(r.repeats for r in engine.saved.values())
    assert len(groups) == 30


def test_without_repeats_none_are_asked() -> None:
    desk, _, _ = rated(30, "likert", ["4"])
    assert desk.next_group() is None


def test_the_order_typed_is_kept_when_another_group_is_opened() -> None:
    desk, engine = desk_with(group(12), group(11), mode="rank")
    press(desk, "3")
    press(desk, "=")
    visit = desk.current
    desk.open(("main", 11, 1), 4)
    assert desk.current is not visit
    desk.use(MODES["likert"])
    desk.use(MODES["rank"])
    desk.open(("main", 12, 1), 4)
    engine.take(press(desk, "1"))
    command = press(desk, "enter")
    assert visit is not None
    assert isinstance(command, Rate)
    assert command.values == {visit.order[2]: 1.0, visit.order[0]: 1.0}
    assert command.order == visit.order


def test_a_large_group_is_ranked_in_parts() -> None:
    large = group(12, size=11)
    desk, engine = desk_with(large, group(11), mode="rank")
    visit = desk.current
    assert visit is not None
    sizes = [len(part) for part in visit.parts]
    sent = [command for key in "12345" + "123456" if (command := press(desk, key)) is not None]
    for command in sent:
        engine.take(command)
    assert sizes == [5, 6]
    assert [sorted(c.order) for c in sent if isinstance(c, Rate)] == [sorted(part) for part in visit.parts]
    assert desk.current is not visit


def test_pairs_have_different_texts_and_left_and_right_are_recorded() -> None:
    same = group(12)
    texts = ["a", "a", "b", "b"]
    same = msgspec.structs.replace(
        same, responses=[msgspec.structs.replace(r, text=t) for r, t in zip(same.responses, texts, strict=True)]
    )
    desk, _ = desk_with(same, mode="pair")
    visit = desk.current
    assert visit is not None
    assert visit.pairs is not None
    of = {r.letter: r.text for r in same.responses}
    assert all(of[left] != of[right] for left, right in visit.pairs)
    pair = visit.pair
    command = press(desk, "h")
    assert isinstance(command, Rate)
    assert pair is not None
    assert (command.order, command.values) == ([*pair], {pair[0]: 1.0, pair[1]: 0.0})


def test_unchanged_and_empty_texts_are_no_edits() -> None:
    desk, engine = desk_with(group(12), mode="edit")
    visit = desk.current
    assert visit is not None
    text = visit.response_text(desk.letter)
    assert [desk.edit(desk.letter, t) for t in (text, "", "  \n")] == [None, None, None]
    letter = desk.letter
    engine.take(desk.edit(letter, "better"))
    assert desk.current is visit
    desk.response(visit.order.index(letter) - visit.at)
    assert desk.text_to_edit() == "better"
    assert desk.edit(letter, "better") is None


def test_a_refused_undo_and_a_refused_redo_leave_what_was() -> None:
    desk, engine = desk_with(group(12))
    engine.take(desk.answer(4), desk)
    first = desk.undo()
    assert first is not None
    engine.take(first, desk)
    again = desk.redo()
    assert again is not None
    desk.confirmed(again, failed=True)
    assert desk.book.answers(("main", 12, 1)) == {}
    assert desk.book.undone is not None
    assert desk.redo() is not None


def test_a_new_rating_leaves_nothing_to_redo() -> None:
    desk, engine = desk_with(group(12))
    for key in ("4", "5", "u", "1"):
        engine.take(press(desk, key), desk)
    assert desk.redo() is None


def test_what_another_screen_of_the_same_person_does_can_be_undone_here() -> None:
    one, engine = desk_with(group(12))
    other, _ = desk_with(group(12))
    command = one.answer(4)
    engine.take(command, one)
    assert command is not None
    other.book.saw(engine.saved[command.id])
    engine.take(other.undo(), other)
    one.book.saw_retracted(command.id, engine.now)
    assert one.undo() is None
    assert one.book.undone is not None


def test_older_records_are_undone_only_once_all_before_them_are_known() -> None:
    desk, engine = desk_with(group(12))
    for key in "123":
        engine.take(press(desk, key))
    old, middle, new = engine.saved.values()
    book = Desk("ann", engine.clock).book
    book.load([new], horizon=new.time)
    book.learn([old])  # as of a group's detail: what is between is not known
    assert [act.id for act in book.newest_first()] == [new.id]
    assert set(book.answers(("main", 12, 1))) == {*old.values, *new.values}
    book.undo()
    assert book.at_horizon
    book.learn([middle], horizon=0.0)
    assert [act.id for act in book.newest_first()] == [middle.id, old.id]
    assert not book.at_horizon


def test_time_is_counted_for_each_question() -> None:
    now = [0.0]
    desk = Desk("ann", lambda: now[0], "pair")
    desk.heads = {("main", 12, 1): head_of(group(12))}
    desk.next_group()
    read(desk, [group(12)])
    desk.resume()
    now[0] += 5
    first = press(desk, "h")
    now[0] += 2
    desk.pause()
    now[0] += 100
    desk.resume()
    now[0] += 1
    second = press(desk, "h")
    assert isinstance(first, Rate)
    assert isinstance(second, Rate)
    assert (first.seconds, second.seconds) == (5.0, 3.0)
    desk.next_unrated(-1)
    visit = desk.current
    assert visit is not None
    assert visit.pairs is not None
    visit.pair_at = 0
    desk.resume()
    now[0] += 7
    again = press(desk, "l")
    assert isinstance(again, Rate)
    assert (again.order, again.seconds) == (first.order, 7.0)


def test_a_group_waits_no_more_as_soon_as_it_is_rated_and_again_once_that_is_undone() -> None:
    """Before the engine has said anything of it."""
    desk, _ = desk_with(group(12), group(11))
    assert [h.step for h in desk.waiting()] == [12, 11]
    desk.answer(3)
    assert [h.step for h in desk.waiting()] == [11]
    desk.undo()
    assert [h.step for h in desk.waiting()] == [12, 11]


def test_flags_and_edits_beside_a_repeat_are_no_repeats() -> None:
    desk, engine, groups = rated(1, "likert", ["4"])
    desk.comment("first")
    desk.share, desk.between = 1.0, 0
    desk.open(("main", 101, 1), 4)
    read(desk, groups)
    letter = desk.letter
    for command in (desk.comment("one"), desk.edit(letter, "better")):
        engine.take(command, desk)
    visit = desk.next_group()
    read(desk, groups)
    assert visit is not None
    assert visit.repeats
    desk.response(visit.order.index(letter) - visit.at)
    for again in (desk.comment("two"), desk.edit(letter, "best")):
        assert isinstance(again, Rate)
        assert again.repeats == ""


def test_a_repeat_that_is_given_again_names_the_answer_that_was_given_again() -> None:
    desk, engine, groups = rated(1, "rank", [*"1234"])
    desk.share = 1.0
    visit = desk.next_group()
    read(desk, groups)
    assert visit is not None
    assert visit.repeats
    for key in "4321":
        engine.take(press(desk, key), desk)
    first, second = engine.saved.values()
    assert second.repeats == first.id
    for key in ("u", "u", "ctrl+r", "ctrl+r"):
        engine.take(press(desk, key), desk)
    again, repeated = list(engine.saved.values())[2:]
    assert (again.redoes, repeated.redoes, repeated.repeats) == (first.id, second.id, again.id)
