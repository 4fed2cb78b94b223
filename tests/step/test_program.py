"""The step as one program: what it compiles, holds and donates, and that it is the same on other meshes."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import assert_same, compilations
from helpers.step_programs import ROUNDS, K, Q
from nft_jax import step
from nft_jax.plan import hlo
from nft_jax.run.metrics import step_metrics


def test_step_compiles_nothing_after_its_first_call(plain, all_incorrect):
    plain.take()
    rounds = []
    with compilations() as seen:
        for pool in (plain.pool.own, all_incorrect, plain.pool.own):
            plain.pool.pool = pool
            (record,) = plain.take()
            step_metrics(record)
            rounds.append(int(record.rounds))
        assert seen == []
        jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile()
        assert seen  # the ear is open
    assert rounds[1] == ROUNDS > rounds[0]


def test_step_holds_decode_loop_callback_and_optimizer_in_one_program(plain):
    text = plain.compiled.as_text()
    assert text.count("HloModule ") == 1
    named = dict.fromkeys(re.findall(r'op_name="jit\(train_step\)/([^"]*)"', text))
    # Draws in a loop (columns) inside a loop (rounds); the callback inside the rounds.
    assert any(re.search(r"^while/body/while/body/.*gumbel", name) for name in named)
    callbacks = [line for line in text.splitlines() if "custom_call_target" in line and "callback" in line]
    # One submits inside the loop of draws, one collects after it.
    paths = sorted(re.search(r'op_name="jit\(train_step\)/([^"]*)"', line)[1] for line in callbacks)
    assert len(paths) == 2
    assert all(path.startswith("while/body/") for path in paths)
    assert [path.count("while/body") for path in paths] == [1, 3] or [path.count("while/body") for path in paths] == [
        3,
        1,
    ]
    # Backward pass, then AdamW's root, in no `cond`: on GPUs, XLA copies the weights and moments that one hands on.
    assert any("transpose(jvp" in name for name in named)
    assert any(re.search(r"optimizer/(?!.*cond).*sqrt$", name) for name in named)


def test_step_decodes_without_waiting_for_other_shards_or_moving_answers(programs):
    """On CPU devices a collective permute waits for all of them, which loops of different lengths never satisfy."""
    program = programs("eight devices")
    lines = list(hlo.loop_instructions(program.compiled.as_text()))
    seen = {hlo.operation(line) for line in lines if "shard_map/while/body" in line}
    # The draw chooses a token of a split vocabulary by sums and maxima alone.
    assert {"all-reduce", "dot"} <= seen
    assert not seen & {"collective-permute", "all-to-all", "reduce-scatter"}
    # Nor do the rounds copy the cache that they hand on.
    model, columns = (
        program.config.model,
        program.config.data.max_prompt_tokens + program.config.rollout.max_answer_tokens,
    )
    cache = f"[{model.layers},1,{Q * K // 4},{model.kv_heads // 2},{model.head_size},{columns}]"
    assert {"dynamic-update-slice", "while"} <= {hlo.operation(line) for line in lines if cache in line}
    assert not [line for line in lines if cache in line and hlo.operation(line) in ("copy", "copy-start", "all-gather")]


def test_step_donates_its_state(plain):
    before = plain.state
    plain.take()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(plain.state))


def test_step_counts_steps_and_drawn_prompts_in_its_state(plain, all_incorrect):
    rounds = 0
    for number, pool in enumerate((plain.pool.own, all_incorrect, plain.pool.own), start=1):
        plain.pool.pool = pool
        (record,) = plain.take()
        rounds += int(record.rounds)
        assert int(plain.state.step) == number
        assert int(plain.state.cursor) == rounds * Q
        assert (int(record.statistics.groups), int(record.statistics.answers)) == (
            record.rounds * Q,
            record.rounds * Q * K,
        )


@pytest.mark.parametrize("mesh", ["eight devices", "two replicas"])
def test_step_on_eight_devices_draws_the_same_answers_and_takes_the_same_gradient(mesh, programs):
    one, eight = programs("plain"), programs(mesh)
    for number in range(3):
        (mine,), (its,) = one.take(), eight.take()
        assert_same((mine.last.prompt_Q, mine.last.token_QKT), (its.last.prompt_Q, its.last.token_QKT))
        assert (mine.rounds, mine.trained, mine.wasted) == (its.rounds, its.trained, its.wasted)
        # How much of the next round the free slots get done depends on their number.
        assert_same(*(tally._replace(seconds=0, capacity=0) for tally in (mine.statistics, its.statistics)))
        if number == 0:
            assert one.config.updates_per_step == 1  # or the gradient would be of weights that differ already
            jax.tree_util.tree_map_with_path(assert_close, one.gradient, eight.gradient)
    assert mine.trained == Q


def assert_close(path, mine, its):
    assert np.linalg.norm(mine) > 0, path
    assert np.linalg.norm(mine - its) <= 1e-5 * np.linalg.norm(mine), path


def test_step_docstring_lists_the_files_of_the_readme():
    package = Path(step.__file__).parent
    in_docstring = re.findall(r"^\| `([\w/]+\.py)` \|", step.__doc__, re.MULTILINE)
    way = (package / "README.md").read_text().split("## The way of a prompt")[1].split("\n## ")[0]
    assert in_docstring == re.findall(r"^\| \[([\w/]+\.py)\]", way, re.MULTILINE)
    assert len(in_docstring) <= 9
    assert all((package / name).is_file() for name in in_docstring)
