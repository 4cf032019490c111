"""Settings files: what they say, what is refused and where, and what is written reads back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.errors import InputFileError, InvalidValue, UsageError
from sessions.hyperparameters import HYPERPARAMETERS, defaults, parse_assignment
from sessions.presets import PRESETS
from sessions.records import SessionSettings
from sessions.reward_kinds import check_rewards
from sessions.run_settings import ALGORITHM, SETTINGS, canonical_sets, combined, starting_values
from sessions.settings_file import parse_settings, read_settings_file
from sessions.settings_text import settings_text
from sessions.task_kinds import TASK_KINDS, check_task_spec
from sessions.toml_text import toml_value

PLAIN = SessionSettings(name="")


def read(text: str, folder: Path = Path("/f")) -> dict[str, Any]:
    return parse_settings(text, "my.toml", folder)


def settings_of(text: str, folder: Path) -> SessionSettings:
    """What a file starts a session with, as the front door makes it, without a look at the model and the rows."""
    settings = msgspec.structs.replace(PLAIN, **combined(parse_settings(text, "x.toml", folder), {}))
    return msgspec.structs.replace(
        settings,
        sets=canonical_sets(settings.sets),
        task=check_task_spec(settings.task),
        rewards=check_rewards(settings.rewards),
    )


def uncommented(text: str) -> str:
    return "\n".join(
        line[1:] if line.startswith("#") and line[1:2] not in (" ", "") else line for line in text.splitlines()
    )


# ------------------------------------------------------------------------------------------------ the table


def test_the_table_holds_every_setting_of_a_session_and_no_other() -> None:
    assert set(SETTINGS) - {ALGORITHM} == set(SessionSettings.__struct_fields__)


def test_every_setting_has_the_type_of_its_field() -> None:
    kinds = {"text": str, "path": str, "spec": str, "whole": int, "number": float, "switch": bool}
    hints = get_type_hints(SessionSettings)
    for name, setting in SETTINGS.items():
        if name == ALGORITHM:
            continue
        if setting.kind in kinds:
            assert hints[name] is kinds[setting.kind], name
        else:
            assert get_args(hints[name]) == (str,), name
        if setting.kind == "switch":
            assert setting.on is setting.default, name


def test_no_two_settings_share_a_place_or_an_option() -> None:
    assert len({s.at for s in SETTINGS.values()}) == len({s.option for s in SETTINGS.values()}) == len(SETTINGS)


def test_a_default_that_help_states_is_the_default() -> None:
    for setting in SETTINGS.values():
        if setting.kind in ("whole", "number") and "(" in setting.help:
            stated = setting.help.rpartition("(")[2].partition(")")[0].partition(",")[0].partition(":")[0]
            assert float(stated) == setting.default, setting.name


# ------------------------------------------------------------------------------------------------- reading


def test_a_whole_file() -> None:
    text = """
model = "smollm2"
algorithm = "ppo"
preset = "dapo"
steps = 500
seed = 7
chat_template = false
reward_timeout = 5
watch = ["kl/k3 > 0.2 for 3 pause"]
track = ["tensorboard"]
[task]
use = "data/train.jsonl"
prompt = "question"
held_out = 64
[[reward]]
use = "rewards.py:accuracy"
weight = 0.5
[[reward]]
use = "last_number"
name = "number"
[lora]
r = 8
targets = ["q_proj", "v_proj"]
[hyperparameters]
learning_rate = 5e-5
kl_coefficient = { start = 0.04, 100 = 0.0 }
rating_gate = "wait 2"
kl_target = "none"
group_size = { 20 = 4 }
[warm_up]
file = "sums.jsonl"
epochs = 2
[checkpoints]
keep_last = 5
[machine]
device = "cpu"
plain = ["tree"]
nice = false
""".replace('"tree"', '"shared_prefill"')
    assert read(text) == {
        "model": "smollm2",
        "algorithm": "ppo",
        "preset": "dapo",
        "steps": 500,
        "seed": 7,
        "chat_template": False,
        "reward_timeout": 5.0,
        "watches": ["kl/k3 > 0.2 for 3 pause"],
        "track": ["tensorboard"],
        "task": "/f/data/train.jsonl prompt=question held_out=64",
        "rewards": ["/f/rewards.py:accuracy weight=0.5", "last_number name=number"],
        "lora": "r=8 targets=q_proj,v_proj",
        "sets": [
            "learning_rate=5e-5", "kl_coefficient=0.04", "kl_coefficient=0@100", "rating_gate=wait 2",
            "kl_target=none", "group_size=4@20",
        ],
        "warm_up": "/f/sums.jsonl",
        "warm_up_epochs": 2,
        "keep_last": 5,
        "device": "cpu",
        "plain": ["shared_prefill"],
        "nice": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "tiny"', "my.toml: modle: unknown setting 'modle'; did you mean model?"),
        ("[checkpoint]\nkeep_last = 1", "my.toml: checkpoint: unknown setting 'checkpoint'; did you mean checkpoints?"),
        ("[checkpoints]\nkeep_lst = 1", "checkpoints.keep_lst: unknown setting 'keep_lst'; did you mean keep_last?"),
        ("keep_last = 3", "my.toml: keep_last: unknown setting here; did you mean checkpoints.keep_last?"),
        ("learning_rate = 1e-5", "unknown setting here; did you mean"),
        ("temperature = 1.0", "my.toml: temperature: unknown setting here; did you mean hyperparameters.temperature?"),
        ("[hyperparameters]\nlearning_rat = 1", "learning_rat: unknown setting 'learning_rat'; did you mean learning"),
        ("[task]\nuse = 'arithmetic'\nheld_aut = 1", "task.held_aut: unknown setting 'held_aut'; did you mean held_o"),
        ("[[reward]]\nuse = 'exact'\nwait = 1", "reward.wait: unknown setting 'wait'; did you mean weight?"),
        ("[[reward]]\nuse = 'exact'\n[[reward]]\nuse = 'exakt'", "my.toml: reward[2].use: unknown reward 'exakt'"),
        ("[task]\nuse = 'aritmetic'", "task.use: unknown task 'aritmetic'; did you mean arithmetic?"),
        ("[task]\nheld_out = 1", "my.toml: task: use is missing"),
        ("[reward]\nuse = 'exact'", "my.toml: reward: is a table for each reward; begin each with [[reward]]"),
        ("hyperparameters = 3", "my.toml: hyperparameters: 3 is a number; it is a table: begin it with [hyperparam"),
        ("steps = '10'", "my.toml: steps: '10' is text; allowed: a whole number"),
        ("steps = true", "my.toml: steps: true; allowed: a whole number"),
        ("steps = 1.5", "my.toml: steps: 1.5 is a number; allowed: a whole number"),
        ("steps = -1", "my.toml: steps: -1 is out of bounds; allowed: whole numbers from 0"),
        ("model = 3", "my.toml: model: 3 is a number; allowed: text in quotes"),
        ("paused = 'yes'", "my.toml: paused: 'yes' is text; allowed: true or false"),
        ("track = [1]", "my.toml: track: is a list; allowed: a list of texts"),
        ("track = ['wandbb']", "my.toml: track: 'wandbb'; did you mean wandb?"),
        ("seed = 2024-01-01", "my.toml: seed: 2024-01-01 is a date or a time; allowed: a whole number"),
        ("reward_timeout = 0", "my.toml: reward_timeout: 0 is out of bounds; allowed: numbers from 0.1 to 86400"),
        ("reward_timeout = nan", "my.toml: reward_timeout: nan is a number; allowed: a number"),
        ("[warm_up]\nlearning_rate = 0", "warm_up.learning_rate: 0 is out of bounds; allowed: above 0, at most 1"),
        ("[machine]\ndevice = 'tpu'", "machine.device: 'tpu' is not one of auto, cpu, cuda, mps"),
        ("preset = 'dappo'", "my.toml: preset: 'dappo' is not one of deepseekmath, "),
        ("algorithm = 'ppp'", "my.toml: algorithm: 'ppp' is not one of grpo, ppo, trpo"),
        ("watch = ['kl/k9 > 1']", "my.toml: watch: unknown metric 'kl/k9'; did you mean kl/k"),
        ("watch = ['kl/k3 >']", "my.toml: watch: cannot read 'kl/k3 >'"),
        ("[hyperparameters]\nepochs = '2'", "hyperparameters.epochs: '2' is text; allowed: 1 .. 64, without quotes"),
        ("[hyperparameters]\nepochs = true", "hyperparameters.epochs: true; allowed: 1 .. 64, without quotes"),
        ("[hyperparameters]\nepochs = 0", "my.toml: hyperparameters.epochs: 0 is out of bounds; allowed: 1 .. 64"),
        ("[hyperparameters]\nbaseline = 3", "baseline: 3 is a number; allowed: group|value, in quotes"),
        ("[hyperparameters]\nepochs = {}", "hyperparameters.epochs: the schedule is empty; give { start = VALUE"),
        ("[hyperparameters]\nepochs = {begin = 1}", "epochs: 'begin' is neither start nor a step from 1"),
        ("[hyperparameters]\nepochs = {0 = 1}", "epochs: '0' is neither start nor a step from 1"),
        ("[hyperparameters]\nepochs = {5 = 0}", "hyperparameters.epochs.5: epochs: 0 is out of bounds"),
        ("[[reward]]\nuse = 'exact'\nweight = '1'", "reward.weight: '1' is text; allowed: a number"),
        ("[task]\nuse = 'arithmetic'\nheld_out = -1", "my.toml: task: arithmetic: held_out '-1' is out of bounds"),
        ("a = ", "my.toml: is not TOML: invalid value (at end of document)"),
        ("steps = 1\nsteps = 2", "my.toml: is not TOML: cannot overwrite a value (at"),
        ('model = "a\\u0000b"', "holds a character that no name has"),
        ("steps = " + "9" * 5000, "my.toml: cannot be read"),
        ("steps = " + "9" * 400, "my.toml: steps: has more digits than any number here; allowed: a whole number"),
        ("reward_timeout = " + "9" * 400, "my.toml: reward_timeout: has more digits"),
        ("[lora]\nalpha = " + "9" * 400, "my.toml: lora.alpha: has more digits"),
        ("[task]\nuse = 'maze'\nsize = [" + "9" * 400 + "]", "my.toml: task.size: has more digits"),
        ("[hyperparameters]\nepochs = {" + "1" * 5000 + " = 2}", "is neither start nor a step from 1"),
        ("a = " + "[" * 10_000, "my.toml: is not TOML"),
        ("'' = 1", "unknown setting ''"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_wrong_is_refused_in_one_line_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, content, said in (
        ("latin.toml", "steps = 1\n# caf\xe9".encode("latin-1"), "line 2 is not UTF-8 text"),
        ("large.toml", b"#" * (2**20 + 1), "more than the 1,048,576 bytes"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputFileError, match=said):
            read_settings_file(tmp_path / name)
    with pytest.raises(InputFileError, match=r"no such file; `workbench new .*gone\.toml` writes one"):
        read_settings_file(tmp_path / "gone.toml")
    with pytest.raises(InputFileError, match=r"cannot be read \(Is a directory\)"):
        read_settings_file(tmp_path)


def test_a_file_of_another_system_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_bytes(b"\xef\xbb\xbfsteps = 3\r\n[machine]\r\nnice = false\r\n")
    assert read_settings_file(tmp_path / "w.toml").given == {"steps": 3, "nice": False}


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    (tmp_path / "there" / "other").mkdir(parents=True)
    (tmp_path / "there" / "train.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path / "there")
    path = tmp_path / "here" / "x.toml"

    def one(text: str, name: str) -> str:
        path.write_text(text)
        return str(read_settings_file(Path("../here/x.toml")).given[name])

    here = tmp_path / "here"
    assert one('model = "model"', "model") == str(here / "model")
    assert one('model = "other"', "model") == "other"
    assert one('model = "./other"', "model") == str(here / "other")
    assert one('model = "org/name"', "model") == "org/name"
    assert one('model = "tiny"', "model") == "tiny"
    assert one('model = "a.gguf"', "model") == str(here / "a.gguf")
    assert one('reward_model = "rm"', "reward_model") == str(here / "rm")
    assert one('reward_model = "/rm"', "reward_model") == "/rm"
    assert one("[task]\nuse = 'train.jsonl'", "task") == str(here / "train.jsonl")
    assert one("task = 'train.jsonl prompt=q'", "task") == f"{here}/train.jsonl prompt=q"
    assert one("[task]\nuse = 'org/data'", "task") == "org/data"
    assert one("[task]\nuse = 't.py:make'", "task") == f"{here}/t.py:make"
    assert one("[[reward]]\nuse = 'a b.py:f'", "rewards") == str([f"'{here}/a b.py:f'"])
    assert one("[[reward]]\nuse = 'module:f'", "rewards") == str(["module:f"])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert one('reward_model = "~/rm"', "reward_model") == str(tmp_path / "rm")
    (here / "train.jsonl").write_text("{}\n")
    rows = "[task]\nuse = 'train.jsonl'\nevaluation_split = 'test.jsonl'"
    assert one(rows, "task") == f"{here}/train.jsonl evaluation_split={here}/test.jsonl"
    assert one("[task]\nuse = 'org/data'\nevaluation_split = 'test'", "task") == "org/data evaluation_split=test"
    assert one("[task]\nuse = './10:30/rows.jsonl'", "task") == f"{here}/10:30/rows.jsonl"


def test_a_folder_beside_the_file_does_not_hide_the_reward_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "exact").mkdir()
    text = "[[reward]]\nuse = 'json'\n[task]\nuse = 'exact'"
    assert parse_settings(text, "x", tmp_path) == {"rewards": ["json"], "task": str(tmp_path / "exact")}


@pytest.mark.parametrize("use", ["task.py:make", "reasoning-gym:chain_sum"])
def test_what_a_task_takes_beyond_its_own_options_is_read_and_written(use: str, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("def make(): ...\n")
    text = f"[task]\nuse = '{use}'\nmin_terms = 3\nwords = 'a b'\nsome = [1.5, true]\n'a.b' = false\nheld_out = 4"
    with pytest.raises(InvalidValue, match=r"task\.some: is a list"):
        read(text, tmp_path)
    words = "min_terms=3 'words=a b' a.b=false"
    settings = settings_of(text.replace("some = [1.5, true]\n", ""), tmp_path)
    where = f"{tmp_path}/" if use.endswith("make") else ""
    assert settings.task == f"{where}{use} held_out=4 {words}"
    assert settings_of(settings_text(settings, tmp_path), tmp_path).task == settings.task


# ------------------------------------------------------------------------------------------ what wins over what


def test_the_command_line_wins_over_the_file() -> None:
    file = {
        "model": "smollm2",
        "algorithm": "ppo",
        "sets": ["learning_rate=1e-5", "kl_coefficient=0.04", "kl_coefficient=0@100", "epochs=2"],
        "rewards": ["exact", "last_number"],
        "track": ["wandb"],
    }
    assert combined(file, {}) == {
        **{name: value for name, value in file.items() if name != "algorithm"},
        "sets": ["algorithm=ppo", *file["sets"]],
    }
    line = {"model": "tiny", "sets": ["kl_coefficient=0.1"], "rewards": ["exact"], "track": [""]}
    assert combined(file, line) == {
        "model": "tiny",
        "sets": ["algorithm=ppo", "learning_rate=1e-5", "epochs=2", "kl_coefficient=0.1"],
        "rewards": ["exact"],
        "track": [],
    }
    assert combined(file, {"algorithm": "trpo"})["sets"][0] == "algorithm=trpo"
    assert combined(file, {"preset": "trpo"})["sets"][0] == "learning_rate=1e-5"
    assert combined({"sets": ["algorithm=ppo"]}, {"algorithm": "grpo"})["sets"] == ["algorithm=grpo"]
    assert combined({"algorithm": "ppo"}, {"sets": ["algorithm=trpo"]})["sets"] == ["algorithm=trpo"]
    assert combined({}, {}) == {}


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ({"algorithm": "ppo", "preset": "trpo"}, {}, "algorithm ppo does not go with preset trpo, which is for trpo"),
        ({"algorithm": "ppo", "sets": ["algorithm=trpo"]}, {}, "algorithm ppo does not go with algorithm=trpo"),
        ({"preset": "dapo"}, {"algorithm": "ppo"}, "--algorithm ppo does not go with --preset dapo"),
        ({}, {"algorithm": "ppo", "sets": ["algorithm=trpo"]}, "--algorithm ppo does not go with --set algorithm=trpo"),
    ],
)
def test_two_algorithms_are_refused(file: dict[str, Any], line: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        combined(file, line)


def test_equal_hyperparameters_read_alike() -> None:
    given = ["epochs=2", "learning-rate=0.00001", "epochs=3@9", "algorithm=ppo", "epochs=4@9", "epochs=1@5"]
    assert canonical_sets(given) == ["algorithm=ppo", "learning_rate=1e-5", "epochs=2", "epochs=1@5", "epochs=4@9"]


# ------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("task", TASK_KINDS)
def test_a_new_file_says_the_defaults_and_so_does_every_line_of_it(task: str, tmp_path: Path) -> None:
    kind = TASK_KINDS[task]
    if any(option.default is None for option in kind.options):
        pytest.skip("it has to be told something")
    named = "reasoning-gym:chain_sum" if task == "reasoning-gym" else task
    plain = msgspec.structs.replace(PLAIN, task=named)
    text = settings_text(plain, tmp_path, ["a header"])
    assert settings_of(text, tmp_path) == plain
    assert [line for line in text.splitlines() if line[:1] not in ("#", "[", "")] == [
        line for line in text.splitlines() if line.startswith(("model = ", "use = "))
    ], "all else is a comment"
    every = settings_of(uncommented(text), tmp_path)
    assert starting_values(every) == starting_values(plain)
    assert len(every.sets) == len(HYPERPARAMETERS), "every hyperparameter has a line"
    assert msgspec.structs.replace(every, sets=[]) == plain
    assert {s.at for s in SETTINGS.values() if s.section not in ("task", "reward", "lora", "hyperparameters")} == {
        f"{section}.{key}" if section else key
        for section, table in [("", tomllib.loads(uncommented(text))), *tomllib.loads(uncommented(text)).items()]
        if isinstance(table, dict) and section not in ("task", "hyperparameters")
        for key, value in table.items()
        if not isinstance(value, dict)
    }


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("algorithm", ["", "grpo", "ppo", "trpo"])
def test_the_defaults_in_a_new_file_are_those_of_its_algorithm_and_preset(preset: str, algorithm: str) -> None:
    line = {"preset": preset} | ({"algorithm": algorithm} if algorithm else {})
    try:
        settings = msgspec.structs.replace(PLAIN, **combined({}, line))
    except UsageError:
        return
    every = settings_of(uncommented(settings_text(settings, Path("/f"))), Path("/f"))
    assert starting_values(every) == starting_values(settings)


def test_what_is_written_is_short_enough_to_read() -> None:
    assert max(map(len, settings_text(PLAIN, Path("/f")).splitlines())) <= 112


KNOBS = st.sampled_from(sorted(HYPERPARAMETERS.values(), key=lambda k: k.name)).flatmap(
    lambda k: st.tuples(
        st.just(k.name),
        st.sampled_from(k.choices)
        if k.choices
        else st.sampled_from(["async", "wait 2", "timeout 1.5"])
        if k.kind == "gate"
        else st.integers(int(k.low), int(min(k.high, 2**31)))
        if k.kind == "int"
        else st.floats(k.low, k.high),
        st.none() | st.integers(1, 10**9),
    )
)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@given(
    sets=st.lists(KNOBS, max_size=6),
    texts=st.tuples(WORDS, WORDS),
    number=st.floats(0.1, 86_400),
    whole=st.integers(1, 2**53 - 1),
    weight=st.floats(-1e6, 1e6),
    nice=st.booleans(),
)
def test_what_is_written_reads_back_the_same(
    sets: list[tuple[str, object, int | None]],
    texts: tuple[str, str],
    number: float,
    whole: int,
    weight: float,
    nice: bool,
) -> None:
    settings = msgspec.structs.replace(
        PLAIN,
        model="/elsewhere/a model",
        warm_up=f"/f/in {texts[0].replace('/', '-')}/x",
        reward_model="/f/rm",
        rewards=check_rewards([f"exact weight={weight!r}", "m:f name=g", "last_number"]),
        task="/f/sub/train.jsonl 'prompt=the question' held_out=5",
        lora="r=8 alpha=64.0 targets=q_proj,v_proj rslora=true from=/a/b",
        reward_timeout=number,
        reward_folder="/f",
        seed=whole,
        nice=nice,
        keep_last=whole,
        watches=["low: entropy < 0.1", "kl/k3 > 0.2"],
        plain=["all"],
        sets=canonical_sets([f"{n}={v}" + (f"@{step}" if step else "") for n, v, step in sets]),
    )
    text = settings_text(settings, Path("/f"))
    read_back = msgspec.structs.replace(PLAIN, **combined(parse_settings(text, "x", Path("/f")), {}))
    assert msgspec.structs.replace(read_back, sets=canonical_sets(read_back.sets)) == settings
    assert '"./rm"' in text, "what lies beside the file is written so"


def test_the_rows_of_an_evaluation_move_with_the_file(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("{}\n")
    task = f"{tmp_path}/train.jsonl evaluation_split={tmp_path}/test.jsonl"
    text = settings_text(msgspec.structs.replace(PLAIN, task=task), tmp_path)
    assert str(tmp_path) not in text
    assert settings_of(text, tmp_path).task == task


@given(st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.lists(st.text()))
def test_a_value_is_written_so_that_toml_reads_it_back(value: object) -> None:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


def test_the_defaults_of_a_task_are_part_of_what_a_session_begins_with() -> None:
    assert starting_values(PLAIN)["learning_rate"] == 1e-4
    assert starting_values(msgspec.structs.replace(PLAIN, sets=["learning_rate=1e-3"]))["learning_rate"] == 1e-3
    ppo = msgspec.structs.replace(PLAIN, sets=["algorithm=ppo", "epochs=4@3"])
    assert starting_values(ppo) == defaults(TASK_KINDS["arithmetic"].defaults, {"algorithm": "ppo"})
    assert parse_assignment("epochs=4@3").step == 3


@pytest.mark.parametrize(("size", "kept"), [("[2, 5]", "2,5"), ('"2-4"', "2-4"), ("7", "7")])
def test_whole_numbers_are_a_number_a_list_or_text(size: str, kept: str, tmp_path: Path) -> None:
    given = parse_settings(f'[task]\nuse = "maze"\nsize = {size}\n', "x", tmp_path)
    assert combined(given, {})["task"] == f"maze size={kept}"
    for wrong in ("[2.5]", "1.5", "true", '["a"]'):
        with pytest.raises(InvalidValue, match="size"):
            combined(parse_settings(f'[task]\nuse = "maze"\nsize = {wrong}\n', "x", tmp_path), {})


def test_options_that_the_shell_tore_from_their_task_are_not_taken_for_a_missing_file() -> None:
    with pytest.raises(
        InputFileError, match=r"quotes of the name before them, such as --task \"maze size=4-6 rows=1\""
    ):
        read_settings_file(Path("size=4-6 rows=1"))
