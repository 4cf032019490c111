"""The rules that raise alarms, one by one."""

from __future__ import annotations

import msgspec
import pytest

from engine.invariants import Broken
from engine.watchdog import Evidence, Watchdog
from sessions.records import Alarm, StepRecord
from sessions.watch_words import parse_watch
from sessions.watches import COOL_DOWN, DEFAULT_WATCHES, Precision, Watch, default_watches
from tests.engine.small import rollout_group

VALUES = {"group_size": 4, "advantage_scale": "group", "learning_rate": 1e-3}


def record(step: int, **metrics: float | None) -> StepRecord:
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    bad = [name for name, value in named.items() if value is None]
    return StepRecord(branch="main", step=step, time=0.0, metrics=named, nonfinite=bad, values=dict(VALUES))


def watchdog(precision: Precision = "fp32") -> Watchdog:
    return Watchdog(default_watches(precision), prompts=1000)


def rule(words: str) -> Watch:
    watch, _ = parse_watch(words, check=False)
    return watch


def fired(
    steps: list[dict[str, float | None]], *words: str, precision: Precision = "fp32", first: int = 1
) -> list[tuple[int, str]]:
    """Which of the defaults, or of these rules, raised an alarm at which step."""
    dog = Watchdog([rule(w) for w in words], prompts=1000) if words else watchdog(precision)
    return [(alarm.step, watch.name) for i, m in enumerate(steps) for watch, alarm in dog.look(record(first + i, **m))]


@pytest.mark.parametrize(
    ("name", "quiet", "loud"),
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
        ("no gradient", [{"grad__norm": 1e-9}, {}], [{"grad__norm": 0.0}]),
        ("nothing trains", [{"grad__norm": 1.0, "update__relative_size": 1e-9}, {}],
         [{"grad__norm": 1.0, "update__relative_size": 0.0}]),
        ("nothing trains", [{"update__relative_size": 0.0, "trpo__step_fraction": 0.0}],
         [{"update__relative_size": 0.0, "trpo__step_fraction": 0.5}]),
        ("nothing trains", [{}], [{"grad__norm": 1.0, "update__relative_size": 0.0}]),
        ("all truncated", [{"response__truncated_fraction": 1.0}], [{"response__truncated_fraction": 1.0}] * 2),
        ("truncated", [{"response__truncated_fraction": x} for x in (0.4, 0.4, 0.3)],
         [{"response__truncated_fraction": 0.31}] * 3),
        ("length", [{"reward__length_correlation": x} for x in (-0.9, -0.8, -0.9)],
         [{"reward__length_correlation": -0.81}] * 3),
        ("reward failed", [{"response__failed": 0.0}], [{"response__failed": 1.0}]),
        ("loop lag", [{"loop__lag": 0.5}], [{"loop__lag": 0.51}]),
        ("full kl jump", [{"kl__full": 0.01}] * 20 + [{"kl__full": 0.049}],
         [{"kl__full": 0.01}] * 20 + [{"kl__full": 0.051}]),
        ("update jump", [{"kl__old_new": 0.01}] * 20 + [{"kl__old_new": 0.049}],
         [{"kl__old_new": 0.01}] * 20 + [{"kl__old_new": 0.051}]),
        ("gradient spike", [{"grad__norm": 0.05}] * 20 + [{"grad__norm": 0.9}],
         [{"grad__norm": 0.2}] * 20 + [{"grad__norm": 2.1}]),
        ("value model", [{"value__explained_variance": x, "grad__norm": 1.0} for x in (-0.9, -0.05, -0.9)],
         [{"value__explained_variance": -0.06, "grad__norm": 1.0}] * 3),
        ("trpo rejected", [{"trpo__step_fraction": x} for x in (0.0, 0.0, 0.5, 0.0)],
         [{"trpo__step_fraction": x} for x in (0.5, 0.0, 0.0, 0.0)]),
        ("fisher products", [{"trpo__product_error": 1e-2}], [{"trpo__product_error": 1.1e-2}]),
        ("invariants", [{"invariants__broken": 0.0}], [{"invariants__broken": 1.0}]),
        ("non-finite", [{"entropy": 1.0}], [{"entropy": None}]),
    ],
)  # fmt: skip
def test_each_rule_fires_and_stays_quiet(name: str, quiet: list, loud: list) -> None:
    assert name not in {watch for _, watch in fired(quiet)}
    assert (len(loud), name) in fired(loud)


def test_bf16_has_wider_limits() -> None:
    assert (
        fired([{"sampler_gap__max": 0.5, "sampler_gap__mean": 0.05, "ratio__first_error": 0.05}], precision="bf16")
        == []
    )
    names = {n for _, n in fired([{"sampler_gap__mean": 0.051, "ratio__first_error": 0.051}], precision="bf16")}
    assert names == {"sampler gap", "ratio error"}


def test_a_learning_rate_of_zero_trains_nothing_on_purpose() -> None:
    dog = watchdog()
    still = record(1, grad__norm=1.0, update__relative_size=0.0)
    still.values["learning_rate"] = 0.0
    assert dog.look(still) == []


def test_the_advantage_bound_is_of_group_scaling_only() -> None:
    dog = watchdog()
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
    assert hacking(0.4, 0.4, 20) == []
    assert hacking(0.6, 0.6, 20) == []


def test_reward_hacking_where_no_reward_was_measured() -> None:
    assert fired([{"eval__accuracy": 0.5}, *[{}] * 19, {"eval__accuracy": 0.1}]) == []


def test_a_kl_that_is_measured_now_and_then_can_jump() -> None:
    seldom: list[dict[str, float | None]] = [{"kl__k3": 0.01} if i % 10 == 9 else {} for i in range(39)]
    assert fired([*seldom, {"kl__k3": 0.06}]) == [(40, "kl jump")]
    assert fired([*seldom, {"kl__k3": 0.04}, {}]) == []
    assert fired([*seldom[:10], {"kl__k3": 0.06}]) == []


def test_an_engine_remembers_what_the_one_before_it_saw() -> None:
    dog = watchdog()
    dog.remember([record(1, entropy=4.0), record(2, entropy=4.0, loop__lag=9.0)])
    assert [watch.name for watch, _ in dog.look(record(3, entropy=1.9, loop__lag=9.0))] == ["entropy"]


def test_a_first_value_from_before_what_is_remembered_still_counts() -> None:
    for first, alarms in (({"entropy": 4.0}, ["entropy"]), ({}, [])):
        dog = watchdog()
        dog.remember([record(9000, entropy=2.5)], first)
        assert [watch.name for watch, _ in dog.look(record(9001, entropy=1.9))] == alarms


def test_an_alarm_says_what_and_what_to_try() -> None:
    dog = watchdog()
    ((watch, alarm),) = dog.look(record(7, loop__lag=1.25))
    assert alarm.message == "the event loop stood still for 1.2 s @7"
    assert (alarm.rule, alarm.step, alarm.level, alarm.acknowledged) == ("loop lag", 7, "warn", 0.0)
    assert alarm.remedy == watch.remedy
    assert watch.action == "notify"


def test_only_what_is_not_finite_pauses() -> None:
    dog = watchdog()
    ((watch, alarm),) = dog.look(record(7, entropy=None))
    assert watch.action == "pause"
    assert alarm.level == "error"
    assert alarm.message == "entropy not finite @7"
    assert [w.name for w in DEFAULT_WATCHES if w.action != "notify"] == ["non-finite"]


def test_a_rule_is_quiet_while_it_holds_and_for_the_cool_down() -> None:
    lag, calm = {"loop__lag": 9.0}, {"loop__lag": 0.0}
    assert fired([lag] * 40) == [(1, "loop lag")]
    assert fired([lag, *[calm] * (COOL_DOWN - 1), lag]) == [(1, "loop lag")]
    assert fired([lag, *[calm] * COOL_DOWN, lag]) == [(1, "loop lag"), (COOL_DOWN + 2, "loop lag")]


def test_a_limit_has_cleared_when_the_metric_is_back_by_a_tenth_of_it() -> None:
    near, back = {"kl__k3": 0.19}, {"kl__k3": 0.17}
    high = {"kl__k3": 0.21}
    words = "kl/k3 > 0.2"
    assert fired([high, *[near] * 40, high], words) == [(1, "kl/k3 high")]
    assert fired([high, *[back] * COOL_DOWN, high], words) == [(1, "kl/k3 high"), (COOL_DOWN + 2, "kl/k3 high")]
    low = [{"kl__k1": x} for x in (-0.21, *[-0.19] * 40, -0.21, *[-0.17] * COOL_DOWN, -0.21)]
    assert fired(low, "kl/k1 < -0.2") == [(1, "kl/k1 low"), (COOL_DOWN + 43, "kl/k1 low")]


def test_a_jump_and_a_fall_are_left_by_a_tenth_too() -> None:
    high, near = {"kl__k3": 0.06}, {"kl__k3": 0.05}  # 0.06 is 6 times the mean before it, 0.05 4.2 times that after it
    assert fired([*[{"kl__k3": 0.01}] * 20, high, near], "kl/k3 jumps 5x") == [(21, "kl/k3 jump")]
    entropies = [{"entropy": x} for x in (1.0, 0.49, *[0.54] * 40, 0.49, *[0.56] * COOL_DOWN, 0.49)]
    assert fired(entropies, "entropy falls 50%") == [(2, "entropy fall"), (COOL_DOWN + 44, "entropy fall")]


def test_what_is_not_measured_neither_fires_nor_clears() -> None:
    steps: list[dict[str, float | None]] = []
    for value in (0.3, 0.3, 0.1, 0.3, 0.3, 0.3):
        steps += [{}, {"kl__k3": value}]
    assert fired(steps, "kl/k3 > 0.2 for 3") == [(12, "kl/k3 high")]
    assert fired([{"kl__k3": 0.3}, *[{}] * 40, {"kl__k3": 0.3}], "kl/k3 > 0.2") == [(1, "kl/k3 high")]
    apart = [{"reward__mean": 0.1, "eval__accuracy": 0.5}, *[{"reward__mean": 0.1}] * 5]
    apart += [*[{"reward__mean": 0.9}] * 24, {"reward__mean": 0.9, "eval__accuracy": 0.1}]
    apart += [*[{"reward__mean": 0.9}] * 29, {"reward__mean": 1.9, "eval__accuracy": 0.0}]
    assert fired(apart) == [(31, "reward hacking")]


@pytest.mark.parametrize(
    ("words", "quiet", "loud"),
    [
        ("kl/k3 >= 0.2 for 2", (0.2, 0.1), (0.2, 0.2)),
        ("kl/k3 > 0.2 for 2", (0.3, 0.2), (0.3, 0.21)),
        ("kl/k3 <= 0.2 for 2", (0.2, 0.3), (0.2, 0.2)),
        ("kl/k3 < 0.2 for 2", (0.1, 0.2), (0.1, 0.19)),
        ("kl/k3 == 0.2 for 2", (0.2, 0.3), (0.2, 0.2)),
        ("abs kl/k3 > 0.2", (-0.2,), (-0.3,)),
        ("kl/k3 falls 25%", (4.0, 3.0), (4.0, 2.9)),
        ("kl/k3 jumps 2x after 2", (1.0, 3.0, 4.0), (1.0, 3.0, 4.1)),
        ("kl/k3 jumps 2x floor 5 after 2", (1.0, 3.0, 5.0), (1.0, 3.0, 5.1)),
        ("kl/k3 is not finite", (1.0,), (None,)),
    ],
)
def test_the_kinds_of_conditions(words: str, quiet: tuple, loud: tuple) -> None:
    assert fired([{"kl__k3": v} for v in quiet], words) == []
    assert [step for step, _ in fired([{"kl__k3": v} for v in loud], words)] == [len(loud)]


def test_not_finite_is_of_the_metric_it_names() -> None:
    assert fired([{"kl__k3": 1.0, "entropy": None}], "kl/k3 is not finite") == []


def test_two_metrics_apart_in_any_ways() -> None:
    down = [{"reward__mean": 1.0 - i / 10, "response__length": 5.0 - i} for i in range(6)]
    assert fired(down, "reward/mean falls while response/length falls over 5") == [
        (6, "reward/mean against response/length")
    ]
    assert fired(down, "reward/mean falls while response/length rises over 5") == []
    assert fired(down, "reward/mean falls while response/length falls over 5 by 2") == []


def test_a_watch_sleeps_unless() -> None:
    words = "kl/k3 > 0.2 unless group_size=4 or entropy=0"
    assert fired([{"kl__k3": 1.0}], words) == []
    assert fired([{"kl__k3": 1.0}], words.replace("=4", "=5")) == [(1, "kl/k3 high")]
    assert fired([{"kl__k3": 1.0, "entropy": 0.0}], words.replace("=4", "=5")) == []


def test_a_watch_sleeps_where_a_metric_is_absent() -> None:
    steps = [{"kl__k3": 1.0}, {"kl__k3": 1.0, "grad__norm": 1.0}]
    assert fired(steps, "kl/k3 > 0.2 unless grad/norm=absent") == [(2, "kl/k3 high")]


def test_the_value_model_is_judged_once_the_policy_trains_too() -> None:
    dog = Watchdog(w for w in default_watches("fp32") if w.name == "value model")
    for step in range(1, 6):
        assert dog.look(record(step, value__explained_variance=-0.5, value__warmup_left=5.0 - step)) == []
    beside = record(6, value__explained_variance=-0.1, value__warmup_left=0.0, grad__norm=1.0)
    assert [a.message for _, a in dog.look(beside)] == ["explained variance -0.100: below a constant guess @6"]


@pytest.mark.parametrize(
    ("values", "alarms"),
    [
        ({"algorithm": "grpo"}, 1),
        ({"algorithm": "ppo"}, 0),
        ({"algorithm": "trpo", "baseline": "group"}, 1),
        ({"algorithm": "trpo", "baseline": "value"}, 0),
        ({"advantage_scale": "batch"}, 0),
    ],
)
def test_the_advantage_bound_is_of_group_relative_advantages(values: dict, alarms: int) -> None:
    wide = record(1, advantage__abs_max=1.6)
    wide.values.update(values)
    assert len(watchdog().look(wide)) == alarms


def test_a_watch_looks_at_nothing_before_it_was_made() -> None:
    dog = Watchdog([msgspec.structs.replace(rule("kl/k3 > 0.2"), since=5.0)])
    early, late = (msgspec.structs.replace(record(s, kl__k3=1.0), time=t) for s, t in ((1, 4.0), (2, 6.0)))
    dog.remember([early])
    assert [a.step for _, a in dog.look(late)] == [2]


def test_an_alarm_that_stands_is_told_again_and_not_doubled() -> None:
    dog = Watchdog([rule("loop/lag > 0.5")])
    lag, calm = {"loop__lag": 9.0}, {"loop__lag": 0.0}
    ((_, first),) = dog.look(record(1, **lag))
    alarms: list[Alarm] = []
    for step in range(2, 2 * COOL_DOWN):
        alarms += [a for _, a in dog.look(record(step, **(lag if step > COOL_DOWN + 5 else calm)), standing=[first])]
    assert [(a.id, a.step) for a in alarms] == [(first.id, COOL_DOWN + 6)]
    seen = msgspec.structs.replace(first, acknowledged=1.0)
    again = [a for s in range(100, 130) for _, a in dog.look(record(s, **(lag if s == 129 else calm)), standing=[seen])]
    assert [a.step for a in again] == [129]
    assert again[0].id != first.id


def test_using_other_watches_leaves_those_that_stay_as_they_stood() -> None:
    stays, changes = rule("loop/lag > 0.5"), rule("kl/k3 > 0.2")
    dog = Watchdog([stays, changes])
    high = {"loop__lag": 9.0, "kl__k3": 1.0}
    assert len(dog.look(record(1, **high))) == 2
    dog.use([stays, rule("kl/k3 > 0.3"), rule("kl/k3 < 2")])
    assert [w.name for w, _ in dog.look(record(2, **high))] == ["kl/k3 high", "kl/k3 low"]
    assert (dog.state("loop/lag high"), dog.state("kl/k3 high")) == (("holds", 1), ("holds", 2))
    assert dog.state("entropy") == ("off", 0)


def test_how_a_watch_stands() -> None:
    dog = Watchdog([rule("loop/lag > 0.5")])
    found = []
    for step in range(1, COOL_DOWN + 4):
        dog.look(record(step, loop__lag=9.0 if step == 2 else 0.0))
        found.append(dog.state("loop/lag high"))
    assert found[:3] == [("quiet", 0), ("holds", 2), ("cools down", 2)]
    assert [state for state, _ in found[COOL_DOWN:]] == ["cools down", "quiet", "quiet"]


def test_an_alarm_names_the_responses_and_the_broken_invariants() -> None:
    group = rollout_group((1.0, 0.0, 0.5), step=9, number=2).record
    group.responses[1].ended = False
    evidence = Evidence([group], [Broken("goes on after its end token", "9.2C"), Broken("no parameter is trainable")])
    ((_, cut),) = Watchdog([rule("response/truncated_fraction > 0.3")]).look(
        record(9, response__truncated_fraction=0.4), evidence
    )
    assert cut.responses == ["9.2B"]
    assert cut.message == "response/truncated_fraction 0.4: response/truncated_fraction > 0.3 @9"
    ((_, broken),) = watchdog().look(record(9, invariants__broken=2.0), evidence)
    assert broken.responses == ["9.2C"]
    assert broken.message == "9.2C goes on after its end token; no parameter is trainable @9"
    assert broken.level == "error"


def parted(metric: str, moves: float, *, noise: float = 0.0) -> list[dict[str, float | None]]:
    """Forty steps in which the automatic reward rises by 0.3 in the middle, and a metric moves by so much."""
    return [
        {"reward__automatic": 0.3 + 0.3 * (i >= 20), metric: 0.6 + moves * (i >= 20) + noise * (-1) ** i}
        for i in range(40)
    ]


@pytest.mark.parametrize(
    ("name", "metric"),
    [("human agreement", "ratings__reward_agreement"), ("reward model", "reward__reward_model")],
)
def test_the_reward_rises_while_what_people_think_falls(name: str, metric: str) -> None:
    assert name in {watch for _, watch in fired(parted(metric, -0.15))}
    for quiet in (
        parted(metric, -0.05),
        parted(metric, 0.15),
        [{**step, "reward__automatic": 0.3} for step in parted(metric, -0.15)],
    ):
        assert fired(quiet) == []


def test_each_component_of_weight_0_is_a_check_of_its_own() -> None:
    watches = default_watches("fp32", ["brevity", "reward_model"])
    names = [w.name for w in watches]
    assert len(names) == len(set(names)) == len(default_watches("fp32")) + 1
    for moves, noise, expected in (
        (-0.05, 0.0, ["check brevity"]),
        (-0.05, 0.06, []),
        (-0.01, 0.0, []),
        (0.05, 0.0, []),
    ):
        dog = Watchdog(watches, prompts=1000)
        steps = parted("reward__brevity", moves, noise=noise)
        assert [w.name for i, m in enumerate(steps) for w, _ in dog.look(record(i + 1, **m))] == expected


def test_repetition_and_self_agreement() -> None:
    assert fired([{"reward__repetition_correlation": 0.81}] * 3) == [(3, "repetition")]
    assert fired([{"reward__repetition_correlation": -0.9}] * 3) == []
    assert fired([{"ratings__self_agreement": 0.6}]) == []
    assert fired([{"ratings__self_agreement": 0.59}]) == [(1, "self-agreement")]


def test_an_alarm_names_what_only_the_ratings_know() -> None:
    dog = watchdog()
    known = {"ratings/self_agreement": ["3.1A", "main/2.4C"]}
    ((_, alarm),) = dog.look(record(1, ratings__self_agreement=0.2), Evidence(named=known))
    assert alarm.responses == ["3.1A", "main/2.4C"]
