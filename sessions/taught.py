"""What a group's ratings teach a reward model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sessions.examples import Text
from sessions.modes import MODES
from sessions.orderings import Ordering, plain
from sessions.preferences import judgements
from sessions.records import Group, Rating


def orderings_of(group: Group, standing: Iterable[Rating]) -> list[Ordering]:
    """The orderings in the ratings of a group that count.

    The levels that one person gave in one mode compare the responses that they were given to; a pair has the margin of
    its strength; a ranking may have ties; an edit is better than its original. What says of two equal texts that one
    is better, and what compares nothing, is left out.
    """
    texts = {r.letter: group.said(r.text) for r in group.responses}
    return orderings_in(group.asked, texts, standing, group.name)


def orderings_in(prompt: Text, texts: Mapping[str, Text], standing: Iterable[Rating], name: str) -> list[Ordering]:
    """The same where the responses are in hand, by letter; they may be conversations.

    :param name: of the group, for people.
    """
    found: list[Ordering] = []
    for said in judgements(rating for rating in standing if not rating.repeats and not rating.retracted):
        values = {letter: value for letter, value in said.values.items() if letter in texts}
        margin = 0.0
        if said.text:
            originals = [texts[letter] for letter in values]
            plainly = all(isinstance(text, str) for text in originals)
            better: Text = said.text if plainly else [{"role": "assistant", "content": said.text}]
            tiers = [[better], originals]
        else:
            mode = MODES[said.mode]
            tiers = [[texts[letter] for letter in tier] for tier in mode.tiers(values)]
            margin = mode.margin(values)
        tiers = [list({plain(text): text for text in tier}.values()) for tier in tiers if tier]
        every = [plain(text) for tier in tiers for text in tier]
        if len(tiers) > 1 and len(set(every)) == len(every):
            pair = [len(tier) for tier in tiers] == [1, 1]
            found.append(Ordering(prompt=prompt, tiers=tiers, margin=margin * pair, source=f"{name} {said.who}"))
    return found
