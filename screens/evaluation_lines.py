"""An evaluation as lines: what has turned since an earlier one, then every answer. No Textual in it."""

from __future__ import annotations

from collections.abc import Sequence

from screens.numbers import percent
from screens.probe_lines import marked_lines
from screens.safe import visible, wrap
from sessions.evaluations import EvaluationView, HeldOutAnswer, Sample, Turned, words_of

Pieces = list[tuple[str, str]]
"""Text and its tone, of one line."""
MOST_LINES = 12
"""Lines of an answer that the pane shows."""
MOST_SAMPLES = 3
"""Samples of a prompt that the pane shows."""
_INDENT = " " * 4


def evaluation_lines(view: EvaluationView, width: int, most: int = MOST_LINES) -> tuple[list[Pieces], list[int]]:
    """All prompts: those whose answer has become wrong first, those that have become right, then the others.

    :param most: lines shown of each text; 0: all, and all samples.
    :returns: the lines, and the index of the first line of each prompt.
    """
    lines: list[Pieces] = [[(line, "")] for text in headings(view) for line in wrap(text, width)]
    starts: list[int] = []
    shown: set[str] = set()
    for title, tone, pairs in (("has become wrong", "bad", view.worse), ("has become right", "good", view.better)):
        for pair in pairs:
            starts.append(len(lines) + 1)
            shown.add(pair.now.prompt_id)
            lines += [[], *_turned(pair, view.earlier, title, tone, width, most)]
    for answer in view.now.answers:
        if answer.prompt_id not in shown:
            starts.append(len(lines) + 1)
            lines += [[], *_answer(answer, width, most)]
    return lines, starts


def evaluation_words(view: EvaluationView) -> list[str]:
    """The same as plain lines, each text whole."""
    lines, _ = evaluation_lines(view, 10_000, most=0)
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def headings(view: EvaluationView) -> list[str]:
    """The figures, and what has turned."""
    now = view.now
    asked = f", asked for by {visible(now.who)}" if now.who else ""
    how = "greedy" if now.temperature == 0 else f"temperature {now.temperature:g}"
    lines = [f"{now.total or len(now.answers)} prompts, {how}{asked}: {words_of(now.metrics)}"]
    if view.earlier >= 0:
        lines.append(f"after step {view.earlier}: {words_of(view.earlier_metrics)}")
        lines.append(f"turned right since then: {len(view.better)}; turned wrong: {len(view.worse)}")
    if len(now.answers) < now.total:
        lines.append(f"the first {len(now.answers)} are shown; `workbench export S --to jsonl DIR` writes all")
    return lines


def _verdict(sample: Sample) -> tuple[str, str]:
    if sample.right is None:
        return "not judged", "dim"
    return ("right", "good") if sample.right else ("WRONG", "bad")


def _title(answer: HeldOutAnswer, more: Pieces) -> Pieces:
    facts = f"  reward {answer.greedy.reward:.3g}" if answer.greedy.reward is not None else ""
    cut = "" if answer.greedy.ended else "  cut"
    return [("  ", ""), *more, (f"{facts}  {answer.greedy.length} tokens{cut}", "dim")]


def _asked(answer: HeldOutAnswer, width: int, most: int) -> list[Pieces]:
    lines: list[Pieces] = [[(_INDENT + line, "head")] for line in _cut(answer.prompt.strip("\n"), width, 3, most)]
    if answer.reference:
        lines += [[(_INDENT + "answer ", "dim"), (line, "dim")] for line in _cut(answer.reference, width - 7, 1, most)]
    return lines


def _turned(pair: Turned, earlier: int, title: str, tone: str, width: int, most: int) -> list[Pieces]:
    lines = [_title(pair.now, [(title, tone)]), *_asked(pair.now, width, most)]
    texts = (pair.now.greedy.text.strip("\n"), pair.before.greedy.text.strip("\n"))
    for name, one, other in (("now", texts[0], texts[1]), (f"@{earlier}", texts[1], texts[0])):
        marked = marked_lines(one, other, max(10, width - 4 - 8))
        left_out = len(marked) - most if most and len(marked) > most else 0
        for number, (pieces, _) in enumerate(marked[: most or None]):
            lines.append([(f"{_INDENT}{name if not number else '':<7} ", "dim"), *pieces])
        if left_out:
            lines.append([(f"{_INDENT}{'':<7} .. {left_out} more lines", "dim")])
    return [*lines, *_samples(pair.now.samples, width, most)]


def _answer(answer: HeldOutAnswer, width: int, most: int) -> list[Pieces]:
    lines = [_title(answer, [_verdict(answer.greedy)]), *_asked(answer, width, most)]
    lines += [[(_INDENT + "| ", "dim"), (line, "")] for line in _cut(answer.greedy.text, width - 2, most, most)]
    return [*lines, *_samples(answer.samples, width, most)]


def _samples(samples: Sequence[Sample], width: int, most: int) -> list[Pieces]:
    if not samples:
        return []
    right = sum(bool(s.right) for s in samples)
    share = percent(right / len(samples))
    lines: list[Pieces] = [[(f"{_INDENT}{right} of {len(samples)} samples right ({share})", "dim")]]
    for sample in samples[: MOST_SAMPLES if most else None]:
        word, tone = _verdict(sample)
        texts = _cut(sample.text.strip("\n"), width - 8, 3, most)
        lines += [[(f"{_INDENT}{word if not i else '':<10}", tone), (line, "")] for i, line in enumerate(texts or [""])]
    return lines


def _cut(text: str, width: int, short: int, most: int) -> list[str]:
    """A text wrapped; of more lines than ``short`` the first, and how many are left out; all where ``most`` is 0."""
    lines = wrap(visible(text, newlines=True), max(10, width - len(_INDENT)))
    if not most or len(lines) <= short:
        return lines
    return [*lines[: max(1, short - 1)], f".. {len(lines) - max(1, short - 1)} more lines"]
