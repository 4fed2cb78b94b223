"""FLOPs and bytes of a step, and the timing of a machine's limits."""

import dataclasses

from helpers.experiments import small
from nft_jax.machine import speed


def test_forward_flops_count_the_products():
    config = small(model__vocab=24)
    model = config.model
    D, F, N, G, H = model.width, model.mlp_width, model.heads, model.kv_heads, model.head_size
    layer = D * (N * H + 2 * G * H) + N * H * D + 3 * D * F
    products = model.layers * layer + D * model.vocab
    assert not model.tied_embedding
    found = speed.forward_flops(config, products + D * model.vocab, tokens=10, context=7)
    assert found == 10 * (2 * products + 4 * model.layers * N * H * 7)


def test_decode_bytes_count_weights_once_for_all_slots_and_the_context_of_each_token():
    config = small(model__vocab=24, model__dtype="bfloat16")
    model = config.model
    assert not model.tied_embedding
    column = 2 * model.layers * model.kv_heads * model.head_size
    found = speed.decode_bytes(config, 1000 + model.vocab * model.width, tokens=40, context=7, slots=8)
    assert found == 2 * (1000 * 40 / 8 + 40 * 7 * column)
    tied = dataclasses.replace(config, model=dataclasses.replace(model, tied_embedding=True))
    assert speed.decode_bytes(tied, 1000, tokens=40, context=7, slots=8) == found


def test_least_seconds_passes_on_the_result_of_the_call_before():
    given = []
    assert speed._least_seconds(lambda x: given.append(x) or x + 1, 0, calls=2) > 0
    assert given == list(range(11))
