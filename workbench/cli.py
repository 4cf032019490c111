"""The command line: what there is to say, and which module answers. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from sessions.errors import UsageError, WorkbenchError
from workbench import __version__

_LONG_WORD = re.compile(r"(\S{500})\S{500,}")
"""What nobody typed by hand, or can read."""


class _Parser(argparse.ArgumentParser):
    """Complains in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows what there is")


class _SendHelp(argparse.Action):
    """Help of ``send`` with the table of commands, which is read only here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from sessions.commands import WORDS
        from workbench.output import table

        print(parser.format_help())
        print(table([["command", "", ""], *([w.name, w.usage, w.help] for w in WORDS.values())]))
        parser.exit()


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Every command with its arguments; ``function`` names who answers it, as ``module:function``.

    :param only: the command that is asked for: the many settings are left out of the others.
    """
    top = _Parser(
        prog="workbench",
        description="Train a language model with reinforcement learning, and work with it while it trains.",
        epilog="Without a command: the list of sessions.",
    )
    top.add_argument("--version", action="version", version=f"workbench {__version__}")
    top.set_defaults(function="workbench.commands_run:open_list")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, function: str, help_text: str, *, add_help: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=help_text, description=help_text, allow_abbrev=False, add_help=add_help
        )
        command.set_defaults(function=f"workbench.{function}")
        return command

    run = add("run", "commands_run:run", "start a session, or continue one that has ended")
    new = add("new", "commands_new:new", "write a settings file, with everything that can be set")
    if only in (None, "run"):
        _add_run(run)
    if only in (None, "new"):
        _add_new(new)
    attach = add("attach", "commands_run:attach", "watch a session and work with it")
    attach.add_argument("session", nargs="?", metavar="S", help="default: the only one that is running")
    attach.add_argument("--read-only", action="store_true", help="watch only")
    replay = add("replay", "commands_replay:replay", "look at a recorded session, step by step; no model is needed")
    replay.add_argument("session", metavar="S", help="name of a session, ended or running")
    replay.add_argument("--branch", default="", metavar="B", help="default: the one that was active last")
    replay.add_argument("--step", type=_whole, metavar="N", help="where to begin (at the last step)")
    for shown in (attach, replay):
        shown.add_argument("--slow", action="store_true", help="for slow links: fewer bytes, one redraw a second")
        shown.add_argument("--marks", choices=("auto", "braille", "block", "ascii"), help="what charts are drawn with")
    listing = add("list", "commands_list:list_sessions", "every session")
    status = add("status", "commands_list:status", "state, phase and progress of a session")
    follow = add("follow", "commands_session:follow", "events as they come, until the session ends")
    send = add("send", "commands_session:send", "send a command to a session", add_help=False)
    send.add_argument("-h", "--help", action=_SendHelp, nargs=0, help="this, and the table of commands")
    send.add_argument("--no-wait", action="store_true", help="return when it is accepted")
    plan = add("plan", "commands_session:plan", "memory and seconds of a step, as it is or with changes")
    stop = add("stop", "commands_session:stop", "stop a session after a checkpoint")
    stop.add_argument("--now", action="store_true", help="without a checkpoint")
    rate = add("rate", "commands_rate:rate", "rate a plain file of responses; no model and no session are needed")
    rate.add_argument("file", metavar="FILE.jsonl", help="a prompt and a response, or several, on each line")
    rate.add_argument("--mode", metavar="M", help="likert (the default), thumbs, pair, rank, edit or critique")
    rate.add_argument("--rule", metavar="R", help="which groups come first: newest (as in the file), random, spread")
    rate.add_argument("--output", metavar="FILE", help="where the ratings go (FILE.jsonl.ratings.jsonl)")
    bring = add("import", "commands_import:import_file", "ratings and preferences from a file, into a session")
    bring.add_argument("session", metavar="S", help="name of a session; its engine may run or not")
    bring.add_argument("file", metavar="FILE", help="preferences as TRL reads them, an exported ratings.jsonl, ...")
    bring.add_argument("--dry-run", action="store_true", help="only say what would become of it")
    export = add("export", "commands_export:export_session", "records, ratings or the model as files for other tools")
    _add_export(export)
    for command in (status, follow, send, plan, stop):
        command.add_argument("session", metavar="S", help="name of a session")
    export.add_argument("session", metavar="S", help="name of a session, or a .jsonl file that was rated")
    plan.add_argument("values", nargs="*", metavar="NAME=VALUE", help="hyperparameters as they would be")
    send.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD", help="the command, such as: pause")
    for command in (attach, follow, send, stop, rate, bring):
        _add_person(command)
    _add_evaluate(add("evaluate", "commands_evaluate:evaluate", "ask the held-out prompts: greedy, and pass@k"))
    compare = add("compare", "commands_compare:compare_branches", "branches of a session side by side")
    compare.add_argument("session", metavar="S", help="name of a session; its engine may run or not")
    compare.add_argument("branches", nargs="+", metavar="BRANCH", help="two of them or more, such as: main main~1")
    compare.add_argument("--metric", dest="metrics", action="append", metavar="M", help="instead of the usual ones")
    _add_race(add("race", "commands_race:race", "a branch for each algorithm from one step, trained in turn"))
    fetch = add("fetch", "commands_make:fetch", "get a small real model")
    fetch.add_argument("model", choices=("smollm2",), metavar="smollm2", help="SmolLM2-135M-Instruct, 540 MB")
    warm_up = add("warm-up", "commands_make:warm_up", "make the embedded model anew")
    warm_up.add_argument("--out", default="tiny-model", metavar="DIR", help="a new or empty folder (tiny-model)")
    warm_up.add_argument("--steps", type=_natural, default=480, metavar="N", help="optimizer steps (480)")
    warm_up.add_argument("--seed", type=int, default=0, metavar="N")
    export.add_argument("folder", metavar="DIR", help="a new or empty folder")
    reward_model = add(
        "reward-model", "commands_reward_model:train", "train a model of what people prefer, or measure one"
    )
    _add_reward_model(reward_model)
    doctor = add("doctor", "doctor:doctor", "check this machine, and say what to do")
    rewards = add("rewards", "commands_kinds:rewards", "every built-in reward and its options")
    rewards.add_argument("kind", nargs="?", metavar="NAME", help="only this one, with an example")
    completion = add("completion", "completion:print_script", "what a shell reads to complete this command line")
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help='such as: eval "$(workbench completion bash)"'
    )
    knobs = add("hyperparameters", "commands_make:hyperparameters", "everything that --set and `send S set` take")
    kinds = add("tasks", "commands_tasks:tasks", "what --task takes: kinds, and the options of each")
    kinds.add_argument("name", nargs="?", metavar="NAME", help="a kind, or reasoning-gym:NAME")
    for command in (
        listing,
        status,
        follow,
        send,
        plan,
        stop,
        compare,
        export,
        bring,
        fetch,
        warm_up,
        doctor,
        rewards,
        knobs,
        kinds,
    ):
        command.add_argument("--json", action="store_true", help="JSON lines")
    return top


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument(
        "--to",
        required=True,
        choices=("jsonl", "parquet", "preferences", "model"),
        metavar="FORMAT",
        help="jsonl, parquet, preferences (as TRL reads them) or model (as transformers loads it)",
    )
    export.add_argument("--ratings", metavar="FILE", help="of a rated file, where --output gave them another name")
    export.add_argument("--branch", metavar="B", help="default: the active one; with the steps it began from")
    export.add_argument("--all-branches", action="store_true", help="every branch")
    export.add_argument("--steps", metavar="A:B", help="only these, both ends included (100:, :200 and 150 too)")
    export.add_argument("--tokens", action="store_true", help="token ids, log-probabilities and more of responses")
    export.add_argument("--conversational", action="store_true", help="preferences as chat messages")
    export.add_argument("--step", type=_whole, metavar="N", help="model: of that checkpoint (default: the newest)")
    export.add_argument("--best", action="store_true", help="model: of the best held-out accuracy")
    export.add_argument("--merge", action="store_true", help="model: adapters merged into their base; needs peft")


def _add_person(command: argparse._ActionsContainer) -> None:
    command.add_argument("--as", dest="person", metavar="NAME", help="who you are in events and ratings (your user)")


def _add_run(run: argparse.ArgumentParser) -> None:
    from workbench.run_options import add_settings

    run.usage = "workbench run [FILE.toml] [options]"
    run.epilog = "FILE.toml says the same as these options, which win over it; `workbench new` writes one."
    run.add_argument("file", nargs="?", metavar="FILE.toml", help="settings")
    start = add_settings(run)
    start.add_argument("--headless", action="store_true", help="no screens: a progress line; ctrl+c stops the session")
    start.add_argument("--json", action="store_true", help="with --headless: one JSON line a step")
    _add_person(start)


def _add_new(new: argparse.ArgumentParser) -> None:
    from workbench.run_options import add_settings

    new.usage = "workbench new [FILE.toml] [options]"
    new.add_argument(
        "file", nargs="?", default="workbench.toml", metavar="FILE.toml", help="default: workbench.toml; -: print it"
    )
    new.add_argument("--from", dest="session", metavar="S", help="the settings that a session was started with")
    new.add_argument("--force", action="store_true", help="write over a file that is there")
    add_settings(new, new=True)


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    _add_person(evaluate)
    evaluate.add_argument("session", nargs="?", metavar="S", help="its newest policy; the session keeps the answers")
    evaluate.add_argument("--samples", type=_whole, metavar="N", help="answers to each prompt for pass@k, beside one")
    evaluate.add_argument("--step", type=_whole, metavar="N", help="of that checkpoint of the session")
    evaluate.add_argument("--best", action="store_true", help="of the checkpoint of the best held-out accuracy")
    evaluate.add_argument("--model", metavar="M", help="instead of a session: a model, as `run` takes it")
    evaluate.add_argument("--lora", metavar="WORDS", help="with --model: adapters, such as from=DIR")
    evaluate.add_argument("--task", metavar="T", help="with --model: a task, as `run` takes it (arithmetic)")
    evaluate.add_argument("--reward", dest="rewards", action="append", metavar="R", help="with --model: as for `run`")
    evaluate.add_argument("--set", dest="sets", action="append", metavar="NAME=VALUE", help="with --model: likewise")
    evaluate.add_argument("--seed", type=int, metavar="N", help="with --model: of the choice of held-out rows")
    evaluate.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="with --model (auto)")
    evaluate.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="with --model (auto)")
    evaluate.add_argument(
        "--no-chat-template", dest="chat_template", action="store_false", default=None, help="with --model"
    )
    evaluate.add_argument("--save", metavar="FILE", help="write the answers there, one JSON object a line")
    evaluate.add_argument("--json", action="store_true", help="one JSON line")


def _add_race(race: argparse.ArgumentParser) -> None:
    _add_person(race)
    race.add_argument("session", metavar="S", help="name of a session; an engine is started if it has none")
    race.add_argument("--algorithms", required=True, metavar="A,B", help="such as grpo,ppo,trpo")
    race.add_argument("--steps", required=True, type=_natural, metavar="N", help="that each of them takes")
    race.add_argument("--at", type=_whole, metavar="STEP", help="where all begin (default: the newest step)")
    race.add_argument(
        "--set", dest="sets", action="append", metavar="NAME=VALUE", help="a hyperparameter that all of them set"
    )
    race.add_argument("--metric", dest="metrics", action="append", metavar="M", help="compared at the end")
    race.add_argument("--json", action="store_true", help="one JSON line a step, and the comparison at the end")


def _add_reward_model(reward_model: argparse.ArgumentParser) -> None:
    verbs = reward_model.add_subparsers(
        title="what to do", metavar="train|evaluate", required=True, parser_class=_Parser
    )
    help_text = "train one on a .jsonl file of preferences"
    train = verbs.add_parser("train", help=help_text, description=help_text, allow_abbrev=False)
    train.set_defaults(function="workbench.commands_reward_model:train")
    train.add_argument("file", metavar="FILE", help="JSON lines: prompt, chosen, rejected, as TRL reads them")
    train.add_argument(
        "--model", default="tiny", metavar="M", help="tiny (the default), smollm2, a folder, .gguf or org/name"
    )
    train.add_argument("--output", default="reward-model", metavar="DIR", help="a new or empty folder (reward-model)")
    train.add_argument("--kind", choices=("head", "lora", "full"), default="head", help="what is trained (head)")
    train.add_argument("--epochs", type=_natural, default=0, metavar="N", help="times through FILE (head 30, others 1)")
    train.add_argument(
        "--learning-rate", type=float, default=0.0, metavar="X", help="highest (head 1e-2, lora 1e-3, full 1e-4)"
    )
    train.add_argument("--batch", type=_natural, default=8, metavar="N", help="preferences an optimizer step (8)")
    train.add_argument("--ties", choices=("skip", "average"), default="skip", help="of rankings (skip)")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    help_text = "measure one on a .jsonl file of preferences"
    evaluate = verbs.add_parser("evaluate", help=help_text, description=help_text, allow_abbrev=False)
    evaluate.set_defaults(function="workbench.commands_reward_model:evaluate")
    evaluate.add_argument("folder", metavar="DIR", help="that `reward-model train` wrote")
    evaluate.add_argument("file", metavar="FILE", help="as for train")
    for verb in (train, evaluate):
        verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
        verb.add_argument("--threads", type=_natural, metavar="N", help="of torch (default: physical cores less one)")
        verb.add_argument(
            "--micro-tokens", type=_natural, default=16_384, metavar="N", help="tokens that a pass may hold"
        )
        verb.add_argument(
            "--trust-remote-code", action="store_true", help="run the Python code in the model's folder; read it first"
        )
        verb.add_argument("--json", action="store_true", help="JSON lines")


def _whole(text: str) -> int:
    return 0 if text == "0" else _natural(text)


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :returns: 0, 1 if it failed, 2 if the request was wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if "_ARGCOMPLETE" in os.environ:
            from workbench.completion import complete

            complete(parser())
        _check_encoding(words)
        arguments = parser(words[0] if words else "").parse_args(words)
        module, _, function = arguments.function.partition(":")
        return int(getattr(import_module(module), function)(arguments))
    except WorkbenchError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads: what is left to print at exit must not complain
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}", 2 if error.errno == errno.ENAMETOOLONG else 1)


def _check_encoding(words: Sequence[str]) -> None:
    for word in words:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(f"{word!r} is not UTF-8 text")


def _fail(message: str, code: int) -> int:
    line = _LONG_WORD.sub(r"\1…", " ".join(message.split("\n")))
    if not line.isprintable():  # a file's name, a model's word: what a terminal would obey is shown instead
        from screens.safe import visible

        line = visible(line)
    print(f"workbench: error: {line}", file=sys.stderr)
    return code
