"""What a group's ratings teach a reward model."""

from __future__ import annotations

from collections.abc import Iterable

from sessions.modes import MODES
from sessions.orderings import Ordering
from sessions.preferences import judgements
from sessions.records import Group, Rating


def orderings_of(group: Group, standing: Iterable[Rating]) -> list[Ordering]:
    """The orderings in the ratings of a group that count.

    The levels that one person gave in one mode compare the responses that they were given to; a pair has the margin of
    its strength; a ranking may have ties; an edit is better than its original. What says of two equal texts that one
    is better, and what compares nothing, is left out.
    """
    texts = {response.letter: response.text for response in group.responses}
    found: list[Ordering] = []
    for said in judgements(rating for rating in standing if not rating.repeats):
        source = f"{group.name} {said.who}"
        if said.text:
            tiers = [[said.text], [texts[letter] for letter in said.values if letter in texts]]
            margin = 0.0
        else:
            mode = MODES[said.mode]
            tiers = [[texts[letter] for letter in tier if letter in texts] for tier in mode.tiers(said.values)]
            margin = mode.margin(said.values)
        tiers = [list(dict.fromkeys(tier)) for tier in tiers if tier]
        every = [text for tier in tiers for text in tier]
        if len(tiers) > 1 and len(set(every)) == len(every):
            pair = [len(tier) for tier in tiers] == [1, 1]
            found.append(
                Ordering(prompt=group.prompt, tiers=[[*tier] for tier in tiers], margin=margin * pair, source=source)
            )
    return found
