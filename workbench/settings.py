"""What a session is started with, checked before anything is started or written; and the person's own settings."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sessions.adapters import adapted, check_lora
from sessions.errors import InputFileError, InvalidValue, UsageError
from sessions.examples import read_examples
from sessions.first_row import check_first_row
from sessions.folders import SETTINGS_BYTES, cache_home, check_session_name, home
from sessions.hyperparameters import check_sampler, check_together, defaults, hyperparameter, parse_assignment, switched
from sessions.model_files import check_model_folder, gguf_architecture
from sessions.models import need_snapshot, offline_switch, parse_model
from sessions.paths import expanded
from sessions.people import check_person, whoami
from sessions.presets import preset
from sessions.records import Record, SessionSettings
from sessions.reward_kinds import check_rewards, has_modules
from sessions.run_settings import ALGORITHM, SETTINGS, canonical_sets
from sessions.shortcuts import active
from sessions.specs import parse_spec
from sessions.task_kinds import DATASET, check_task_spec, task_kind
from sessions.trackers import check_trackers
from sessions.watch_words import parse_watch


class Preferences(Record, forbid_unknown_fields=True):
    """``$WORKBENCH_HOME/settings.toml``: how a person likes the screens, and is called.

    :ivar name: in events and ratings, where ``--as`` gives no other.
    :ivar keys: id of an action -> its keys, as ``?`` lists them.
    """

    name: str = ""
    theme: str = ""
    marks: str = "auto"
    slow: bool = False
    mouse: bool = True
    keys: dict[str, str] = {}


def preferences() -> Preferences:
    """The person's settings; the defaults where there is no file.

    :raises InputFileError: naming the file and what is wrong in it.
    """
    path = home() / "settings.toml"
    try:
        with path.open("rb") as file:  # it may be a link: people keep such files where they like
            text = file.read(SETTINGS_BYTES + 1)
        if len(text) > SETTINGS_BYTES:
            raise InputFileError(f"{path}: more than the {SETTINGS_BYTES:,} bytes that it may have")
        return msgspec.convert(tomllib.loads(text.decode("utf-8")), Preferences)
    except (FileNotFoundError, NotADirectoryError):
        return Preferences()
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise InputFileError(f"{path}: cannot be read ({error})") from None


def person(arguments: argparse.Namespace) -> str:
    """Who asks: ``--as NAME``, else the name in the person's settings, else the user's.

    :raises InvalidValue: saying where a name stands that is none.
    """
    given: str | None = getattr(arguments, "person", None)
    if given is not None:
        return _person(given, "--as")
    name = preferences().name
    return _person(name, f"{home() / 'settings.toml'}: name") if name else whoami()


def _person(name: str, where: str) -> str:
    try:
        return check_person(name)
    except InvalidValue as error:
        raise InvalidValue(f"{where}: {error}") from None


def check_settings(settings: SessionSettings, *, warmed: bool = False) -> SessionSettings:
    """The settings with absolute paths, if everything that can be known without torch is right.

    :param warmed: the session has its warm-up behind it, so that the file is not needed any more.
    :raises UsageError: one line that says what, where and what to do.
    """
    if settings.name:
        check_session_name(settings.name)
    for setting in SETTINGS.values():
        if setting.name != ALGORITHM and setting.name != "preset":  # these are read with the hyperparameters
            setting.check(getattr(settings, setting.name), setting.option)
    model, lora = check_adapted(settings)
    active(settings.plain)
    check_sets(settings.sets, settings.preset, mismatch=settings.allow_sampler_mismatch)
    return msgspec.structs.replace(
        settings,
        model=model,
        lora=check_lora(lora, started=warmed),
        task=check_task(settings.task, settings.rewards),
        rewards=check_rewards(settings.rewards),
        sets=canonical_sets(settings.sets),
        watches=check_watches(settings.watches),
        reward_folder=check_reward_folder(settings),
        warm_up=check_warm_up(settings, warmed=warmed),
        track=check_trackers(settings.track),
        reward_model=check_reward_model(settings.reward_model),
    )


def check_adapted(settings: SessionSettings) -> tuple[str, str]:
    """The model and the words of its adapters; a folder of adapters stands for its base and them.

    :raises UsageError: if the model is not there.
    """
    base, lora = adapted(settings.model, settings.lora)
    if base == settings.model:
        return check_model(base, settings.model_revision), lora
    try:
        return check_model(base, settings.model_revision), lora
    except UsageError as error:
        raise InputFileError(
            f"--model {settings.model}: adapters for a model that is not found here ({error}); give it with "
            f"--model MODEL --lora {lora}"
        ) from None


def check_model(text: str, revision: str = "") -> str:
    """A model's name, a file's or folder's with its absolute path; of what is on the disk the files are looked at.

    :param revision: of a hub model.
    :raises UsageError: if there is none, it is not what it should be, or the network that it needs is forbidden.
    """
    name = parse_model(text)
    wanted = name.at(revision)
    if name.kind == "known":
        if name.place == "smollm2" and not (cache_home() / "smollm2" / "config.json").is_file():
            raise UsageError("model smollm2 is not here yet; `workbench fetch smollm2` gets it")
    elif name.kind == "folder":
        check_model_folder(Path(name.place), text)
    elif name.kind == "gguf":
        gguf_architecture(Path(name.place), text)
    else:
        if switch := offline_switch():
            need_snapshot(wanted, switch)
    return str(name)


def check_reward_folder(settings: SessionSettings) -> str:
    """The absolute path of where modules of reward functions are looked for; empty where no reward is of a module.

    :raises UsageError: if it is no folder.
    """
    if not settings.reward_folder:
        return os.getcwd() if has_modules(settings.rewards) else ""
    folder = expanded(settings.reward_folder)
    if not folder.is_dir():
        raise InputFileError(f"--reward-folder {settings.reward_folder}: no such folder")
    return str(folder.resolve())


def check_reward_model(name: str) -> str:
    """The absolute path of a reward model's folder; empty without one.

    :raises InputFileError: if it is none.
    """
    if name and not (expanded(name) / "reward_model.json").is_file():
        raise InputFileError(
            f"--reward-model {name}: no reward_model.json there; give a folder that `workbench reward-model train` made"
        )
    return str(expanded(name).resolve()) if name else ""


def check_task(text: str, rewards: Sequence[str] = ()) -> str:
    """A task's words, checked, with absolute paths.

    :param rewards: that are used instead of the task's own.
    :raises UsageError: if there is none of that name; of a file, its first row is looked at.
    """
    checked = check_task_spec(text)
    spec = parse_spec(checked, "task")
    path, kind = Path(spec.use), task_kind(spec)
    if kind is DATASET and path.is_absolute() and path.is_file():
        rewarded = any(parse_spec(reward, "reward").use != "task" for reward in rewards)
        check_first_row(path, kind.read(spec, "task"), f"task {path}", rewarded=rewarded)
    return checked


def check_warm_up(settings: SessionSettings, *, warmed: bool = False) -> str:
    """The absolute path of the warm-up's file; empty without one.

    :raises UsageError: naming the option or the line that is wrong.
    """
    if not settings.warm_up:
        plain = SessionSettings(name="")
        for name in ("warm_up_epochs", "warm_up_learning_rate", "warm_up_batch"):
            if getattr(settings, name) != getattr(plain, name):
                raise UsageError(f"--{name.replace('_', '-')}: there is no warm-up; give its file with --warm-up")
        return ""
    path = expanded(settings.warm_up)
    if not warmed:
        read_examples(path)
    return str(path.resolve())


def check_watches(rules: Iterable[str]) -> list[str]:
    """The rules of watches, each once.

    :raises UsageError: if one cannot be read; whether the task has a reward component is known when it is loaded.
    """
    wanted = list(dict.fromkeys(rules))
    for rule in wanted:
        try:
            parse_watch(rule)
        except UsageError as error:
            raise InvalidValue(f"--watch: {error}") from None
    return wanted


def check_sets(sets: Iterable[str], published: str = "", *, mismatch: bool = False) -> None:
    """Check ``name=value[@STEP]`` one by one, and that the values go together at every step they change at.

    :param mismatch: whether training may sample from another distribution than the policy's.
    :raises UsageError: naming the hyperparameter.
    """
    assignments = [parse_assignment(text) for text in sets]
    begun = preset(published).settings(int(hyperparameter("max_new_tokens").default)) if published else {}
    values = defaults(begun, {a.name: a.value for a in assignments if a.step is None})
    check_together(values)
    check_sampler(values, mismatch=mismatch)
    for step in sorted({a.step for a in assignments if a.step is not None}):
        values |= switched(values, {a.name: a.value for a in assignments if a.step == step})
        check_together(values)
        check_sampler(values, mismatch=mismatch)
