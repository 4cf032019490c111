"""What is asked of the engine about staged values, and what is shown of its answers."""

from __future__ import annotations

from screens.forecast import Forecast
from sessions.plans import Plan


def answer(then: float = 2e9, **more: object) -> Plan:
    return Plan(
        step=3, algorithm="grpo", memory_now=1e9, memory_then=then, memory_most=then, memory_available=8e9,
        memory_total=9e9, values={"epochs": 2}, **{"seconds_now": 1.0, "seconds_then": 2.0, **more},
    )  # fmt: skip


def test_the_same_question_is_asked_once() -> None:
    forecast = Forecast()
    assert forecast.begin({"epochs": 2}, 3)
    assert not forecast.begin({"epochs": 2}, 3)
    forecast.told({"epochs": 2}, answer())
    assert not forecast.begin({"epochs": 2}, 4)
    assert forecast.begin({"epochs": 4}, 4)
    assert forecast.lines() == [("memory and step time: the engine is asked", "dim")]


def test_what_could_not_be_said_is_asked_again_after_a_step_and_stays_meanwhile() -> None:
    forecast = Forecast()
    forecast.begin({"epochs": 2}, 0)
    forecast.told({"epochs": 2}, answer(seconds_now=None, seconds_then=None, unknown="known after the first step"))
    assert not forecast.begin({"epochs": 2}, 0)
    assert forecast.begin({"epochs": 2}, 1)
    assert forecast.lines()[0][0].endswith("step time: known after the first step")


def test_an_answer_to_an_earlier_question_is_not_shown() -> None:
    forecast = Forecast()
    forecast.begin({"epochs": 2}, 3)
    forecast.begin({"epochs": 4}, 3)
    forecast.told({"epochs": 2}, answer())
    forecast.failed({"epochs": 2}, "gone")
    assert forecast.lines() == [("memory and step time: the engine is asked", "dim")]
    forecast.failed({"epochs": 4}, "gone")
    assert forecast.lines() == [("memory and step time: gone", "dim")]
    forecast.forget()
    assert forecast.begin({"epochs": 4}, 3)


def test_a_warning_is_as_loud_as_it_is_certain() -> None:
    forecast = Forecast()
    forecast.begin({"epochs": 2}, 3)
    forecast.told({"epochs": 2}, answer(9e9, warning="too much"))
    assert forecast.lines()[1] == ("! too much", "bad")
    forecast.told({"epochs": 2}, answer(2e9, warning="maybe too much"))
    assert forecast.lines()[1] == ("! maybe too much", "warn")


def test_a_change_to_what_is_there_already_changes_nothing() -> None:
    forecast = Forecast()
    forecast.begin({"epochs": 2}, 3)
    same = answer()
    same.values = {}
    forecast.told({"epochs": 2}, same)
    assert forecast.lines() == [("memory and step time: nothing would change", "")]


def test_the_basis_has_the_range() -> None:
    forecast = Forecast()
    assert forecast.basis() == []
    forecast.begin({"epochs": 2}, 3)
    plan = answer(seconds_least=1.5, seconds_most=2.5, basis="measured")
    forecast.told({"epochs": 2}, plan)
    assert forecast.basis() == [("step 1.5 to 2.5 s: measured", "dim")]
    plan.memory_most = 3e9
    assert forecast.basis() == [("step 1.5 to 2.5 s, memory up to 3.0 GB: measured", "dim")]
