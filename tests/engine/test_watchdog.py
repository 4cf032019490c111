"""The rules that raise alarms, one by one."""

from __future__ import annotations

import pytest

from engine.watchdog import COOL_DOWN, Watchdog, default_rules
from sessions.records import StepRecord

VALUES = {"group_size": 4, "advantage_scale": "group", "learning_rate": 1e-3}


def record(step: int, **metrics: float | None) -> StepRecord:
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    bad = [name for name, value in named.items() if value is None]
    return StepRecord(branch="main", step=step, time=0.0, metrics=named, nonfinite=bad, values=dict(VALUES))


def fired(steps: list[dict[str, float | None]], *, bf16: bool = False, first: int = 1) -> list[tuple[int, str]]:
    dog = Watchdog(default_rules(bf16=bf16, evaluation_prompts=1000))
    return [(alarm.step, rule.name) for i, m in enumerate(steps) for rule, alarm in dog.look(record(first + i, **m))]


@pytest.mark.parametrize(
    ("rule", "quiet", "loud"),
    [
        ("dead groups", [{"groups__dead_fraction": x} for x in (0.9, 0.9, 0.8)],
         [{"groups__dead_fraction": 0.81}] * 3),
        ("advantage bound", [{"advantage__abs_max": 1.5}], [{"advantage__abs_max": 1.502}]),
        ("kl jump", [{"kl__k3": 0.01}] * 20 + [{"kl__k3": 0.049}], [{"kl__k3": 0.01}] * 20 + [{"kl__k3": 0.051}]),
        ("kl jump", [{"kl__k3": 0.001}] * 20 + [{"kl__k3": 0.019}], [{"kl__k3": 0.001}] * 20 + [{"kl__k3": 0.021}]),
        ("kl jump", [{"kl__k3": 0.001}] * 19 + [{"kl__k3": 9.0}], [{"kl__k3": 0.001}] * 25 + [{"kl__k3": 9.0}]),
        ("entropy", [{"entropy": 1.0}, {"entropy": 0.5}], [{"entropy": 1.0}, {"entropy": 0.49}]),
        ("entropy", [{"entropy": 0.4}, {"entropy": 0.3}], [{"entropy": 4.0}, {}, {"entropy": 1.9}]),
        ("ratio error", [{"ratio__first_error": 1e-3}], [{"ratio__first_error": 1.1e-3}]),
        ("sampler gap", [{"sampler_gap__max": 1e-3, "sampler_gap__mean": 0.06}], [{"sampler_gap__max": 1.1e-3}]),
        ("nothing trains", [{"grad__norm": 1.0, "update__relative_size": 1e-9}, {}], [{"grad__norm": 0.0}]),
        ("nothing trains", [{}], [{"grad__norm": 1.0, "update__relative_size": 0.0}]),
        ("all truncated", [{"response__truncated_fraction": 1.0}], [{"response__truncated_fraction": 1.0}] * 2),
        ("truncated", [{"response__truncated_fraction": x} for x in (0.4, 0.4, 0.3)],
         [{"response__truncated_fraction": 0.31}] * 3),
        ("length", [{"reward__length_correlation": x} for x in (-0.9, -0.8, -0.9)],
         [{"reward__length_correlation": -0.81}] * 3),
        ("reward failed", [{"response__failed": 0.0}], [{"response__failed": 1.0}]),
        ("loop lag", [{"loop__lag": 0.5}], [{"loop__lag": 0.51}]),
        ("non-finite", [{"entropy": 1.0}], [{"entropy": None}]),
    ],
)  # fmt: skip
def test_each_rule_fires_and_stays_quiet(rule: str, quiet: list, loud: list) -> None:
    assert rule not in {name for _, name in fired(quiet)}
    assert (len(loud), rule) in fired(loud)


def test_bf16_has_wider_limits() -> None:
    assert fired([{"sampler_gap__max": 0.5, "sampler_gap__mean": 0.05, "ratio__first_error": 0.05}], bf16=True) == []
    names = {n for _, n in fired([{"sampler_gap__mean": 0.051, "ratio__first_error": 0.051}], bf16=True)}
    assert names == {"sampler gap", "ratio error"}


def test_a_learning_rate_of_zero_trains_nothing_on_purpose() -> None:
    dog = Watchdog(default_rules(bf16=False, evaluation_prompts=1000))
    still = record(1, grad__norm=1.0, update__relative_size=0.0)
    still.values["learning_rate"] = 0.0
    assert dog.look(still) == []


def test_the_advantage_bound_is_of_group_scaling_only() -> None:
    dog = Watchdog(default_rules(bf16=False, evaluation_prompts=1000))
    wide = record(1, advantage__abs_max=50.0)
    wide.values["advantage_scale"] = "none"
    assert dog.look(wide) == []


def hacking(accuracy: float, reward: float, apart: int, rising: int = 10) -> list[tuple[int, str]]:
    start = {"reward__mean": 0.5, "eval__accuracy": 0.5}
    between = [{"reward__mean": 0.5 if i < apart - rising else reward} for i in range(apart - 1)]
    return fired([start, *between, {"reward__mean": reward, "eval__accuracy": accuracy}])


def test_reward_hacking() -> None:
    assert hacking(0.4, 0.6, 20) == [(21, "reward hacking")]
    assert hacking(0.4, 0.6, 19) == []
    assert hacking(0.46, 0.6, 20) == []  # two evaluations on 1,000 prompts differ by so much by chance
    assert hacking(0.4, 0.6, 20, rising=1) == []  # the last step had easy prompts
    assert hacking(0.4, 0.51, 20) == []
    assert hacking(0.6, 0.6, 20) == []


def test_reward_hacking_where_no_reward_was_measured() -> None:
    assert fired([{"eval__accuracy": 0.5}, *[{}] * 19, {"eval__accuracy": 0.1}]) == []


def test_a_kl_that_is_measured_now_and_then_can_jump() -> None:
    seldom: list[dict[str, float | None]] = [{"kl__k3": 0.01} if i % 10 == 9 else {} for i in range(39)]
    assert fired([*seldom, {"kl__k3": 0.06}]) == [(40, "kl jump")]
    assert fired([*seldom, {"kl__k3": 0.04}, {}]) == []
    assert fired([*seldom[:10], {"kl__k3": 0.06}]) == []


def test_an_engine_remembers_what_the_one_before_it_saw() -> None:
    dog = Watchdog(default_rules(bf16=False, evaluation_prompts=1000))
    dog.remember([record(1, entropy=4.0), record(2, entropy=4.0, loop__lag=9.0)])
    assert [rule.name for rule, _ in dog.look(record(3, entropy=1.9, loop__lag=9.0))] == ["entropy"]


def test_an_alarm_says_what_and_what_to_try() -> None:
    dog = Watchdog(default_rules(bf16=False, evaluation_prompts=1000))
    ((rule, alarm),) = dog.look(record(7, loop__lag=1.25))
    assert alarm.message == "the event loop stood still for 1.2 s @7"
    assert (alarm.rule, alarm.step, alarm.level, alarm.acknowledged) == ("loop lag", 7, "warn", 0.0)
    assert alarm.remedy == rule.remedy
    assert not rule.pauses


def test_only_what_is_not_finite_pauses() -> None:
    dog = Watchdog(default_rules(bf16=False, evaluation_prompts=1000))
    ((rule, alarm),) = dog.look(record(7, entropy=None))
    assert rule.pauses
    assert alarm.level == "error"


def test_a_rule_is_quiet_while_it_holds_and_for_the_cool_down() -> None:
    lag, calm = {"loop__lag": 9.0}, {"loop__lag": 0.0}
    assert fired([lag] * 40) == [(1, "loop lag")]
    assert fired([lag, *[calm] * (COOL_DOWN - 1), lag]) == [(1, "loop lag")]
    assert fired([lag, *[calm] * COOL_DOWN, lag]) == [(1, "loop lag"), (COOL_DOWN + 2, "loop lag")]
