"""A reward model folder as people have it: its logits beside transformers' own, one text at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from engine.rewards import classifier
from engine.rewards.classifier import Classifier
from engine.rewards.component import Failed
from engine.rewards.loading import Surroundings, load_components
from engine.tasks import load_task
from engine.warmup import character_tokenizer, tiny_config
from sessions.errors import InputFileError
from sessions.reward_kinds import read_rewards

TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


def save(folder: Path, architecture: str = "llama", *, template: str = TEMPLATE, pad: bool = True) -> Path:
    """A random reward model of some architecture with the character tokenizer."""
    tokenizer = character_tokenizer()
    tokenizer.chat_template = template
    end = (tokenizer.eos_token, tokenizer.eos_token_id)  # as many tokenizers put around what is no prompt
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    size = len(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if architecture == "llama":
            config = tiny_config(tokenizer, 16, 1)
            config.num_labels = 1
            model = LlamaForSequenceClassification(config)
        elif architecture == "gpt2":
            model = GPT2ForSequenceClassification(
                GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=64, num_labels=1)
            )
        else:
            model = BertForSequenceClassification(
                BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=16, max_position_embeddings=64, num_labels=1)
            )  # fmt: skip
        for parameter in model.parameters():
            parameter.data.mul_(5)
    if not pad:
        tokenizer.pad_token = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logit(folder: Path, text: str) -> float:
    """What transformers says of one text, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.pad_token_id = None
    with torch.no_grad():
        return float(model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, 0])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bert"])
def test_the_reward_is_the_logit_of_prompt_and_response_in_a_row(tmp_path: Path, architecture: str) -> None:
    folder = save(tmp_path, architecture)
    prompts, texts = ["1+2=", "1+2=", "10+20="], ["3", "35 and more 35", ""]
    wanted = [logit(folder, prompt + text) for prompt, text in zip(prompts, texts, strict=True)]
    assert max(wanted) - min(wanted) > 1e-3
    reward = load_components(read_rewards([f"model path={folder}"]), {}, where=Surroundings())["model"].function
    assert reward(prompts=prompts, completions=texts, answer=[""] * 3) == pytest.approx(wanted, abs=1e-5)


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Classifier(save(tmp_path))
    prompts, texts = ["1+1="] * 6, ["2", "222 2222", "", "1", "21", "2 2 2"]
    whole = reward(prompts, texts)
    monkeypatch.setattr(classifier, "BATCH_TOKENS", 14)
    assert reward(prompts, texts) == pytest.approx(whole, abs=1e-6)


def test_messages_go_through_its_own_chat_template(tmp_path: Path) -> None:
    folder = save(tmp_path)
    wanted = logit(folder, "[system] 0\n[user] 1+2=\n[assistant] 3\n")
    asked = [{"role": "system", "content": "0"}, {"role": "user", "content": "1+2="}]
    plain = Classifier(folder)
    assert plain([asked], [[{"role": "assistant", "content": "3"}]]) == pytest.approx([wanted], abs=1e-5)
    assert plain([asked], ["3"]) == pytest.approx([wanted], abs=1e-5)
    without = logit(folder, "[user] 1+2=\n[assistant] 3\n")
    assert Classifier(folder, chat=True)(["1+2="], ["3"]) == pytest.approx([without], abs=1e-5)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    reward = Classifier(save(tmp_path, pad=False))
    one = [reward(["1+1="], [text])[0] for text in ("2", "22 22")]
    assert reward(["1+1="] * 2, ["2", "22 22"]) == pytest.approx(one, abs=1e-6)


def test_what_the_model_cannot_read_fails_and_the_others_do_not(tmp_path: Path) -> None:
    reward = Classifier(save(tmp_path, "gpt2"))
    long, fits, empty = reward(["", "", ""], ["1" * 65, "1" * 64, ""])
    assert isinstance(long, Failed)
    assert "65 tokens, and the reward model reads 64" in str(long)
    assert isinstance(fits, float)
    assert isinstance(empty, Failed)


def test_it_learns_nothing_and_takes_no_part_in_training(tmp_path: Path) -> None:
    reward = Classifier(save(tmp_path))
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reward(["1+1="], ["2"])
    assert inside == reward(["1+1="], ["2"])
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in reward._model.parameters())
    assert {parameter.dtype for parameter in reward._model.parameters()} == {torch.float32}
    assert not reward._model.training


def test_folders_that_only_loading_finds_wrong_are_refused_in_one_line(tmp_path: Path) -> None:
    causal = tmp_path / "causal"
    tokenizer = character_tokenizer()
    LlamaForCausalLM(tiny_config(tokenizer, 16, 1)).save_pretrained(causal)
    tokenizer.save_pretrained(causal)
    broken = save(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    no_json = save(tmp_path / "no_json")
    (no_json / "tokenizer.json").write_text("{")
    larger = save(tmp_path / "larger")
    config = json.loads((larger / "tokenizer_config.json").read_text())
    config["additional_special_tokens"] = [f"<extra{i}>" for i in range(5)]
    (larger / "tokenizer_config.json").write_text(json.dumps(config))
    templateless = save(tmp_path / "templateless", template="")
    for folder, options, complaint in (
        (causal, {}, "score.weight is not in it, so its scores would be random"),
        (broken, {}, "cannot be loaded for classification"),
        (no_json, {}, "cannot be loaded for classification"),
        (larger, {}, "they do not belong together"),
        (templateless, {"chat": True}, "no chat template"),
    ):
        with pytest.raises(InputFileError) as refused:
            Classifier(folder, **options)
        assert complaint in str(refused.value)
        assert str(folder) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_task_of_conversations_needs_a_template_of_the_reward_model(tmp_path: Path) -> None:
    folder, data = save(tmp_path / "templateless", template=""), tmp_path / "rows.jsonl"
    for prompts, fits in ((["1+1=", "2+2="], True), ([[{"role": "user", "content": "1+1="}]] * 2, False)):
        data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        words = (str(data), 0, 0, [f"model path={folder}"])
        if fits:
            assert list(load_task(*words).components) == ["model"]
            continue
        with pytest.raises(InputFileError, match="it has no chat template; give one that has, or prompts of plain"):
            load_task(*words)


def test_a_folder_with_code_of_its_own_is_not_run_unasked(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {
        "AutoConfig": "code.Config",
        "AutoModelForSequenceClassification": "code.Model",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(InputFileError, match="trust-remote-code"):
        Classifier(folder)
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(folder)
