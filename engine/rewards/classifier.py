"""A reward model that people have: a folder that transformers loads for sequence classification with one label.

As TRL reads one: prompt and response in a row, or as the model's own chat template puts messages; padded on the right;
the reward is the one logit, as it is. In fp32, on the policy's device, without gradient. It has its own tokenizer and
is never trained here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.rewards.component import Failed, Rewards
from engine.rewards.texts import Completion, text_of
from sessions.errors import InputFileError

BATCH_TOKENS = 16_384
"""Most tokens of one forward pass, padding included."""


class Classifier:
    """The reward model of a folder, as a reward function.

    :param chat: whether prompts that are plain texts go through the chat template too, as the user's message.
    :param talks: whether prompts will be chat messages, which need one.
    :raises InputFileError: in one line, if it cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        *,
        chat: bool = False,
        talks: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self._folder, self._chat = folder, chat
        self._model, self._tokenizer = _load(folder, trust_remote_code)
        if (chat or talks) and not getattr(self._tokenizer, "chat_template", None):
            remedy = "give one that has, or prompts of plain text" if talks else "leave chat=true out"
            raise InputFileError(f"reward model {folder}: it has no chat template; {remedy}")
        self._device = torch.device(device)
        self._model.to(self._device)
        self._longest = int(getattr(self._model.config.get_text_config(), "max_position_embeddings", 0) or 0)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Completion], **_: Any) -> Rewards:
        ids = [self._encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        rewards: Rewards = [self._refused(tokens) for tokens in ids]
        fitting = sorted((i for i, refused in enumerate(rewards) if refused is None), key=lambda i: len(ids[i]))
        while fitting:
            batch = [fitting.pop()]
            while fitting and (len(batch) + 1) * len(ids[batch[0]]) <= BATCH_TOKENS:
                batch.append(fitting.pop())
            for place, logit in zip(batch, self._logits([ids[i] for i in batch]), strict=True):
                rewards[place] = logit
        return rewards

    def _encode(self, prompt: str | Sequence[Mapping[str, str]], completion: Completion) -> list[int]:
        if isinstance(prompt, str) and not self._chat:
            text = prompt + text_of(completion)
        else:
            asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            said = completion if not isinstance(completion, str) else [{"role": "assistant", "content": completion}]
            text = self._tokenizer.apply_chat_template([*asked, *said], tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refused(self, ids: list[int]) -> Failed | None:
        if not ids:
            return Failed("prompt and response are empty, so there is nothing to score")
        if self._longest and len(ids) > self._longest:
            return Failed(
                f"prompt and response are {len(ids):,} tokens, and the reward model reads {self._longest:,}; "
                "lower max_new_tokens"
            )
        return None

    def _logits(self, ids: Sequence[Sequence[int]]) -> list[float]:
        width = max(map(len, ids))
        pad = self._tokenizer.pad_token_id
        rows = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids], device=self._device)
        lengths = torch.tensor([len(row) for row in ids], device=self._device)
        mask = (torch.arange(width, device=self._device) < lengths[:, None]).long()
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            logits = self._model(input_ids=rows, attention_mask=mask).logits
        return [float(logit) for logit in logits[:, 0].cpu()]


def _load(folder: Path, trust_remote_code: bool) -> tuple[Any, Any]:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds; all mean that the folder is unusable
        if "trust_remote_code" in str(error):
            raise InputFileError(
                f"reward model {folder}: it needs Python code of its own; read it, and add --trust-remote-code if it "
                "may run"
            ) from None
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputFileError(f"reward model {folder}: cannot be loaded for classification ({reason})") from None
    if missing := sorted(report["missing_keys"]):
        raise InputFileError(
            f"reward model {folder}: {missing[0]} is not in it, so its scores would be random; "
            "give the folder of a trained reward model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InputFileError(f"reward model {folder}: its tokenizer has neither a padding nor an end token")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise InputFileError(
            f"reward model {folder}: its tokenizer knows {len(tokenizer):,} tokens and the model "
            f"{model.get_input_embeddings().num_embeddings:,}; they do not belong together"
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False)
    return model.eval(), tokenizer
