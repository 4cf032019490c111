"""What of a built-in reward's options can be found wrong before anything is started, and without torch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from sessions.errors import InputFileError, InvalidValue, UsageError
from sessions.model_files import PICKLES, TOKENIZERS
from sessions.specs import OptionValue, names

Values = Mapping[str, OptionValue]
_TAG = re.compile(r"[A-Za-z][\w.-]*")
_MOST_CONFIG = 2**22


def check_math(values: Values, where: str) -> None:
    """Whether the package is there."""
    if find_spec("math_verify") is None:
        raise UsageError(f"{where}: it needs the package math-verify; `pip install 'rl-workbench[math]'` brings it")


def check_cosine(values: Values, where: str) -> None:
    """Whether what says which are right can."""
    if values["correct"] == "math":
        check_math(values, f"{where} correct=math")
    elif values["correct"] == "last_number" and values["after"]:
        raise InvalidValue(f"{where}: after is for correct=math and correct=exact")


def check_regex(values: Values, where: str) -> None:
    """Whether the pattern is one."""
    import regex

    try:
        regex.compile(str(values["pattern"]), regex.DOTALL)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"{where}: pattern {values['pattern']!r} cannot be read: {error}") from None


def check_json(values: Values, where: str) -> None:
    """Whether the schema is a file; what it holds is read when the engine starts."""
    if values["schema"] and not Path(str(values["schema"])).is_file():
        raise InputFileError(f"{where}: schema {values['schema']}: no such file")


def check_format(values: Values, where: str) -> None:
    """Whether the tags have names that tags can have, each another one."""
    tags = names(values["tags"])
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise InvalidValue(f"{where}: {tag!r} is no name of a tag; give names without < >, such as think,answer")
    if not tags or len(set(tags)) < len(tags):
        raise InvalidValue(f"{where}: tags {values['tags']!r}: at least one is expected, and each once")


def check_length(values: Values, where: str) -> None:
    """Whether the limit is beyond the target."""
    target, limit = int(values["target"]), int(values["limit"])
    if limit and limit < target:
        raise InvalidValue(f"{where}: limit {limit} is under target {target}; the penalty grows from target to limit")
    if limit and values["shape"] == "distance":
        raise InvalidValue(f"{where}: limit is for the shapes linear and cosine; distance is full at twice the target")
    if values["shape"] == "distance" and not target:
        raise InvalidValue(f"{where}: a distance needs a target from 1")


def check_command(values: Values, where: str) -> None:
    """Whether the program is there."""
    run = str(values["run"])
    if values["folder"] and not Path(str(values["folder"])).is_dir():
        raise InputFileError(f"{where}: folder {values['folder']}: no such folder")
    if values["shell"]:
        if not run.strip():
            raise InvalidValue(f"{where}: run is empty; give a program and its arguments")
        return
    try:
        words = shlex.split(run)
    except ValueError as error:
        raise InvalidValue(f"{where}: run {run!r}: {str(error).lower()}") from None
    if not words:
        raise InvalidValue(f"{where}: run is empty; give a program and its arguments")
    program = os.path.realpath(Path(str(values["folder"] or "."), words[0])) if "/" in words[0] else words[0]
    if shutil.which(program) is None:
        raise InputFileError(f"{where}: {words[0]}: no such program; give one on the PATH, or the path of one")


def check_model(values: Values, where: str) -> None:
    """Whether a folder holds a sequence classifier with one label, a tokenizer, and weights that are no pickles."""
    folder = Path(str(values["path"]))
    if (folder / "reward_model.json").is_file():
        raise InputFileError(
            f"{where}: {folder} was made by `workbench reward-model train`; use it with --reward-model {folder}"
        )
    if not (folder / "config.json").is_file():
        what = "an adapter without its model; merge it first" if (folder / "adapter_config.json").is_file() else ""
        raise InputFileError(f"{where}: {folder}: {what or 'no folder with a config.json there'}")
    config = _config(folder / "config.json", where)
    architectures = config.get("architectures")
    kinds = [str(kind) for kind in architectures] if isinstance(architectures, list) else []
    if kinds and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise InputFileError(
            f"{where}: {folder} holds a {kinds[0]}; a model for sequence classification with one label is expected"
        )
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if count != 1:
        raise InputFileError(
            f"{where}: {folder} has {count} labels; a reward model has one (num_labels=1 when it was trained)"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = [p.name for end in PICKLES for p in sorted(folder.glob(f"*.{end}"))]
        raise InputFileError(
            f"{where}: {folder}: "
            + (
                f"its weights are pickled ({pickles[0]}), and reading a pickle runs what is in it; "
                "give a folder with .safetensors, which save_pretrained writes"
                if pickles
                else "there are no weights (.safetensors) in it"
            )
        )
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise InputFileError(
            f"{where}: {folder} has no tokenizer; save the one it was trained with beside it (save_pretrained)"
        )


def _config(path: Path, where: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_CONFIG + 1)
        if len(data) > _MOST_CONFIG:
            raise ValueError(f"more than {_MOST_CONFIG:,} bytes")
        return msgspec.json.decode(data, type=dict[str, Any])
    except (OSError, ValueError, RecursionError) as error:
        raise InputFileError(f"{where}: {path} cannot be read ({error})") from None
