"""What a person is rating, without a screen: the queue, the group shown, the order of its responses, the time spent.

Every method that changes what the engine should know returns the command to send, and counts it as done at once; the
engine's answer confirms it or takes it back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from screens.rating_book import Act, Answered, Key, RatingBook, key_of
from screens.rating_queue import Queue, key_of_head
from screens.rating_visit import PART, Draft, Visit, shuffled
from sessions.asking import choose_repeat, repeat_due
from sessions.commands import Command, Picked, Rate, Retract, Skip
from sessions.modes import CRITIQUE, EDIT, FLAGS, MODES, PAIR, RANK, RANK_BACK, RANK_TIE, RatingMode, rating_mode
from sessions.records import GroupHead, Rating, SkipRecord
from sessions.wire import GroupDetail

__all__ = ["PART", "Desk", "Visit"]

BETWEEN = 20
"""Answers of a person that must lie between a question and its silent repeat."""
READ_AHEAD = 64
"""Groups whose texts are kept."""


class Desk:
    """One person rating one session.

    :param who: the person.
    :ivar mode: the one in use.
    :ivar flagging: whether the flags are open, in a mode that is not theirs.
    :ivar awaited: branch and step whose groups come first: the training waits for them.
    :ivar share: of the questions, how many are earlier ones again.
    :ivar between: answers that must lie between a question and its repeat.
    :ivar picked: what a rule has put on the desk, for the engine's records.
    :ivar said: why the last key did nothing, if it did not.
    """

    def __init__(self, who: str, clock: Callable[[], float] = time.time, mode: str = "") -> None:
        self.book = RatingBook(who, clock)
        self.queue = Queue(self.done, self.book.changed, who)
        self.who, self.clock = who, clock
        self.mode: RatingMode = rating_mode(mode) if mode else next(iter(MODES.values()))
        self.visits: dict[tuple[Key, str], Visit] = {}
        self.current: Visit | None = None
        self.last_left: Visit | None = None
        self.flagging = False
        self.share = 0.0
        self.between = BETWEEN
        self.awaited: tuple[str, int] | None = None
        self.picked: list[Picked] = []
        self.said = ""
        self._places = 0
        self._seen: set[Key] = set()
        self._repeat_asked = -1
        self._since: float | None = None

    # ---- the queue

    @property
    def heads(self) -> Mapping[Key, GroupHead]:
        """The groups there are."""
        return self.queue.heads

    @heads.setter
    def heads(self, heads: Mapping[Key, GroupHead]) -> None:
        self.queue.heads = heads

    def done(self, key: Key) -> bool:
        """Whether this person has rated a group, or skipped all of it."""
        if self.book.touched(key):
            return True
        skipped = self.book.skipped(key)
        head = self.queue.heads.get(key)
        return "" in skipped or (bool(skipped) and head is not None and len(skipped) >= len(head.rewards))

    def waiting(self) -> list[GroupHead]:
        """Groups that wait for this person, in the order of the rule."""
        return list(self.queue.waiting())

    def upcoming(self, most: int | None = None) -> list[GroupHead]:
        """The groups that ``next_group`` would open, in order."""
        found = []
        for head in self.queue.waiting():
            if key_of_head(head) not in self._seen:
                found.append(head)
                if most is not None and len(found) >= most:
                    break
        return found

    @property
    def total(self) -> int:
        """How many groups wait for this person."""
        return len(self.queue.waits)

    def _of_step(self, branch: str, step: int) -> list[GroupHead]:
        """The groups of a step with no rating: those not seen yet first, the one just left last, dead ones too."""
        just_left = self.last_left.key if self.last_left is not None else None
        heads = [
            h for key, h in self.heads.items()
            if key[:2] == (branch, step) and h.status != "discarded" and not h.ratings and not self.done(key)
        ]  # fmt: skip
        return sorted(
            heads,
            key=lambda h: (key_of_head(h) == just_left, key_of_head(h) in self._seen, "dead" in h.flags, h.number),
        )

    def next_group(self) -> Visit | None:
        """Leave the group shown and open the next; the unrated stay unrated. None: nothing waits."""
        self.pause()
        self.flagging = False
        if self.current is not None:
            self.current.left = True
            self.last_left = self.current
        again = self._again()
        if again is not None:
            return again
        rule = self.queue.rule
        self.queue.order(anew=True)
        coming = self._of_step(*self.awaited) if self.awaited is not None else []
        if coming:
            rule = ""  # the training waits for this step: no rule chose it
        else:
            coming = self.upcoming(1)
        if not coming:  # round again: those left with nothing rated
            for visit in self.visits.values():
                visit.left = visit.left and self.book.touched(visit.key)
            self._seen = {visit.key for visit in self.visits.values() if visit.left}
            coming = self.upcoming(1)
        if not coming:
            self.current = None
            return None
        return self.open(key_of_head(coming[0]), len(coming[0].rewards), rule=rule)

    def _again(self) -> Visit | None:
        """An earlier question once more, if it is time for one; it looks like any other."""
        asked = self.book.questions
        if asked == self._repeat_asked or not repeat_due(asked, self.share, self.who):
            return None
        self._repeat_asked = asked  # whatever becomes of it: once
        mine = self.book.oldest_first()
        counted = {rating.id for key in {key_of(r) for r in mine} for rating in self.book.standing(key)}
        here = [r for r in mine if r.mode == self.mode.name and (r.repeats or r.id in counted) and self._can_be_read(r)]
        recent = {r.id for r in mine[-self.between :]} if self.between else set()
        old = [r for r in here if r.id not in recent]
        rating = choose_repeat(old, self.who, self.who, 0)
        if rating is None:
            return None
        responses = len(self.heads[key].rewards) if (key := key_of(rating)) in self.heads else len(rating.order)
        return self.open(key, responses, repeats=rating.id, rule=self.queue.rule)

    def _can_be_read(self, rating: Rating) -> bool:
        return key_of(rating) in self.heads or rating.branch == self.book.branch

    def open(
        self, key: Key, responses: int, letter: str = "", *, revealed: bool = False, repeats: str = "", rule: str = ""
    ) -> Visit:
        """Show a group, at a response if one is named.

        :param repeats: the rating whose question is asked again.
        :param rule: that picked it; empty where a person went to it.
        """
        self.pause()
        visit = self.visits.get((key, repeats))
        if visit is None:
            self._places += 1
            order = shuffled(key, responses, self.who, repeats)
            visit = self.visits[key, repeats] = Visit(key, self._places, order, repeats=repeats, rule=rule)
            if rule:
                self.picked.append(Picked(who=self.who, group=self.book.name(key), rule=rule))
        if self.current is not None and not self.current.left:
            self._seen.discard(self.current.key)
        if not repeats:
            self._seen.add(key)
        visit.revealed = visit.revealed or revealed
        visit.left = False
        if letter in visit.order:
            self._move_to(visit, visit.order.index(letter))
        self.current = visit
        self._forget_texts()
        self.resume()
        return visit

    def _forget_texts(self) -> None:
        """Texts are kept of the last groups only; the screen fetches them again."""
        kept = [visit for visit in self.visits.values() if visit.detail is not None]
        for visit in kept[:-READ_AHEAD]:
            if visit not in (self.current, self.last_left):
                visit.detail = None

    def forget_gone(self) -> None:
        """Take a group off the desk that is in no list any more and was not read before it went."""
        visit = self.current
        if visit is not None and visit.detail is None and (visit.key not in self.heads or visit.repeats):
            del self.visits[visit.key, visit.repeats]
            self._seen.discard(visit.key)
            self.current = None

    def keep_only(self, known: Callable[[Key], bool]) -> None:
        """Take the groups off the desk that are not of the line that is trained now, with their drafts."""
        self.pause()
        self.visits = {place: visit for place, visit in self.visits.items() if known(visit.key)}
        self._seen = {key for key in self._seen if known(key)}
        if self.current is not None and not known(self.current.key):
            self.current = None
        if self.last_left is not None and not known(self.last_left.key):
            self.last_left = None
        self.resume()

    def loaded(self, detail: GroupDetail) -> None:
        """A group came: keep it if it is on the desk."""
        group = detail.group
        key = (group.branch, group.step, group.number)
        for (of, _), visit in self.visits.items():
            if of == key:
                first = self.book.act(visit.repeats)
                visit.read(
                    detail, self.who, visit.rule or self.queue.rule, first.order if isinstance(first, Rating) else ()
                )
        self.book.learn(detail.ratings)

    # ---- what is asked

    @property
    def keys_of(self) -> RatingMode:
        """The mode whose keys work: the open flags have those of a critique."""
        return CRITIQUE if self.flagging else self.mode

    @property
    def letter(self) -> str:
        """The response in hand: the one shown, or of a pair the side that is marked."""
        visit = self.current
        if visit is None:
            return ""
        if self.mode is PAIR and visit.pair is not None:
            return visit.pair[visit.side]
        return visit.letter

    @property
    def question(self) -> str:
        """What the clock runs for."""
        visit = self.current
        if visit is None:
            return ""
        if self.mode is PAIR and visit.pair is not None:
            return "|".join(visit.pair)
        return f"#{visit.part[0]}" if self.mode is RANK else visit.letter

    def answers(self, visit: Visit, mode: RatingMode | None = None) -> dict[str, Answered]:
        """Letter -> the answer that is shown beside it in a mode, or in the one in use."""
        slot = (mode or self.mode).slot
        return self.book.answers(visit.key, slot, visit.given if visit.repeats else None)

    def answer_to(self, visit: Visit, letters: Collection[str]) -> Rating | None:
        """What this person has said of exactly these responses, in the mode in use."""
        return self.book.latest(visit.key, self.mode.slot, letters, visit.given if visit.repeats else None)

    def critique(self, visit: Visit, letter: str) -> Rating | None:
        """The standing critique of a response."""
        return self.book.latest(visit.key, CRITIQUE.slot, [letter])

    def edited(self, visit: Visit, letter: str) -> Rating | None:
        """The standing better text of a response."""
        return self.book.latest(visit.key, EDIT.slot, [letter])

    def flags(self, visit: Visit, letter: str) -> list[str]:
        """The flags of a response: those switched and not saved, else those on record."""
        if letter in visit.flags:
            return visit.flags[letter]
        given = self.critique(visit, letter)
        return list(given.flags) if given is not None else []

    def skipped(self, visit: Visit) -> dict[str, SkipRecord]:
        """Letter -> skip; no letter: of the whole group."""
        return {} if visit.repeats else self.book.skipped(visit.key)

    # ---- answers

    def answer(self, code: float) -> Rate | None:
        """What a key of the mode in use does."""
        self.said = ""
        visit = self.current
        if visit is None or not self.letter:
            return None
        if self.keys_of is CRITIQUE:
            self._toggle(visit, FLAGS[int(code) - 1])
            return None
        if self.mode is PAIR:
            return self._pair(visit, code)
        if self.mode is RANK:
            return self._rank(visit, code)
        if self.mode is EDIT:
            return None
        command = self._give(visit, self.mode, {visit.letter: code}, order=visit.order)
        self.next_unrated()
        return command

    def _give(
        self, visit: Visit, mode: RatingMode, values: dict[str, float], *, order: Collection[str], comment: str = "",
        text: str = "", flags: Collection[str] = (), timed: bool = True,
    ) -> Rate:  # fmt: skip
        self.pause()
        spent = visit.seconds.pop(self.question, 0.0) if timed else 0.0
        command = Rate(
            who=self.who,
            group=self.book.name(visit.key),
            mode=mode.name,
            values=values,
            comment=comment,
            order=list(order),
            blind=not visit.revealed,
            seconds=round(spent, 2),
            text=text,
            flags=list(flags),
            rule=visit.rule,
            repeats=self._repeated(visit, mode, values),
        )
        self.book.give(command)
        visit.given.add(command.id)
        self.resume()
        return command

    def _repeated(self, visit: Visit, mode: RatingMode, values: Mapping[str, float]) -> str:
        """The earlier answer to the same question, where it is asked again."""
        if not visit.repeats or not mode.moves_rewards:
            return ""
        first = self.book.latest(visit.key, mode.slot, values)
        return first.id if first is not None and first.mode == mode.name and first.id not in visit.given else ""

    def _pair(self, visit: Visit, code: float) -> Rate | None:
        if visit.pair is None:
            return None
        command = self._give(visit, PAIR, PAIR.answer(code, *visit.pair), order=visit.pair)
        self._advance()
        return command

    def _advance(self) -> None:
        """To the next question of the group, else of the next group."""
        if not self.next_unrated():
            self.next_group()

    def _rank(self, visit: Visit, code: float) -> Rate | None:
        draft = visit.draft
        if code == RANK_BACK:
            if not draft.back():
                self.said = "nothing is ordered yet"
        elif code == RANK_TIE:
            if draft.tiers:
                draft.tie = not draft.tie
            else:
                self.said = "= ties the next response with the one before: begin with the best one's number"
        elif int(code) > len(visit.here):
            self.said = f"there is no response {code:g} here"
        elif not draft.add(visit.here[int(code) - 1]):
            self.said = f"{code:g} has its place already; backspace takes the last back"
        elif len(draft.placed) == len(visit.here) > 1:
            return self._order(visit)
        return None

    def _order(self, visit: Visit) -> Rate:
        """Save the order typed so far, and go on."""
        values = RANK.answer(visit.draft.tiers)
        command = self._give(visit, RANK, values, order=visit.here)
        visit.drafts[visit.part[0]] = Draft()
        self._advance()
        return command

    def _toggle(self, visit: Visit, flag: str) -> None:
        letter = self.letter
        flags = list(self.flags(visit, letter))
        flags.remove(flag) if flag in flags else flags.append(flag)
        visit.flags[letter] = [each for each in FLAGS if each in flags]

    def enter(self) -> Rate | None:
        """Save what is half given, an order of two or more, or flags; else open the next group."""
        self.said = ""
        visit = self.current
        if visit is not None and self.keys_of is CRITIQUE:
            command = self.save_flags()
            if self.flagging:
                self.flagging = False
                return command
            if command is not None:
                return command
        if visit is not None and self.mode is RANK and visit.draft.tiers:
            if len(visit.draft.placed) < 2:
                self.said = "an order needs two responses; backspace takes this one back"
                return None
            return self._order(visit)
        if self.next_group() is None:
            self.said = "no other group waits for a rating"
        return None

    def save_flags(self) -> Rate | None:
        """Save the flags switched on the response in hand; in their own mode, go on."""
        visit = self.current
        if visit is None or self.letter not in visit.flags:
            return None
        letter = self.letter
        flags = visit.flags.pop(letter)
        given = self.critique(visit, letter)
        if flags == (list(given.flags) if given is not None else []):
            return None
        return self._criticise(visit, letter, flags, given.comment if given is not None else "")

    def close_flags(self) -> None:
        """Shut the flags without saving."""
        self.flagging = False
        if self.current is not None:
            self.current.flags.pop(self.letter, None)

    def comment(self, text: str) -> Rate | None:
        """Put a line on the response in hand, beside its flags; in a critique, go on."""
        visit = self.current
        if visit is None or not self.letter:
            return None
        letter = self.letter
        given = self.critique(visit, letter)
        flags = self.flags(visit, letter)
        visit.flags.pop(letter, None)
        before = (given.comment, list(given.flags)) if given is not None else ("", [])
        if (text, flags) == before:
            return None
        return self._criticise(visit, letter, flags, text)

    def _criticise(self, visit: Visit, letter: str, flags: Collection[str], comment: str) -> Rate:
        own = self.mode is CRITIQUE
        command = self._give(
            visit, CRITIQUE, {letter: 1.0}, order=visit.order, flags=flags, comment=comment, timed=own
        )  # fmt: skip
        if own:
            self._advance()
        return command

    def text_to_edit(self) -> str:
        """What an edit of the response in hand begins with: a draft, the text on record, or the response."""
        visit = self.current
        if visit is None:
            return ""
        given = self.edited(visit, self.letter)
        return visit.edits.get(self.letter) or (given.text if given else visit.response_text(self.letter))

    def edit(self, letter: str, text: str) -> Rate | None:
        """Say that a text is better than a response; None where it is the same, or empty."""
        visit = self.current
        if visit is None:
            return None
        visit.edits.pop(letter, None)
        given = self.edited(visit, letter)
        if not text.strip() or text == visit.response_text(letter) or (given is not None and text == given.text):
            return None
        own = self.mode is EDIT
        command = self._give(visit, EDIT, {letter: 1.0}, order=visit.order, text=text, timed=own)
        if own:
            self._advance()
        return command

    # ---- undo

    def undo(self) -> Retract | None:
        """Take this person's last act that stands back, and show what it was about."""
        done = self.book.undo()
        if done is None:
            return None
        command, act = done
        self._show(act)
        return command

    def redo(self) -> Rate | Skip | None:
        """Give again what was undone last."""
        done = self.book.redo()
        if done is None:
            return None
        command, act = done
        self._show(act)
        if self.current is not None:
            self.current.given.add(command.id)
        return command

    def _show(self, act: Act) -> None:
        """Show what a record is about, in a mode that shows it."""
        self.flagging = False
        if isinstance(act, SkipRecord):
            self.open(key_of(act), len(self.heads[key_of(act)].rewards) if key_of(act) in self.heads else 0, act.letter)
            return
        mode = MODES.get(act.mode, self.mode)
        if mode.responses_shown != self.mode.responses_shown and mode.moves_rewards:
            self.use(mode)
        head = self.heads.get(key_of(act))
        responses = len(head.rewards) if head is not None else len(act.order)
        repeats = next((r for (key, r), v in self.visits.items() if key == key_of(act) and r and act.id in v.given), "")
        repeats = repeats or act.repeats
        visit = self.open(key_of(act), responses, next(iter(act.values), ""), repeats=repeats)
        if repeats:
            visit.given.add(act.id)
        if mode is PAIR:
            if visit.pairs is None:
                visit.pairs = [(act.order[0], act.order[1])] if len(act.order) == 2 else None
            for at, pair in enumerate(visit.pairs or ()):
                if set(pair) == set(act.values):
                    visit.pair_at = at
                    break
            else:
                if visit.pairs is not None and len(act.order) == 2:
                    visit.pairs.append((act.order[0], act.order[1]))
                    visit.pair_at = len(visit.pairs) - 1

    # ---- moving

    def _move_to(self, visit: Visit, at: int) -> None:
        if at != visit.at:
            visit.before = visit.letter
            visit.at = at

    def response(self, direction: int) -> None:
        """The next or previous response, round the end; of a pair, the other side."""
        visit = self.current
        if visit is None or not visit.order:
            return
        if self.flagging:
            self.close_flags()
        if self.mode is PAIR:
            visit.side = 1 - visit.side
            return
        self.pause()
        self._move_to(visit, (visit.at + direction) % len(visit.order))
        self.resume()

    def next_unrated(self, direction: int = 1) -> bool:
        """Go to the next question without an answer that is not skipped; False if there is none in this group."""
        visit = self.current
        if visit is None:
            return False
        if self.mode is PAIR:
            pairs = visit.pairs or []
            return self._next(
                visit, len(pairs), visit.pair_at, direction, lambda n: self.answer_to(visit, pairs[n]) is None
            )
        skipped = self.skipped(visit)
        done = self.answers(visit).keys() | skipped.keys()
        if self.mode is RANK:
            parts = visit.parts
            return self._next(visit, len(parts), visit.part[0] - 1, direction, lambda n: not done & set(parts[n]))
        if "" in skipped:
            return False
        return self._next(visit, len(visit.order), visit.at, direction, lambda n: visit.order[n] not in done)

    def _next(self, visit: Visit, count: int, at: int, direction: int, open_: Callable[[int], bool]) -> bool:
        for offset in range(1, count):
            there = (at + direction * offset) % count
            if open_(there):
                self.pause()
                if self.mode is PAIR:
                    visit.pair_at, visit.side = there, 0
                elif self.mode is RANK:
                    self._move_to(visit, sum(len(part) for part in visit.parts[:there]))
                else:
                    self._move_to(visit, there)
                self.resume()
                return True
        return False

    def skip(self, reason: str) -> Skip | None:
        """Say that the response shown will not be rated, or the group where several are asked about; and go on."""
        visit = self.current
        if visit is None or not self.letter:
            return None
        letter = visit.letter if self.mode.responses_shown == 1 else ""
        command = Skip(who=self.who, response=f"{self.book.name(visit.key)}{letter}", reason=reason, rule=visit.rule)
        self.book.skip(command)
        if letter:
            self.next_unrated()
        else:
            self.next_group()
        return command

    def unskip(self) -> Retract | None:
        """The response shown waits for a rating again, or its group; None if it was not skipped."""
        visit = self.current
        if visit is None:
            return None
        skips = self.book.skipped(visit.key)
        skip = skips.get(self.letter) or skips.get("")
        return self.book.take_back(skip) if skip is not None else None

    def use(self, mode: RatingMode) -> None:
        """Go on in another mode; what is half typed in this one is kept."""
        self.pause()
        self.flagging = False
        self.mode = mode
        self.resume()

    def next_mode(self) -> None:
        """The next mode of the table."""
        names = list(MODES)
        self.use(MODES[names[(names.index(self.mode.name) + 1) % len(names)]])

    # ---- time

    def pause(self) -> None:
        """Stop the clock of the question shown: the screen is left, or another comes."""
        if self._since is not None and self.current is not None and self.question:
            spent = self.current.seconds
            spent[self.question] = spent.get(self.question, 0.0) + self.clock() - self._since
        self._since = None

    def resume(self) -> None:
        """Start it again."""
        self._since = self.clock()

    def confirmed(self, command: Command, *, failed: bool) -> None:
        """The engine's last answer to a command."""
        self.book.confirmed(command, failed=failed)
