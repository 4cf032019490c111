"""Every metric, once: its name, unit, formula in words and which way is good.

The names are the same in the engine, the store, the wire and on the screen; TRL's and CleanRL's where they exist.
Statistics are over real tokens only, never padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity of a step.

    :ivar title: the few words a chart's border has room for.
    :ivar good: ``up`` or ``down`` where one way is better, else empty.
    :ivar why_empty: what a chart says when there are no points.
    :ivar healthy: what a good run shows, and what to do when it is off.
    """

    name: str
    title: str
    unit: str
    formula: str
    good: Literal["up", "down", ""] = ""
    why_empty: str = "no step has finished yet"
    healthy: str = ""


_WARM_UP = "the session has no warm-up"
_REFERENCE = "measured when kl_coefficient > 0, else every reference_every steps"
_FULL = "measured every reference_every steps, or in each step where kl_estimator is full"
_VALUE = "measured with a value model: ppo, or trpo with baseline value"
_TRPO = "measured by trpo"

_CURRICULUM = "the task has no curriculum; such as --task 'arithmetic levels=1-4 curriculum=true'"
_REWARD_MODEL = (
    "measured in the steps that begin to use a new reward model; `reward-model train` or reward_model_every makes one"
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("reward/mean", "reward", "", "mean reward of the step's responses, ratings included", "up",
            healthy="It rises over tens of steps. Flat: look at groups/dead_fraction, then raise learning_rate. Rising while eval/accuracy falls: the policy games the reward; read the best responses."),
        Metric("reward/std", "reward std", "", "standard deviation (n - 1) of the rewards over the whole step",
            healthy="Above 0. About 0: every response earns the same, so nothing is learned; the reward is constant, or the task too easy or too hard."),
        Metric("reward/automatic", "reward auto", "", "mean automatic reward, before ratings", "up",
            healthy="It rises. Far from reward/mean: your ratings and the reward function disagree."),
        Metric("groups/dead_fraction", "dead", "", "share of groups whose rewards have std < 1e-6: they teach nothing, unless there is a value model", "down",
            healthy="0.1 to 0.5. Over 0.8: the task is too easy or too hard for this policy (see all_right and all_wrong); raise group_size or temperature, set dynamic_sampling, or change the prompts."),
        Metric("groups/all_right_fraction", "all right", "", "share of groups that are dead at the top of the reward range",
            healthy="Rising with the reward. Most groups: the prompts are too easy by now."),
        Metric("groups/all_wrong_fraction", "all wrong", "", "share of groups that are dead at the bottom of the reward range",
            healthy="Falling. Most groups: the prompts are too hard, or the parser of the reward function does not read the answers."),
        Metric("groups/replaced", "replaced", "", "dead groups that dynamic sampling replaced by another prompt's", "down", "dynamic_sampling is 0",
            "A few in a step. Most of prompts_per_step: sampling costs a multiple; change the prompts."),
        Metric("groups/late", "late groups", "", "groups of earlier steps that joined this update because a person rated them"),
        Metric("advantage/mean", "adv mean", "", "mean advantage over responses; 0 up to rounding for group-relative advantages",
            healthy="About 0."),
        Metric("advantage/std", "adv std", "", "standard deviation of the responses' advantages",
            healthy="About 1 with advantage_scale group or ppo's whitening, less by the share of dead groups."),
        Metric("advantage/abs_max", "adv max", "", "largest |advantage|; at most (n - 1)/sqrt(n) with group scaling",
            healthy="At most (n - 1)/sqrt(n): 2.47 for groups of 8. With a value model up to about 5; larger ones are a few responses that carry the whole update."),
        Metric("kl/k1", "kl k1", "nats/token", "mean of log pi - log ref on sampled tokens: unbiased, may be negative", why_empty=_REFERENCE,
            healthy="Positive, growing slowly. Below 0 for many steps: sampling and training see different distributions (temperature, mask)."),
        Metric("kl/k2", "kl k2", "nats/token", "mean of half the squared log-ratio to the reference: biased, never negative", why_empty=_REFERENCE,
            healthy="As kl/k3."),
        Metric("kl/k3", "kl", "nats/token", "mean of exp(-L) - 1 + L with L = log pi - log ref: unbiased, never negative", "down", _REFERENCE,
            healthy="0 to 0.05 early, growing slowly. A jump: lower learning_rate or raise kl_coefficient. Over about 0.5 the policy has left the reference behind."),
        Metric("kl/old_new", "kl update", "nats/token", "mean of (rho - 1) - log rho over the update, on the step's own groups: how far it moved the policy; 0 with one optimizer step a rollout, where it is read before the step",
            healthy="1e-4 to 1e-2. Over 0.02: too many epochs or too high a learning_rate; ppo's stop_kl ends an update there."),
        Metric("entropy", "entropy", "nats/token", "mean entropy of the policy's distribution at each response token",
            healthy="It falls slowly. Half of its first value: exploration is going; under a third: it has collapsed. Raise temperature, clip_high (to 0.28) or entropy_bonus. Rising: the responses become noise, or are cut."),
        Metric("kl/full", "kl full", "nats/token", "KL(policy, reference) summed over the whole vocabulary at each response token: exact, never negative; measured every reference_every steps, or in each step where kl_estimator is full",
            "down", _FULL, "As kl/k3, without its noise. Far from kl/k3: few tokens carry the divergence."),
        Metric("loss/policy", "policy loss", "", "the surrogate to minimise: minus the mean of rho A, clipped. GRPO's is about 0 when each rollout takes one optimizer step: every ratio rho is then exactly 1, and the advantages of a group sum to 0. Its gradient is not 0, because rho changes with the weights: the policy learns all the same",
            healthy="About 0 with one optimizer step a rollout, and that is right: see the gradient norm for whether anything is learned. With several steps a small negative number. Its size says nothing about progress; reward/mean does."),
        Metric("loss/kl", "kl loss", "", "kl_coefficient times the divergence, as far as it is in the loss",
            healthy="Small beside what the reward changes. Larger than the rewards' spread: lower kl_coefficient."),
        Metric("clip/low", "clip low", "", "share of tokens whose ratio is below 1 - clip_low with a negative advantage", "down",
            healthy="0 with one optimizer step a rollout; 0.05 to 0.2 in all with several. With clip/high over 0.3: lower learning_rate, epochs or minibatches."),
        Metric("clip/high", "clip high", "", "share of tokens whose ratio is above 1 + clip_high with a positive advantage", "down",
            healthy="As clip/low. Much larger than clip/low while entropy falls: raise clip_high."),
        Metric("ratio/max", "ratio max", "", "largest importance ratio (late groups count, but not in a line search)",
            healthy="1 with one optimizer step a rollout; under 5 otherwise. Over 10: the policy moved too far in one update, or sampling and training differ."),
        Metric("ratio/min", "ratio min", "", "smallest importance ratio",
            healthy="1 with one optimizer step a rollout; over 0.2 otherwise. About 0: tokens that the update all but forbade."),
        Metric("ratio/first_error", "ratio error", "", "largest |rho - 1| before the first optimizer step, where the old log-probabilities come from another pass", "down",
            healthy="Under 1e-3 in fp32, 5e-2 in bf16. More: dropout, temperature, mask or padding differ between the two passes."),
        Metric("sampler_gap/mean", "gap mean", "nats", "mean |log pi - log sampler| at the first training forward; healthy 1e-5 in fp32, 1e-2 in bf16", "down",
            healthy="About 1e-5 in fp32, 1e-2 in bf16."),
        Metric("sampler_gap/max", "gap max", "nats", "largest |log pi - log sampler|; large values mean dropout, mask, padding, position or temperature is wrong", "down",
            healthy="Under 1e-3 in fp32."),
        Metric("grad/norm", "grad norm", "", "norm of the gradient before clipping; absent when every group is dead",
            healthy="Steady, below 1 or 2. Spikes come before a divergence: lower learning_rate or max_grad_norm. 0: nothing trains."),
        Metric("update/optimizer_steps", "opt steps", "", "optimizer steps that the update took: epochs x minibatches, fewer where stop_kl ended it, 0 when every group is dead",
            healthy="epochs x minibatches. Often fewer: stop_kl ends the updates; lower learning_rate or epochs."),
        Metric("update/relative_size", "update size", "", "norm of the weights' change over their norm, on a fixed sample of 100,000 parameters",
            healthy="Above 0, 1e-6 to 1e-3. 0: nothing trains. Growing: lower learning_rate."),
        Metric("response/length", "length", "tokens", "mean number of tokens, the end token included",
            healthy="Within a factor of 2 of its start. Growing while eval/accuracy stands still: the loss pays for length; loss_aggregation token or constant does not."),
        Metric("response/truncated_fraction", "truncated", "", "share of responses cut at max_new_tokens", "down",
            healthy="Under 0.1. Over 0.3: raise max_new_tokens, or set overlong_penalty (grpo) or truncation_penalty (ppo). 1: nothing ever ends."),
        Metric("response/failed", "failed", "", "responses left out because a reward function failed on them", "down",
            healthy="0. More: read the engine's log for what the reward function raised."),
        Metric("response/failed_fraction", "failed share", "", "share of the step's responses that a reward function failed on", "down",
            healthy="0. 1: nothing is learned at all until the function is mended; `reload` takes up the mended code."),
        Metric("reward/length_correlation", "length corr", "", "Spearman correlation of reward and length inside groups, averaged over groups that have one",
            healthy="Between -0.5 and 0.5. Beyond 0.8 the reward measures length."),
        Metric("response/repetition", "repetition", "", "mean share of a response's runs of four tokens that it had before, over responses of at least four tokens", "down", "no response has four tokens",
            healthy="Under 0.1. Rising with the reward: the policy says the same again and again because that is paid; `rose` shows the responses."),
        Metric("reward/repetition_correlation", "repetition corr", "", "Spearman correlation of reward and repetition inside groups, averaged over groups that have one", "", "no group has rewards and repetition that differ",
            healthy="Between -0.5 and 0.5. Over 0.8 the reward pays for repetition."),
        Metric("invariants/broken", "broken", "", "invariants that the step's rollout broke: an end token closes a response exactly if it ended, cut responses are max_new_tokens long, lengths agree, masks cover exactly the response tokens, no question is a held-out one, parameters are trainable", "down",
            healthy="0. More: what was sampled and what is trained on are not the same; the alarm names the invariant."),
        Metric("eval/accuracy", "held-out", "", "share of held-out prompts answered rightly, greedily while eval_temperature is 0; never trained on", "up", "evaluate_every is 0, or none has run",
            healthy="It rises with reward/mean. Falling while the reward rises is reward hacking: pause and read the best responses."),
        Metric("eval/reward", "held-out reward", "", "mean automatic reward of the first answer to each held-out prompt", "up", "evaluate_every is 0, or none has run",
            healthy="It follows reward/mean. reward/mean rising alone: the policy knows its training prompts by heart."),
        Metric("curriculum/level", "level", "", "mean level of the prompts that the step asked", "", _CURRICULUM,
            healthy="It rises as levels are mastered: the levels whose success is nearest to a half are asked most. Standing still at the lowest: nothing harder is ever right; look at curriculum/success_LEVEL."),
        Metric("eval/length", "held-out length", "tokens", "mean length of the held-out responses"),
        Metric("value/explained_variance", "expl var", "", "1 - Var(R - V) / Var(R) over response tokens: the share of the returns' spread that the value model foresaw, with its estimates from before the update", "up", _VALUE,
            "Above 0, rising to 0.3 to 0.8. Below 0 it is worse than a constant: raise gae_lambda to 1, lengthen value_warmup_steps, or change value_learning_rate. About 0: it adds nothing; grpo would do as well."),
        Metric("value/loss", "value loss", "", "half the mean of (V - R)^2, the larger of it clipped and not", "down", _VALUE,
            "It falls, then stays. Rising: the rewards' scale changed, or value_learning_rate is too high."),
        Metric("value/clip_fraction", "value clip", "", "share of tokens whose value moved further than value_clip in the update", "down", _VALUE,
            "Under 0.3. More: raise value_clip, or set it to 0, so that the value model can follow."),
        Metric("value/mean", "value mean", "", "mean estimate over response tokens, before the update", "", _VALUE,
            "Close to reward/mean. Far from it: the value model lags behind the policy."),
        Metric("value/warmup_left", "warm-up left", "steps", "steps in which the value model still trains alone; the policy stands still meanwhile", "down", _VALUE,
            "0 after value_warmup_steps."),
        Metric("value/grad_norm", "value grad", "", "norm of the value model's gradient before clipping", "", _VALUE,
            "Steady. Spikes: lower value_learning_rate."),
        Metric("trpo/step_fraction", "step", "", "0.8^j of the full step that the line search took after j tries that failed; 0 when it rejected all", "", _TRPO,
            "0.5 to 1 (j of 0 to 3). 0 again and again: lower trust_region or raise damping. Always 1 with trpo/kl_realised far below trust_region: damping is too high."),
        Metric("trpo/kl_realised", "KL(old, new)", "nats/token", "mean KL(old, new) over the whole vocabulary after the step: how far the policy really moved; never above trust_region", "", _TRPO,
            "0.5 to 1 of trust_region. Much less: damping is too high, or the line search had to shorten the step."),
        Metric("trpo/cg_residual", "cg residual", "", "norm of g - F x over the norm of g where conjugate gradient stopped: how far x is from the natural gradient", "down", _TRPO,
            "Under 0.1 after 10 iterations. Over 0.5: raise cg_iterations, damping or fisher_fraction."),
        Metric("trpo/cg_iterations", "cg iter", "", "conjugate-gradient iterations taken; each costs one Fisher product", "", _TRPO,
            "Up to cg_iterations; fewer where cg_tolerance was reached."),
        Metric("trpo/gain_predicted", "gain pred", "", "g's: what the linear model expects the surrogate to gain from the full step", "", _TRPO,
            "Above 0."),
        Metric("trpo/gain_actual", "gain", "", "what the surrogate gained from the step that was taken", "up", _TRPO,
            "Above 0; 0 when the step was rejected."),
        Metric("trpo/gain_ratio", "gain ratio", "", "actual gain over the gain predicted for the step taken", "", _TRPO,
            "0.3 to 1.2. Under 0.1 or over 2: the quadratic model does not fit; lower trust_region, raise damping or fisher_fraction."),
        Metric("trpo/damping", "damping", "", "what was added to the Fisher matrix's diagonal: damping, times the curvature along the gradient unless damping_scale is absolute", "", _TRPO,
            "Small beside the curvature: 1e-3 of it."),
        Metric("trpo/curvature", "curvature", "", "x'Fx of the direction that conjugate gradient found, undamped: the step is sqrt(2 trust_region / x'Fx) long", "", _TRPO,
            "Above 0. About 0: the gradient hardly moves the policy, and the step is long."),
        Metric("trpo/product_error", "product err", "", "largest relative difference between two ways to take a Fisher product, where the self-check ran", "down", _TRPO,
            "Under 1e-2. More: the finite difference is off; set fisher_product exact, or damping higher."),
        Metric("speed/tokens_per_second", "tok/s", "tokens/s", "response tokens over the time of the step, waiting left out", "up",
            healthy="Steady. Falling: responses grow longer, or the machine is shared."),
        Metric("time/step", "step time", "s", "wall-clock time of the step, pauses and waiting left out"),
        Metric("time/sampling", "sampling", "s", "time spent sampling",
            healthy="Up to 70 % of the step."),
        Metric("time/scoring", "scoring", "s", "time the step waited for responses to be read as text and for reward functions, which begin while others are still sampled"),
        Metric("time/waiting", "waiting", "s", "time spent waiting for ratings at the gate"),
        Metric("time/updating", "updating", "s", "time spent in forward, backward and optimizer"),
        Metric("time/saving", "saving", "s", "time spent on evaluation after the update, and on the records and the copy for a checkpoint of the step before; the checkpoint is written beside the next step"),
        Metric("memory/peak", "memory peak", "GB", "largest resident (CPU) or allocated (GPU) memory of the engine so far",
            healthy="Well below what the machine has; it never falls."),
        Metric("loop/lag", "loop lag", "s", "longest delay of the engine's event loop during the step", "down",
            healthy="Under 0.1 s. Over 0.5 s the screens and commands wait for the engine."),
        Metric("learning_rate", "lr", "", "the learning rate of the step's last optimizer step, warm-up applied"),
        Metric("ratings/used", "ratings used", "", "ratings that entered this update"),
        Metric("ratings/self_agreement", "self-agreement", "", "how far people answer a question alike that they are asked a second time, over chance: 1 - how far the two answers are apart / how far blind ones would be, over the silent repeats among the newest 500 ratings; measured from ten of them on", "up", "measured once ten questions have been asked a second time (rating_repeats)",
            healthy="0.7 to 1. Under 0.6: the question is unclear or the rater tired; make the guide clearer, use a mode with fewer answers, or rest. 0 is what blind answers have."),
        Metric("ratings/reward_agreement", "reward agrees", "", "share of the pairs of responses that people ordered, in the newest 200 ratings, which the automatic reward orders alike, ties half; measured from ten pairs on", "up", "measured once people have put ten pairs of responses in an order",
            healthy="Over 0.6, and steady. 0.5: the reward knows nothing of what people like. Falling while reward/automatic rises is reward hacking: `rose` shows the responses."),
        Metric("ratings/reward_model_agreement", "rm agrees", "", "the same with the scores of the reward model, as they were when the responses were made: before anybody had rated them", "up", "measured once people have put ten pairs in an order that a reward model had scored",
            healthy="Over 0.65, rising as the reward model is trained. Falling: the policy has found what it overrates; train it on newer ratings."),
        Metric("ratings/per_hour", "ratings/h", "1/h", "answers an hour of a person at work: over the time between the newest 500, without breaks of over 5 minutes", "", "people have given fewer than 10 answers, or in less than 2 minutes of work"),
        Metric("ratings/raters", "raters", "", "people with a rating that stands among the newest 500", "", "nobody has rated yet"),
        Metric("ratings/alpha", "alpha", "", "Krippendorff's alpha between people, over the newest 500 ratings: ordinal for likert, nominal for thumbs and for which of two responses is better, their mean weighted with the answers; measured from ten answers on", "up", "measured once two people have rated the same responses",
            healthy="Over 0.67 for tentative conclusions, over 0.8 for firm ones. Under 0.4: people mean different things by a good response; agree on a guide."),
        Metric("reward_model/version", "rm version", "", "which training of the reward model made the one that this step began to use", "", _REWARD_MODEL),
        Metric("reward_model/accuracy", "rm accuracy", "", "share of held-out preferences in which it gives the preferred response the higher score; equal scores count half; measured from ten on", "up", _REWARD_MODEL,
            healthy="Over 0.65, rising from version to version. About 0.5: it has learned nothing that carries over; rate more prompts, or try reward_model_kind lora or full."),
        Metric("reward_model/loss", "rm loss", "nats", "mean Bradley-Terry or Plackett-Luce loss of an ordering over the last epoch of its training", "down", _REWARD_MODEL,
            healthy="Under 0.6 where all orderings are pairs. Near 0 with an accuracy that does not rise: it knows its orderings by heart."),
        Metric("reward_model/log_loss", "rm log loss", "nats", "mean of -log p of what was preferred, over held-out preferences; 0.693 is a coin's", "down", _REWARD_MODEL),
        Metric("reward_model/calibration", "rm calibration", "", "expected calibration error over held-out preferences: how far the share of right ones is from what it expects", "down", _REWARD_MODEL,
            healthy="Under 0.1. Over 0.2: it is far surer, or less sure, than it should be."),
        Metric("reward_model/length_correlation", "rm length", "", "Spearman correlation of its score and the length of held-out responses", "", _REWARD_MODEL,
            healthy="Between -0.5 and 0.5, unless people like short or long responses."),
        Metric("reward_model/agreement", "rm heads agree", "", "share of held-out preferences that all of its heads put in the same order", "up", _REWARD_MODEL),
        Metric("reward_model/drift", "rm drift", "std", "how far its scores of the reference samples are from those of the version before, root mean square", "", _REWARD_MODEL,
            healthy="Falling towards 0 as ratings add up. Over 1: this version likes other things than the one before."),
        Metric("warmup/loss", "warm-up loss", "nats/token", "mean of -log p over the completion tokens of the optimizer step's examples, end tokens included, before the step", "down", _WARM_UP,
            healthy="It falls, fast at first. Still high at the end: more steps, or a higher learning rate for the warm-up."),
        Metric("warmup/accuracy", "held-out", "", "share of held-out prompts answered rightly, greedy, during the warm-up; never trained on", "up", "evaluate_every is 0, or the session has no warm-up",
            healthy="Over 0.05 and under 0.9 where RL begins: groups then hold right and wrong answers."),
        Metric("warmup/grad_norm", "grad norm", "", "norm of the warm-up's gradient before it is clipped to 1", why_empty=_WARM_UP,
            healthy="It falls with the loss. Spikes: a lower learning rate."),
        Metric("warmup/learning_rate", "lr", "", "the learning rate of the warm-up's step, its rise applied", why_empty=_WARM_UP),
        Metric("warmup/tokens_per_second", "tok/s", "tokens/s", "prompt and completion tokens over the time of the warm-up's step, pauses left out", "up", _WARM_UP),
    )
}  # fmt: skip
"""The table. A reward component ``c`` adds ``reward/c``; a level ``l`` of the task adds ``eval/accuracy_l`` and, with a
curriculum, ``curriculum/success_l``."""
_BY_LEVEL = {
    "curriculum/success_": (
        "success",
        "moving average of the share of right responses at level {}, of prompts to learn from",
    ),
    "eval/accuracy_": ("held-out", "share of held-out prompts of level {} answered rightly"),
}
WARM_UP_PREFIX = "warmup/"
"""Begins the names of what is measured over the warm-up's own steps."""


def metric(name: str) -> Metric:
    """The definition of ``name``; that of a reward component or of a level is made on the fly."""
    if name in METRICS:
        return METRICS[name]
    if name.startswith("reward/"):
        component = name.removeprefix("reward/")
        return Metric(name, component, "", f"mean of the reward component {component}, unweighted", "up")
    if name.startswith("eval/pass@"):
        k = name.removeprefix("eval/pass@")
        formula = f"chance that at least one of {k} samples of a held-out answer is right: mean of 1 - C(n-c, {k})/C(n, {k}) for c right ones of n = eval_samples"
        return Metric(name, f"pass@{k}", "", formula, "up")
    for prefix, (title, formula) in _BY_LEVEL.items():
        if name.startswith(prefix) and (level := name.removeprefix(prefix)).isdecimal():
            return Metric(name, f"{title} {level}", "", formula.format(level), "up")
    if name.startswith("logged/"):
        logged = name.removeprefix("logged/")
        return Metric(name, logged, "", f"mean of what reward functions logged as {logged}")
    return Metric(name, name, "", name)
