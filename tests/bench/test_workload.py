"""The lengths of a benchmark's answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.bench import SIZES
from helpers.experiments import small
from helpers.small_parts import ANSWER_LIMIT, one_device, random_prompts, small_config
from nft_jax.bench.workload import Lengths, limit_answers, read_lengths
from nft_jax.step import Step


def test_read_lengths():
    config = small(**SIZES)
    assert read_lengths("full", config) == ("full", 0, None)
    assert read_lengths("ends:3", config) == ("ends:3", 3, None)
    assert read_lengths("fixed:12", config).forced_B.tolist() == [12]
    found = read_lengths("lognormal:5:0.5", config).forced_B
    assert abs(np.median(found) - 5) <= 1
    assert (found.min() >= 1, found.max()) == (True, 12)


@pytest.mark.parametrize(
    "lengths",
    [
        *("", "ful", "full:1", "ends", "ends:0", "ends:24", "ends:x", "fixed", "fixed:0", "fixed:13", "fixed:5:5"),
        *("lognormal:50", "lognormal:0:1", "lognormal:a:b", "lognormal:5:-1"),
    ],
)
def test_read_lengths_refuses(lengths):
    with pytest.raises(ValueError, match=f"--lengths={lengths}: use full, ends:N"):
        read_lengths(lengths, small(**SIZES))


def test_limit_answers_goes_by_request_number():
    step = Step(small_config("grpo"), one_device(), None, None, None, None)
    assert limit_answers(step, Lengths("full")) is step
    limited = limit_answers(step, Lengths("fixed:1", forced_B=np.array([3, 5, 4], np.int32)))
    prompts = jax.tree.map(jnp.asarray, random_prompts(0, 20))
    found, own = (jax.jit(each.next_requests)(prompts, np.int32(7)) for each in (limited, step))
    np.testing.assert_array_equal(found.limit_QK, np.array([3, 5, 4])[found.request_QK % 3])
    assert set(np.ravel(own.limit_QK).tolist()) == {ANSWER_LIMIT}
    np.testing.assert_array_equal(found.request_QK, own.request_QK)
