"""The experiment's configuration: frozen dataclasses, checked when they are made (`checks.py`).

A config file defines `get_config()`, which starts from `default()` (a locked `ConfigDict` of the defaults below, plus
one section of options for each loss, read off its signature) and changes what it wants. `load` turns the result into
dataclasses; after that nobody reads a ConfigDict.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nft_jax import losses
from nft_jax.checks import check
from nft_jax.names import suggestion


@dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder. `vocab = 0`: the tokenizer's size, rounded up to `vocab_multiple`.

    `path` is a Hugging Face model folder: weights, shape and, unless `data.tokenizer` names one, tokenizer are its own.
    `attention` over rows of tokens (training, and the reading of prompts): "xla" runs everywhere, in blocks of queries;
    "splash" is JAX's Pallas kernel for TPUs, "triton" its Pallas kernel for GPUs; "cudnn" reads prompts with cuDNN, and
    trains with "triton", because packed rows need segment ids; "auto" is the platform's own where it can have it. With
    either on a GPU the decode loop reads its cache by a kernel too. `unrolled_layers`: layers in the body of a loop over them.
    `remat` says what each layer keeps for the backward pass, which recomputes the rest: "none" recomputes nothing;
    "dots" keeps the layer's input and the results of its matrix products; "attention" the input and attention's output
    (with "splash", also what its backward pass needs, so that the kernel isn't run again); "full" the input alone;
    "offload" the input alone too, in the host's pinned memory.
    """

    path: str = ""
    vocab: int = 0
    vocab_multiple: int = 128
    layers: int = 4
    width: int = 256
    heads: int = 8
    kv_heads: int = 2
    head_size: int = 32
    mlp_width: int = 1024
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-6
    tied_embedding: bool = True
    qkv_bias: bool = True
    dtype: str = "float32"
    precision: str = "highest"
    attention: str = "auto"
    remat: str = "full"
    unrolled_layers: int = 1


@dataclass(frozen=True)
class DataConfig:
    """Problems and tokenizer. Problems are named as `data/registry.py` says: files, folders, benchmarks, datasets.

    `train = ""`: generated arithmetic. `folder`: a folder with the benchmarks' files, which else come from the hub.
    `hygiene`: training problems that overlap with `validation`, `test` or `exclude` (names, comma between them), repeat
    or contradict one another are left out (`data/hygiene.py`); generated ones stay as they are.
    `tokenizer = ""`: that of `model.path`, or one trained on the arithmetic.
    A field may lie deeper: "reward_model.ground_truth", "prompt.0.content". Prompts of more than `max_prompt_tokens` tokens
    are dropped and counted, or refused (`long_prompts = "refuse"`).
    """

    train: str = ""
    validation: str = ""
    test: str = ""
    folder: str = ""
    hygiene: bool = True
    exclude: str = ""
    tokenizer: str = ""
    template: str = "plain"
    problem_field: str = "problem"
    answer_field: str = "answer"
    solution_field: str = "solution"
    max_prompt_tokens: int = 64
    long_prompts: str = "drop"
    arithmetic_max_operand: int = 6


@dataclass(frozen=True)
class RolloutConfig:
    """Sampling in training. Truncated sampling (top-p, top-k) would bias the ratio and is refused.

    `slots`: answers that a data shard decodes at a time (0: all, at most 64); the rollout's memory is theirs.
    `max_halvings`: how many times at most the slots are halved, once nothing is left to begin with and half of them are free:
    the last answers then cost less, each size is compiled, and the first adds half of the cache to the memory.
    """

    max_answer_tokens: int = 64
    slots: int = 0
    max_halvings: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    lockstep: str = "auto"


@dataclass(frozen=True)
class SelectionConfig:
    """Dynamic sampling: groups with `rate_above < rate < rate_below` train; `candidates_per_round = 0` means `prompts_per_step`.

    `ahead`: slots that a round leaves free begin with the next one before it is known whether that is needed. If it
    isn't, what was begun is dropped ("drop": the step's result is that of "no", only sooner), or the round is finished,
    and its good groups are surplus ("finish": worth it with `carry`). "no": each round begins when the last has ended.
    """

    rate_above: float = 0.0
    rate_below: float = 1.0
    candidates_per_round: int = 0
    max_rounds: int = 4
    ahead: str = "drop"
    carry: bool = False


@dataclass(frozen=True)
class LossConfig:
    """Which loss, its normaliser (`""`: the loss's own), and its options by keyword."""

    name: str = "nft"
    normalizer: str = ""
    constant_tokens: int = 0
    kl_weight: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optax chain: clip by global norm, then `name` with its learning-rate schedule.

    `offload`: the moments wait in the host's pinned memory, and come to the devices for the update alone.
    """

    name: str = "adamw"
    learning_rate: float = 1e-6
    schedule: str = "constant"
    warmup_updates: int = 10
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    offload: bool = False


@dataclass(frozen=True)
class PackingConfig:
    """How an optimizer batch is laid in rows and cut; `row_tokens = 0`: as long as the longest possible unit.

    `share_prompts`: rows hold answers alone, and a prompt is read once for all its answers on a data shard ("auto":
    where prompts have several, with attention by XLA), or else it stands before each of them in its row.
    """

    row_tokens: int = 0
    share_prompts: str = "auto"
    rows_per_micro_batch: int = 8
    logp_chunk_tokens: int = 128


@dataclass(frozen=True)
class MeshConfig:
    """Mesh sizes; `data = -1` takes all devices that the others leave.

    Weights and moments are split over `data` and `tensor`, and whole on each of `replica` replicas, whose gradients are
    summed: one a slice, where TPU slices are joined by a slower network. `sequence_parallel`: in training, tokens are
    split over `tensor` too between the products, which divides what a layer keeps of long rows.
    """

    replica: int = 1
    data: int = -1
    tensor: int = 1
    sequence_parallel: bool = False


@dataclass(frozen=True)
class VerifyConfig:
    """The grader and its worker processes.

    `answers_per_submission`: ended answers that a data shard hands over together while it decodes others (0: all at a round's end).
    `second_grader` judges the same answers ("" = none); the share on which the two differ is a metric, and no more.
    `isolation`: the kernel keeps the workers from writing files, opening sockets and starting processes where it can
    ("auto"; not those of a grader of one's own, which may need to), or else the run is refused ("required"), or never
    ("off").
    """

    grader: str = "boxed_exact"
    answers_per_submission: int = 8
    second_grader: str = ""
    isolation: str = "auto"
    workers: int = 2
    seconds_per_answer: float = 5.0
    seconds_per_round: float = 600.0
    worker_memory_mib: int = 2048


@dataclass(frozen=True)
class WarmStartConfig:
    """The supervised phase on worked solutions (`steps = 0`: none). `incorrect_share` follow a misconception."""

    steps: int = 0
    examples_per_update: int = 64
    arithmetic_examples: int = 65536
    incorrect_share: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation every_steps `every_steps` steps (0: at the ends): one greedy and `answers_per_problem` sampled answers_per_problem a problem.

    Truncated sampling (`top_p`, `top_k`) is allowed here. `max_problems` is the most that is taken of a split (0: all).
    `pass_at`: the k of pass@k and maj@k, comma between them; "" means 1, 2, 4, … and `answers_per_problem`.
    """

    every_steps: int = 0
    answers_per_problem: int = 4
    max_problems: int = 512
    problems_per_batch: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    pass_at: str = ""

    @property
    def ks(self) -> tuple[int, ...]:
        """The numbers of `pass_at`."""
        return tuple(int(k) for k in self.pass_at.split(",") if k.strip())


@dataclass(frozen=True)
class RecordConfig:
    """What the run writes: rollouts of every n-th step, checkpoints every n steps (0: only the last), the last `keep_checkpoints`.

    `best_by`: the step with the best_by validation score of this kind ("greedy" or "sampled") is saved and kept beside them,
    or "none" is. Steps are scored every `evaluation.every_steps`, and the last.
    Asked to stop (SIGTERM, Ctrl-C), a run waits at most `grace_seconds` for the running step, and saves it. A step that
    takes more than `hang_seconds`, and more than `hang_factor` times the median of those before, has a run print where
    it is, and go on.
    """

    rollouts_every_steps: int = 10
    checkpoint_every_steps: int = 10
    keep_checkpoints: int = 2
    best_by: str = "greedy"
    grace_seconds: float = 25.0
    hang_factor: float = 10.0
    hang_seconds: float = 60.0


@dataclass(frozen=True)
class CompareConfig:
    """What `python -m nft_jax.compare` compares; other programs don't read it. Lists have `;` or `,` between.

    `losses`  one after the other, each with options of its own: "nft; nft omega=one epsilon=0.1; my_losses:mine". The
              first is the one that the others are compared with. `normalizer=NAME` is an option too
    `updates_per_rollout`  updates_per_rollout a rollout: "1" is strictly on-policy; the prompts an update stay those of the config
    `sampled_tokens`   sampled sampled_tokens of a run, after which it ends: what all have the same of
    `seeds`    reported; each has a base, prompts and draws of its own, the same for all losses
    `learning_rates`    learning learning_rates that each loss tries on `tuning_seeds`, which are not reported; "" is the optimizer's
    """

    losses: str = "; ".join(losses.LOSSES)
    updates_per_rollout: str = "1"
    sampled_tokens: int = 300_000
    seeds: str = "0, 1, 2"
    learning_rates: str = ""
    tuning_seeds: str = ""


@dataclass(frozen=True)
class Config:
    """One experiment. Three numbers size a step: prompts_per_step × answers_per_prompt, in updates_per_step updates.

    `strict_on_policy` demands all that makes π_old the current policy. `old_logp` says where log π_old comes from: the
    "sampler", "recompute" (a second forward before the updates), or "current" (in the first update, stop_gradient of
    that very forward, so that the ratio is exactly 1; in later ones the sampler). "auto" is "current" where strictly
    on-policy, else "sampler".
    `base` is a folder with weights to start from ("" = the warm start, or random ones).
    """

    seed: int = 0
    steps: int = 100
    prompts_per_step: int = 64
    answers_per_prompt: int = 16
    updates_per_step: int = 1
    strict_on_policy: bool = False
    old_logp: str = "auto"
    base: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)

    def __post_init__(self):
        if self.old_logp == "auto":
            object.__setattr__(self, "old_logp", "current" if self.strict_on_policy else "sampler")
        check(self)

    @property
    def candidates_per_round(self) -> int:
        return self.selection.candidates_per_round or self.prompts_per_step

    @property
    def prompts_are_shared(self) -> bool:
        return {"yes": True, "no": False, "auto": self.answers_per_prompt > 1}[self.packing.share_prompts]

    @property
    def carry_capacity(self) -> int:
        """Surplus good groups that a step may hand on: fewer than a step's worth, so that every step samples."""
        return min(self.candidates_per_round, self.prompts_per_step) - 1 if self.selection.carry else 0


def default() -> ConfigDict:
    """The defaults as a locked ConfigDict for config files to change; `config.loss.<name>` has that loss's options."""
    values = _defaults(Config)
    del values["loss"]["options"]
    for name in losses.LOSSES:
        values["loss"][name] = losses.default_options(name)
    # The options of a loss of one's own ("module:function"): any keywords, so this section stays unlocked.
    config = ConfigDict(values)
    config.loss.own = ConfigDict()
    config.lock()
    config.loss.own.unlock()
    return config


def load(config: ConfigDict) -> Config:
    """Turns a ConfigDict into a checked `Config`.

    Raises:
      ValueError: an unknown or missing key, a wrong type, or any fault that `check` finds.
    """
    values = config.to_dict()
    if "loss" not in values or "name" not in values["loss"]:
        raise ValueError("config lacks loss.name; start from nft_jax.config.default()")
    chosen = values["loss"].get(values["loss"]["name"], values["loss"].get("own", {}))
    values["loss"] = {k: v for k, v in values["loss"].items() if not isinstance(v, dict)} | {"options": chosen}
    return _build(Config, values, "config")


def resolved(config: Config) -> dict:
    """The configuration as plain JSON values, as stored with a run."""
    return dataclasses.asdict(config)


def stored(path: str) -> ConfigDict:
    """The configuration that a run left in its `config.json`: the inverse of `resolved`.

    Raises:
      ValueError: when the file is none of this version's.
    """
    config = default()
    try:
        values = json.loads(Path(path).read_text())
        options = values["loss"].pop("options")
        name = values["loss"]["name"]
        values["loss"][name if name in losses.LOSSES else "own"] = options
        config.update(values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no configuration that this version wrote: {error}") from error
    return config


def _defaults(kind):
    return {
        f.name: _defaults(f.default_factory) if dataclasses.is_dataclass(f.default_factory) else _default(f)
        for f in dataclasses.fields(kind)
    }


def _default(f):
    return f.default if f.default is not dataclasses.MISSING else f.default_factory()


def _build(kind, values, path):
    known = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in known:
            raise ValueError(f"{path}.{name}: no such setting{suggestion(name, known)}")
    missing = [name for name in known if name not in values]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; start from nft_jax.config.default()")
    types = typing.get_type_hints(kind)
    arguments = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            arguments[name] = _build(types[name], value, f"{path}.{name}")
        else:
            arguments[name] = _typed(value, types[name], f"{path}.{name}")
    return kind(**arguments)


def _typed(value, kind, path):
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = typing.get_origin(kind) or kind
    if not isinstance(value, plain) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path}={value!r}: expected {plain.__name__}, got {type(value).__name__}")
    return value
