"""Greedy answers with transformers' own generation, for the peers; nothing of it is timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.peers.job import Question

ROWS = 250


def rendered(tokenizer: Any, text: str) -> str:
    """A question as the model reads it: in the chat template, if the tokenizer has one."""
    if not tokenizer.chat_template:
        return text
    messages = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@torch.no_grad()
def answers(model: Any, tokenizer: Any, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
    """One text a question, special tokens left out."""
    was, side = model.training, tokenizer.padding_side
    model.eval()
    tokenizer.padding_side = "left"
    found: list[str] = []
    for start in range(0, len(questions), ROWS):
        texts = [rendered(tokenizer, question.text) for question in questions[start : start + ROWS]]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not tokenizer.chat_template)
        ids, attention = batch["input_ids"], batch["attention_mask"]
        whole = model.generate(
            input_ids=ids,
            attention_mask=attention,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        found += tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True)
    model.train(was)
    tokenizer.padding_side = side
    return found
