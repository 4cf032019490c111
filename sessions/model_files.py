"""Whether a model's files can be what they should be: found out without reading a weight, and without torch.

A model's folder comes from anywhere. What is looked at is bounded, and nothing in it is run.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sessions.errors import InputFileError

MOST_JSON, MOST_HEADER = 2**25, 100_000_000
"""Bytes that a JSON file of a model, and the header of its weights, may have."""
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
PICKLES = ("bin", "pt", "pth", "ckpt")
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.tiktoken", "tekken.json", "vocab.json",
    "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""Files of which a tokenizer has at least one."""
_TYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16"}
OTHER_HEADS = (
    "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice",
    "ForPreTraining", "ForImageClassification", "ForSpeechSeq2Seq", "ForAudioClassification",
)  # fmt: skip
"""How architectures are called that do not say the next token."""


def check_model_folder(folder: Path, name: str) -> None:
    """Refuse a folder that no causal language model can be loaded from, as far as its files say so.

    :param name: as the model was asked for.
    :raises InputFileError: one line with what is wrong and what to do.
    """
    config = _config(folder, name)
    _check_config(config, name)
    refuse_pickles(folder, name)
    _check_weights(folder, name)
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputFileError(
            f"model {name}: there is no tokenizer in its folder (tokenizer.json); copy the one that the model was "
            "trained with into it"
        )


def stored_type(folder: Path) -> str:
    """The type that most of a model's tensors are stored in, such as ``bf16``, by the first file that holds any."""
    for path in sorted(folder.glob("model*.safetensors")):
        types = [str(about["dtype"]) for about in _tensors(path, str(folder)).values()]
        if types:
            return _TYPES.get(most := max(sorted(set(types)), key=types.count), most.lower())
    return ""


def has_weights(folder: Path) -> bool:
    """Whether there are weights in safetensors, where transformers looks for them."""
    return (folder / INDEX).is_file() or (folder / WEIGHTS).is_file()


def refuse_pickles(folder: Path, name: str) -> None:
    """Refuse weights that could only be read by unpickling, which runs whatever code they hold.

    :raises InputFileError: if a folder of a model has no others.
    """
    for kind in ("adapter_model", "*"):
        pickles = [p.name for end in PICKLES for p in sorted(folder.glob(f"{kind}.{end}"))]
        if pickles and not any(folder.glob(f"{kind}.safetensors")):
            raise InputFileError(
                f"model {name}: its weights are pickled ({pickles[0]}), and reading a pickle runs what is in it; "
                "give a folder with .safetensors, which save_pretrained writes"
            )


# --------------------------------------------------------------------------------------------------- config.json


def _config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        if any(folder.glob("*.gguf")):
            raise InputFileError(f"model {name}: a folder with GGUF files; give the path of one of them")
        if (folder / "adapter_config.json").is_file():
            raise InputFileError(f"model {name}: holds an adapter and not a model; give the model that it belongs to")
        raise InputFileError(
            f"model {name}: no config.json there; give tiny, smollm2, the folder of a saved model, a .gguf file or "
            "org/name of the hub"
        )
    return _json(path, name)


def _json(path: Path, name: str) -> dict[str, Any]:
    """An object from a JSON file of bounded size."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_JSON + 1)
        found = json.loads(data) if len(data) <= MOST_JSON else None
    except OSError as error:
        raise InputFileError(f"model {name}: {path.name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise InputFileError(
            f"model {name}: {path.name} is not JSON; it is damaged, copy or fetch the model again"
        ) from None
    if not isinstance(found, dict):
        raise InputFileError(f"model {name}: {path.name} is not a model's; copy or fetch the model again")
    return found


def _check_config(config: Mapping[str, Any], name: str) -> None:
    if not isinstance(config.get("model_type"), str):
        raise InputFileError(
            f"model {name}: its config.json names no model_type, so it is not a model of transformers; give the folder "
            "that save_pretrained wrote"
        )
    if config.get("is_encoder_decoder") is True:
        raise InputFileError(
            f"model {name}: is an encoder-decoder ({config['model_type']}); give a causal language model, such as "
            "Llama, Qwen or GPT-2"
        )
    listed = config.get("architectures")
    heads = [str(head) for head in listed] if isinstance(listed, list) else []
    if heads and all(head.endswith(OTHER_HEADS) for head in heads):
        raise InputFileError(
            f"model {name}: is a {heads[0]}, which does not say the next token; give a causal language model "
            "(...ForCausalLM)"
        )
    if config.get("quantization_config"):
        stored = config["quantization_config"]
        method = stored.get("quant_method", "") if isinstance(stored, dict) else ""
        raise InputFileError(
            f"model {name}: its weights are quantised{f' ({method})' if method else ''} and cannot be trained so; give "
            "the model that they were made from"
        )


# --------------------------------------------------------------------------------------------------- safetensors


def _check_weights(folder: Path, name: str) -> None:
    if not has_weights(folder):
        raise InputFileError(
            f"model {name}: no {WEIGHTS} there; weights are read from safetensors alone, which save_pretrained writes"
        )
    if not (folder / INDEX).is_file() or (folder / WEIGHTS).is_file():  # as transformers chooses
        _tensors(folder / WEIGHTS, name)
        return
    placed = _json(folder / INDEX, name).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise InputFileError(f"model {name}: {INDEX} does not say where its weights are; copy the model again")
    shards = sorted(set(placed.values()))
    outside = [file for file in shards if file != os.path.basename(file) or not file.endswith(".safetensors")]
    if outside:
        raise InputFileError(f"model {name}: {INDEX} names {outside[0]!r}, which is no file of safetensors beside it")
    missing = [file for file in shards if not (folder / file).is_file()]
    if missing:
        raise InputFileError(
            f"model {name}: {missing[0]} is missing ({len(missing)} of {len(shards)} parts are); copy or fetch the "
            "model again"
        )
    for file in shards:
        found = _tensors(folder / file, name)
        lost = [tensor for tensor, place in placed.items() if place == file and tensor not in found]
        if lost:
            raise InputFileError(f"model {name}: {file} lacks {lost[0]}, which {INDEX} says it has; copy it again")


def _tensors(path: Path, name: str) -> dict[str, Any]:
    """The header of a file of safetensors, if the file is as long as that says."""
    again = "copy or fetch the model again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MOST_HEADER, size - 8):
                raise InputFileError(f"model {name}: {path.name} is cut off or is not safetensors; {again}")
            header = json.loads(file.read(length))
        tensors = {tensor: about for tensor, about in header.items() if tensor != "__metadata__"}
        end = max((int(about["data_offsets"][1]) for about in tensors.values()), default=0)
    except OSError as error:
        raise InputFileError(f"model {name}: {path.name} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise InputFileError(f"model {name}: {path.name} is damaged, its header cannot be read; {again}") from None
    if size != 8 + length + end:
        raise InputFileError(
            f"model {name}: {path.name} has {size:,} bytes and should have {8 + length + end:,}; it was not copied "
            f"whole, {again}"
        )
    return tensors


# ---------------------------------------------------------------------------------------------------------- GGUF

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES, _MOST_DEPTH = 2**24, 4
ALIGNMENT = 32


def gguf_architecture(path: Path, name: str) -> str:
    """``general.architecture`` of a GGUF file whose header is whole and whose tensors begin inside it.

    :raises InputFileError: if it is none, or damaged.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise InputFileError(f"model {name}: is not a GGUF file, whatever its name; give another")
            version, tensors, entries = struct.unpack("<IQQ", file.read(20))
            if version in (2, 3) and max(tensors, entries) > _MOST_ENTRIES:
                raise ValueError("more than any model has")
            if version not in (2, 3):
                raise InputFileError(
                    f"model {name}: is a GGUF file of version {version}, and 2 and 3 are read; convert it with a newer "
                    "llama.cpp"
                )
            known: dict[str, object] = {}
            for _ in range(entries):
                key = _string(file)
                known[key] = _value(file, struct.unpack("<I", _take(file, 4))[0])
            last = 0
            for _ in range(tensors):
                _string(file)
                dimensions = struct.unpack("<I", _take(file, 4))[0]
                last = max(last, struct.unpack("<Q", _take(file, 8 * dimensions + 12)[-8:])[0])
            begins = -(-file.tell() // ALIGNMENT) * ALIGNMENT
    except OSError as error:
        raise InputFileError(f"model {name}: cannot be read ({error.strerror})") from None
    except (ValueError, struct.error, RecursionError, MemoryError, OverflowError):
        raise InputFileError(f"model {name}: is a damaged GGUF file, its header cannot be read; get it again") from None
    if path.stat().st_size <= begins + last:
        raise InputFileError(f"model {name}: is a GGUF file that was not copied whole; get it again")
    architecture = known.get("general.architecture")
    if not isinstance(architecture, str) or not tensors:
        raise InputFileError(f"model {name}: is a GGUF file without a model; give another")
    return architecture


def _take(file: BinaryIO, count: int) -> bytes:
    if not 0 <= count <= MOST_HEADER:
        raise ValueError("too long")
    data = file.read(count)
    if len(data) != count:
        raise ValueError("ends early")
    return data


def _string(file: BinaryIO) -> str:
    return _take(file, struct.unpack("<Q", _take(file, 8))[0]).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int, depth: int = 0) -> object:
    """A value of the header: text as it is, of others only that they are there."""
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        _take(file, _SIZES[kind] if kind in _SIZES else MOST_HEADER + 1)
        return None
    inner, count = struct.unpack("<IQ", _take(file, 12))
    if depth > _MOST_DEPTH or count > _MOST_ENTRIES:
        raise ValueError("too deep")
    if inner in _SIZES:
        _take(file, _SIZES[inner] * count)
    else:
        for _ in range(count):
            _value(file, inner, depth + 1)
    return None
