"""Chat templates as models have them: how a prompt begins, what ends an answer, and what becomes of system messages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.chat import end_of_turn, merged
from engine.policy import Policy, make_accelerator
from engine.supervised import encode_texts
from sessions.errors import UsageError

SPECIAL = ["<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "[SEP]"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set text = '[' + m.role + ']\n' + m.content | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
CLOSED = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"


def tokenizer_of(template: str | None, *, bos: bool = True, eos: bool = False) -> Any:
    """Bytes and a few special tokens; it puts ``<bos>`` before a text, and ``<eos>`` after it where asked to."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> " * bos + "$A" + " <eos>" * eos, special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", extra_special_tokens=SPECIAL[2:]
    )
    fast.chat_template = template
    return fast


def policy_of(template: str | None, tokenizer: Any = None, rows: int = 300, **options: Any) -> Policy:
    config = LlamaConfig(
        vocab_size=rows, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=256, eos_token_id=1, bos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return Policy(model, tokenizer or tokenizer_of(template), make_accelerator("cpu", "fp32"), **options)


def text_of(policy: Policy, prompt: Any) -> str:
    return str(policy.tokenizer.decode(policy.encode_prompt(prompt)))


SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        (GEMMA, "<end_of_turn>"),
        (LLAMA3, "<|eot_id|>"),
        (CLOSED, "<eos>"),
        (NO_SYSTEM, None),
        ("{{ raise_exception('no') }}", None),
        ("{{ messages[0].content }}", None),
        ("{% for m in messages %}{{ m.content }}. [SEP]{% endfor %}", None),
    ],
)
def test_the_token_that_a_template_closes_an_answer_with_ends_a_response(template: str, end: str | None) -> None:
    tokenizer = tokenizer_of(template)
    found = end_of_turn(tokenizer)
    assert (None if found is None else tokenizer.convert_ids_to_tokens(found)) == end
    policy = policy_of(template)
    assert policy.end_tokens == {1} | ({SPECIAL.index(end)} if end else set())
    assert policy_of(template, chat_template=False).end_tokens == {1}


def test_a_template_begins_a_prompt_once_and_plain_text_gets_what_the_tokenizer_adds() -> None:
    assert text_of(policy_of(LLAMA3), "hi") == "<bos>[user]\nhi<|eot_id|>[assistant]\n"
    assert text_of(policy_of(GEMMA), "hi") == "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"
    assert text_of(policy_of(CHATML), "hi") == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(policy_of(None), "hi") == "<bos>hi"
    assert text_of(policy_of(CHATML, chat_template=False), "hi") == "<bos>hi"
    assert text_of(policy_of(None, tokenizer_of(None, bos=False)), "hi") == "hi"


def test_what_a_tokenizer_closes_a_text_with_is_no_part_of_a_prompt() -> None:
    assert text_of(policy_of(None, tokenizer_of(None, eos=True)), "hi") == "<bos>hi"
    assert text_of(policy_of(None, tokenizer_of(None, eos=True)), "hi<eos>") == "<bos>hi<eos>"  # it was asked for


def test_a_system_message_goes_where_the_template_has_it() -> None:
    policy = policy_of(CHATML)
    assert not policy.merges_system
    assert text_of(policy, SYSTEM) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", [GEMMA, NO_SYSTEM])
def test_a_system_message_that_a_template_refuses_or_drops_goes_before_the_users(template: str) -> None:
    policy = policy_of(template)
    assert policy.merges_system
    assert policy.encode_prompt(SYSTEM) == policy.encode_prompt("Be brief.\n\n1+1?")
    assert "Be brief.\n\n1+1?" in text_of(policy, SYSTEM)
    lesson = encode_texts(policy, SYSTEM, [{"role": "assistant", "content": "2"}], "x")
    assert lesson.prompt == policy.encode_prompt(SYSTEM)


def test_only_a_first_system_message_before_a_users_is_merged() -> None:
    user = SYSTEM[1]
    assert merged([user]) == [user]
    assert merged([SYSTEM[0]]) == [SYSTEM[0]]
    assert merged([user, SYSTEM[0]]) == [user, SYSTEM[0]]
    assert merged([*SYSTEM, {"role": "assistant", "content": "2"}]) == [
        {"role": "user", "content": "Be brief.\n\n1+1?"}, {"role": "assistant", "content": "2"},
    ]  # fmt: skip
    assert SYSTEM[1] == {"role": "user", "content": "1+1?"}  # what was given is left alone


def test_messages_that_a_template_refuses_are_one_line() -> None:
    policy = policy_of(GEMMA)
    with pytest.raises(UsageError, match=r"template refuses messages of user, user \(.*must alternate") as caught:
        policy.encode_prompt([SYSTEM[1], SYSTEM[1]])
    assert "\n" not in str(caught.value)


def test_a_model_without_a_template_takes_plain_prompts_alone() -> None:
    policy = policy_of(None)
    assert not policy.uses_chat_template
    assert text_of(policy, "hi") == "<bos>hi"
    with pytest.raises(UsageError, match="no chat template to put them into; give a model with one"):
        policy.encode_prompt(SYSTEM)
    with pytest.raises(UsageError, match="no chat template"):
        policy_of(CHATML, chat_template=False).encode_prompt(SYSTEM)


# --------------------------------------------------------------------------------------- padding, added tokens


def test_padding_is_the_end_where_there_is_none_or_the_model_has_no_place_for_it() -> None:
    tokenizer = tokenizer_of(CHATML)
    assert tokenizer.pad_token_id is None
    assert policy_of(CHATML, tokenizer).pad == 1
    tokenizer.pad_token = "<eos>"
    assert policy_of(CHATML, tokenizer).pad == 1
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert policy_of(CHATML, tokenizer).pad == tokenizer.pad_token_id == len(SPECIAL) + 256
    assert policy_of(CHATML, tokenizer, rows=len(SPECIAL) + 256).pad == 1


def test_a_prompt_with_a_token_that_the_model_has_no_embedding_for_is_refused() -> None:
    tokenizer = tokenizer_of(None)
    tokenizer.add_tokens(["<image>"])
    policy = policy_of(None, tokenizer, rows=len(SPECIAL) + 256)
    policy.encode_prompt("a picture")
    with pytest.raises(
        UsageError, match=r"a prompt holds '<image>', token 264 .*, and the model has embeddings for 264"
    ):
        policy.encode_prompt("a picture <image>")


def test_tokens_that_only_the_model_knows_are_no_text() -> None:
    policy = policy_of(None, rows=400)
    assert policy.token_ends([8 + 65, 399, 8 + 66])[0] == policy.decode([8 + 65, 8 + 66])
