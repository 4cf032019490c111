"""What the names of TRL's configurations are called here: the table behind ``docs/from-trl.md``.

Every field of ``GRPOConfig`` (TRL 1.16) and of ``PPOConfig`` (TRL 1.12, the last that had PPO) is in it, those without
a counterpart too. Tests compare the fields and their defaults with TRL's own classes, and every name of ours with its
definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

GRPO_VERSION, PPO_VERSION = "1.16.0", "1.12.0"


@dataclass(frozen=True, slots=True)
class Row:
    """One name of theirs.

    :ivar default: theirs, as Python writes it.
    :ivar ours: hyperparameters, ``--options`` of ``workbench run``, metrics or commands of the command line; none:
        there is no counterpart.
    :ivar words: what differs.
    """

    theirs: str
    default: str
    ours: tuple[str, ...]
    words: str = ""


def _row(theirs: str, default: str, ours: str = "", words: str = "") -> Row:
    return Row(theirs, default, tuple(ours.split()), words)


COMMON = (
    _row("output_dir", "None", "--name", "a session has a folder in `$WORKBENCH_HOME`; `export --to model DIR` writes"),
    _row("learning_rate", "", "learning_rate", "GRPOConfig 1e-6, PPOConfig 3e-6; here 1e-6, adapters 5e-5"),
    _row(
        "lr_scheduler_type",
        "'linear'",
        "learning_rate",
        "constant here: a live run has no known end. Lower it live, or `--set learning_rate=X@STEP`",
    ),
    _row("warmup_steps", "0", "lr_warmup_steps"),
    _row("weight_decay", "0.0", "weight_decay"),
    _row("adam_beta1", "0.9", "adam_beta1"),
    _row("adam_beta2", "0.999", "adam_beta2"),
    _row("max_grad_norm", "1.0", "max_grad_norm"),
    _row(
        "per_device_train_batch_size",
        "8",
        "prompts_per_step",
        "counts completions there; a step here samples `prompts_per_step` x `group_size` of them",
    ),
    _row(
        "gradient_accumulation_steps",
        "1",
        "--micro-tokens",
        "a matter of memory only, and never of the result: micro-batches are cut by tokens",
    ),
    _row("num_train_epochs", "3.0", "--steps", "steps, not passes over the data"),
    _row("max_steps", "-1", "--steps"),
    _row("bf16", "None", "--precision", "`auto`: bf16 compute over fp32 weights on CUDA that has it, else fp32"),
    _row("use_cpu", "False", "--device", "`--device cpu`"),
    _row("seed", "42", "--seed", "0"),
    _row("run_name", "None", "--name"),
    _row("report_to", "'none'", "--track", "tensorboard, trackio or wandb; the session's own records are kept always"),
    _row("eval_strategy", "'no'", "evaluate_every", "every so many steps; 0: never"),
    _row("eval_steps", "None", "evaluate_every"),
    _row("eval_on_start", "False", "evaluate_every", "the policy is measured before the first step too"),
    _row("save_strategy", "'steps'", "checkpoint_steps", "every so many steps, and every five minutes"),
    _row("save_steps", "500", "checkpoint_steps", "50"),
    _row("save_total_limit", "None", "--keep-last --keep-every"),
    _row("load_best_model_at_end", "False", "--keep-best", "`export --to model --best` takes it"),
    _row("resume_from_checkpoint", "None", "--name", "`workbench run --name S` goes on, bit for bit on a CPU"),
    _row("remove_unused_columns", "", "", "every column of a row reaches reward functions, always"),
    _row("shuffle_dataset", "True", "", "prompts come in a seeded order of their own in each pass, always"),
)
"""Of both: fields of transformers' TrainingArguments, and what stands in the place of some."""

GRPO = (
    _row("num_generations", "8", "group_size"),
    _row("max_completion_length", "512", "max_new_tokens", "256"),
    _row("temperature", "1.0", "temperature", "PPOConfig: 0.7"),
    _row("top_p", "1.0", "top_p --allow-sampler-mismatch", "refused without the flag: the policy is not renormalised"),
    _row("top_k", "0", "top_k --allow-sampler-mismatch"),
    _row("min_p", "None", "min_p --allow-sampler-mismatch"),
    _row(
        "generation_batch_size",
        "None",
        "prompts_per_step group_size",
        "its completions are their product: the rollout of one step",
    ),
    _row("steps_per_generation", "None", "minibatches", "optimizer steps of a rollout in one pass"),
    _row("num_iterations", "1", "epochs"),
    _row("beta", "0.0", "kl_coefficient", "0.04 (DeepSeekMath); 0 with `--preset dapo` or `dr-grpo`"),
    _row("use_bias_correction_kl", "True", "kl_estimator", "True is `k3_ratio`, False is `k3`, the default here"),
    _row("epsilon", "0.2", "clip_low"),
    _row("epsilon_high", "None", "clip_high", "0.2; None there means the same as `epsilon`"),
    _row("importance_sampling_level", "'token'", "ratio_level", "`sequence` is GSPO in both"),
    _row("scale_rewards", "'group'", "advantage_scale", "`group`, `batch`, `none`; False there is `none`"),
    _row(
        "loss_type",
        "'dapo'",
        "loss_aggregation",
        "`grpo` is `response`, the default here; `dapo` and `bnpo` are `token`; `dr_grpo` is `constant`; no others",
    ),
    _row("reward_weights", "None", "--reward", "`--reward 'rewards.py:f weight=0.5'`; live as `reward_weight.f`"),
    _row("entropy_coef", "0.0", "entropy_bonus"),
    _row("sync_ref_model", "False", "reference_refresh_steps"),
    _row("ref_model_sync_steps", "512", "reference_refresh_steps", "0: never"),
    _row("model_init_kwargs", "None", "--precision --device"),
    _row("trust_remote_code", "False", "--trust-remote-code"),
    _row("disable_dropout", "False", "", "dropout is always off: with it the ratio is not 1 before the first step"),
    _row("cast_lm_head_to_fp32", "False", "", "the head and the log-softmax are always in fp32"),
    _row("log_completions", "False", "", "every response is kept and shown (screen `s`)"),
    _row("num_completions_to_print", "None", "", "all of them are on the screen `s`"),
    _row("log_unique_prompts", "False", ""),
    _row("num_generations_eval", "None", "eval_samples", "for pass@k, beside one greedy answer"),
)
"""Of GRPOConfig alone."""

PPO = (
    _row("num_ppo_epochs", "4", "epochs", "1"),
    _row("num_mini_batches", "1", "minibatches"),
    _row("total_episodes", "None", "--steps", "steps of `prompts_per_step` x `group_size` responses"),
    _row("response_length", "53", "max_new_tokens", "256"),
    _row("temperature", "0.7", "temperature", "1.0; log-probabilities are of the tempered distribution in both"),
    _row("stop_token", "None", "", "every end token of the model ends a response, always"),
    _row("stop_token_id", "None", ""),
    _row("missing_eos_penalty", "None", "truncation_penalty"),
    _row("sft_model_path", "'EleutherAI/pythia-160m'", "--model"),
    _row("reward_model_path", "'EleutherAI/pythia-160m'", "--reward", "`--reward 'model path=DIR'`"),
    _row("model_adapter_name", "None", "--lora"),
    _row("ref_adapter_name", "None", "--lora", "the reference is the adapter as RL began, or the base without it"),
    _row("whiten_rewards", "False", "", "advantages are whitened, as there; rewards never"),
    _row("kl_coef", "0.05", "kl_coefficient"),
    _row("kl_estimator", "'k1'", "kl_estimator", "in the reward: k1"),
    _row("cliprange", "0.2", "clip_low clip_high"),
    _row("vf_coef", "0.1", "value_coefficient", "used where the value model shares the trunk (`value_model=shared`)"),
    _row("cliprange_value", "0.2", "value_clip"),
    _row("gamma", "1.0", "gamma"),
    _row("lam", "0.95", "gae_lambda"),
    _row("local_rollout_forward_batch_size", "64", "--micro-tokens"),
    _row("num_sample_generations", "10", "", "every response is kept; the screen `s` shows them"),
)
"""Of PPOConfig alone."""

WITHOUT: dict[str, str] = {
    "the model is sampled by the engine itself, in the process that trains it": (
        "use_vllm vllm_mode vllm_model_impl vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url "
        "vllm_server_host vllm_server_port vllm_server_timeout vllm_group_port vllm_gpu_memory_utilization "
        "vllm_max_model_length vllm_tensor_parallel_size vllm_importance_sampling_correction "
        "vllm_importance_sampling_mode vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min "
        "vllm_importance_sampling_cap use_transformers_continuous_batching transformers_continuous_batching_config "
        "use_transformers_paged cache_implementation generation_kwargs repetition_penalty pad_to_multiple_of use_cache"
    ),
    "other objectives": (
        "delta sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg "
        "multi_objective_aggregation mask_truncated_completions ref_model_mixup_alpha top_entropy_quantile "
        "use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target "
        "off_policy_mask_threshold router_aux_loss_coef neftune_noise_alpha label_smoothing_factor"
    ),
    "tools, images and templates with arguments": "max_tool_calling_iterations log_multimodal chat_template_kwargs",
    "the optimizer is fused AdamW": (
        "optim optim_args optim_target_modules adam_epsilon lr_scheduler_kwargs torch_empty_cache_steps"
    ),
    "memory and kernels: the engine plans them itself (`workbench plan S`)": (
        "fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing activation_checkpointing_kwargs "
        "gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode "
        "use_liger_kernel liger_kernel_config auto_find_batch_size"
    ),
    "several processes, which `workbench run` does not start": (
        "average_tokens_across_devices ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers "
        "ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed ds3_gather_for_generation "
        "accelerator_config parallelism_config local_rank world_size log_on_each_node save_on_each_node "
        "log_level_replica"
    ),
    "sizes that follow from others": (
        "num_total_batches micro_batch_size local_batch_size batch_size local_mini_batch_size mini_batch_size "
        "per_device_eval_batch_size"
    ),
    "every step is recorded, and shown live": (
        "logging_strategy logging_steps logging_first_step logging_nan_inf_filter include_num_input_tokens_seen "
        "log_level disable_tqdm project trackio_space_id trackio_bucket_id trackio_static_space_id "
        "log_completions_hub_repo"
    ),
    "evaluation answers held-out prompts; there is no loss to evaluate": (
        "eval_delay prediction_loss_only eval_do_concat_batches eval_use_gather_object eval_accumulation_steps "
        "include_for_metrics batch_eval_metrics metric_for_best_model greater_is_better"
    ),
    "checkpoints hold all that exact resume needs": (
        "save_only_model enable_jit_checkpoint ignore_data_skip restore_callback_states_from_checkpoint"
    ),
    "uploads: `workbench export S --to model DIR`, then the hub's own tool": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
    "reading data: rows are read as they are asked for": (
        "dataset_num_proc dataloader_drop_last dataloader_num_workers dataloader_pin_memory "
        "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context "
        "dataloader_in_order label_names train_sampling_strategy length_column_name data_seed"
    ),
    "always so, or never": "full_determinism debug skip_memory_metrics do_train do_eval do_predict",
}
"""Why there is no counterpart -> the fields."""

ARGUMENTS = (
    _row("model", "", "--model", "a folder, a hub name or a GGUF file"),
    _row("reward_funcs", "", "--reward", "`module:function` or `file.py:function`, same signature; or a built-in name"),
    _row("train_dataset", "", "--task", "a file, a folder or a hub name, in TRL's own dataset formats"),
    _row("eval_dataset", "", "--task", "`evaluation_split=...`, else rows are held out"),
    _row("peft_config", "", "--lora", '`--lora "r=16 alpha=32"`'),
    _row("ref_model", "", "", "always the policy as RL began (checkpoint 0)"),
    _row("callbacks", "", "", "`workbench follow S --json` says what happens, `send S` answers"),
)
"""Of the trainers, beside their configuration."""

METRIC_NAMES = (
    _row("reward", "", "reward/mean"),
    _row("reward_std", "", "reward/std"),
    _row("rewards/NAME/mean", "", "", "`reward/NAME`"),
    _row("frac_reward_zero_std", "", "groups/dead_fraction"),
    _row("kl", "", "kl/k3", "the mean of the same estimator"),
    _row("entropy", "", "entropy"),
    _row("clip_ratio/low_mean", "", "clip/low"),
    _row("clip_ratio/high_mean", "", "clip/high"),
    _row("completions/mean_length", "", "response/length"),
    _row("completions/clipped_ratio", "", "response/truncated_fraction"),
    _row("sampling/sampling_logp_difference/mean", "", "sampler_gap/mean"),
    _row("objective/kl", "", "kl/k1", "a sum over a response there, a mean over tokens here"),
    _row("policy/approxkl_avg", "", "kl/old_new"),
    _row("policy/clipfrac_avg", "", "clip/low clip/high", "both sides apart"),
    _row("loss/value_avg", "", "value/loss"),
    _row("val/clipfrac_avg", "", "value/clip_fraction"),
)
"""What TRL logs."""

GRPO_DEFAULTS = {"kl_coefficient": 0.0, "loss_aggregation": "token", "max_new_tokens": 512}
"""Hyperparameters that make a GRPO step here what TRL's defaults make it there."""


INTRODUCTION = """
A reward function, a dataset in one of TRL's formats and a model that work with TRL's trainers work here as they are:

```
workbench run --model Qwen/Qwen2.5-0.5B-Instruct --task train.jsonl --reward rewards.py:accuracy --lora "r=16"
```

Two things differ. A prompt that is plain text becomes the user's message where the model has a chat template
(`--no-chat-template` leaves it as it is; prompts that are messages are the same in both). And the defaults are
DeepSeekMath's; the objective and length of TRL's GRPO by default are

"""


def fields_without() -> set[str]:
    """Every field that has no counterpart for a reason that it shares with others."""
    return {name for names in WITHOUT.values() for name in names.split()}


Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]


def from_trl(table: Table, made: str) -> str:
    """The page.

    :param table: makes a Markdown table of a head and rows.
    :param made: the line that says that it is generated.
    """

    def rows(given: Iterable[Row]) -> list[list[str]]:
        return [[f"`{r.theirs}`", r.default, " ".join(f"`{name}`" for name in r.ours) or "-", r.words] for r in given]

    head = ["there", "default", "here", "what differs"]
    sets = " ".join(f"--set {name}={value:g}" if isinstance(value, float) else f"--set {name}={value}"
                    for name, value in GRPO_DEFAULTS.items())  # fmt: skip
    without = [[why, ", ".join(f"`{name}`" for name in names.split())] for why, names in WITHOUT.items()]
    return (
        f"# Coming from TRL\n\n{made}{INTRODUCTION}```\nworkbench run --model smollm2 {sets}\n```\n\n"
        f"Below are all the fields of `GRPOConfig` in TRL {GRPO_VERSION} and of `PPOConfig` in TRL {PPO_VERSION}.\n"
        "`--options` are of `workbench run`; the rest are [hyperparameters](hyperparameters.md): `--set name=value`\n"
        "gives them, and they change live.\n\n"
        f"## The trainer's arguments\n\n{table(head, rows(ARGUMENTS))}\n"
        f"## GRPOConfig\n\n{table(head, rows(GRPO))}\n"
        f"## PPOConfig\n\n{table(head, rows(PPO))}\n"
        f"## Both\n\n{table(head, rows(COMMON))}\n"
        f"## Metrics\n\n{table(head, rows(METRIC_NAMES))}\n"
        f"## Without a counterpart\n\n{table(['why', 'fields'], without)}"
    )
