"""The page of built-in rewards: tables from their definitions, and what there is to say beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sessions.reward_kinds import COMMON, REWARD_KINDS
from workbench.commands_kinds import default_of

Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]

INTRODUCTION = """\
`workbench run --reward "NAME key=value ..."` uses a reward instead of the task's own; several `--reward` add up, each
times its weight, and `--reward task` keeps the task's own among them:

```
workbench run --task questions.jsonl --reward "last_number" --reward "length target=200 limit=300 weight=0.2"
```

`workbench rewards` lists them, `workbench rewards NAME` explains one, `--json` gives either as JSON lines. A wrong
option is refused before anything starts.

Rewards read what the model wrote: the text, or what the assistant said last where prompts are chat messages. `exact`,
`last_number`, `math` and `cosine` compare with the reference answer; where a row has none that they can read they do
not apply, and the other components make up the reward. A response that a reward cannot be had for (a program that
fails, a pattern that takes too long) is left out of the update; the samples screen says why.
"""

NOTES = {
    "exact": "`after='Answer:'` compares only what stands behind the last `Answer:`.",
    "last_number": """\
Thousands separators do not count, and 18.0 is 18. The answer may be worked out: its last number is compared.""",
    "math": """\
The response's answer has to be LaTeX: `\\boxed{...}`, which counts first, or a formula that is said to be the answer,
as in `The final answer is $x + 1$`. The reference may be a plain expression such as `3/4`. What cannot be read in a
response is wrong; a reference that cannot be read leaves the response without this component. `after='</think>'` gives
0 to a response that never ends its reasoning.

`math-verify` runs in a process of its own: its time limits (5 s for reading, 5 s for comparing; then the response
counts as wrong) do not work elsewhere, and where sympy does not come back at all, the process is killed after 20 s and
the response has failed. `--reward-timeout` holds for the whole group.""",
    "cosine": """\
With n the length and L the limit: long + (short - long)(1 + cos(pi min(n/L, 1)))/2, of the values for a right or for a
wrong response (Yeo and others 2025, appendix C.1).""",
    "regex": """\
`^` and `$` are the ends of the whole response; `(?m)` in the pattern makes them those of each line. A pattern that is
not done with a response after 1 s fails that response and says so: repetitions inside repetitions, such as `(a+)+`, can
take longer than anyone waits.""",
    "json": """\
JSON as RFC 8259 has it: NaN is none. A fence is a Markdown block between ``` that names no language or json. Of JSON
Schema there are type, enum, const, properties, required, additionalProperties, items, anyOf, minItems, maxItems,
minLength, maxLength, minimum, maximum, exclusiveMinimum and exclusiveMaximum; any other keyword is refused, because a
schema that is half understood would reward the wrong thing.""",
    "format": """\
Before the first tag and between tags there may only be blanks. With `rest=false` nothing follows the last tag either,
as in open-r1's `format_reward`. `opened=true` is for chat templates that end with `<think>`. TRL's
`think_format_reward` allows no blank before the first tag, and more than one `</think>`; this does the opposite.""",
    "length": """\
With n the length: linear is 0 up to the target, -(n - target)/(limit - target) up to the limit and -1 beyond (DAPO,
equation 13); cosine goes from 0 to -1 between the same two along half a cosine; distance is -|n - target|/target, at
least -1 (as L1 has it). The hyperparameter `overlong_penalty` is the linear one too, up to `max_new_tokens`.""",
    "repetition": "penalty x (1 - distinct n-grams/n-grams) of a response (Yeo and others 2025, appendix C.2).",
    "model": """\
A folder as TRL's `RewardTrainer` saves one: a model for sequence classification with one label, in safetensors, with
its own tokenizer. It runs in fp32 on the policy's device. Prompt and response are put in a row; where prompts are chat
messages, the reward model's chat template puts them together. The reward is the logit as it is, so give it a `weight`
that suits. A response that is longer than the model can read has failed. What `workbench reward-model train` makes is
something else, and goes to `--reward-model`.""",
    "command": """\
The program is started once and reads one line of JSON for each group:

```
{"prompts": [...], "completions": [...], "completion_ids": [...], "answer": [...], "level": [...]}
```

Every list is as long as `completions`; the columns of the task's rows come by their names; prompts and completions are
texts, or lists of chat messages. It writes one line, at once (flush it), with as many values; null leaves a response
without this component:

```
{"rewards": [1.0, 0.0, null, 0.5]}
```

In Python:

```python
import json, sys

for line in sys.stdin:
    group = json.loads(line)
    rewards = [float(a in c) for c, a in zip(group["completions"], group["answer"])]
    print(json.dumps({"rewards": rewards}), flush=True)
```

What it prints to stderr is in the session's `engine.log`. It has `--reward-timeout` seconds for a group. If it takes
longer, ends, says something else, the wrong number of values or more than 1 MiB, the group's responses have failed, it
is killed with everything it started, and the next group starts it again. When the engine ends, in whichever way, so
does the program: its input ends, and it has half a second to leave by itself. No shell is involved
unless `shell=true`.""",
}


def built_in_rewards(table: Table, made: str) -> str:
    """The page in Markdown.

    :param table: makes a table of a heading and rows.
    :param made: says what the page was generated with.
    """
    own = [kind for kind in REWARD_KINDS.values() if kind.options]
    parts = [f"# Built-in rewards\n\n{made}\n{INTRODUCTION}\n"]
    rows = [[f"[`{k.name}`](#{k.name})", k.help, k.counterpart] for k in own]
    parts.append(table(["reward", "what it gives", "elsewhere"], rows))
    common = [[f"`{o.name}`", default_of(o), o.allowed, _shown(o.help)] for o in COMMON]
    parts.append("\nEvery reward takes\n\n" + table(["option", "default", "allowed", "what it is"], common))
    for kind in own:
        parts.append(f"\n## {kind.name}\n\n{kind.help[0].upper()}{kind.help[1:]}.")
        if kind.needs:
            parts.append(f" Needs `pip install 'rl-workbench[{kind.needs}]'`.")
        parts.append(f'\n\n```\nworkbench run --reward "{kind.example}"\n```\n\n')
        if rows := [[f"`{o.name}`", default_of(o), o.allowed, _shown(o.help)] for o in kind.options if o not in COMMON]:
            parts.append(table(["option", "default", "allowed", "what it is"], rows))
        parts.append(f"\n{note}\n" if (note := NOTES.get(kind.name, "")) else "")
    return "".join(parts)


def _shown(text: str) -> str:
    """Tags as Markdown shows them."""
    return text.replace("<", "&lt;")
