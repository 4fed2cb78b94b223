"""Random prompts for benchmarks and plans, which measure a config without a problem file or a tokenizer."""

import numpy as np

from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer

PROMPTS = 1024  # rows of the table that a step draws from


class NumberTokenizer(Tokenizer):
    """A tokenizer whose text is its token ids in decimal, separated by spaces."""

    def __init__(self, vocab_size: int, eos_ids: tuple[int, ...]):
        self.vocab_size, self.eos_ids = vocab_size, eos_ids

    def encode_batch(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def apply_chat_templates(self, chats):
        return [messages[-1]["content"] for messages in chats]

    def save(self, folder):
        """Writes nothing: the tokenizer has no files."""

    def _decode(self, ids):
        return [" ".join(map(str, row)) for row in ids]


def random_dataset(config: Config, eos_count: int, prompts: int = PROMPTS) -> Dataset:
    """Draws `prompts` prompts of exactly `config.data.max_prompt_tokens` random tokens each.

    The last `eos_count` ids of the vocabulary end an answer, and no prompt contains them.

    Raises:
      ValueError: if `config.model.vocab` is 0, that is, if the config leaves the vocabulary to a tokenizer.
    """
    V = config.model.vocab
    if not V:
        raise ValueError("config.model.vocab=0: a benchmark has no tokenizer; give the vocabulary's size, such as 512")
    # With `eos_count` 0, the only EOS is an id beyond the vocabulary, which is never sampled.
    tokenizer = NumberTokenizer(V, tuple(range(V - eos_count, V)) or (V,))
    token_QP = np.random.default_rng(config.seed).integers(0, V - eos_count, (prompts, config.data.max_prompt_tokens))
    length_Q = np.full(prompts, config.data.max_prompt_tokens, np.int32)
    texts = [""] * prompts
    return Dataset(tokenizer, {"train": PromptTable(token_QP.astype(np.int32), length_Q, texts, texts, [], 0)}, None)
