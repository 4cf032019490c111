"""Reward functions laid out as TRL's documentation lays them out; nothing here knows the workbench."""

import asyncio
import re

PATTERN = re.compile(r"^<think>.*?</think><answer>.*?</answer>$", re.DOTALL)


def tokens_reward(prompts, completions, completion_ids, **kwargs):
    """Longer is better, in tokens."""
    return [float(len(ids)) for ids in completion_ids]


def characters_reward(completions, **kwargs):
    return [float(len(text)) for text in completions]


def format_reward(completions, **kwargs):
    """Of conversational completions: one message each."""
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if PATTERN.match(content) else 0.0 for content in contents]


def accuracy_reward(completions, ground_truth, **kwargs):
    """With a column of the data set."""
    found = [re.search(r"\\boxed\{(.*?)\}", completion) for completion in completions]
    answers = [match.group(1) if match else "" for match in found]
    return [1.0 if answer == truth else 0.0 for answer, truth in zip(answers, ground_truth)]


def math_reward(prompts, completions, task, **kwargs):
    """Of one of several tasks: None where it does not apply."""
    return [
        (1.0 if "4" in completion else -1.0) if kind == "math" else None for completion, kind in zip(completions, task)
    ]


async def async_reward(prompts, completions, **kwargs):
    async def judge(text):
        await asyncio.sleep(0)
        return 0.5 * len(text)

    return await asyncio.gather(*(judge(text) for text in completions))


def logging_reward(completions, ground_truth, log_extra=None, log_metric=None, trainer_state=None, **kwargs):
    """Logs a column and a metric, and follows the run."""
    right = [completion == truth for completion, truth in zip(completions, ground_truth)]
    if log_extra:
        log_extra("golden_answer", list(ground_truth))
    if log_metric:
        log_metric("accuracy", sum(right) / len(right))
    return [float(one) * (1 + trainer_state.global_step / trainer_state.max_steps) for one in right]
