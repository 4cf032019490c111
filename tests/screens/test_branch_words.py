"""Branches in words and rows: differences, what a key would do, the tree, answers side by side, several curves."""

from __future__ import annotations

import pytest

from screens.branch_rows import tree_rows
from screens.branch_words import (
    about_branch,
    branch_table,
    checkpoint_before,
    difference_words,
    rewind_words,
    steps_words,
    switch_words,
)
from screens.charts import Chart, Curve, draw
from screens.overlay import legend, overlay
from screens.probe_lines import marked_lines, probe_lines, probe_words, score_words
from sessions.branches import Branch, BranchInfo, Probe
from sessions.comparison import ProbePair
from sessions.records import Checkpoint


def info(name: str, parent: str = "", step: int = 0, tip: int = 10, **more: object) -> BranchInfo:
    abandoned = bool(more.pop("abandoned", False))
    branch = Branch(name=name, parent=parent, step=step, abandoned=abandoned, time=100.0)
    return BranchInfo(branch=branch, tip=tip, steps=tip - step, **more)  # type: ignore[arg-type]


def saved(step: int, branch: str = "main") -> Checkpoint:
    return Checkpoint(step=step, time=100.0, path=f"{step}", bytes=2**20, reason="asked", branch=branch)


def text(lines: list[list[tuple[str, str]]]) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]


def test_differences_are_in_the_order_of_the_table_and_as_people_write_them() -> None:
    before = {"temperature": 1.0, "learning_rate": 1e-06, "group_size": 8}
    after = {"temperature": 0.7, "learning_rate": 5e-07, "group_size": 8, "new_knob": 3}
    words = difference_words(before, after)
    assert words[-1] == "new_knob - -> 3"
    assert set(words) == {"learning_rate 1e-6 -> 5e-7", "temperature 1 -> 0.7", "new_knob - -> 3"}
    assert words.index("learning_rate 1e-6 -> 5e-7") < words.index("temperature 1 -> 0.7")


@pytest.mark.parametrize(("first", "last", "words"), [(3, 5, "steps 3 to 5"), (4, 4, "step 4"), (5, 4, "no step")])
def test_steps_in_words(first: int, last: int, words: str) -> None:
    assert steps_words(first, last) == words


def test_a_rewind_says_which_steps_stay_where() -> None:
    main = info("main", tip=812, checkpoints=[saved(640)])
    there = {"main": main, "main~1": info("main~1", "main", 700)}
    lines = " ".join(rewind_words(main, 640, there))
    assert "Steps 641 to 812 stay on main~2" in lines
    assert "computed again" not in lines
    assert "Step 812 stay" in " ".join(rewind_words(main, 811, {"main": main}))
    fork = info("low", "main", 640, tip=700)
    assert "Steps 641 to 700 stay on low~1" in " ".join(
        rewind_words(fork, 600, {"main": main, "low": fork})
    )  # only its own


def test_a_rewind_says_from_where_steps_are_computed_again_and_for_how_long() -> None:
    main = info("main", tip=2000, checkpoints=[saved(0), saved(1900)])
    lines = " ".join(rewind_words(main, 1280, {"main": main}, 0.5))
    assert "checkpoint before it is of step 0: steps 1 to 1280 must be computed again" in lines
    assert "takes about 10 min" in lines
    assert "A rewind to step 0 itself takes no time" in lines
    near = " ".join(rewind_words(main, 1901, {"main": main}))
    assert "of step 1900: step 1901 must be computed again from the records." in near
    assert "takes no time" not in near


def test_a_fork_goes_back_by_the_checkpoints_of_its_parents() -> None:
    main = info("main", tip=800, checkpoints=[saved(0), saved(600), saved(650)])
    low = info("low", "main", 640, tip=700)
    lower = info("lower", "low", 660, tip=690, checkpoints=[saved(680)])
    infos = {"main": main, "low": low, "lower": lower}
    assert checkpoint_before(lower, 685, infos) == 680
    assert checkpoint_before(lower, 670, infos) == 600  # 650 of main is of a step that it does not have
    assert checkpoint_before(low, 599, infos) == 0
    assert checkpoint_before(low, 650, {"low": low}) == 0


def test_a_switch_to_what_was_abandoned_says_so() -> None:
    assert len(switch_words(info("low", "main", 5), "main")) == 2
    assert "left behind" in switch_words(info("main~1", "main", 5, abandoned=True), "main")[-1]


def test_what_is_said_of_a_branch() -> None:
    values = {"learning_rate": 5e-7}
    low = info("low", "main", 5, tip=9, begun_with={"learning_rate": 1e-6}, values=values)
    said = [line for line, _ in about_branch(low, 160.0)]
    assert said[0] == "forked from main at step 5, 1 min ago"
    assert "  learning_rate 1e-6 -> 5e-7" in said
    same = info("low", "main", 5, tip=9, begun_with=values, values=values)
    assert "every hyperparameter is as on main at step 5" in [line for line, _ in about_branch(same, 160.0)]
    fresh = info("low", "main", 5, tip=5)
    assert "no step has been trained on it yet" in [line for line, _ in about_branch(fresh, 160.0)]
    assert about_branch(info("main"), 160.0)[0][0] == "main is where the session began"


def test_the_tree() -> None:
    infos = [
        info("main", active=True, checkpoints=[saved(5), saved(10)]),
        info("b", "main", 8),
        info("a", "main", 4, checkpoints=[saved(6, "a")]),
        info("a1", "a", 6),
        info("main~1", "main", 9, abandoned=True),
    ]
    rows, places = tree_rows(infos, {"main", "a"}, {"main": "A"}, 160.0, "ascii")
    assert [row.cells[1].rstrip() for row in rows] == [
        "- main *",
        "|   @10 asked",
        "|   @5 asked",
        "|-- a",
        "| |   @6 asked",
        "| `-  a1",
        "|-  b",
        "`-  main~1 abandoned",
    ]
    assert [row.tone for row in rows] == ["good", "", "", "", "", "", "", "dim"]
    assert rows[0].cells[0] == "A"
    assert len({row.key for row in rows}) == len(rows)
    assert [places[row.key].branch for row in rows] == ["main"] * 3 + ["a", "a", "a1", "b", "main~1"]
    assert places[rows[2].key].checkpoint == saved(5)
    folded, _ = tree_rows(infos, set(), {}, 160.0, "ascii")
    assert [row.cells[1].rstrip() for row in folded] == [
        "+ main *", "|-+ a", "| `-  a1", "|-  b", "`-  main~1 abandoned"
    ]  # fmt: skip


def test_the_table_of_branches() -> None:
    rows = branch_table([info("main", active=True), info("a", "main", 4, abandoned=True, best=(8, 0.5))], 160.0)
    assert [len(row) for row in rows] == [11, 11, 11]
    assert rows[1][:4] == ["main", "-", "10", "10"]
    assert rows[1][-1] == "active"
    assert rows[2][:4] == ["  a", "main @4", "6", "10"]
    assert rows[2][6] == "50% @8"
    assert rows[2][-1] == "abandoned"


# ---------------------------------------------------------------------------------------------------- answers


def pair(left: str, right: str, place: int = 0, wrong: bool = False) -> ProbePair:
    answers = [
        Probe(branch=b, step=8, place=place, prompt="how long?", answer="2 h", text=t, right=not (wrong and b == "b"))
        for b, t in (("a", left), ("b", right))
    ]
    return ProbePair(place=place, prompt="how long?", answer="2 h", answers=list(answers))


def test_words_that_differ_are_marked_and_so_are_their_lines() -> None:
    lines = marked_lines("it is two hours\nat least", "it is three hours\nat least", 40)
    assert [(piece, tone) for piece, tone in lines[0][0] if tone] == [("two", "found")]
    assert [differs for _, differs in lines] == [True, False]
    assert text([pieces for pieces, _ in lines]) == ["it is two hours", "at least"]


def test_every_word_of_another_text_is_marked_wherever_the_lines_break() -> None:
    mine = "one two three four five six seven eight"
    lines = marked_lines(mine, "", 9)
    words = [piece for pieces, _ in lines for piece, tone in pieces if tone == "found"]
    assert words == mine.split()
    assert all(len(line) <= 9 for line in text([pieces for pieces, _ in lines]))
    assert not any(tone for pieces, _ in marked_lines(mine, mine, 9) for _, tone in pieces)
    long = marked_lines("x" * 30 + " same", "same", 8)  # a word that is cut is marked on each line
    assert [differs for _, differs in long] == [True] * 4 + [False]


def test_answers_stand_beside_each_other_where_there_is_room() -> None:
    lines, starts = probe_lines([pair("two hours", "three hours", wrong=True), pair("same", "same", 1)], ["a", "b"], 80)
    shown = text(lines)
    assert starts == [0, 5]
    assert shown[0] == "  1  how long?"
    assert shown[2].split() == ["a", "@8", "right", "|", "b", "@8", "WRONG"]
    assert shown[3].split() == ["two", "hours", "!", "three", "hours"]
    assert shown[8].split() == ["same", "|", "same"]
    assert all(len(line) <= 80 for line in shown)


def test_answers_stand_under_each_other_where_there_is_none_or_are_more_than_two() -> None:
    shown = text(probe_lines([pair("two hours", "three hours")], ["a", "b"], 50)[0])
    assert [line.strip() for line in shown[2:6]] == ["a @8  right", "! two hours", "b @8  right", "! three hours"]
    three = ProbePair(place=0, prompt="q", answer="", answers=[*pair("x", "y").answers, None])
    shown = text(probe_lines([three], ["a", "b", "c"], 100)[0])
    assert shown[-2].strip() == "c  never asked"


def test_an_answer_is_data() -> None:
    hostile = "\x1b[2J[bold]\x00x\u202e"
    shown = "\n".join(text(probe_lines([pair(hostile, "b")], ["a", "b"], 90)[0]))
    assert not set(shown) & {"\x1b", "\x00", "\u202e"}
    assert "[bold]" in shown


def test_the_score() -> None:
    pairs = [pair("x", "y"), pair("x", "y", 1, wrong=True)]
    assert score_words(pairs, ["a", "b"]) == (
        "a 2 of 2 right (100%), b 1 of 2 right (50%); one is right and another wrong on 1"
    )
    assert probe_words([])[0] == "it has not been asked the probe prompts"
    assert probe_words([a for a in pairs[1].answers if a])[0] == "a after step 8: 1 of 2 right"


# ---------------------------------------------------------------------------------------------------- curves


def drawn(chart: Chart, marks: str = "ascii", width: int = 60, height: int = 12) -> list[str]:
    return ["".join(piece for piece, _ in row) for row in draw(chart, width, height, marks)]  # type: ignore[arg-type]


def test_curves_with_letters_read_without_colour() -> None:
    steps = list(range(50))
    chart = Chart(
        (Curve(steps, [1.0] * 50, "smooth", "A"), Curve(steps, [s / 50 for s in steps], "second", "B")), 0, 49
    )
    text = drawn(chart)
    top = next(line for line in text if "A" in line)
    assert set(top.partition("|")[2].replace(" ", "")) <= set("aAbB")
    assert top.rstrip()[-1] in "AB"
    assert any("b" in line and "B" in line for line in text)
    braille = drawn(chart, "braille")
    assert "A" in "".join(braille)
    assert "B" in "".join(braille)
    assert not any(letter in "".join(braille) for letter in "ab")
    assert all(len(line) == 60 for line in braille)


def test_letters_of_curves_that_end_in_one_place_stand_beside_each_other() -> None:
    steps = list(range(50))
    curves = tuple(Curve(steps, [1.0] * 50, "smooth", letter) for letter in "ABC")
    line = next(line for line in drawn(Chart(curves, 0, 49)) if "A" in line)
    assert line.rstrip()[-3:] == "CBA"


def test_steps_that_two_branches_share_are_drawn_once() -> None:
    branches = {b.name: b for b in (Branch(name="main"), Branch(name="low", parent="main", step=4))}
    lines = {
        "main": (range(8), [float(s) for s in range(8)]),
        "low": (range(10), [float(s) for s in range(10)]),
    }
    chart = overlay(branches, lines)
    assert list(chart.curves[0].steps) == list(range(8))
    assert list(chart.curves[1].steps) == list(range(4, 10))  # from where it leaves
    assert (chart.first, chart.last) == (0, 9)
    assert chart.lines == ((4, "change"),)
    assert [curve.letter for curve in chart.curves] == ["A", "B"]
    turned = overlay(branches, dict(reversed(lines.items())), {"main": "A", "low": "B"})
    assert [(curve.letter, curve.role) for curve in turned.curves] == [("B", "second"), ("A", "smooth")]
    assert list(turned.curves[1].steps) == [4, 5, 6, 7]


def test_a_branch_of_one_step_or_none_can_be_drawn() -> None:
    branches = {"main": Branch(name="main")}
    assert drawn(overlay(branches, {"main": ([5], [1.0])}))
    assert drawn(overlay(branches, {"main": ([], [])}))


def test_the_legend_says_what_does_not_fit() -> None:
    lines = {name: ([1], [0.5]) for name in ("main", "a-long-name", "another")}
    letters = dict(zip(lines, "ABC"))
    assert "".join(t for t, _ in legend(lines, letters, 80)) == "A main .500   B a-long-name .500   C another .500"
    short = "".join(t for t, _ in legend(lines, letters, 20))
    assert short == "A main .500   +2"
