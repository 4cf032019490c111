"""How TRPO found its newest step, drawn: every try of the line search with its KL against the trust region."""

from __future__ import annotations

from screens.charts import Row
from screens.live import Live
from screens.numbers import short
from screens.safe import wrap
from sessions.records import TrustRegionStep, Try

_BEFORE = 31
"""Cells of a line before its bar and its verdict."""
_VERDICT = 10
_WITH_GAIN = _BEFORE + _VERDICT
"""Cells from which the gain has room."""


def search_rows(live: Live, width: int, height: int) -> list[Row]:
    """For a pane: the product and conjugate gradient, the tries, what was predicted and gained, the note."""
    record = live.last_step
    if record is None or record.trust_region is None:
        return [[(" no line search yet: no update of trpo has finished", "dim")]]
    step = record.trust_region
    limit = record.values.get("trust_region", live.values.get("trust_region"))
    above = _lines(_solver(step, record.step), "", width)
    below = _outcome(step, record.metrics.get("trpo/gain_ratio"), width)
    room = max(1, height - len(above) - len(below) - 1)
    titles = "   of step        KL" + ("     gain" if width >= _WITH_GAIN else "")
    head: Row = [(titles, "dim"), ("   | = trust_region" if width >= 56 else "", "dim")]
    tries = [_try_row(tried, float(limit) if isinstance(limit, int | float) else 0.0, width) for tried in step.tries]
    if len(tries) > room:
        left_out = len(tries) - room + 1
        tries = [*tries[: room // 2], [(f"   .. {left_out} more", "dim")], *tries[room // 2 + left_out :]]
    return [*above, *([head] if tries else []), *tries, *below][:height]


def search_lines(live: Live, width: int = 68) -> list[str]:
    """The same as plain lines, for the help of a chart."""
    rows = search_rows(live, width, 40)
    return ["".join(text for text, _ in row).rstrip() for row in rows]


def _lines(text: str, role: str, width: int) -> list[Row]:
    return [[(f" {line}", role)] for line in wrap(text, max(10, width - 2))]


def _solver(step: TrustRegionStep, number: int) -> str:
    parts = [f"step {number}"]
    if step.product:
        parts.append(f"{step.product} product")
    if step.residuals:
        parts.append(f"cg {len(step.residuals)}, residual {short(step.residuals[-1])}")
    return "  ".join(parts)


def _try_row(tried: Try, limit: float, width: int) -> Row:
    verdict, role = ("taken", "good") if tried.accepted else (_why_not(tried, limit), "dim")
    gain = f"{_signed(tried.gain):>8}  " if width >= _WITH_GAIN else " "
    numbers = f" {tried.fraction:>9.3f}  {_fine(tried.kl):>8} {gain}"
    room = width - _BEFORE - _VERDICT
    row: Row = [(numbers, "strong" if tried.accepted else "")]
    if room >= 8 and limit > 0 and tried.kl is not None:
        row += [("[", "dim"), (_kl_bar(tried.kl, limit, room - 2), "bar"), ("] ", "dim")]
    return [*row, (verdict, role)]


def _kl_bar(kl: float, limit: float, width: int) -> str:
    """The KL as a bar in whose middle stands the trust region."""
    filled = min(width, round(kl / (2 * limit) * width)) if kl > 0 else 0
    cells = list("#" * filled + "." * (width - filled))
    cells[width // 2] = "|"
    return "".join(cells)


def _why_not(tried: Try, limit: float) -> str:
    if tried.kl is None or tried.gain is None:
        return "not finite"
    return "too far" if tried.kl > limit else "no gain"


def _outcome(step: TrustRegionStep, ratio: float | None, width: int) -> list[Row]:
    rows: list[Row] = []
    if step.tries and not any(tried.accepted for tried in step.tries):
        rows.append([(" rejected: the policy did not move", "warn")])
    if step.predicted_gain is not None:
        got = f", got {short(ratio)} of it" if ratio is not None else ""
        rows += _lines(f"full step predicted {_signed(step.predicted_gain)}{got}", "", width)
    if step.curvature is not None or step.damping is not None:
        rows += _lines(f"curvature {short(step.curvature)}   damping {short(step.damping)}", "dim", width)
    if step.note:
        rows += _lines(step.note, "warn", width)
    return rows


def _fine(value: float | None) -> str:
    """With three digits: a KL is compared with the trust region."""
    return "-" if value is None else f"{value:.3g}".replace("e-0", "e-")


def _signed(value: float | None) -> str:
    return _fine(value) if value is None or value < 0 else f"+{_fine(value)}"
