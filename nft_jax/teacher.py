"""The teacher of an on-policy distillation: a second, frozen model, which reads what the policy has sampled."""

import dataclasses
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from nft_jax.config import Config, ModelConfig
from nft_jax.data.named_models import find_model
from nft_jax.data.tokenizer import Tokenizer, load_tokenizer
from nft_jax.models import hf
from nft_jax.models.sharded import ShardedModel, build_model
from nft_jax.models.windows import drop_wide_window


def build_teacher(config: Config, tokenizer: Tokenizer, attention: str, mesh: Mesh) -> ShardedModel | None:
    """Builds the structure of `config.distillation.teacher` in the policy's number format; None without a teacher.

    Args:
      tokenizer: That of the policy.
      attention: The name of the policy's attention, which must read the same rows.

    Raises:
      FileNotFoundError, ValueError: When the model can't be used: not there, another vocabulary, too short for a prompt
        and its answer, or of sizes that do not divide over the mesh. The message names the setting.
    """
    name = config.distillation.teacher
    if not name:
        return None
    try:
        path = find_model(name, kept=Path(name))
        _check_vocabulary(path, tokenizer)
        _check_tokens(path, config)
        numerics = {"dtype": config.model.dtype, "precision": config.model.precision, "attention": attention}
        tokens = config.data.max_prompt_tokens + config.rollout.max_answer_tokens
        model = drop_wide_window(hf.resolve_model(ModelConfig(path=str(path), **numerics), path), tokens)
        teacher = build_model(model, tokenizer.vocab_size, mesh)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"config.distillation.teacher={name}: {error}") from error
    # It never trains, so the compute dtype is enough.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, model.dtype), teacher.shapes)
    return dataclasses.replace(teacher, shapes=shapes, base=teacher.base._replace(shapes=shapes))


def load_teacher(teacher: ShardedModel) -> Any:
    """Loads the teacher's weights, in the training layout; raises as `hf.load_weights`."""
    return hf.load_weights(Path(teacher.config.path), teacher.abstract_weights())


def _check_vocabulary(path: Path, tokenizer: Tokenizer) -> None:
    """Checks that the teacher's tokenizer gives each id of the policy's the same text."""
    theirs = load_tokenizer(path)
    pairs = zip_longest(*(each.token_texts(list(range(each.vocab_size))) for each in (tokenizer, theirs)))
    for number, (own, other) in enumerate(pairs):
        if own != other:
            raise ValueError(
                f"its tokenizer has {theirs.vocab_size} ids and the policy's {tokenizer.vocab_size}; id {number} is "
                f"{other!r} in one and {own!r} in the other. A teacher needs the policy's vocabulary: name a model "
                f"of the same family"
            )


def _check_tokens(path: Path, config: Config) -> None:
    limit = hf.read_token_limit(path)
    needed = config.data.max_prompt_tokens + config.rollout.max_answer_tokens
    if limit is not None and limit < needed:
        raise ValueError(f"a prompt and its answer take up to {needed} tokens, and max_position_embeddings is {limit}")
