"""Commands and the words for them."""

from __future__ import annotations

import pytest

from sessions.commands import (
    COMMANDS,
    WORDS,
    Acknowledge,
    AddWatch,
    Command,
    DeleteBranch,
    Discard,
    Evaluate,
    Fork,
    Pause,
    Preview,
    QueryBranches,
    QueryEvaluation,
    QueryEvents,
    QueryGroup,
    QueryGroups,
    QueryPlan,
    QueryProbes,
    QueryRatings,
    QueryResponse,
    QueryRewardModel,
    QueryRose,
    QuerySeries,
    QueryStatus,
    QueryWatches,
    Race,
    Rate,
    Reload,
    RemoveWatch,
    RenameBranch,
    Resume,
    Retract,
    Rewind,
    Set,
    Skip,
    Step,
    Stop,
    Switch,
    TakeCheckpoint,
    TrainRewardModel,
    new_id,
    parse_words,
    whoami,
)
from sessions.errors import InvalidValue, UnknownName, UsageError
from sessions.wire import decode_command, encode

READ: list[tuple[str | list[str], Command]] = [
    ("pause", Pause()),
    ("pause update", Pause(before_update=True)),
    ("preset dapo", Set(preset="dapo")),
    ("plan", QueryPlan()),
    ("plan group_size=16 epochs=2", QueryPlan(values={"group_size": 16, "epochs": 2})),
    ("plan group_size 16", QueryPlan(values={"group_size": 16})),
    ("preview", Preview()),
    ("preview trpo", Preview(algorithm="trpo")),
    ("resume", Resume()),
    ("step", Step()),
    ("discard", Discard()),
    ("checkpoint", TakeCheckpoint()),
    ("stop", Stop()),
    ("stop --now", Stop(now=True)),
    ("stop now", Stop(now=True)),
    ("set learning_rate=5e-7 group_size=16", Set(values={"learning_rate": 5e-7, "group_size": 16})),
    ("set learning_rate 5e-7", Set(values={"learning_rate": 5e-7})),
    ("set rating_gate wait 2", Set(values={"rating_gate": "wait 2"})),
    ("set rating_gate=wait 2 temperature=0.9", Set(values={"rating_gate": "wait 2", "temperature": 0.9})),
    (["set", "rating_gate=timeout 30"], Set(values={"rating_gate": "timeout 30"})),
    (
        "set learning_rate 5e-7 --expect learning_rate=1e-6",
        Set(values={"learning_rate": 5e-7}, expect={"learning_rate": 1e-6}),
    ),
    (
        ["set", "--expect=group_size=8", "rating_gate=async", "--expect", "rating_gate=wait 2", "group_size=4"],
        Set(
            values={"rating_gate": "async", "group_size": 4},
            expect={"group_size": 8, "rating_gate": "wait 2"},
        ),
    ),
    ("rewind 640 --expect main", Rewind(step=640, expect="main")),
    ("fork try --expect=main", Fork(name="try", expect="main")),
    ("switch lower --expect main", Switch(branch="lower", expect="main")),
    ("race grpo,ppo 5 --expect main", Race(algorithms=["grpo", "ppo"], steps=5, expect="main")),
    ("rate 812.3C 4", Rate(group="812.3", mode="likert", values={"C": 4})),
    ("rate 812.3 A>F", Rate(group="812.3", mode="pair", values={"A": 1, "F": 0})),
    ("rate main~1/812.3 'F >> A'", Rate(group="main~1/812.3", mode="pair", values={"F": 2, "A": 0})),
    ("rate 812.3 A=F", Rate(group="812.3", mode="pair", values={"A": 1, "F": 1})),
    ("rate 812.3 A!F", Rate(group="812.3", mode="pair", values={"A": 0, "F": 0})),
    ("rate 812.3 B>A=C", Rate(group="812.3", mode="rank", values={"B": 1, "A": 2, "C": 2})),
    ("rate 812.3 A>F --mode rank", Rate(group="812.3", mode="rank", values={"A": 1, "F": 2})),
    (
        "rate 812.3C a better one --mode edit",
        Rate(group="812.3", mode="edit", values={"C": 1}, text="a better one"),
    ),
    (
        "rate 812.3C wrong,format the sum is off --mode critique",
        Rate(group="812.3", mode="critique", values={"C": 1}, flags=["wrong", "format"], comment="the sum is off"),
    ),
    ("ratings 5", QueryRatings(limit=5)),
    ("reward-model", QueryRewardModel()),
    ("reward-model train", TrainRewardModel()),
    ("rate 812.3C -1 --mode thumbs", Rate(group="812.3", mode="thumbs", values={"C": -1})),
    (
        "rate main~1/2.3AB 5 'well said' indeed",
        Rate(group="main~1/2.3", mode="likert", values={"AB": 5}, comment="well said indeed"),
    ),
    ("rewind 640", Rewind(step=640)),
    ("fork try", Fork(name="try")),
    (
        "fork ppo-try --at 640 --from main~1 --seed=7 --preset dapo algorithm=ppo group_size=4",
        Fork(
            name="ppo-try",
            step=640,
            source="main~1",
            seed=7,
            preset="dapo",
            values={"algorithm": "ppo", "group_size": 4},
        ),
    ),
    ("switch main~1", Switch(branch="main~1")),
    ("rename main~1 too-hot", RenameBranch(branch="main~1", name="too-hot")),
    ("delete main~1", DeleteBranch(branch="main~1")),
    (
        "race grpo,ppo,trpo 50 --at 10 group_size=4",
        Race(algorithms=["grpo", "ppo", "trpo"], steps=50, step=10, values={"group_size": 4}),
    ),
    ("race stop", Race(algorithms=[])),
    ("branches", QueryBranches()),
    ("probes main", QueryProbes(branch="main")),
    ("evaluate", Evaluate()),
    ("evaluate 8", Evaluate(samples=8)),
    ("reload", Reload()),
    ("reload use", Reload(use=True)),
    ("evaluation", QueryEvaluation()),
    ("evaluation 640", QueryEvaluation(step=640)),
    ("evaluation 640 600", QueryEvaluation(step=640, earlier=600)),
    ("rose", QueryRose()),
    ("rose 100", QueryRose(step=100)),
    ("retract abc", Retract(rating="abc")),
    ("skip 812.3C too long", Skip(response="812.3C", reason="too long")),
    ("acknowledge", Acknowledge()),
    ("acknowledge a1", Acknowledge(alarm="a1")),
    ("watch kl/k3 > 0.2 for 3 pause", AddWatch(rule="kl/k3 > 0.2 for 3 pause")),
    (["watch", "kl/k3  > 0.2 for 3 pause"], AddWatch(rule="kl/k3 > 0.2 for 3 pause")),
    ("watch reward/mine > 0.2", AddWatch(rule="reward/mine > 0.2")),
    ("watch dead groups", AddWatch(rule="dead groups")),
    ("unwatch dead groups", RemoveWatch(name="dead groups")),
    ("unwatch kl/k3", RemoveWatch(name="kl/k3")),
    ("watches", QueryWatches()),
    ("status", QueryStatus()),
    ("series reward/mean kl/k3", QuerySeries(names=["reward/mean", "kl/k3"])),
    ("groups", QueryGroups(limit=20)),
    ("groups 5", QueryGroups(limit=5)),
    ("group 812.3", QueryGroup(group="812.3")),
    ("response 812.3C", QueryResponse(response="812.3C")),
    ("response 812.3", QueryGroup(group="812.3")),
    ("events 7", QueryEvents(limit=7)),
]  # fmt: skip


def same(left: Command, right: Command) -> bool:
    """Equal but for the id, which is new each time."""
    left.id = right.id
    return left == right


@pytest.mark.parametrize(("words", "command"), READ, ids=[str(words) for words, _ in READ])
def test_words(words: str | list[str], command: Command) -> None:
    read = parse_words(words)
    assert same(read, command)
    assert same(decode_command(encode(read)), read)


def test_every_word_is_tried_above() -> None:
    tried = {words.split()[0] if isinstance(words, str) else words[0] for words, _ in READ}
    assert tried == set(WORDS)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("", UsageError, "no command; there are: pause"),
        ([], UsageError, "no command"),
        ("pase", UnknownName, r"unknown command 'pase'; did you mean pause\?"),
        ("zzzzzz", UnknownName, "`workbench send --help` lists the"),
        ("pause now", UsageError, "pause takes no arguments, or update"),
        ("preset", UsageError, "preset needs one name: deepseekmath, dapo"),
        ("preset dpo", UnknownName, r"unknown preset 'dpo'; did you mean dapo\?|did you mean ppo\?"),
        ("preview trpo 2", UsageError, "preview takes at most one algorithm"),
        ("preview dpo", InvalidValue, "'dpo' is not one of grpo, ppo, trpo"),
        ("plan group_size", InvalidValue, "name=value"),
        ("plan group_size=1", InvalidValue, "out of bounds"),
        ("status x", UsageError, "status takes no arguments"),
        ("ratings \u00b2", UsageError, "ratings takes at most one whole number"),
        ("evaluate " + "9" * 20, UsageError, "evaluate takes at most one whole number"),
        ("evaluation \u00b2", UsageError, "evaluation takes at most two steps"),
        ("evaluation " + "9" * 5000, UsageError, "evaluation takes at most two steps"),
        ("stop later", UsageError, "stop takes no arguments, or --now"),
        ("set", UsageError, "set needs a name and a value"),
        ("set learning_rate", InvalidValue, "name=value"),
        ("set learning_rte=1", UnknownName, "did you mean learning_rate"),
        ("set learning_rate=2", InvalidValue, "out of bounds"),
        ("set learning_rate=1e-6@5", InvalidValue, "@STEP is for `run --set`"),
        ("rate", UsageError, "rate needs a response and a value"),
        ("rate 812.3C", UsageError, "rate needs a response and a value"),
        ("rate 812.3 4", InvalidValue, "to rate one response name it, like 812.3A"),
        ("reward-model twice", UsageError, "trains it anew"),
        ("rate 812.3 A>A", InvalidValue, "is not an order"),
        ("rate 812.3 A", InvalidValue, "is not an order"),
        ("rate 812.3 A>>B>C", InvalidValue, "is not an order"),
        ("rate 812.3 a>b", InvalidValue, "is not an order"),
        ("rate 812.3 A>B --mode likert", InvalidValue, "is an answer in mode pair, not likert"),
        ("rate 812.3 A>B>C --mode pair", InvalidValue, "is an answer in mode rank, not pair"),
        ("rate 812.3C wrnog --mode critique", InvalidValue, "is not a flag"),
        ("rate x 4", InvalidValue, "is not a response"),
        ("rate 812.3C good", InvalidValue, "is not a rating"),
        ("rate 812.3C 6", InvalidValue, "allowed: 1, 2, 3, 4, 5"),
        ("rate 812.3C nan", InvalidValue, "allowed"),
        ("rate 812.3C 4 --mode", UsageError, "--mode needs a name"),
        ("rate 812.3C 4 --mode stars", UnknownName, "unknown rating mode 'stars'"),
        ("set --expect learning_rate=1", UsageError, "set needs a name and a value"),
        ("set learning_rate=1e-5 --expect", UsageError, "--expect needs the value that is there now"),
        ("set learning_rate=1e-5 --expect learning_rate", UsageError, "--expect learning_rate: give a name and its"),
        ("set learning_rate=1e-5 --expect learning_rte=1", UnknownName, "did you mean learning_rate"),
        ("rewind", UsageError, "rewind needs the step"),
        ("rewind --expect main", UsageError, "rewind needs the step"),
        ("switch --expect main", UsageError, "switch needs the name"),
        ("rewind -3", InvalidValue, "'-3' is not a step"),
        ("fork", UsageError, "fork needs a name"),
        ("fork group_size=4", UsageError, "fork needs a name"),
        ("fork ../up", InvalidValue, "cannot name a branch"),
        ("fork main", InvalidValue, "neither main nor warm-up"),
        ("fork try --at", UsageError, "--at needs a value"),
        ("fork try --step 4", UnknownName, "unknown option '--step'; did you mean --seed"),
        ("fork try group_size=1", InvalidValue, "out of bounds"),
        ("switch", UsageError, "switch needs the name"),
        ("rename main~1", UsageError, "rename needs a branch and its new name"),
        ("rename main~1 main~2", InvalidValue, "cannot name a branch"),
        ("delete", UsageError, "delete needs the name"),
        ("probes", UsageError, "probes needs the name"),
        ("race grpo 50", InvalidValue, "at least two algorithms"),
        ("race grpo,grpo 50", InvalidValue, "each once"),
        ("race grpo,dpo 50", InvalidValue, "'dpo' is not one of grpo, ppo, trpo"),
        ("race grpo,ppo 0", InvalidValue, "at least 1 step"),
        ("race grpo,ppo", UsageError, "race needs algorithms and steps"),
        ("retract", UsageError, "retract needs the id"),
        ("skip", UsageError, "skip needs a response"),
        ("group 812", InvalidValue, "is not a response"),
        ("group", UsageError, "group needs one name"),
        ("response", UsageError, "response needs one name"),
        ("series", UsageError, "series needs a metric"),
        ("groups many", UsageError, "at most one whole number"),
        ("events 1 2", UsageError, "at most one whole number"),
        ("watch", UsageError, "watch needs a rule: watch kl/k3 > 0.2 for 3 pause"),
        ("watch kl/k4 > 1", UnknownName, r"unknown metric 'kl/k4'; did you mean kl/k3\?"),
        ("watch kl/k3 = 1", UsageError, "after the metric comes > >= < <= ==, jumps"),
        ("unwatch", UsageError, "`watches` lists them"),
        ("watches all", UsageError, "watches takes no arguments"),
        ("acknowledge a b", UsageError, "acknowledge takes at most one"),
        ("rate 812.3C 4 'open", UsageError, "cannot read"),
    ],
)
def test_bad_words(words: str | list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        parse_words(words)
    assert "\n" not in str(caught.value)


def test_ids_differ_and_somebody_asks() -> None:
    assert new_id() != new_id()
    assert Pause().id != Pause().id
    assert Pause().who == whoami() != ""


def test_the_table_of_commands_is_whole() -> None:
    def below(kind: type) -> set[type]:
        return {kind, *(c for sub in kind.__subclasses__() for c in below(sub))}

    assert set(COMMANDS.values()) == below(Command) - {Command}
