"""The drawing of TRPO's line search, and the limit that a realised KL is read against."""

from __future__ import annotations

import pytest

from screens.limits import knob_points
from screens.line_search import search_lines, search_rows
from screens.live import Live
from sessions.records import Change, StepRecord, TrustRegionStep, Try


def live_with(step: TrustRegionStep | None, **metrics: float | None) -> Live:
    live = Live("s", clock=lambda: 0.0)
    live.values = {"trust_region": 0.01}
    if step is not None:
        live.last_step = StepRecord(
            branch="main", step=7, time=0.0, metrics=dict(metrics), values={"trust_region": 0.01}, trust_region=step
        )
    return live


TAKEN = TrustRegionStep(
    product="difference", residuals=[0.5, 0.04], curvature=3.0, damping=0.003, predicted_gain=0.02,
    tries=[Try(fraction=1.0, kl=0.02, gain=0.01), Try(fraction=0.8, kl=0.009, gain=-0.001),
           Try(fraction=0.64, kl=0.005, gain=0.004, accepted=True)],
)  # fmt: skip


def test_each_try_says_why_it_was_not_taken() -> None:
    lines = search_lines(live_with(TAKEN, **{"trpo/gain_ratio": 0.4}))
    text = "\n".join(lines)
    assert "difference product  cg 2, residual .040" in text
    assert [line.split()[-1] for line in lines if "[" in line] == ["far", "gain", "taken"]
    assert "predicted +0.02, got .400 of it" in text


def test_the_trust_region_stands_in_the_middle_of_the_bar() -> None:
    full, _, half = [line.partition("[")[2].partition("]")[0] for line in search_lines(live_with(TAKEN)) if "[" in line]
    middle = len(full) // 2
    assert full[middle] == half[middle] == "|"
    assert full.replace("|", "#") == "#" * len(full), "twice the trust region fills it"
    assert half.count("#") == pytest.approx(len(half) / 4, abs=1)


def test_a_rejected_step_and_its_note_are_said() -> None:
    step = TrustRegionStep(tries=[Try(fraction=1.0, kl=None, gain=None)], note="no try was good enough")
    text = "\n".join(search_lines(live_with(step)))
    assert "not finite" in text
    assert "rejected: the policy did not move" in text
    assert "no try was good enough" in text


def test_no_gradient_is_no_rejection() -> None:
    text = "\n".join(search_lines(live_with(TrustRegionStep(note="no gradient: every group is dead"))))
    assert "rejected" not in text
    assert "no gradient" in text


def test_before_the_first_update_it_says_so() -> None:
    assert "no line search yet" in search_lines(live_with(None))[0]


@pytest.mark.parametrize("height", range(1, 20))
@pytest.mark.parametrize("width", [36, 50, 80])
def test_it_never_takes_more_room_than_there_is(width: int, height: int) -> None:
    tries = [Try(fraction=0.8**j, kl=0.02, gain=0.0) for j in range(100)]
    rows = search_rows(
        live_with(TrustRegionStep(product="difference", residuals=[0.1], tries=tries, predicted_gain=1e-9)),
        width,
        height,
    )
    assert len(rows) <= height
    assert all(len("".join(text for text, _ in row)) <= width for row in rows)


def test_many_tries_keep_the_first_and_the_last() -> None:
    tries = [Try(fraction=0.8**j, kl=0.02, gain=0.0) for j in range(30)]
    text = ["".join(t for t, _ in row) for row in search_rows(live_with(TrustRegionStep(tries=tries)), 60, 9)]
    assert any("1.000" in line for line in text)
    assert any(line.strip().startswith("..") and "more" in line for line in text)
    assert any(f"{0.8**29:.3f}" in line for line in text)


def test_the_limit_is_level_between_changes() -> None:
    live = live_with(None)
    for step, old, new in ((5, 0.01, 0.02), (9, 0.02, 0.04)):
        live.changes[str(step)] = Change(
            id=str(step), time=0.0, who="ann", name="trust_region", old=old, new=new, boundary="update",
            status="applied", applied_step=step,
        )  # fmt: skip
    live.values["trust_region"] = 0.04
    assert knob_points(live, "trust_region", 0, 12) == ([0, 4, 5, 8, 9, 12], [0.01, 0.01, 0.02, 0.02, 0.04, 0.04])
    assert knob_points(live, "trust_region", 6, 8) == ([6, 8], [0.02, 0.02])
    assert knob_points(live, "trust_region", 9, 12) == ([9, 12], [0.04, 0.04])
