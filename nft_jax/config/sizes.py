"""Sizes of a step that follow from several settings."""

from nft_jax.config.settings import Settings
from nft_jax.losses import UNITS

# Of a micro-batch on a data shard whose rows the config leaves open: all its tokens, and those whose logits are in
# memory at a time.
MICRO_BATCH_TOKENS, LOGIT_TOKENS = 16384, 1024
# The attention by which cuDNN reads packed rows.
PACKED_BY_CUDNN = ("cudnn_packed", "cudnn_only")
# Most sequences of such a row: cuDNN starts blocks of threads, and keeps float32 numbers, for as many of
# them as a row might hold, each of its length.
PACKED_SEQUENCES = 16


def row_tokens_needed(max_prompt_tokens: int, max_answer_tokens: int, unit: int, shared: bool) -> int:
    """Returns the tokens of a row that has room for any unit of `unit` sequences.

    The last token of a sequence predicts nothing and takes no place. With `shared` prompts, rows hold answers alone.
    """
    return unit * (max_answer_tokens if shared else max_prompt_tokens + max_answer_tokens - 1)


def row_tokens(config: Settings, unit: str, shared: bool) -> int:
    """Returns the tokens of a packed row: as many as the config says, and enough for any unit ("answer" or "pair")."""
    limits = config.data.max_prompt_tokens, config.rollout.max_answer_tokens
    return max(config.packing.row_tokens, row_tokens_needed(*limits, UNITS[unit], shared))


def rows_per_micro_batch(config: Settings, unit: str, shared: bool, units: int) -> int:
    """Returns the rows of a micro-batch: as many as the config says, or as many as keep its memory within limits.

    Args:
      units: units of an update on a data shard, more rows than which are never filled.
    """
    tokens = row_tokens(config, unit, shared)
    most = min(MICRO_BATCH_TOKENS // tokens, LOGIT_TOKENS // min(config.packing.logp_chunk_tokens, tokens), units)
    return config.packing.rows_per_micro_batch or max(most, 1)


def row_units(config: Settings, unit: str) -> int | None:
    """Returns how many units a row may hold at most; None for as many as have room."""
    return PACKED_SEQUENCES // UNITS[unit] if config.model.attention in PACKED_BY_CUDNN else None
