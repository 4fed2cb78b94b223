"""The sections that shape the program but model and loss: adapters, sampling, selection, optimizer, packing, mesh."""

from dataclasses import dataclass

from nft_jax.config.setting import Phase, setting
from nft_jax.files import parse_json

RUN, NONE = Phase.RUN, Phase.NONE

LORA_TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters: with a rank, they train, and all other weights are frozen."""

    rank: int = setting(0, "rank of the adapters; 0: no adapters, all weights train", at_least=0)
    alpha: float = setting(16.0, "factor of an adapter's term, multiplied by 1/rank", above=0)
    targets: str = setting(", ".join(LORA_TARGETS), "weights of a layer that get an adapter, comma between them")
    base: str = setting(
        "model",
        "format of the frozen matrices of the layers. model: model.dtype, and the sampler reads them with the adapters "
        "merged in; int8: rounded to int8 when they are loaded, with a scale for each output channel (QLoRA), and the "
        "sampler reads them with the adapters beside, as training does",
        choices=("model", "int8"),
    )

    @property
    def target_names(self) -> tuple[str, ...]:
        """The names of `targets`; none where the rank is 0."""
        return tuple(name.strip() for name in self.targets.split(",") if name.strip()) if self.rank else ()

    @property
    def scale(self) -> float:
        """Factor of an adapter's term: alpha / rank."""
        return self.alpha / max(self.rank, 1)


@dataclass(frozen=True)
class RolloutConfig:
    """How a step samples its answers."""

    max_answer_tokens: int = setting(64, "most tokens of an answer, its end-of-sequence token included", at_least=1)
    stop: str = setting(
        "",
        "text that ends an answer, which then counts without it, though it may begin or end inside a token; \\n is a "
        'line break. Several as a JSON list: ["\\nQ:", "###"]; empty: only ids end answers',
        decides=RUN,
    )
    end_ids: str = setting(
        "",
        "ids of the tokens that end an answer, comma between them; empty: those that the tokenizer and the model's "
        "settings declare, and well-known ends of a turn or document, such as <|im_end|>",
        decides=RUN,
    )
    slots: int = setting(
        0,
        "answers that a data shard decodes at a time, whose cache is the memory of the rollout; 0: all, at most 64",
        at_least=0,
        decides=NONE,
    )
    max_halvings: int = setting(
        0,
        "how many times the slots are halved at most, each time when no prompt waits and half of them are free. Each "
        "halving is compiled; the first adds half of the cache to the memory",
        at_least=0,
        decides=NONE,
    )
    halving_steps: int = setting(
        1,
        "in how many equal steps each halving of the slots goes; each step is compiled. With 2, slots shrink to three "
        "quarters first, which adds three quarters of the cache to the memory",
        at_least=1,
        decides=NONE,
    )
    temperature: float = setting(
        1.0, "temperature of the distribution that tokens are drawn from", at_least=0.001, at_most=1000, decides=RUN
    )
    top_p: float = setting(
        1.0, "must be 1: truncated sampling in training would bias the ratio", above=0, at_most=1, decides=RUN
    )
    top_k: int = setting(0, "must be 0: truncated sampling in training would bias the ratio", at_least=0, decides=RUN)
    weights: str = setting(
        "model",
        "number format of the layers' matrices that the sampler reads. model: model.dtype; int8: integers with a scale "
        "for each output channel, half the memory of 16 bits. The sampler's policy then differs from the trained one "
        "(sampler_gap_mean): old_logp=sampler, the default, takes the ratio to the policy that sampled; recompute and "
        "current leave the gap out of it, unless loss.correction brings it in. Evaluation samples with model.dtype",
        choices=("model", "int8"),
        decides=RUN,
    )
    lockstep: str = setting(
        "auto",
        "whether all data shards run the same number of decode steps; auto: on TPUs, until `python -m nft_jax.smoke` "
        "has seen loops of different lengths work there, and everywhere with partial",
        choices=("auto", "yes", "no"),
        decides=NONE,
    )
    partial: bool = setting(
        False,
        "whether a step ends its rollout as soon as enough groups are complete, whichever they are; the next step goes "
        "on with what is in the slots. A token keeps the log-prob of the weights that drew it; needs old_logp=sampler. "
        "A run goes on only with the same slots and data shards",
        decides=RUN,
    )
    max_age_steps: int = setting(
        4,
        "with partial, most steps from a group's first token to the step that trains on it, one more with "
        "selection.carry; a step waits for groups that would get older. The queue holds the prompts of so many steps "
        "beside its own",
        at_least=1,
        decides=RUN,
    )

    @property
    def rounds_ahead(self) -> int:
        """How many rounds may have begun before they are the next to finish: as many as an answer may get old."""
        return self.max_age_steps if self.partial else 0

    @property
    def end_numbers(self) -> tuple[int, ...]:
        """The ids of `end_ids`.

        Raises:
          ValueError: if one is no number.
        """
        return tuple(int(number) for number in self.end_ids.split(",") if number.strip())

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts of `stop`.

        Raises:
          ValueError: if it begins as a JSON list but is no list of texts, or a text is empty.
        """
        if not self.stop.startswith("["):
            return (self.stop.replace("\\n", "\n"),) if self.stop else ()
        texts = parse_json(self.stop)
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("each must be a text that is not empty")
        return tuple(texts)


@dataclass(frozen=True)
class SelectionConfig:
    """Dynamic sampling: rounds of candidate prompts until enough groups train; GRPO and Dr. GRPO take all groups."""

    rate_above: float = setting(0.0, "a group trains if its success rate is above this", at_least=0, at_most=1)
    rate_below: float = setting(1.0, "a group trains if its success rate is below this", at_least=0, at_most=1)
    candidates_per_round: int = setting(0, "prompts of a round; 0: prompts_per_step", at_least=0)
    max_rounds: int = setting(4, "most rounds of a step", at_least=1)
    begin_next_round: bool = setting(
        True,
        "whether slots that a round leaves free begin with the next round's prompts before it is known whether that "
        "round is needed; unneeded work is dropped, results stay the same",
        decides=NONE,
    )
    carry: bool = setting(
        False, "whether groups that a step has too many of are kept for the next step; needs old_logp=sampler"
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optax chain: clip by global norm, then the optimizer with its schedule."""

    name: str = setting("adamw", "optimizer", choices=("adamw", "muon"))
    learning_rate: float = setting(1e-6, "learning rate after the warmup", above=0, at_most=10)
    schedule: str = setting(
        "constant",
        "learning rate after the warmup: constant, or falling to 0 at the last update",
        choices=("constant", "linear", "cosine"),
    )
    warmup_updates: int = setting(10, "updates over which the learning rate rises from 0 to learning_rate", at_least=0)
    warmup_stair: int = setting(
        0,
        "updates for which a learning rate of the warmup stays, the first of which is then 0, as in trainers that "
        "advance it once a step; 0: it rises at each update, the first included",
        at_least=0,
    )
    beta1: float = setting(0.9, "decay of the first moment of Adam", at_least=0, below=1)
    beta2: float = setting(0.999, "decay of the second moment of Adam", at_least=0, below=1)
    epsilon: float = setting(1e-8, "number added to the denominator of Adam", above=0, at_most=1)
    weight_decay: float = setting(
        0.1, "decoupled weight decay, multiplied by the learning rate", at_least=0, at_most=100
    )
    clip_norm: float = setting(1.0, "largest global norm of a gradient", above=0)
    # A stored warm start is used again only with every setting of its section as it was.
    offload: bool = setting(
        False, "whether the moments wait in pinned memory of the host between updates", decides=Phase.WARM_START
    )


@dataclass(frozen=True)
class PackingConfig:
    """How the answers of an update are laid in rows of tokens and cut into micro-batches."""

    row_tokens: int = setting(0, "tokens of a row; 0: as many as the longest possible unit of the loss", at_least=0)
    share_prompts: str = setting(
        "auto",
        "yes: rows hold answers alone, and a prompt is read once for all its answers on a data shard; no: each answer "
        "follows its prompt in its row; auto: yes if prompts have several answers and attention is by xla; splash, "
        "cudnn_packed and cudnn_only do it if asked by yes, triton and cudnn refuse",
        choices=("auto", "yes", "no"),
    )
    rows_per_micro_batch: int = setting(
        8,
        "rows of a micro-batch on each data shard; 0: as many as an update fills, with at most 16,384 tokens in all "
        "and 1,024 tokens whose logits are in memory at a time",
        at_least=0,
    )
    logp_chunk_tokens: int = setting(
        128, "tokens of a row whose logits are in memory at a time while log-probs are computed", at_least=1
    )


@dataclass(frozen=True)
class MeshConfig:
    """The mesh of devices: replica × data × tensor. Weights are split over data and tensor."""

    replica: int = setting(
        1, "replicas that each hold all weights and sum their gradients; with several TPU slices a multiple of them",
        at_least=1,
    )  # fmt: skip
    data: int = setting(-1, "data shards of a replica; -1: as many as the devices allow", at_least=-1)
    tensor: int = setting(1, "devices that split the heads and the mlp_width of each layer", at_least=1)
    sequence_parallel: bool = setting(
        False, "whether training splits tokens over the tensor axis too between the matrix products, to save memory"
    )
