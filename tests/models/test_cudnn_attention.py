"""Packed rows by cuDNN's attention, which an emulation with the same contract stands for, against plain XLA."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from helpers.small_parts import MODEL, assert_close
from nft_jax import compat
from nft_jax.config.sizes import PACKED_SEQUENCES
from nft_jax.models import attention_backends, attention_kernels, cudnn_attention, cudnn_emulation
from nft_jax.models.attention import PromptKeys, packed_attention
from nft_jax.parallel.mesh import make_mesh

EMULATED = cudnn_attention.Kernels(cudnn_emulation.cudnn_attention, cudnn_emulation.cudnn_gradient)
T, P = 41, 11


def rows(*lengths):
    """Segments 0, 1, … of these lengths, then padding; a negative length is padding before what follows."""
    ids = [-1 if n < 0 else i for i, n in enumerate(lengths)]
    return np.repeat([*ids, -1], [*map(abs, lengths), T - sum(map(abs, lengths))]).astype(np.int32)


# One-token segments at both ends, an empty row, a row that is one segment, and padding between and before segments.
ROWS_BT = np.stack([rows(1, 20, 1, 19), rows(), rows(T), rows(-3, 9, -2, 1), rows(5, 5), rows(*[2] * 9)])
SEEN_B = np.array([P, 4, 0, 1, 7, 3], np.int32)


def random_segments(random, B):
    """Rows of random runs, of which some are padding."""
    row_BT = np.full((B, T), -1, np.int32)
    for row_T in row_BT:
        cuts = np.sort(random.choice(T + 1, size=random.integers(0, 12), replace=False))
        for number, (start, end) in enumerate(zip(cuts, cuts[1:], strict=False)):
            row_T[start:end] = number if random.random() < 0.8 else -1
    return row_BT


@pytest.mark.parametrize("most", [40, 5])
def test_find_spans_finds_every_run_once_in_order(most):
    find = jax.jit(cudnn_attention.find_spans, static_argnums=1)
    random, lost = np.random.default_rng(0), 0
    for _ in range(60):
        segment_BT = random_segments(random, 3)
        start_S, length_S, sequence_BT = (np.asarray(x) for x in find(segment_BT, most))
        runs = []
        for b, t in np.ndindex(segment_BT.shape):
            if segment_BT[b, t] >= 0:
                if t == 0 or segment_BT[b, t - 1] != segment_BT[b, t]:
                    runs.append([b * T + t, 0])
                runs[-1][1] += 1
                assert sequence_BT[b, t] == len(runs) - 1
            else:
                assert sequence_BT[b, t] == -1
        lost += len(runs) > most
        kept = (runs + [[segment_BT.size, 0]] * most)[:most]
        np.testing.assert_array_equal(np.stack([start_S, length_S], axis=1), kept)
    assert (lost > 0) == (most == 5)


def test_sequences_are_those_that_jax_makes_of_its_own_arguments():
    """With as many keys as queries: for fewer, JAX takes other offsets before 0.11.2."""
    random, most, (B, heads) = np.random.default_rng(4), 16, (3, 2)
    query = jnp.zeros((B, T, heads, 8), jnp.bfloat16)
    seen = []

    def attend(query, key, value, sequences, *, causal):
        seen.append(sequences)
        return EMULATED.attend(query, key, value, sequences, causal=causal)

    for _ in range(8):
        segment_BT = random_segments(random, B)
        length_BM, start_BM = np.full((B, most), -1, np.int32), np.full((B, most + 1), -1, np.int32)
        for b, row_T in enumerate(segment_BT):
            first = np.flatnonzero((row_T >= 0) & (np.r_[-1, row_T[:-1]] != row_T))
            start_BM[b, : len(first)] = first
            length_BM[b, : len(first)] = [np.sum(row_T == row_T[place]) for place in first]
        arrays = (jnp.asarray(x) for x in (length_BM, length_BM, start_BM, start_BM))
        *lengths, query_offset, key_offset = fused_attention_stablehlo._fix_seqlen_offsets(*arrays, query, query)
        emulated(query, query, query, segment_BT, most=most, kernels=EMULATED._replace(attend=attend))
        found = seen.pop()
        np.testing.assert_array_equal(found[:2], lengths)
        # What cuDNN reads of them.
        for one, other in zip(found[2:], (query_offset, key_offset), strict=True):
            read = slice(B * most + 1)
            np.testing.assert_array_equal(one.reshape(-1)[read], other.reshape(-1)[read])


def operands(heads, key_heads, dtype="float32", B=6):
    random = np.random.default_rng(1)
    shapes = [(T, heads), *[(T, key_heads)] * 2, *[(P, key_heads)] * 2]
    return [jnp.asarray(random.normal(size=(B, *shape, 8)), dtype) for shape in shapes]


def value_and_gradients(attend, given, segment_BT=ROWS_BT, seen_B=None):
    real_BTNH = (segment_BT >= 0)[..., None, None]
    mix = np.random.default_rng(2).normal(size=given[0].shape).astype(np.float32)

    def objective(query, key, value, *prompt):
        seen = None if seen_B is None else PromptKeys(*prompt, seen_B)
        out = attend(query, key, value, segment_BT, seen)
        return jnp.sum(jnp.where(real_BTNH, out, 0).astype(jnp.float32) * mix), out

    with jax.default_matmul_precision("highest"):
        gradients, out = jax.jit(jax.grad(objective, argnums=(0, 1, 2, 3, 4), has_aux=True))(*given)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


def emulated(query, key, value, segment_BT, prompt=None, most=9, kernels=EMULATED):
    spans = cudnn_attention.find_spans(segment_BT, most * len(segment_BT))
    return cudnn_attention.attend_rows(query, key, value, spans, prompt, kernels, "attention")


@pytest.mark.parametrize("seen_B", [None, SEEN_B], ids=["rows", "prompts"])
@pytest.mark.parametrize(("heads", "key_heads"), [(7, 1), (4, 2), (3, 3)])
def test_rows_by_cudnn_give_values_and_gradients_of_xla(heads, key_heads, seen_B):
    """The emulation leaves NaN wherever cuDNN writes nothing."""
    given = operands(heads, key_heads)
    found = value_and_gradients(emulated, given, seen_B=seen_B)
    expected = value_and_gradients(packed_attention, given, seen_B=seen_B)
    padding_BT = ROWS_BT < 0
    assert not any(x[padding_BT].any() for x in found[:4]), "padding is read again in the next layer"
    expected[0] = np.where(padding_BT[..., None, None], 0, expected[0])
    count = 4 if seen_B is None else 6
    assert_close(found[:count], expected[:count], 1e-5)
    if seen_B is not None:
        hidden_BP = np.arange(P) >= SEEN_B[:, None]
        assert not any(x[hidden_BP].any() for x in found[4:])


def test_random_rows_by_cudnn_give_values_and_gradients_of_xla():
    random = np.random.default_rng(3)
    for seed in range(4):
        segment_BT = random_segments(np.random.default_rng(seed), len(SEEN_B))
        given, seen_B = operands(4, 2), random.integers(0, P + 1, len(SEEN_B)).astype(np.int32)
        found = value_and_gradients(emulated, given, segment_BT, seen_B)
        expected = value_and_gradients(packed_attention, given, segment_BT, seen_B)
        expected[0] = np.where((segment_BT < 0)[..., None, None], 0, expected[0])
        assert_close(found, expected, 1e-5)


def test_segments_that_have_no_room_become_nan():
    segment_BT = np.stack([rows(*[1] * T), rows(T)])
    given = operands(4, 2, B=2)[:3]
    out = emulated(*given, segment_BT, most=20)
    assert np.isfinite(out[0, :40]).all()
    assert np.isnan(out[0, 40]).all()
    assert np.isnan(out[1]).all()


def test_more_numbers_than_int32_counts_are_refused():
    query, key = (jax.ShapeDtypeStruct((64, 8192, heads, 128), jnp.bfloat16) for heads in (32, 8))
    spans = jax.eval_shape(attention_kernels.cudnn_spans, jax.ShapeDtypeStruct((64, 8192), jnp.int32))
    with pytest.raises(ValueError, match=r"64 rows × 8192 tokens × 32 heads × 128; use fewer config\.packing"):
        jax.eval_shape(attention_kernels.cudnn_packed, query, key, key, spans)


def select(interpret=True, data=2, tensor=2):
    config = dataclasses.replace(MODEL, attention="cudnn_packed", dtype="bfloat16")
    over = make_mesh(data, tensor, jax.devices()[: data * tensor])
    return attention_backends.select_attention(config, over, interpret=interpret)


def described(backend):
    """The backend's rows, with segments as they are packed."""
    return lambda query, key, value, segment_BT, *rest: backend.rows(
        query, key, value, backend.describe(segment_BT), *rest
    )


def test_backend_over_the_mesh_matches_packed_attention():
    given, segment_BT, seen_B = operands(4, 2, dtype="bfloat16", B=4), ROWS_BT[:4], SEEN_B[:4]
    found = value_and_gradients(described(select()), given, segment_BT, seen_B)
    expected = value_and_gradients(packed_attention, given, segment_BT, seen_B)
    expected[0] = np.where((segment_BT < 0)[..., None, None], 0, expected[0])
    assert_close(found, expected, 2e-2)
    assert not select().takes_no_prompts


@pytest.mark.parametrize("shared", [False, True], ids=["rows", "prompts"])
def test_backend_calls_cudnn_for_cuda_with_keys_as_they_are(monkeypatch, shared):
    # Lowering, unlike compiling, needs no GPU.
    monkeypatch.setitem(attention_backends.PLATFORM, "cudnn_packed", "cpu")
    attend, B, length = described(select(interpret=False, data=1, tensor=1)), 3, 256

    def objective(query, key, value, segment_BT, *prompt):
        out = attend(query, key, value, segment_BT, PromptKeys(*prompt) if prompt else None)
        return jnp.sum(out.astype(jnp.float32))

    floats = [jax.ShapeDtypeStruct((B, n, heads, 8), jnp.bfloat16) for n, heads in ((length, 4), (length, 2), (64, 2))]
    query, key, prompt = floats
    given = [query, key, key, jax.ShapeDtypeStruct((B, length), jnp.int32)]
    given += [prompt, prompt, jax.ShapeDtypeStruct((B,), jnp.int32)] if shared else []
    text = jax.jit(jax.grad(objective, argnums=(0, 1, 2))).trace(*given).lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"custom_call @__cudnn\$fmhaSoftmax(\w*)\(.*?: \((.*?)\) ->", text)
    config = r"mask_type\\22: \\22(\w+)\\22.*?max_seg_per_batch\\22: (\d+)"
    rows_, pages = ("PADDING_CAUSAL", str(PACKED_SEQUENCES)), ("PADDING", "1")
    assert sorted(re.findall(config, text)) == sorted([rows_] * 2 + [pages] * 2 * shared)
    # Forward for the output, backward for the gradients, each for the rows and for the prompts.
    assert sorted(name for name, _ in calls) == [""] * (1 + shared) + ["Backward"] * (1 + shared)
    for _, types in calls:
        arrays = re.findall(r"tensor<([\dx]+)xbf16>", types)
        assert arrays[0] == f"{B}x{length}x4x8"
        assert arrays[1] == arrays[2]
        assert arrays[1] in (f"{B}x{length}x2x8", f"{B}x64x2x8")
    packed = next(types for name, types in calls if not name and f"{B}x{PACKED_SEQUENCES + 1}xi32" in types)
    assert packed.count(f"{B}x{PACKED_SEQUENCES}xi32") == packed.count(f"{B}x{PACKED_SEQUENCES + 1}xi32") == 2


def test_backend_is_refused_with_a_jax_of_another_form(monkeypatch):
    assert compat.has_cudnn_attention()
    lowering = "_dot_product_attention_fwd_cuda_lowering"
    known = inspect.signature(getattr(fused_attention_stablehlo, lowering)).parameters

    def like(*names):
        """A function with the parameters of JAX's lowering and these."""
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(name, kind) for name in names if name not in known]
        found = lambda: None  # noqa: E731
        found.__signature__ = inspect.Signature([*known.values(), *more])
        return found

    # As in jax 0.12, which this package knows; then with a parameter that it doesn't know.
    monkeypatch.setattr(fused_attention_stablehlo, lowering, like("score_mod_name", "score_mod_jaxpr"))
    assert compat.has_cudnn_attention()
    monkeypatch.setattr(fused_attention_stablehlo, lowering, like("sink"))
    assert not compat.has_cudnn_attention()
    monkeypatch.delattr(fused_attention_stablehlo, lowering)
    assert not compat.has_cudnn_attention()
    with pytest.raises(ValueError, match=f"calls a part of JAX that jax {jax.__version__} does not have"):
        select()
