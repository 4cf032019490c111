"""Staging, applying, undoing: what is sent, with which expectation, and what the table says."""

from __future__ import annotations

import msgspec
import pytest

from screens.staging import Staging
from screens.staging_rows import describe_change, effect_lines, knob_rows
from sessions.commands import Set
from sessions.errors import InvalidValue, UsageError
from sessions.hyperparameters import HYPERPARAMETERS, Value, defaults, switched
from sessions.records import Change


class Engine:
    """Applies what it is sent at once, or keeps it pending."""

    def __init__(self) -> None:
        self.values = defaults()
        self.changes: dict[str, Change] = {}

    def take(self, command: Set, status: str = "applied") -> None:
        for name, expected in command.expect.items():
            waiting = [c.new for c in self.changes.values() if c.name == name and c.status == "pending"]
            assert expected == (waiting[-1] if waiting else self.values[name]), f"{name}: refused"
        for name, value in switched(self.values, command.values).items():
            for change in list(self.changes.values()):
                if change.name == name and change.status == "pending":
                    self.changes[change.id] = msgspec.structs.replace(change, status="superseded")
            if value == self.values[name]:
                continue
            change = Change(
                id=f"c{len(self.changes)}", time=float(len(self.changes)), who=command.who, name=name,
                old=self.values[name], new=value, boundary="rollout", status=status,  # type: ignore[arg-type]
                accepted_step=12, applied_step=13 if status == "applied" else 0, command=command.id,
            )  # fmt: skip
            self.changes[change.id] = change
            if status == "applied":
                self.values[name] = value


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def staging(engine: Engine) -> Staging:
    return Staging("ann", lambda: engine.values, engine.changes.values)


def must(command: Set | None) -> Set:
    assert command is not None
    return command


def test_what_is_staged_goes_as_one_command_that_says_what_it_replaces(staging: Staging) -> None:
    staging.stage("learning_rate", "5e-7")
    staging.nudge("group_size", 1)
    command = must(staging.apply())
    assert command.values == {"learning_rate": 5e-7, "group_size": 16}
    assert command.expect == {"learning_rate": 1e-6, "group_size": 8}
    assert set(staging.staged) == {"learning_rate", "group_size"}
    staging.accepted(command)
    assert staging.staged == {}


def test_the_value_seen_when_staging_is_what_is_expected(staging: Staging, engine: Engine) -> None:
    """Somebody else changed it meanwhile: the engine is to refuse, not this screen to overlook it."""
    staging.stage("learning_rate", "5e-7")
    engine.take(Set(values={"learning_rate": 1e-5}))
    command = must(staging.apply())
    assert command.expect == {"learning_rate": 1e-6}
    staging.rejected(command)
    assert staging.staged["learning_rate"].value == 5e-7


def test_staging_the_value_in_force_unstages(staging: Staging) -> None:
    staging.stage("temperature", "0.9")
    staging.stage("temperature", "1.0")
    assert staging.staged == {}
    assert staging.apply() is None


@pytest.mark.parametrize(("name", "text"), [("learning_rate", "fast"), ("group_size", "1"), ("kl_estimator", "k9")])
def test_a_value_out_of_bounds_is_not_staged(staging: Staging, name: str, text: str) -> None:
    with pytest.raises(InvalidValue, match=name):
        staging.stage(name, text)
    assert staging.staged == {}


def test_values_that_do_not_go_together_are_not_sent(staging: Staging) -> None:
    staging.stage("kl_placement", "reward")
    with pytest.raises(UsageError, match="k1"):
        staging.apply()
    staging.stage("kl_estimator", "k1")
    assert must(staging.apply()).values == {"kl_placement": "reward", "kl_estimator": "k1"}


def test_nudges_add_up_and_discard_forgets(staging: Staging) -> None:
    staging.nudge("learning_rate", -1)
    staging.nudge("learning_rate", -1)
    assert staging.candidate("learning_rate") == pytest.approx(2.5e-7)
    assert staging.discard() == 1
    assert staging.candidate("learning_rate") == 1e-6


def test_undo_sets_the_old_value_and_goes_on_backwards(staging: Staging, engine: Engine) -> None:
    for name, value in (("learning_rate", 5e-7), ("temperature", 0.9)):
        engine.take(Set(values={name: value}))
    sent: list[tuple[dict[str, Value], dict[str, Value]]] = []
    for _ in range(2):
        command = must(staging.undo())
        sent.append((command.values, command.expect))
        engine.take(command)
    assert sent == [({"temperature": 1.0}, {"temperature": 0.9}), ({"learning_rate": 1e-6}, {"learning_rate": 5e-7})]
    assert staging.undo() is None
    assert engine.values == defaults()


def test_redo_sets_again_and_can_be_undone_again(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"temperature": 0.9}))
    engine.take(must(staging.undo()))
    engine.take(must(staging.redo()))
    assert engine.values["temperature"] == 0.9
    assert staging.redo() is None
    engine.take(must(staging.undo()))
    assert engine.values["temperature"] == 1.0
    assert staging.undo() is None


def test_undo_before_the_echo_of_the_last_one_came(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"temperature": 0.9}))
    engine.take(Set(values={"temperature": 0.8}))
    first, second = must(staging.undo()), must(staging.undo())
    assert (first.values, second.values) == ({"temperature": 0.9}, {"temperature": 1.0})
    engine.take(first)
    engine.take(second)
    assert staging.undo() is None


def test_undoing_a_pending_change_only_supersedes_it(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"group_size": 16}), "pending")
    engine.take(must(staging.undo()))
    assert staging.undo() is None
    engine.take(must(staging.redo()))
    assert engine.values["group_size"] == 16
    # a later change with the same values is nobody's echo
    assert must(staging.undo()).values == {"group_size": 8}


def test_a_refused_undo_can_be_tried_again(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"temperature": 0.9}))
    command = must(staging.undo())
    staging.rejected(command)
    assert must(staging.undo()).values == {"temperature": 1.0}


def test_a_pending_change_counts_as_the_value_to_replace(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"group_size": 16}), "pending")
    staging.nudge("group_size", 1)
    assert must(staging.apply()).expect == {"group_size": 16}


def test_the_table_marks_what_is_staged_changed_or_not_used(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"temperature": 0.9}, who="ann"))
    engine.take(Set(values={"group_size": 16}, who="ann"), "pending")
    staging.stage("learning_rate", "5e-7")
    rows = {row.key: row for row in knob_rows(staging, "grpo")}
    assert rows["learning_rate"].cells == ("learning_rate", "1e-6", "5e-7 *", "0 .. 1", "minibatch", "@0")
    assert rows["trust_region"].cells[1] == "0.01 !"
    assert rows["temperature"].cells[-1] == "@13 ann"
    assert rows["group_size"].cells[1] == "8"
    assert rows["group_size"].cells[-1] == "due ann"
    narrow = {row.key: row.cells[-1] for row in knob_rows(staging, "grpo", last=6)}
    assert (narrow["temperature"], narrow["group_size"]) == ("@13", "due")
    used = [row.cells[1].endswith(" !") for row in rows.values()]
    assert used == sorted(used), "what is not used stands at the end"
    assert {row.key: row for row in knob_rows(staging, "trpo")}["learning_rate"].cells[1] == "1e-6 !"


def test_the_effect_says_old_new_and_when(staging: Staging) -> None:
    staging.stage("learning_rate", "5e-7")
    staging.stage("group_size", "16")
    first, second = effect_lines(staging)
    assert first == "learning_rate 1e-6 -> 5e-7  next minibatch, keeps the optimizer state"
    assert second == "group_size 8 -> 16  next rollout, up to 2 x the tokens of a step"


def test_the_history_says_what_became_of_a_change(engine: Engine) -> None:
    engine.take(Set(values={"learning_rate": 5e-7}, who="ann"))
    engine.take(Set(values={"learning_rate": 2e-7}, who="bob"), "pending")
    engine.take(Set(values={"learning_rate": 1e-7}, who="bob"), "pending")
    assert [describe_change(change) for change in engine.changes.values()] == [
        "learning_rate 1e-6 -> 5e-7   applied @13   ann",
        "learning_rate 5e-7 -> 2e-7   superseded before it applied   bob",
        "learning_rate 5e-7 -> 1e-7   due at the next rollout   bob",
    ]


# ---- another algorithm


def test_staging_another_algorithm_shows_what_follows_and_sends_only_what_was_staged(staging: Staging) -> None:
    staging.stage("algorithm", "ppo")
    rows = {row.key: row for row in knob_rows(staging, "grpo")}
    assert [rows[n].cells[2] for n in ("algorithm", "kl_placement", "kl_estimator", "kl_coefficient")] == [
        "ppo *", "reward +", "k1 +", "0.05 +",
    ]  # fmt: skip
    command = must(staging.apply())
    assert command.values == {"algorithm": "ppo"}


def test_the_marks_are_those_of_the_staged_algorithm(staging: Staging) -> None:
    staging.stage("algorithm", "trpo")
    rows = {row.key: row for row in knob_rows(staging, "grpo")}
    assert rows["learning_rate"].cells[1] == "1e-6 !"
    assert rows["trust_region"].cells[1] == "0.01"
    assert rows["gamma"].cells[1] == "1 !", "trpo reads it only with baseline value"
    staging.stage("baseline", "value")
    assert {row.key: row for row in knob_rows(staging, "grpo")}["gamma"].cells[1] == "1"


def test_what_is_not_used_can_be_left_out(staging: Staging) -> None:
    staging.stage("gamma", "0.9")
    shown = {row.key for row in knob_rows(staging, "grpo", all_of_them=False)}
    assert "gamma" in shown, "it is staged"
    assert "trust_region" not in shown
    assert len(knob_rows(staging, "grpo")) == len(HYPERPARAMETERS)


def test_the_effect_of_another_algorithm_in_words(staging: Staging) -> None:
    staging.stage("algorithm", "ppo")
    text = "\n".join(effect_lines(staging))
    assert "algorithm grpo -> ppo  next rollout" in text
    assert "kl_placement loss -> reward" in text
    assert "ppo also uses: gamma 1, gae_lambda 0.95, value_model head" in text
    assert "loss_aggregation" in text.partition("not used any more")[2]
    assert "which grpo and ppo share" in text
    assert "a new one is first trained alone for 5 steps" in text


def test_values_are_checked_with_what_follows(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"kl_estimator": "k2"}))
    staging.stage("algorithm", "ppo")  # kl_placement follows, kl_estimator was set by a person and does not
    with pytest.raises(InvalidValue, match="k1"):
        staging.apply()


def test_undo_takes_back_everything_that_one_command_changed(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"algorithm": "ppo"}))
    assert engine.values["kl_placement"] == "reward"
    command = must(staging.undo())
    assert command.values == {
        "algorithm": "grpo", "kl_placement": "loss", "kl_estimator": "k3", "kl_coefficient": 0.04,
    }  # fmt: skip
    engine.take(command)
    assert engine.values == defaults()
    assert staging.undo() is None
    engine.take(must(staging.redo()))
    assert engine.values == defaults({"algorithm": "ppo"})
    engine.take(must(staging.undo()))
    assert engine.values == defaults()


def test_undo_of_a_switch_leaves_what_a_person_had_set(staging: Staging, engine: Engine) -> None:
    """0.05 was set by a person and is ppo's default: going back to grpo must not take it for one that follows."""
    engine.take(Set(values={"kl_coefficient": 0.05}))
    before = dict(engine.values)
    engine.take(Set(values={"algorithm": "ppo"}))
    engine.take(must(staging.undo()))
    assert engine.values == before


def test_a_coefficient_that_the_engine_steers_is_undone_from_where_it_is(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"algorithm": "ppo"}))
    engine.take(Set(values={"kl_target": 0.02}))
    engine.values["kl_coefficient"] = 0.047  # what a step's record says
    assert staging.now("kl_coefficient") == 0.047
    staging.stage("kl_coefficient", 0.1)
    assert must(staging.apply()).expect == {}, "it may move again before the command arrives"
    staging.discard()
    engine.take(must(staging.undo()))
    assert engine.values["kl_target"] == "none"
    engine.take(must(staging.undo()))
    assert engine.values == defaults()


def test_a_refused_redo_can_be_tried_again(staging: Staging, engine: Engine) -> None:
    engine.take(Set(values={"temperature": 0.9}))
    engine.take(must(staging.undo()))
    staging.rejected(must(staging.redo()))
    assert must(staging.redo()).values == {"temperature": 0.9}


def test_none_is_typed_and_nudged(staging: Staging) -> None:
    assert staging.nudge("kl_target", 1) == 0.01
    assert staging.stage("kl_target", "none") == "none"
    assert staging.staged == {}
    staging.stage("kl_target", "1e-6")
    assert staging.nudge("kl_target", -1) == "none"
