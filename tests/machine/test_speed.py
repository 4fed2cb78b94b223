"""FLOPs and bytes of a step, and the timing of a machine's limits."""

import dataclasses

from helpers.experiments import small
from helpers.small_parts import one_device
from nft_jax.config import LoraConfig
from nft_jax.machine import speed
from nft_jax.models.sharded import build_model


def test_forward_flops_count_the_products():
    config = small(model__vocab=24)
    model = config.model
    D, F, N, G, H = model.width, model.mlp_width, model.heads, model.kv_heads, model.head_size
    layer = D * (N * H + 2 * G * H) + N * H * D + 3 * D * F
    products = model.layers * layer + D * model.vocab
    assert not model.tied_embedding
    found = speed.forward_flops(config, products + D * model.vocab, tokens=10, context=7)
    assert found == 10 * (2 * products + 4 * model.layers * N * H * 7)


def test_forward_flops_count_the_experts_that_read_a_token():
    sizes = {"model__vocab": 24, "model__qkv_bias": False}
    flops = []
    for experts in (
        {"model__experts": 7, "model__experts_per_token": 2},
        {"model__experts": 2} | {"model__experts_per_token": 2},
    ):
        config = small(**sizes, **experts)
        model = build_model(config.model, 24, one_device())
        router = config.model.layers * config.model.width * config.model.experts
        flops.append(speed.forward_flops(config, model.parameters - router, tokens=10, context=7))
    assert flops[0] == flops[1]


def test_update_flops_leave_out_the_gradients_of_frozen_weights():
    config = small(model__vocab=24, lora__rank=3)
    model = config.model
    D, F, N, G, H, r = model.width, model.mlp_width, model.heads, model.kv_heads, model.head_size, 3
    sides = [(D, N * H), (D, G * H), (D, G * H), (N * H, D), (D, F), (D, F), (F, D)]
    products = model.layers * sum(inputs * outputs for inputs, outputs in sides) + D * model.vocab
    adapters = model.layers * sum(r * (inputs + outputs) for inputs, outputs in sides)
    attention = 4 * model.layers * N * H * 7
    adapted, whole = (build_model(model, 24, one_device(), lora) for lora in (config.lora, LoraConfig()))
    # Biases and norms count as weights.
    small_ones = 2 * (adapted.parameters - products - D * model.vocab)
    assert adapted.adapters == adapters
    assert whole.adapters == 0
    for passes in (3, 4):
        full = passes * (2 * products + small_ones + attention)
        assert speed.update_flops(config, whole, 10, 7, passes) == 10 * full
        lora = passes * (2 * adapters + attention) + (passes - 1) * (2 * products + small_ones)
        assert speed.update_flops(config, adapted, 10, 7, passes) == 10 * lora


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
