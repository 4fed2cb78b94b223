"""What transformers and this package compute from the same model folder, and how far apart the numbers are.

PyTorch is imported where it is used: this module can be collected without it.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from helpers.model_folders import abstract_weights
from helpers.parity_models import VOCABULARY
from helpers.small_parts import at_tokens, one_device
from nft_jax.config import ModelConfig, RolloutConfig
from nft_jax.models import hf, transformer
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Prompts, Tokens

ANSWER_LIMIT = 16


class LoadedModel(NamedTuple):
    """A model folder as this package loads it."""

    config: ModelConfig
    vocabulary: int
    graph: nnx.GraphDef
    axes: Any
    weights: Any


def read_folder(folder: Path, dtype: str = "float32") -> LoadedModel:
    """Loads the folder's model, with its vocabulary padded, to compute in `dtype`."""
    config = hf.resolve_model(ModelConfig(vocab_multiple=8, dtype=dtype), folder)
    vocabulary = hf.read_model_settings(folder)["vocab"]
    graph, _, axes = transformer.abstract_model(config, vocabulary)
    return LoadedModel(config, vocabulary, graph, axes, hf.load_weights(folder, abstract_weights(config, one_device())))


def sequences(count: int = 8, longest: int = 24, seed: int = 0) -> list[np.ndarray]:
    """Returns sequences of random tokens, of lengths from 2 to `longest`."""
    random = np.random.default_rng(seed)
    lengths = np.linspace(2, longest, count).astype(int)
    return [random.integers(3, VOCABULARY, length) for length in random.permutation(lengths)]


def pack_rows(groups: list[list[np.ndarray]]) -> Tokens:
    """Packs each group of sequences into one row, with padding at the end."""
    T = max(sum(map(len, group)) for group in groups)
    token_BT, segment_BT, position_BT = np.zeros((3, len(groups), T), np.int32)
    segment_BT -= 1
    for b, group in enumerate(groups):
        start = 0
        for number, sequence in enumerate(group):
            span = slice(start, start + len(sequence))
            token_BT[b, span], segment_BT[b, span] = sequence, number
            position_BT[b, span] = np.arange(len(sequence))
            start = span.stop
    return Tokens(token_BT, segment_BT, position_BT)


def our_logits_and_logp(loaded: LoadedModel, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[n, V]` and log-probs `[n]` of the real tokens of packed rows, in the order of the rows."""

    def forward(weights, tokens):
        model = transformer.bind(loaded.graph, weights)
        logits_MV = model.logits(model(tokens).reshape(-1, loaded.config.width))
        return logits_MV, at_tokens(model, tokens, 1.0, 8)[0].reshape(-1)

    logits_MV, logp_M = jax.jit(forward)(loaded.weights, tokens)
    real_M = tokens.segment_BT.reshape(-1) >= 0
    return np.asarray(logits_MV)[real_M, : loaded.vocabulary], np.asarray(logp_M)[real_M]


def their_logits_and_logp(model: Any, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same for one sequence a row, as one padded batch; the log-prob of a first token is NaN."""
    import torch

    token_BT, segment_BT, _ = pack_rows([[row] for row in rows])
    with torch.no_grad():
        mask = torch.tensor(segment_BT >= 0).long()
        logits_BTV = model(torch.tensor(token_BT).long(), attention_mask=mask).logits.float()
        all_BTV = logits_BTV.log_softmax(dim=-1).numpy()
    logp_BT = np.full(token_BT.shape, np.nan, np.float32)
    logp_BT[:, 1:] = np.take_along_axis(all_BTV[:, :-1], token_BT[:, 1:, None], axis=-1)[..., 0]
    real_BT = segment_BT >= 0
    return logits_BTV.numpy()[real_BT], logp_BT[real_BT]


def our_greedy(model: LoadedModel, prompts: list[np.ndarray], eos_ids: tuple[int, ...]) -> np.ndarray:
    """Returns greedy answers `[Q, T]` of the rollout engine, 0 after EOS."""
    config = RolloutConfig(ANSWER_LIMIT)
    engine = Engine(model.graph, model.axes, one_device(), config, eos_ids, model.config.dtype, False)
    length_Q = np.array([len(prompt) for prompt in prompts], np.int32)
    token_QP = pack_rows([[prompt] for prompt in prompts]).token_BT
    number_QK = np.arange(len(prompts), dtype=np.uint32)[:, None]
    requests = Requests(
        prompts=Prompts(token_QP, length_Q),
        problem_Q=np.zeros_like(length_Q),
        request_QK=number_QK,
        limit_QK=np.full(number_QK.shape, ANSWER_LIMIT, np.int32),
        greedy_QK=np.ones(number_QK.shape, bool),
    )
    sample = jax.jit(
        lambda weights, requests: engine(engine.sampling_weights(weights), requests, jax.random.key(0)).rollout
    )
    return np.asarray(sample(model.weights, requests).token_BT)


def their_greedy(model: Any, prompts: list[np.ndarray], eos_ids: tuple[int, ...]) -> np.ndarray:
    """Returns the same from transformers' `generate`, as one batch with padding on the left."""
    import torch

    P, answer_QT = max(map(len, prompts)), np.zeros((len(prompts), ANSWER_LIMIT), np.int32)
    token_QP = torch.tensor(np.stack([np.pad(prompt, (P - len(prompt), 0)) for prompt in prompts]))
    mask = torch.tensor(np.stack([np.arange(P) >= P - len(prompt) for prompt in prompts])).long()
    settings = {"do_sample": False, "max_new_tokens": ANSWER_LIMIT, "pad_token_id": 0}
    with torch.no_grad():
        found = model.generate(token_QP, attention_mask=mask, eos_token_id=list(eos_ids) or None, **settings)
    answer_QT[:, : found.shape[1] - P] = found[:, P:].numpy()
    return answer_QT


class Outputs(NamedTuple):
    """The outputs of a model for `sequences()`.

    Attributes:
      logits: Of each token, with one sequence a row.
      logp: Of each token, with one sequence a row; that of a first token has no meaning.
      packed: `logp` with two sequences a row.
      greedy: The greedy answer to each sequence.
      gradient: Of the mean log-prob, as a tree of our weights.
    """

    logits: np.ndarray
    logp: np.ndarray
    packed: np.ndarray
    greedy: np.ndarray
    gradient: Any


def their_outputs(model: Any, eos_ids: tuple[int, ...], scratch: Path) -> Outputs:
    """Returns the outputs of transformers, which has no packed rows. `scratch` is a folder for files on the way."""
    logits, logp = their_logits_and_logp(model, sequences())
    return Outputs(logits, logp, logp, their_greedy(model, sequences(), eos_ids), their_gradient(model, scratch))


def our_outputs(folder: Path, eos_ids: tuple[int, ...], dtype: str = "float32") -> Outputs:
    """Returns the outputs of this package."""
    model, rows = read_folder(folder, dtype), sequences()
    logits, logp = our_logits_and_logp(model, pack_rows([[row] for row in rows]))
    _, packed = our_logits_and_logp(model, pack_rows([rows[i : i + 2] for i in range(0, len(rows), 2)]))
    return Outputs(logits, logp, packed, our_greedy(model, rows, eos_ids), our_gradient(model))


def our_gradient(loaded: LoadedModel) -> Any:
    """Returns the gradient of the mean log-prob of all tokens that have one, from packed rows."""
    rows = sequences()
    tokens = pack_rows([rows[i : i + 2] for i in range(0, len(rows), 2)])
    counted_BT = ((tokens.segment_BT >= 0) & (tokens.position_BT > 0)).astype(np.float32)

    def mean_logp(weights):
        logp_BT, _ = at_tokens(transformer.bind(loaded.graph, weights), tokens, 1.0, 8)
        return (logp_BT * counted_BT).sum() / counted_BT.sum()

    return jax.jit(jax.grad(mean_logp))(loaded.weights)


def their_gradient(model: Any, scratch: Path) -> Any:
    """Returns the same of transformers: its gradient is saved and read like weights."""
    import torch

    token_BT, segment_BT, _ = pack_rows([[row] for row in sequences()])
    model.zero_grad()
    mask, token_BT = torch.tensor(segment_BT >= 0), torch.tensor(token_BT).long()
    logp_BTV = model(token_BT, attention_mask=mask.long()).logits.float().log_softmax(dim=-1)
    logp_BT = logp_BTV[:, :-1].gather(2, token_BT[:, 1:, None])[..., 0]
    logp_BT[mask[:, 1:]].mean().backward()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for value, other in zip(twin.parameters(), model.parameters(), strict=True):
            value.copy_(other.grad)
    twin.save_pretrained(scratch)
    return read_folder(scratch).weights


def choose_eos_ids(model: Any) -> tuple[int, int]:
    """Returns two tokens that end some of the greedy answers early."""
    answer_QT = their_greedy(model, sequences(), ())
    return int(answer_QT[0, 3]), int(answer_QT[1, 6])


class Differences(NamedTuple):
    """The largest absolute differences, and the share of equal greedy tokens.

    Attributes:
      gradient: The largest difference of a weight's gradient, divided by that gradient's largest element.
    """

    logits: float
    logp: float
    packed: float
    gradient: float
    greedy: float


def differences(found: Outputs, expected: Outputs) -> Differences:
    """Returns the differences of two models' outputs."""
    known = ~np.isnan(expected.logp)
    return Differences(
        logits=float(np.abs(found.logits - expected.logits).max()),
        logp=float(np.abs(found.logp - expected.logp)[known].max()),
        packed=float(np.abs(found.packed - expected.packed)[known].max()),
        gradient=max(
            float(np.abs(x - y).max() / np.abs(y).max())
            for x, y in zip(jax.tree.leaves(found.gradient), jax.tree.leaves(expected.gradient), strict=True)
        ),
        greedy=float((found.greedy == expected.greedy).mean()),
    )


def load_in_bfloat16(folder: Path) -> Any:
    """Loads the folder's model in transformers, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def round_trip_is_identical(folder: Path, out: Path, **saving: Any) -> bool:
    """Returns whether reading the folder and writing it to `out` reproduces its weight files byte for byte."""
    out.mkdir(parents=True)
    model = read_folder(folder)
    hf.save_weights(out, model.weights, vocab=model.vocabulary, dtype=hf.read_dtype(folder), **saving)
    before, after = ({path.name: path.read_bytes() for path in each.glob("model*")} for each in (folder, out))
    return before == after
