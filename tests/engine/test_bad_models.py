"""Folders of models that are not as they should be, and what is said of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import chat
from engine.loading import TINY, load_policy
from engine.policy import make_accelerator
from engine.words import one_line
from sessions.errors import UsageError

Weights = dict[str, torch.Tensor]
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def why(model: Path) -> str:
    with pytest.raises(UsageError) as raised:
        load_policy(model, make_accelerator("cpu"), name="m")
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": "x"}, "its config.json cannot be used (StrictDataclassFieldValidationError: Validation error"),
        ({"hidden_size": "x"}, "expected int, got str"),
        ({"vocab_size": 10}, "the shape of its weights model.embed_tokens.weight is (64, 128), and its config.json"),
        ({"num_hidden_layers": 2}, "has weights of more layers (model.layers.2.input_layernorm.weight) than the 2"),
        ({"num_hidden_layers": 0}, "has weights of more layers (model.layers.0.input_layernorm.weight) than the 0"),
        ({"num_hidden_layers": 6}, "its folder lacks the weights model.layers.4.input_layernorm.weight and 17 more"),
    ],
)
def test_a_configuration_that_is_not_the_weights_own_is_named(model: Path, values: Any, message: str) -> None:
    change(model / "config.json", **values)
    assert message in why(model)


def cut(weights: Weights) -> None:
    weights[Q] = weights[Q][:5].contiguous()


def spoil(weights: Weights) -> None:
    weights[Q][3, 4] = float("nan")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, f"the shape of its weights {Q} is (5, 128), and its config.json says (128, 128)"),
        (spoil, f"its weights {Q} hold values that are not finite"),
        (lambda weights: weights.pop(Q), f"its folder lacks the weights {Q}, which would be random"),
    ],
)
def test_damaged_weights_are_named(model: Path, damage: Callable[[Weights], Any], message: str) -> None:
    path = model / "model.safetensors"
    weights = load_file(path)
    damage(weights)
    save_file(weights, path, {"format": "pt"})
    assert message in why(model)


def test_weights_that_no_layer_asks_for_are_passed_over(model: Path) -> None:
    path = model / "model.safetensors"
    save_file({**load_file(path), "vision.layers.0.weight": torch.zeros(2)}, path, {"format": "pt"})
    assert load_policy(model, make_accelerator("cpu")).parameters


def test_a_damaged_tokenizer_is_not_blamed_on_the_weights(model: Path) -> None:
    path = model / "tokenizer.json"
    path.write_text(path.read_text()[:200])
    assert why(model).startswith("model m: its tokenizer cannot be loaded (JSONDecodeError")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "refuses messages of user (TemplateSyntaxError"),
        ("{{ raise_exception('no') }}", "refuses messages of user (TemplateError: no)"),
        ("1+1=", "leaves out what the user says"),
        ("{# #}", "leaves out what the user says"),
    ],
)
def test_a_chat_template_that_is_of_no_use_is_refused(model: Path, template: str, message: str) -> None:
    change(model / "tokenizer_config.json", chat_template=template)
    assert message in why(model)
    assert load_policy(model, make_accelerator("cpu"), chat_template=False).parameters


def test_a_chat_template_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def apply_chat_template(self, *_: object, **__: object) -> str:
            waiting.wait()
            return ""

    waiting = chat.threading.Event()
    monkeypatch.setattr(chat, "SECONDS", 0.05)
    try:
        with pytest.raises(UsageError, match=r"has not ended after 0\.05 s; mend chat_template"):
            chat.check_template(Endless())
    finally:
        waiting.set()


def test_an_error_that_only_announces_its_reason_is_told_with_it() -> None:
    assert one_line(ValueError("of field x:\n\n    a str\nmore")) == "ValueError: of field x: a str"
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(ValueError("")) == "ValueError"
