"""What is exported is what was recorded: read back with json and pyarrow, pairs by brute force, nothing left behind."""

from __future__ import annotations

import builtins
import hashlib
import json
import threading
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions.branches import END, Branch, Segment
from sessions.errors import InputFileError, InvalidValue, SessionError, UnknownName, UsageError
from sessions.examples import read_examples
from sessions.export import Wanted, export
from sessions.folders import SessionFolder, new_session
from sessions.preferences import Judgement, judgements, labelled, pairs
from sessions.records import WARM_UP, SessionSettings, TrustRegionStep, Try
from sessions.store import Store
from tests.sessions.old_databases import write_old
from tests.sessions.samples import alarm, change, checkpoint, group, rating, skip, step_record, use

MAIN_LINE = [Segment("main", -1, END)]
HOSTILE = ' \r\na\u2028b\u0085\x1b[31m"},\n{"label": true}\x00\x7f\ud7ff \U0001f600 \\n \n'
"""What a model may write: ends of lines of every kind, control characters, JSON."""


@pytest.fixture
def folder() -> SessionFolder:
    return new_session("s", SessionSettings(name="s"))


@pytest.fixture
def store(folder: SessionFolder):
    opened = Store(folder.database)
    yield opened
    opened.close()


def fill(store: Store, steps: int = 3, branch: str = "main") -> None:
    """Two groups of four a step, and the step's record."""
    for step in range(1, steps + 1):
        groups = [group(step, number, branch=branch) for number in (1, 2)]
        store.add_groups(groups)
        for g in groups:
            g.status = "updated"
            for r in g.responses:
                r.advantage, r.kl = (r.reward or 0) - 0.5, 0.01 * step
        store.add_step(step_record(step, branch, **{"kl/k3": 0.1 * step}), groups, 500)


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines, read as its readers do: a line ends at a line feed and nowhere else."""
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n") if line]


def files(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def table(path: Path) -> list[dict[str, Any]]:
    return parquet.read_table(path).to_pylist(maps_as_pydicts="strict")


# ------------------------------------------------------------------------------------------------- records


def test_every_step_and_response_is_there_once_and_in_order(folder, store, tmp_path: Path) -> None:
    fill(store, 3)
    done = export(folder, "jsonl", tmp_path / "out")
    assert files(tmp_path / "out") == [
        "alarms.jsonl",
        "changes.jsonl",
        "held_out.jsonl",
        "ratings.jsonl",
        "responses.jsonl",
        "skips.jsonl",
        "steps.jsonl",
    ]
    assert [row["step"] for row in lines(tmp_path / "out" / "steps.jsonl")] == [1, 2, 3]
    names = [row["name"] for row in lines(tmp_path / "out" / "responses.jsonl")]
    assert names == [f"{s}.{g}{x}" for s in (1, 2, 3) for g in (1, 2) for x in "ABCD"]
    assert {f.file: f.rows for f in done.files}["responses.jsonl"] == 24
    assert {f.file: f.bytes for f in done.files} == {p.name: p.stat().st_size for p in (tmp_path / "out").iterdir()}
    assert done.branches == ["main"]


def test_a_row_of_steps_has_every_metric_and_the_values(folder, store, tmp_path: Path) -> None:
    record = step_record(4, **{"kl/k3": None, "eval/accuracy": 0.75})
    record.nonfinite = ["kl/k3"]
    record.trust_region = TrustRegionStep(product="exact", tries=[Try(fraction=1.0, kl=0.1, gain=0.2, accepted=True)])
    store.add_step(record, [], 500)
    export(folder, "jsonl", tmp_path / "out")
    [row] = lines(tmp_path / "out" / "steps.jsonl")
    assert row["metrics"] == {"reward/mean": 0.504, "kl/k3": None, "eval/accuracy": 0.75}
    assert row["nonfinite"] == ["kl/k3"]
    assert row["values"] == {"learning_rate": 1e-4, "group_size": 4, "rating_gate": "async"}
    assert row["advantages"] == [1.0, -1.0]
    assert (row["branch"], row["step"], row["time"]) == ("main", 4, 104.0)
    assert row["trust_region"]["tries"] == [{"fraction": 1.0, "kl": 0.1, "gain": 0.2, "accepted": True}]


def test_a_row_of_responses_has_what_was_recorded_of_it(folder, store, tmp_path: Path) -> None:
    one = group(7, 2, [0.25])
    one.prompt, one.answer, one.temperature, one.prompt_id = "why?", "so", 0.5, "p9"
    r = one.responses[0]
    r.text, r.rated_reward, r.advantage, r.automatic_advantage, r.kl, r.ended = HOSTILE, 0.5, 1.5, -1.5, 0.125, False
    r.failed = "exact: raised"
    store.add_groups([one])
    export(folder, "jsonl", tmp_path / "out")
    assert lines(tmp_path / "out" / "responses.jsonl") == [
        {
            "name": "7.2A", "branch": "main", "step": 7, "group": 2, "letter": "A", "prompt_id": "p9",
            "prompt": "why?", "completion": HOSTILE, "answer": "so", "reward": 0.25, "rated_reward": 0.5,
            "components": {"accuracy": 0.25, "format": None}, "failed": "exact: raised", "advantage": 1.5,
            "automatic_advantage": -1.5, "kl": 0.125, "length": 3, "ended": False, "status": "scored",
            "temperature": 0.5,
        }
    ]  # fmt: skip


def test_tokens_come_only_when_asked_for(folder, store, tmp_path: Path) -> None:
    store.add_groups([group(1, 1, [1.0])])
    export(folder, "jsonl", tmp_path / "plain")
    export(folder, "jsonl", tmp_path / "tokens", Wanted(tokens=True))
    [plain], [row] = (lines(tmp_path / name / "responses.jsonl") for name in ("plain", "tokens"))
    per_token = {name: row.pop(name) for name in [*row] if name not in plain}
    assert row == plain
    assert per_token == {
        "prompt_tokens": [1, 2, 3],
        "tokens": [0, 1, 2],
        "ends": [1, 2, 3],
        "logprobs": [-0.5] * 3,
        "reference_logprobs": [],
        "entropies": [0.25] * 3,
        "values": [],
        "returns": [],
        "advantages": [],
    }


def test_every_rating_is_there_with_its_use_taken_back_or_not(folder, store, tmp_path: Path) -> None:
    store.add_groups([group(3, 1)])
    store.add_rating(rating(values={"A": 4.0, "B": 1.0}, id="r1", comment=HOSTILE, order=["B", "A"], blind=True))
    store.add_rating(rating(values={"A": 2.0}, id="r2", supersedes="r1", time=101.0))
    store.add_rating(rating(values={"C": 1.0}, id="r3", mode="thumbs", time=102.0))
    store.add_rating(rating(values={"D": 1.0}, id="r4", mode="of tomorrow", time=103.0))
    store.retract("r3", "ann", 110.0)
    store.add_rating_uses([use("r1", 4)], 4)
    export(folder, "jsonl", tmp_path / "out")
    r1, r2, r3, r4 = lines(tmp_path / "out" / "ratings.jsonl")
    assert [r["id"] for r in (r1, r2, r3, r4)] == ["r1", "r2", "r3", "r4"]
    assert (r1["values"], r1["scores"]) == ({"A": 4.0, "B": 1.0}, {"A": 0.75, "B": 0.0})
    assert (r1["comment"], r1["order"], r1["blind"], r1["group"]) == (HOSTILE, ["B", "A"], True, "3.1")
    assert (r1["fate"], r1["used_in"], r1["drift"]) == ("late", 4, 0.003)
    assert (r1["advantages"], r1["automatic"]) == ({"A": 1.0}, {"A": 0.0})
    assert [r["standing"] for r in (r1, r2, r3, r4)] == [False, True, False, True]
    assert [r["retracted"] for r in (r1, r2, r3, r4)] == [None, None, 110.0, None]
    assert (r2["fate"], r2["used_in"]) == (None, None)
    assert (r3["scores"], r4["scores"]) == ({"C": 1.0}, {})


def test_changes_and_alarms_are_there_however_many(folder, store, tmp_path: Path) -> None:
    for i in range(1100):
        store.put_change(change(f"c{i}", time=float(i), new=i))
        store.put_alarm(alarm(f"a{i}", time=float(i), acknowledged=float(i % 2)))
    export(folder, "jsonl", tmp_path / "out")
    changes, alarms = (lines(tmp_path / "out" / f"{name}.jsonl") for name in ("changes", "alarms"))
    assert [c["id"] for c in changes] == [f"c{i}" for i in range(1100)]
    assert [c["new"] for c in changes[:2]] == [0, 1]
    assert [a["acknowledged"] for a in alarms[:2]] == [None, 1.0]
    assert len(alarms) == 1100


def test_a_long_session_is_read_whole_though_page_by_page(folder, store, tmp_path: Path) -> None:
    for step in range(1, 251):
        store.add_groups([group(step, 1, [1.0])])
        store.add_step(step_record(step), [], 500)
        store.add_rating(rating(step, 1, {"A": 5.0}))
        store.add_rating(rating(step, 1, {"A": 5.0}))
    for tokens in (False, True):
        out = tmp_path / str(tokens)
        export(folder, "jsonl", out, Wanted(tokens=tokens))
        assert [row["step"] for row in lines(out / "steps.jsonl")] == list(range(1, 251))
        assert [row["step"] for row in lines(out / "responses.jsonl")] == list(range(1, 251))
        assert [row["step"] for row in lines(out / "ratings.jsonl")] == [s for s in range(1, 251) for _ in "12"]


@pytest.mark.parametrize(
    ("first", "last", "steps"), [(0, 2**62, [1, 2, 3, 4]), (2, 3, [2, 3]), (4, 2**62, [4]), (0, 1, [1]), (9, 12, [])]
)
def test_a_range_includes_both_ends(folder, store, tmp_path: Path, first: int, last: int, steps: list[int]) -> None:
    fill(store, 4)
    for step in range(1, 5):
        store.add_rating(rating(step, 1))
    export(folder, "jsonl", tmp_path / "out", Wanted(first=first, last=last))
    for name in ("steps", "responses", "ratings"):
        assert list(dict.fromkeys(row["step"] for row in lines(tmp_path / "out" / f"{name}.jsonl"))) == steps


def fork(store: Store, name: str, step: int, steps: int) -> None:
    """A branch of main after a step, with steps of its own up to another."""
    store.put_branch(Branch(name=name, parent="main", step=step))
    for number in range(step + 1, steps + 1):
        store.add_groups([group(number, 1, branch=name)])
        store.add_step(step_record(number, name), [], 500)


def test_a_branch_is_exported_with_the_steps_it_began_from(folder, store, tmp_path: Path) -> None:
    fill(store, 4)
    fork(store, "try", 2, 5)
    for step, branch in ((2, "main"), (4, "main"), (4, "try")):
        store.add_rating(rating(step, 1, {"A": 5.0, "B": 1.0}, branch=branch))
    done = export(folder, "jsonl", tmp_path / "try", Wanted(branch="try"))
    line = [("main", 1), ("main", 2), ("try", 3), ("try", 4), ("try", 5)]
    assert [(row["branch"], row["step"]) for row in lines(tmp_path / "try" / "steps.jsonl")] == line
    responses = lines(tmp_path / "try" / "responses.jsonl")
    assert list(dict.fromkeys((row["branch"], row["step"]) for row in responses)) == line
    assert [(r["branch"], r["step"]) for r in lines(tmp_path / "try" / "ratings.jsonl")] == [("main", 2), ("try", 4)]
    assert done.branches == ["main", "try"]
    export(folder, "preferences", tmp_path / "pairs", Wanted(branch="try"))
    assert [x["chosen_response"] for x in lines(tmp_path / "pairs" / "preferences.jsonl")] == ["2.1A", "try/4.1A"]
    export(folder, "jsonl", tmp_path / "range", Wanted(branch="try", first=2, last=3))
    assert [(r["branch"], r["step"]) for r in lines(tmp_path / "range" / "steps.jsonl")] == [("main", 2), ("try", 3)]
    with pytest.raises(UnknownName, match="unknown branch 'tryy'; did you mean try"):
        export(folder, "jsonl", tmp_path / "none", Wanted(branch="tryy"))


def test_every_branch_has_each_of_its_own_steps_once(folder, store, tmp_path: Path) -> None:
    fill(store, 4)
    fork(store, "try", 2, 5)
    done = export(folder, "jsonl", tmp_path / "out", Wanted(all_branches=True))
    steps = [(row["branch"], row["step"]) for row in lines(tmp_path / "out" / "steps.jsonl")]
    assert steps == [("main", s) for s in (1, 2, 3, 4)] + [("try", s) for s in (3, 4, 5)]
    names = [row["name"] for row in lines(tmp_path / "out" / "responses.jsonl")]
    assert len(set(names)) == len(names) == 4 * 8 + 3 * 4
    assert done.branches == ["main", "try"]


def test_names_are_those_of_the_active_line(folder, store, tmp_path: Path) -> None:
    fill(store, 3)
    fork(store, "try", 2, 3)
    for active, names in (("main", ["2.1A", "3.1A", "try/3.1A"]), ("try", ["2.1A", "main/3.1A", "3.1A"])):
        store.use_branch(active)
        export(folder, "jsonl", tmp_path / active, Wanted(all_branches=True, first=2))
        rows = lines(tmp_path / active / "responses.jsonl")
        assert [row["name"] for row in rows if (row["group"], row["letter"]) == (1, "A")] == names
    assert lines(tmp_path / "try" / "responses.jsonl") != []
    export(folder, "jsonl", tmp_path / "unnamed")
    assert [r["branch"] for r in lines(tmp_path / "unnamed" / "steps.jsonl")] == ["main", "main", "try"]


def test_changes_alarms_and_uses_are_those_of_the_branch_and_the_range(folder, store, tmp_path: Path) -> None:
    fill(store, 4)
    fork(store, "try", 2, 5)
    for i, (branch, step) in enumerate([("main", 1), ("main", 4), ("try", 4), ("main", 2)]):
        store.put_change(change(f"c{i}", time=float(i), branch=branch, accepted_step=step, applied_step=step))
        store.put_alarm(alarm(f"a{i}", time=float(i), branch=branch, step=step))
    store.add_rating(rating(1, 1, id="r1"))
    for branch, step in (("main", 4), ("try", 5)):
        store.add_rating_uses([msgspec.structs.replace(use("r1", step), branch=branch)], step)

    def found(name: str, wanted: Wanted) -> tuple[list[str], list[str], list[int]]:
        export(folder, "jsonl", tmp_path / name, wanted)
        rows = {t: lines(tmp_path / name / f"{t}.jsonl") for t in ("changes", "alarms", "ratings")}
        uses = [r["used_in"] for r in rows["ratings"]]
        return [c["id"] for c in rows["changes"]], [a["id"] for a in rows["alarms"]], uses

    assert found("main", Wanted()) == (["c0", "c1", "c3"], ["a0", "a1", "a3"], [4])
    assert found("try", Wanted(branch="try")) == (["c0", "c2", "c3"], ["a0", "a2", "a3"], [5])
    assert found("all", Wanted(all_branches=True)) == (["c0", "c1", "c2", "c3"], ["a0", "a1", "a2", "a3"], [4])
    assert found("range", Wanted(first=2, last=3)) == (["c3"], ["a3"], [])


def test_the_warm_up_comes_before_the_steps_of_every_branch(folder, store, tmp_path: Path) -> None:
    store.add_step(step_record(1, WARM_UP, **{"warm_up/loss": 2.0}), [], 500)
    fill(store, 2)
    for wanted in (Wanted(), Wanted(all_branches=True)):
        export(folder, "jsonl", tmp_path / str(wanted.all_branches), wanted)
        rows = lines(tmp_path / str(wanted.all_branches) / "steps.jsonl")
        assert [(row["branch"], row["step"]) for row in rows] == [(WARM_UP, 1), ("main", 1), ("main", 2)]
    export(folder, "jsonl", tmp_path / "range", Wanted(first=1, last=1))
    assert [row["branch"] for row in lines(tmp_path / "range" / "steps.jsonl")] == ["main"]


def test_a_session_that_goes_on_is_exported_as_it_was_at_the_start(folder, store, tmp_path: Path, monkeypatch) -> None:
    """Another step ends each time a page is read: the export ends all the same, and holds up no writer."""
    fill(store, 3)
    seen = Store.each_group
    more = iter(range(4, 1000))

    def each_group(self, *arguments, **options):
        for found in seen(self, *arguments, **options):
            step = next(more)
            store.add_groups([group(step, 1)])
            store.add_step(step_record(step), [], 500)
            assert store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0  # nobody reads meanwhile
            yield found

    monkeypatch.setattr(Store, "each_group", each_group)
    export(folder, "jsonl", tmp_path / "out")
    assert [row["step"] for row in lines(tmp_path / "out" / "responses.jsonl")] == [1] * 8 + [2] * 8 + [3] * 8


def test_nothing_of_the_environment_is_written(folder, store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET_API_KEY", "hunter2-in-the-environment")
    fill(store, 2)
    store.add_rating(rating(1, 1, {"A": 5.0, "B": 1.0}))
    save_checkpoint(folder, store, 2)
    for to in ("jsonl", "parquet", "preferences", "model"):
        export(folder, to, tmp_path / to)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


# ------------------------------------------------------------------------------------------------- parquet


def test_parquet_says_what_json_lines_say(folder, store, tmp_path: Path) -> None:
    fill(store, 3)
    odd = group(2, 3, [1.0, None])
    odd.responses[0].text = HOSTILE
    store.add_groups([odd])
    store.add_rating(rating(2, 1, {"A": 5.0, "B": 1.0}, comment=HOSTILE))
    store.add_rating_uses([use("r0", 2)], 2)
    store.put_change(change(new="async", old=3))
    store.put_alarm(alarm(responses=["1.1A"]))
    wanted = Wanted(tokens=True)
    export(folder, "jsonl", tmp_path / "json", wanted)
    done = export(folder, "parquet", tmp_path / "parquet", wanted)
    for name in ("responses", "ratings", "alarms"):
        rows = table(tmp_path / "parquet" / f"{name}.parquet")
        assert rows == lines(tmp_path / "json" / f"{name}.jsonl")
        assert {f.file: f.rows for f in done.files}[f"{name}.parquet"] == len(rows)
    [changed] = table(tmp_path / "parquet" / "changes.parquet")
    assert (changed["old"], changed["new"]) == ("3", "async")
    for flat, nested in zip(
        table(tmp_path / "parquet" / "steps.parquet"), lines(tmp_path / "json" / "steps.jsonl"), strict=True
    ):
        assert {name: flat[name] for name in nested["metrics"]} == nested["metrics"]
        assert {name: flat[f"hyperparameters/{name}"] for name in nested["values"]} == nested["values"]
        assert flat["step"] == nested["step"]


def test_parquet_columns_have_types(folder, store, tmp_path: Path) -> None:
    fill(store, 1)
    export(folder, "parquet", tmp_path / "out", Wanted(tokens=True))
    schema = parquet.read_schema(tmp_path / "out" / "responses.parquet")
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    assert kinds["prompt"] == kinds["completion"] == "string"
    assert kinds["step"] == "int64"
    assert kinds["reward"] == "double"
    assert kinds["ended"] == "bool"
    assert kinds["components"].startswith("map<string, double")
    assert kinds["tokens"].startswith("list<")
    assert "int64" in kinds["tokens"]
    assert "float" in kinds["logprobs"]
    steps = parquet.read_schema(tmp_path / "out" / "steps.parquet")
    assert str(steps.field("reward/mean").type) == str(steps.field("hyperparameters/learning_rate").type) == "double"
    assert str(steps.field("hyperparameters/group_size").type) == "int64"
    assert str(steps.field("hyperparameters/rating_gate").type) == "string"


def test_a_metric_that_a_step_did_not_measure_is_null_there(folder, store, tmp_path: Path) -> None:
    store.add_step(step_record(1), [], 500)
    store.add_step(step_record(2, **{"eval/accuracy": 0.5}), [], 500)
    export(folder, "parquet", tmp_path / "out")
    assert [row["eval/accuracy"] for row in table(tmp_path / "out" / "steps.parquet")] == [None, 0.5]


def test_a_long_table_has_several_row_groups(folder, store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sessions.export_files.GROUP_BYTES", 20_000)
    monkeypatch.setattr("sessions.export_files.BATCH", 8)
    fill(store, 60)
    export(folder, "parquet", tmp_path / "out")
    file = parquet.ParquetFile(tmp_path / "out" / "responses.parquet")
    assert file.metadata.num_rows == 480
    assert 2 < file.metadata.num_row_groups < 30  # neither one of all batches nor one of each
    assert [row["step"] for row in file.read().to_pylist()] == [s for s in range(1, 61) for _ in range(8)]


def test_without_pyarrow_one_line_names_the_extra(folder, store, tmp_path: Path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'rl-workbench\[parquet\]'"):
        export(folder, "parquet", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------- preferences

answers = {
    "likert": st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]),
    "thumbs": st.sampled_from([-1.0, 1.0]),
}
given_ratings = st.lists(
    st.sampled_from(sorted(answers)).flatmap(
        lambda mode: st.builds(
            lambda who, values: (who, mode, values),
            st.sampled_from(["ann", "bob"]),
            st.dictionaries(st.sampled_from("ABCD"), answers[mode], min_size=1),
        )
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None)
@given(given_ratings)
def test_pairs_and_labels_are_those_of_brute_force(ratings) -> None:
    one = group(3, 1)
    for i, r in enumerate(one.responses):
        r.text = f"text {i}"
    said: dict[tuple[str, str], dict[str, float]] = {}
    for who, mode, values in ratings:
        for letter, value in values.items():
            said.setdefault((who, mode), {})[letter] = value
    better = [
        (who, mode, a, b)
        for (who, mode), values in said.items()
        for a, b in permutations(values, 2)
        if values[a] > values[b]
    ]
    good = [
        (who, mode, letter, value > {"likert": 3, "thumbs": 0}[mode])
        for (who, mode), values in said.items()
        for letter, value in values.items()
        if (mode, value) != ("likert", 3.0)
    ]
    text = {r.letter: r.text for r in one.responses}
    found = judgements(rating(who=who, mode=mode, values=values) for who, mode, values in ratings)
    made = list(pairs(one, found, MAIN_LINE))
    assert sorted((p.who, p.mode, p.chosen_response, p.rejected_response) for p in made) == sorted(
        (who, mode, f"3.1{a}", f"3.1{b}") for who, mode, a, b in better
    )
    for p in made:
        assert (p.prompt, p.chosen, p.rejected) == ("5+7=", text[p.chosen_response[-1]], text[p.rejected_response[-1]])
        assert 0 <= p.score_rejected < p.score_chosen <= 1
    labels = list(labelled(one, found, MAIN_LINE))
    assert sorted((x.who, x.mode, x.response, x.label) for x in labels) == sorted(
        (who, mode, f"3.1{letter}", label) for who, mode, letter, label in good
    )
    assert all(x.completion == text[x.response[-1]] for x in labels)


def test_only_ratings_that_stand_make_pairs(folder, store, tmp_path: Path) -> None:
    store.add_groups([group(3, 1), group(3, 2)])
    store.add_rating(rating(values={"A": 5.0}, id="r1"))
    store.add_rating(rating(values={"B": 1.0}, id="r2", time=101.0))
    store.add_rating(rating(values={"B": 5.0}, id="r3", time=102.0, supersedes="r2"))
    store.add_rating(rating(values={"C": 1.0}, id="r4", time=103.0))
    store.retract("r4", "ann", 110.0)
    store.add_rating(rating(values={"D": 1.0}, id="r5", who="bob", time=104.0))  # another person: no pair with ann's
    store.add_rating(rating(number=2, values={"A": 1.0}, id="r6", time=105.0))  # nor with another group's
    export(folder, "preferences", tmp_path / "out")
    assert lines(tmp_path / "out" / "preferences.jsonl") == []
    unpaired = lines(tmp_path / "out" / "unpaired.jsonl")
    assert [(x["response"], x["label"], x["who"]) for x in unpaired] == [
        ("3.1A", True, "ann"), ("3.1B", True, "ann"), ("3.1D", False, "bob"), ("3.2A", False, "ann"),
    ]  # fmt: skip


def test_preferences_have_the_columns_of_trl_and_none_that_it_trains_with(folder, store, tmp_path: Path) -> None:
    one = group(3, 1)
    one.responses[0].text, one.responses[1].text = HOSTILE, "other"
    store.add_groups([one])
    store.add_rating(rating(values={"A": 4.0, "B": 2.0}))
    store.add_rating(rating(values={"A": 1.0}, mode="of tomorrow"))
    done = export(folder, "preferences", tmp_path / "out")
    [pair] = lines(tmp_path / "out" / "preferences.jsonl")
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("5+7=", HOSTILE, "other")
    assert (pair["score_chosen"], pair["score_rejected"]) == (0.75, 0.25)
    assert not {"margin", "messages", "completion", "label", "images", "tools"} & pair.keys()
    one_good, one_bad = lines(tmp_path / "out" / "unpaired.jsonl")
    assert (one_good["prompt"], one_good["completion"], one_good["label"]) == ("5+7=", HOSTILE, True)
    assert one_bad["label"] is False
    assert [(f.file, f.rows) for f in done.files] == [
        ("preferences.jsonl", 1),
        ("unpaired.jsonl", 2),
        ("demonstrations.jsonl", 0),
    ]


def test_an_edit_is_a_demonstration_that_a_warm_up_reads(folder, store, tmp_path: Path) -> None:
    store.add_groups([group(3, 1)])
    better = rating(values={"B": 1.0}, mode="edit", text=HOSTILE)
    store.add_rating(better)
    store.add_rating(rating(values={"C": 1.0}, mode="edit", text="taken back", id="gone"))
    store.retract("gone", "ann", 5.0)
    export(folder, "preferences", tmp_path / "out")
    export(folder, "preferences", tmp_path / "chat", Wanted(conversational=True))
    assert lines(tmp_path / "out" / "demonstrations.jsonl") == [
        {"prompt": "5+7=", "completion": HOSTILE, "response": "3.1B", "who": "ann"}
    ]
    [plain] = read_examples(tmp_path / "out" / "demonstrations.jsonl")
    [chat] = read_examples(tmp_path / "chat" / "demonstrations.jsonl")
    assert (plain.prompt, plain.completion) == ("5+7=", HOSTILE)
    assert (chat.prompt, chat.completion) == (
        [{"role": "user", "content": "5+7="}],
        [{"role": "assistant", "content": HOSTILE}],
    )


def test_all_that_people_said_is_in_the_tables(folder, store, tmp_path: Path) -> None:
    """Text, flags, rule, repeats, and skips with their reasons; a rating's line stands by itself."""
    store.add_groups([group(3, n) for n in (1, 2)])
    store.add_rating(rating(values={"B": 1.0}, mode="edit", text="better", id="e", rule="random"))
    store.add_rating(rating(values={"A": 1.0}, mode="critique", flags=["wrong", "too long"], id="c", comment="no"))
    store.add_rating(rating(values={"A": 4.0}, id="l", redoes="x"))
    store.add_rating(rating(values={"A": 3.0}, id="again", repeats="l"))
    for name, letter, number in (("s1", "B", 2), ("s2", "", 1), ("s3", "A", 1)):
        store.add_skip(
            msgspec.structs.replace(skip(3), id=name, letter=letter, group=number, reason=HOSTILE, rule="spread")
        )
    store.retract("s3", "ann", 7.0)
    store.add_skip(msgspec.structs.replace(skip(9), id="s9"))
    export(folder, "jsonl", tmp_path / "out", Wanted(last=3))
    export(folder, "parquet", tmp_path / "typed", Wanted(last=3))
    rows = {row["id"]: row for row in lines(tmp_path / "out" / "ratings.jsonl")}
    assert (rows["e"]["text"], rows["e"]["rule"], rows["e"]["texts"]) == ("better", "random", {"B": "12\n"})
    assert (rows["c"]["flags"], rows["c"]["comment"]) == (["wrong", "too long"], "no")
    assert (rows["again"]["repeats"], rows["again"]["standing"], rows["l"]["redoes"]) == ("l", False, "x")
    assert {row["prompt"] for row in rows.values()} == {"5+7="}
    skips = lines(tmp_path / "out" / "skips.jsonl")
    assert [(row["response"], row["reason"], row["rule"], row["retracted"]) for row in skips] == [
        ("3.1", HOSTILE, "spread", None),
        ("3.1A", HOSTILE, "spread", 7.0),
        ("3.2B", HOSTILE, "spread", None),
    ]
    assert table(tmp_path / "typed" / "skips.parquet") == skips
    assert [row["texts"] for row in table(tmp_path / "typed" / "ratings.parquet")] == [
        r["texts"] for r in rows.values()
    ]


def test_conversational_preferences_are_messages(folder, store, tmp_path: Path) -> None:
    store.add_groups([group(3, 1)])
    store.add_rating(rating(values={"A": 5.0, "B": 1.0}))
    export(folder, "preferences", tmp_path / "out", Wanted(conversational=True))
    [pair] = lines(tmp_path / "out" / "preferences.jsonl")
    assert pair["prompt"] == [{"role": "user", "content": "5+7="}]
    assert pair["chosen"] == pair["rejected"] == [{"role": "assistant", "content": "12\n"}]
    row = lines(tmp_path / "out" / "unpaired.jsonl")[0]
    assert row["prompt"] == [{"role": "user", "content": "5+7="}]
    assert row["completion"] == [{"role": "assistant", "content": "12\n"}]


def test_a_rating_of_a_letter_that_the_group_has_not_makes_nothing() -> None:
    said = [Judgement("ann", "likert", {"A": 5.0, "Z": 1.0})]
    assert list(pairs(group(), said, MAIN_LINE)) == []
    assert [x.response for x in labelled(group(), said, MAIN_LINE)] == ["3.1A"]


@pytest.mark.parametrize(
    ("mode", "values", "text", "chosen"),
    [
        ("likert", {"A": 2.0, "B": 4.0}, "", [("3.1B", "3.1A", 0.75, 0.25)]),
        ("thumbs", {"A": 1.0, "B": -1.0}, "", [("3.1A", "3.1B", 1.0, 0.0)]),
        ("pair", {"A": 0.0, "B": 2.0}, "", [("3.1B", "3.1A", 1.0, 0.0)]),
        ("pair", {"A": 1.0, "B": 1.0}, "", []),
        ("rank", {"A": 2.0, "B": 1.0}, "", [("3.1B", "3.1A", 1.0, 0.0)]),
        ("edit", {"A": 1.0}, "a better one", [("", "3.1A", 1.0, 0.0)]),
        ("critique", {"A": 1.0}, "", []),
    ],
)
def test_pairs_of_every_mode(mode: str, values: dict, text: str, chosen: list) -> None:
    found = list(pairs(group(), [Judgement("ann", mode, values, text)], MAIN_LINE))
    assert [(p.chosen_response, p.rejected_response, p.score_chosen, p.score_rejected) for p in found] == chosen
    if text:
        assert found[0].chosen == text


@pytest.mark.parametrize(
    ("mode", "values", "labels"),
    [
        ("likert", {"A": 2.0, "B": 3.0}, [("3.1A", False)]),
        ("thumbs", {"A": 1.0}, [("3.1A", True)]),
        ("pair", {"A": 0.0, "B": 0.0}, [("3.1A", False), ("3.1B", False)]),
        ("pair", {"A": 1.0, "B": 0.0}, []),
        ("rank", {"A": 1.0, "B": 2.0}, []),
    ],
)
def test_labels_of_every_mode(mode: str, values: dict, labels: list) -> None:
    found = labelled(group(), [Judgement("ann", mode, values)], MAIN_LINE)
    assert [(x.response, x.label) for x in found] == labels


# --------------------------------------------------------------------------------------------------- model


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_checkpoint(folder: SessionFolder, store: Store, step: int, files: dict[str, bytes] | None = None) -> Path:
    """A checkpoint as the engine leaves it, of files that are no model."""
    place = folder.checkpoints / str(step)
    held = {"policy/config.json": b"{}", "policy/model.safetensors": b"weights of %d" % step, "state.json": b"{}"}
    for name, data in (held if files is None else files).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    hashes = {str(p.relative_to(place)): sha256(p) for p in place.rglob("*") if p.is_file()}
    (place / "manifest.json").write_text(json.dumps({"files": hashes}))
    store.put_checkpoint(msgspec.structs.replace(checkpoint(step), path=str(step)))
    return place


def test_the_model_is_the_policy_of_the_newest_checkpoint_and_nothing_else(folder, store, tmp_path: Path) -> None:
    save_checkpoint(folder, store, 2)
    save_checkpoint(folder, store, 10)
    done = export(folder, "model", tmp_path / "out")
    assert done.step == 10
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights of 10",
    }
    assert export(folder, "model", tmp_path / "two", Wanted(step=2)).step == 2
    assert (tmp_path / "two" / "model.safetensors").read_bytes() == b"weights of 2"


def test_the_best_model_is_of_the_kept_checkpoint_with_the_best_accuracy(folder, store, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="has no checkpoint of branch main"):
        export(folder, "model", tmp_path / "none")
    for step, accuracy in ((1, 0.9), (2, 0.5), (3, 0.7), (4, None), (5, 0.7), (6, 0.6)):
        store.add_step(step_record(step, **({} if accuracy is None else {"eval/accuracy": accuracy})), [], 500)
    save_checkpoint(folder, store, 4)
    with pytest.raises(SessionError, match="no kept checkpoint is of a step that was evaluated"):
        export(folder, "model", tmp_path / "none", Wanted(best=True))
    for step in (2, 3, 5, 6):
        save_checkpoint(folder, store, step)
    store.put_checkpoint(msgspec.structs.replace(checkpoint(1), path="1"))  # retention has removed its folder
    assert export(folder, "model", tmp_path / "out", Wanted(best=True)).step == 5
    with pytest.raises(InvalidValue, match="no checkpoint of that step is kept; there are those of 2, 3, 4, 5, 6"):
        export(folder, "model", tmp_path / "none", Wanted(step=1))
    assert files(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["policy/model.safetensors", "policy/config.json"])
def test_a_damaged_checkpoint_is_refused(folder, store, tmp_path: Path, name: str) -> None:
    place = save_checkpoint(folder, store, 2)
    (place / name).write_bytes((place / name).read_bytes() + b"!")
    with pytest.raises(SessionError, match=f"{name} is damaged"):
        export(folder, "model", tmp_path / "out")
    (place / name).unlink()
    with pytest.raises(SessionError, match="cannot be read"):
        export(folder, "model", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_no_manifest_vouches_for_is_not_copied(folder, store, tmp_path: Path) -> None:
    place = save_checkpoint(folder, store, 2)
    (place / "policy" / "extra.bin").write_bytes(b"pickle")
    export(folder, "model", tmp_path / "out")
    assert files(tmp_path / "out") == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": {}}', '{"files": {"policy/../../../s.txt": "00"}}'])
def test_a_manifest_that_is_wrong_is_refused(folder, store, tmp_path: Path, manifest: str) -> None:
    place = save_checkpoint(folder, store, 2)
    (place / "manifest.json").write_text(manifest)
    with pytest.raises(SessionError):
        export(folder, "model", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_cannot_have_anything_written_outside_the_folder(folder, store, tmp_path: Path) -> None:
    place = save_checkpoint(folder, store, 2)
    (place / "manifest.json").write_text(json.dumps({"files": {"policy/../state.json": sha256(place / "state.json")}}))
    with pytest.raises(SessionError, match=r"names 'policy/\.\./state\.json', which lies outside the policy"):
        export(folder, "model", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_merging_replaces_adapters_by_what_it_makes_and_needs_some(folder, store, tmp_path: Path) -> None:
    def merge(apart: Path, target: Path) -> None:
        assert files(apart) == ["adapter_config.json", "adapter_model.safetensors"]
        (target / "model.safetensors").write_bytes(b"merged")

    save_checkpoint(folder, store, 1)
    with pytest.raises(UsageError, match="step 1 has no adapters to merge"):
        export(folder, "model", tmp_path / "out", Wanted(merge=merge))
    adapters = {"policy/adapter_config.json": b"{}", "policy/adapter_model.safetensors": b"a"}
    save_checkpoint(folder, store, 2, adapters)
    export(folder, "model", tmp_path / "apart")
    assert files(tmp_path / "apart") == ["adapter_config.json", "adapter_model.safetensors"]
    done = export(folder, "model", tmp_path / "out", Wanted(merge=merge))
    assert files(tmp_path / "out") == ["model.safetensors"]
    assert [(f.file, f.bytes) for f in done.files] == [("model.safetensors", 6)]


# -------------------------------------------------------------------------------------------------- folder


def test_only_a_new_or_an_empty_folder_is_written_to(folder, store, tmp_path: Path, monkeypatch) -> None:
    fill(store, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name in ("full", "file", "link", "nowhere"):
        with pytest.raises(InputFileError, match=f"{name}: is there already; give a new or empty folder"):
            export(folder, "jsonl", tmp_path / name)
    assert files(tmp_path / "full") == ["mine.txt"]
    assert files(tmp_path / "empty") == []
    assert not (tmp_path / "missing").exists()
    export(folder, "jsonl", tmp_path / "empty")
    assert "steps.jsonl" in files(tmp_path / "empty")
    export(folder, "jsonl", tmp_path / "deep" / "er")
    monkeypatch.chdir(tmp_path)
    assert export(folder, "jsonl", Path("here")).folder == str(tmp_path / "here")
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".partial")]


def test_what_appears_at_the_place_meanwhile_is_not_overwritten(folder, store, tmp_path: Path, monkeypatch) -> None:
    fill(store, 1)
    seen = Store.each_step

    def each_step(self, *arguments):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine.txt").write_text("mine")
        return seen(self, *arguments)

    monkeypatch.setattr(Store, "each_step", each_step)
    with pytest.raises(InputFileError, match="is there already"):
        export(folder, "jsonl", tmp_path / "out")
    assert files(tmp_path) == ["out"]
    assert files(tmp_path / "out") == ["mine.txt"]


def test_nothing_is_at_the_place_before_everything_is(folder, store, tmp_path: Path, monkeypatch) -> None:
    """Whoever stops it in the middle finds neither a part nor what it had begun."""
    fill(store, 1)

    def each_rated(*_):
        assert not (tmp_path / "out").exists()
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "each_rated", each_rated)
    with pytest.raises(KeyboardInterrupt):
        export(folder, "jsonl", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_session_without_records_and_an_unknown_format_are_refused(tmp_path: Path) -> None:
    empty = new_session("empty", SessionSettings(name="empty"))
    with pytest.raises(SessionError, match="session 'empty' has no records yet"):
        export(empty, "jsonl", tmp_path / "out")
    with pytest.raises(UnknownName, match="unknown format 'json'; did you mean jsonl"):
        export(empty, "json", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_two_exports_at_once_leave_one_whole_folder(folder, store, tmp_path: Path) -> None:
    fill(store, 20)
    failed = []

    def write() -> None:
        try:
            export(folder, "jsonl", tmp_path / "out")
        except InputFileError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 2
    assert files(tmp_path) == ["out"]
    assert len(lines(tmp_path / "out" / "responses.jsonl")) == 160


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_session_of_an_earlier_version_is_exported_as_it_is(folder, tmp_path: Path, version: int) -> None:
    groups = [group(step, number) for step in (1, 2) for number in (1, 2)]
    write_old(folder.database, version, groups, [step_record(1), step_record(2)], [rating(2, 1, {"A": 5.0, "B": 1.0})])
    before = folder.database.read_bytes()
    export(folder, "jsonl", tmp_path / "out", Wanted(tokens=True))
    rows = lines(tmp_path / "out" / "responses.jsonl")
    assert [(r["name"], r["tokens"]) for r in rows] == [
        (f"{g.step}.{g.number}{r.letter}", r.tokens) for g in groups for r in g.responses
    ]
    assert [row["step"] for row in lines(tmp_path / "out" / "steps.jsonl")] == [1, 2]
    [rated] = lines(tmp_path / "out" / "ratings.jsonl")
    assert (rated["fate"], rated["used_in"]) == ("on_time", 2)
    export(folder, "preferences", tmp_path / "pairs")
    assert [p["chosen_response"] for p in lines(tmp_path / "pairs" / "preferences.jsonl")] == ["2.1A"]
    assert folder.database.read_bytes() == before


def test_what_was_asked_as_messages_is_exported_as_messages(folder, store, tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2="}]
    fill(store, 1)
    for made in list(store.each_group(Segment("main", 0, 1))):
        store.add_groups([msgspec.structs.replace(made, messages=asked)])
    store.add_rating(rating(id="m", step=1, group=1, mode="pair", values={"A": 1.0, "B": 0.0}))
    export(folder, "preferences", tmp_path / "out")
    (pair,) = lines(tmp_path / "out" / "preferences.jsonl")
    assert pair["prompt"] == asked
    assert [m["role"] for side in ("chosen", "rejected") for m in pair[side]] == ["assistant", "assistant"]
