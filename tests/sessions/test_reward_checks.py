"""What of a reward's options is found wrong before anything starts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from sessions import reward_checks
from sessions.errors import UsageError
from sessions.reward_kinds import REWARD_KINDS, check_answers, check_rewards, read_rewards
from sessions.specs import parse_spec


def refusal(words: str) -> str:
    with pytest.raises(UsageError) as refused:
        check_rewards([words])
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2
    return str(refused.value)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("regex", "pattern is missing"),
        ("regex pattern=(a", "pattern '(a' cannot be read: missing )"),
        ("regex pattern=a match=all", "match 'all' is not one of search, full"),
        ("exact blanks=some", "blanks 'some' is not one of ends, runs, all, none"),
        ("exact pattern=a", "unknown option of reward exact: 'pattern'"),
        ("last_number tolerance=-1", "tolerance '-1' is out of bounds"),
        ("json schema=/no/such", "/no/such: no such file"),
        ("json part=half", "not one of whole, fence"),
        ("format tags=", "at least one is expected"),
        ("format tags=a,a", "each once"),
        ("format tags=<a>", "'<a>' is no name of a tag"),
        ("length", "target is missing"),
        ("length target=10 limit=9", "limit 9 is under target 10"),
        ("length target=10 limit=20 shape=distance", "limit is for the shapes linear and cosine"),
        ("length target=0 shape=distance", "needs a target from 1"),
        ("length target=x", "target 'x' is out of bounds"),
        ("repetition n=0", "n '0' is out of bounds"),
        ("repetition penalty=1", "penalty '1' is out of bounds"),
        ("cosine correct=exact", "limit is missing"),
        ("cosine limit=9 correct=last_number after=x", "after is for correct=math"),
        ("command", "run is missing"),
        ("command run=", "run is empty"),
        ("command run='' shell=true", "run is empty"),
        ('command run="echo \'"', "no closing quotation"),
        ("command run=no-such-program-anywhere", "no-such-program-anywhere: no such program"),
        ("command run=./score", "./score: no such program"),
        ("command run=echo folder=/no/such", "folder /no/such: no such folder"),
        ("model path=/no/such", "/no/such: no folder with a config.json there"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(words: str, complaint: str) -> None:
    assert complaint in refusal(words)


def test_every_example_reads_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reward_model(tmp_path / "my-reward-model")
    monkeypatch.setattr(reward_checks, "find_spec", lambda name: name)
    (tmp_path / "python").write_text("")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for kind in REWARD_KINDS.values():
        assert parse_spec(kind.example, "reward").use == kind.name
        if kind.name == "task":  # said alone it is what there is without it
            assert check_rewards([kind.example]) == []
            continue
        (checked,) = check_rewards([kind.example])
        assert check_rewards([checked]) == [checked]


def test_a_program_runs_where_the_session_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "score").write_text("")
    (folder / "score").chmod(0o755)
    monkeypatch.chdir(folder)
    (checked,) = check_rewards(["command run=./score weight=0.5"])
    assert check_rewards([f"command run=./score 'folder={folder}' weight=0.5"]) == [checked]
    monkeypatch.chdir(tmp_path)
    assert check_rewards([checked]) == [checked]
    assert read_rewards([checked])[0].options["folder"] == str(folder)
    (given,) = check_rewards(["command run=./score folder='a folder'"])
    assert read_rewards([given])[0].options["folder"] == str(folder)


def test_a_program_whose_links_go_round_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("score").symlink_to("score")
    assert "./score: no such program" in refusal("command run=./score")


def test_what_needs_a_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_checks, "find_spec", lambda name: None)
    assert "pip install 'rl-workbench[math]'" in refusal("math")
    assert "pip install 'rl-workbench[math]'" in refusal("cosine limit=5")
    assert check_rewards(["cosine limit=5 correct=exact"])


def test_rewards_that_compare_are_refused_where_there_is_nothing_to_compare_with() -> None:
    check_answers(read_rewards(["length target=5", "format", "task"]), "mine")
    for words in ("exact", "last_number", "cosine limit=5 correct=exact"):
        with pytest.raises(UsageError, match=r"the task mine has none; name the column with answer=COLUMN"):
            check_answers(read_rewards(["format", words]), "mine")


# ----------------------------------------------------------------------------------------------------- model folders

CONFIG = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


def reward_model(folder: Path, config: Mapping[str, object] | str = CONFIG, *files: str) -> Path:
    """What a reward model's folder looks like from outside."""
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in files or ("model.safetensors", "tokenizer.json"):
        (folder / name).write_text("")
    return folder


def test_a_reward_model_folder_is_kept_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reward_model(tmp_path / "rm")
    monkeypatch.chdir(tmp_path)
    assert check_rewards(["model path=rm"]) == [f"model path={folder}"]
    reward_model(tmp_path / "old", {"num_labels": 1}, "a-00001.safetensors", "vocab.txt")
    check_rewards(["model path=old"])
    reward_model(tmp_path / "xlm", {"num_labels": 1}, "model.safetensors", "sentencepiece.bpe.model")
    check_rewards(["model path=xlm"])


@pytest.mark.parametrize(
    ("config", "files", "complaint"),
    [
        (CONFIG, ("reward_model.json",), "use it with --reward-model "),
        (CONFIG, ("pytorch_model.bin", "tokenizer.json"), "pickled (pytorch_model.bin)"),
        (CONFIG, ("tokenizer.json",), "no weights (.safetensors)"),
        (CONFIG, ("model.safetensors",), "has no tokenizer"),
        ({**CONFIG, "id2label": {"0": "a", "1": "b"}}, (), "has 2 labels; a reward model has one"),
        ({"architectures": ["BertForSequenceClassification"]}, (), "has 2 labels"),
        ({**CONFIG, "architectures": ["LlamaForCausalLM"]}, (), "holds a LlamaForCausalLM"),
        ("{", (), "config.json cannot be read"),
        ("[1]", (), "config.json cannot be read"),
        ("[" * 100_000, (), "config.json cannot be read"),
    ],
)
def test_a_folder_that_is_no_reward_model_is_refused_with_the_reason(
    tmp_path: Path, config: Mapping[str, object] | str, files: tuple[str, ...], complaint: str
) -> None:
    folder = reward_model(tmp_path / "rm", config, *files)
    said = refusal(f"model path={folder}")
    assert complaint in said
    assert str(folder) in said


def test_an_adapter_alone_is_no_reward_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "an adapter without its model; merge it first" in refusal(f"model path={tmp_path}")
