"""The transfers, loops and sizes that are read from a program's text, made up and real."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nft_jax.parallel.mesh import make_mesh
from nft_jax.plan import hlo

MESH = {"replica": 2, "data": 2, "tensor": 2}
TEXT = """
HloModule step

%body (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %r = f32[4]{0} all-reduce(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, metadata={op_name="a/decode/add"}
}

%condition (q: f32[4]) -> pred[] {
  ROOT %c = pred[] constant(true)
}

%outer (p: f32[4]) -> f32[4] {
  %i = f32[4]{0} parameter(0)
  ROOT %w = f32[4]{0} while(%i), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"7"}}
}

ENTRY %main (x: bf16[8,16]) -> f32[4] {
  %x = bf16[8,16]{1,0} parameter(0)
  %g = (bf16[8,16]{1,0}, bf16[16,16]{1,0}) all-gather-start(%x), replica_groups=[4,2]<=[2,2,2]T(0,2,1), dimensions={0}
  %d = bf16[16,16]{1,0} all-gather-done(%g)
  %s = f32[2]{0} collective-permute(%d), source_target_pairs={{0,4},{4,0}}
  %a = (f32[4]{0}, s32[2]{0}) all-reduce(%d, %d), replica_groups={}, to_apply=%condition
  %n = (f32[8,2]{1,0}, u32[], token[]) send(%x, %x), frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %v = f32[4]{0} while(%s), condition=%condition, body=%outer
}
"""


def test_collectives_have_sizes_times_and_axes():
    between, *rest = sorted(hlo.collectives(TEXT, MESH), key=lambda one: one.bytes != 64)
    assert (between.kind, between.axes, between.devices) == ("all-reduce", {"replica"}, 2)
    found = {one.kind + "/" + one.scope: one for one in rest}
    inner, gather = found["all-reduce/a/decode/add"], found["all-gather/"]
    # The outer loop's trips are unknown: only the inner one's count.
    assert (inner.bytes, inner.times, inner.axes, inner.devices) == (16, 7, {"tensor"}, 2)
    assert inner.sent == 7 * 16
    assert (gather.bytes, gather.times, gather.axes) == (512, 1, {"data"})
    assert gather.sent == 256
    assert found["collective-permute/"].axes == {"replica"}
    assert (found["all-reduce/"].bytes, found["all-reduce/"].devices) == (24, 8)
    assert found["all-reduce/"].axes == {"replica", "data", "tensor"}
    assert len(found) == 4


def test_count_launches_counts_what_a_pass_through_a_phase_starts():
    """A loop over 3 layers in a loop over tokens; each layer has a fusion, a copy and a transfer."""
    text = """
%part (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %e = f32[4]{0} exponential(%p), metadata={op_name="decode/exp"}
  ROOT %n = f32[4]{0} negate(%e), metadata={op_name="decode/neg"}
}

%layer (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %f = f32[4]{0} fusion(%p), kind=kLoop, calls=%part, metadata={op_name="decode/neg"}
  %t = f32[4]{0} all-reduce-start(%f), to_apply=%part
  %d = f32[4]{0} all-reduce-done(%t)
  ROOT %c = f32[4]{0} copy(%d)
}

%limit (q: f32[4]) -> pred[] {
  %q = f32[4]{0} parameter(0)
  ROOT %b = pred[] constant(true)
}

%token (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %w = f32[4]{0} while(%p), condition=%limit, body=%layer, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %h = f32[4]{0} custom-call(%w), custom_call_target="head", metadata={op_name="decode/head"}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %y = f32[4]{0} copy(%x)
  ROOT %v = f32[4]{0} while(%y), condition=%limit, body=%token
}
"""
    assert hlo.count_launches(text, "decode") == 3 * 3 + 1
    assert hlo.count_launches(text, "micro_batch") == 0


def test_loop_instructions_are_all_that_loops_run():
    lines = list(hlo.loop_instructions(TEXT))
    assert {hlo.operation(line) for line in lines} == {"parameter", "all-reduce", "constant", "while"}
    assert hlo.element_count("%g = (bf16[8,16]{1,0}, bf16[16,16]{1,0}) all-gather-start(%x)") == 128


@pytest.mark.parametrize(("axis", "count"), [("data", 3), ("tensor", 5), (("data", "tensor"), 2)])
def test_collectives_of_a_real_program(axis, count):
    mesh = make_mesh(2, 2, replica=2)
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec(None, axis)))

    def summed(x, weights):
        def layer(x, _):
            x = jax.lax.with_sharding_constraint(x, split)
            return jax.lax.with_sharding_constraint(jnp.tanh(x @ weights), whole), None

        return jax.lax.scan(layer, x, None, length=count)[0]

    placed = {"in_shardings": (whole, NamedSharding(mesh, PartitionSpec(axis))), "out_shardings": whole}
    arguments = [jax.ShapeDtypeStruct((8, 64), jnp.float32), jax.ShapeDtypeStruct((64, 64), jnp.float32)]
    text = jax.jit(summed, **placed).lower(*arguments).compile().as_text()
    reduced = [one for one in hlo.collectives(text, dict(mesh.shape)) if one.kind == "all-reduce"]
    axes = {axis} if isinstance(axis, str) else {*axis}
    assert reduced
    assert all(one.axes == axes for one in reduced)
    assert sum(one.bytes * one.times for one in reduced) == count * 8 * 64 * 4
    assert functools.reduce(lambda total, one: total + one.times, reduced, 0) == count
