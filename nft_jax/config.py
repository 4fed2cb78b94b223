"""The experiment's configuration: frozen dataclasses, and every check that needs no device.

A config file defines `get_config()`, which starts from `default()` (a locked `ConfigDict` of the defaults below, plus
one section of options for each loss, read off its signature) and changes what it wants. `load` turns the result into
dataclasses; after that nobody reads a ConfigDict.
"""

import dataclasses
import difflib
import typing
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from nft_jax import losses


@dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder. `vocab = 0`: the tokenizer's size, rounded up to `vocab_multiple`."""

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
    remat: str = "full"
    unroll: int = 1


@dataclass(frozen=True)
class DataConfig:
    """Problems and tokenizer. `train = ""`: generated arithmetic; `tokenizer = ""`: SentencePiece trained on it."""

    train: str = ""
    validation: str = ""
    test: str = ""
    tokenizer: str = ""
    template: str = "plain"
    problem_field: str = "problem"
    answer_field: str = "answer"
    solution_field: str = "solution"
    prompt_limit: int = 64
    largest: int = 6


@dataclass(frozen=True)
class RolloutConfig:
    """Sampling in training. Truncated sampling (top-p, top-k) would bias the ratio and is refused."""

    answer_limit: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    lockstep: str = "auto"


@dataclass(frozen=True)
class SelectionConfig:
    """Dynamic sampling: groups with `low < rate < high` train; `candidates_per_round = 0` means `prompts_per_step`."""

    low: float = 0.0
    high: float = 1.0
    candidates_per_round: int = 0
    max_rounds: int = 4
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
    """The optax chain: clip by global norm, then `name` with its learning-rate schedule."""

    name: str = "adamw"
    learning_rate: float = 1e-6
    schedule: str = "constant"
    warmup_updates: int = 10
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0


@dataclass(frozen=True)
class PackingConfig:
    """How an optimizer batch is laid in rows and cut; 0 means: as long as the longest possible unit."""

    row_tokens: int = 0
    rows_per_micro_batch: int = 8
    logp_chunk: int = 128


@dataclass(frozen=True)
class MeshConfig:
    """Mesh sizes; `data = -1` takes all devices that `tensor` leaves."""

    data: int = -1
    tensor: int = 1


@dataclass(frozen=True)
class VerifyConfig:
    """The grader and its worker processes."""

    grader: str = "boxed_exact"
    workers: int = 2
    item_seconds: float = 5.0
    total_seconds: float = 600.0
    memory_mib: int = 2048


@dataclass(frozen=True)
class WarmStartConfig:
    """The supervised phase on worked solutions (`steps = 0`: none). `wrong_share` follow a misconception."""

    steps: int = 0
    batch: int = 64
    examples: int = 65536
    wrong_share: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation every `every` steps (0: at the ends): one greedy and `answers` sampled answers a problem."""

    every: int = 0
    answers: int = 4
    problems: int = 512
    batch: int = 64


@dataclass(frozen=True)
class RecordConfig:
    """What the run writes: rollouts of every n-th step, checkpoints every n steps (0: only the last)."""

    rollouts_every: int = 10
    checkpoint_every: int = 0


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

    def __post_init__(self):
        if self.old_logp == "auto":
            object.__setattr__(self, "old_logp", "current" if self.strict_on_policy else "sampler")
        check(self)

    @property
    def candidates_per_round(self) -> int:
        return self.selection.candidates_per_round or self.prompts_per_step

    @property
    def carry_capacity(self) -> int:
        """Surplus good groups that a step may hand on: fewer than a step's worth, so that every step samples."""
        return min(self.candidates_per_round, self.prompts_per_step) - 1 if self.selection.carry else 0


CHOICES = {
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.precision": ("default", "high", "highest"),
    "model.remat": ("none", "dots", "full"),
    "rollout.lockstep": ("auto", "yes", "no"),
    "optimizer.name": ("adamw", "muon"),
    "optimizer.schedule": ("constant", "linear", "cosine"),
    "warm_start.optimizer.name": ("adamw", "muon"),
    "warm_start.optimizer.schedule": ("constant", "linear", "cosine"),
    "old_logp": ("sampler", "recompute", "current"),
}
POSITIVE = (
    "steps",
    "prompts_per_step",
    "answers_per_prompt",
    "updates_per_step",
    "model.layers",
    "model.width",
    "model.heads",
    "model.kv_heads",
    "model.head_size",
    "model.mlp_width",
    "model.vocab_multiple",
    "model.unroll",
    "data.prompt_limit",
    "data.largest",
    "rollout.answer_limit",
    "rollout.temperature",
    "selection.max_rounds",
    "packing.rows_per_micro_batch",
    "packing.logp_chunk",
    "verify.workers",
    "verify.item_seconds",
    "verify.total_seconds",
    "warm_start.batch",
    "warm_start.examples",
    "evaluation.answers",
    "evaluation.problems",
    "evaluation.batch",
    "optimizer.learning_rate",
    "optimizer.epsilon",
    "mesh.tensor",
)


def check(config: Config) -> None:
    """Checks everything that needs neither a device nor a file.

    Raises:
      ValueError: all faults at once; each says what was given, what is allowed, and what to type instead.
    """
    faults = []

    def value(path):
        result = config
        for name in path.split("."):
            result = getattr(result, name)
        return result

    for path, allowed in CHOICES.items():
        if value(path) not in allowed:
            faults.append(
                f"config.{path}={value(path)!r}: use one of {', '.join(allowed)}{suggestion(value(path), allowed)}"
            )
    faults += [f"config.{path}={value(path)}: must be positive" for path in POSITIVE if not value(path) > 0]
    faults += _sampling_faults(config) + _size_faults(config) + _strict_faults(config)
    try:
        loss = losses.resolve(config.loss.name, config.loss.options)
    except ValueError as error:
        faults.append(f"config.loss: {error}")
    else:
        faults += _loss_faults(config, loss)
    if faults:
        raise ValueError("the configuration can't run:\n  " + "\n  ".join(faults))


def _sampling_faults(config):
    faults = []
    if config.rollout.top_p != 1.0 or config.rollout.top_k != 0:
        faults.append(
            f"config.rollout.top_p={config.rollout.top_p}, top_k={config.rollout.top_k}: truncated sampling in "
            f"training biases the ratio by the mass that was cut; use top_p=1.0, top_k=0 (evaluation may truncate)"
        )
    if not 0 <= config.selection.low < config.selection.high <= 1:
        faults.append(
            f"config.selection.low={config.selection.low}, high={config.selection.high}: need 0 <= low < high <= 1; "
            f"low=0 high=1 keeps every group that is neither all right nor all wrong"
        )
    if not 0 <= config.warm_start.wrong_share <= 1:
        faults.append(f"config.warm_start.wrong_share={config.warm_start.wrong_share}: a share, between 0 and 1")
    if config.selection.carry and config.old_logp != "sampler":
        faults.append(
            f"config.selection.carry=true with config.old_logp={config.old_logp!r}: carried groups were sampled by "
            f"older weights, whose log-probs only the sampler knows; use old_logp='sampler'"
        )
    return faults


def _size_faults(config):
    faults = []
    Q, U = config.prompts_per_step, config.updates_per_step
    if U > 0 and Q % U:
        near = [n for n in range(1, Q + 1) if Q % n == 0]
        faults.append(f"config.updates_per_step={U} does not divide config.prompts_per_step={Q}; use one of {near}")
    if config.selection.candidates_per_round < 0:
        faults.append("config.selection.candidates_per_round: 0 (= prompts_per_step) or more")
    if config.model.heads % max(config.model.kv_heads, 1):
        faults.append(
            f"config.model.kv_heads={config.model.kv_heads} does not divide config.model.heads={config.model.heads}"
        )
    if config.model.head_size % 2:
        faults.append(f"config.model.head_size={config.model.head_size}: rotary positions need an even size")
    return faults


def _strict_faults(config):
    if not config.strict_on_policy:
        return []
    wrong = {
        "updates_per_step": (config.updates_per_step, 1),
        "selection.carry": (config.selection.carry, False),
        "rollout.temperature": (config.rollout.temperature, 1.0),
        "old_logp": (config.old_logp, "current"),
    }
    return [
        f"config.strict_on_policy=true needs config.{name}={needed}, got {given}"
        for name, (given, needed) in wrong.items()
        if given != needed
    ]


def _loss_faults(config, loss):
    faults = []
    groups = jax.ShapeDtypeStruct((1, 2), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.int32)
    try:
        # Options that depend on the answer limit (DAPO's overlong buffer) show here, on shapes alone.
        jax.eval_shape(lambda right, length: loss.advantage(right, length, config.rollout.answer_limit), *groups)
    except ValueError as error:
        faults.append(f"config.loss.{loss.name}: {error}")
    normalizer = config.loss.normalizer or loss.normalizer
    if normalizer not in losses.NORMALIZERS:
        known = tuple(losses.NORMALIZERS)
        faults.append(
            f"config.loss.normalizer={normalizer!r}: use one of {', '.join(known)}{suggestion(normalizer, known)}"
        )
    if (normalizer == "pair_mean") != (loss.unit == "pair"):
        faults.append(
            f"config.loss.normalizer={normalizer!r} does not fit loss {loss.name!r}, whose unit is the {loss.unit}"
        )
    if config.loss.kl_weight < 0:
        faults.append(f"config.loss.kl_weight={config.loss.kl_weight}: 0 (no KL) or more")
    unit = (config.data.prompt_limit + config.rollout.answer_limit) * (2 if loss.unit == "pair" else 1)
    if config.packing.row_tokens and config.packing.row_tokens < unit:
        faults.append(
            f"config.packing.row_tokens={config.packing.row_tokens}: one {loss.unit} of loss {loss.name!r} can take "
            f"{unit} tokens (prompt_limit + answer_limit); use at least {unit}, or 0 for just that"
        )
    return faults


def suggestion(given: Any, known: typing.Iterable[str]) -> str:
    """`" (did you mean 'x'?)"`, or nothing where no known name is near."""
    near = difflib.get_close_matches(str(given), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


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
    name = values["loss"]["name"]
    chosen = values["loss"].get(name, values["loss"]["own"])
    values["loss"] = {k: v for k, v in values["loss"].items() if not isinstance(v, dict)} | {"options": chosen}
    return _build(Config, values, "config")


def resolved(config: Config) -> dict:
    """The configuration as plain JSON values, as stored with a run."""
    return dataclasses.asdict(config)


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
