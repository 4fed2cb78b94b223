"""The formulas of the page are those of `nft_jax.losses`, on the same numbers."""

import json
import shutil
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax import report
from nft_jax.compare.multipliers import token_multipliers
from nft_jax.losses import resolve
from nft_jax.types import LossBatch

NODE = shutil.which("node")
SCRIPT = Path(report.__file__).with_name("multipliers.js")
OPTIONS = {
    "nft": [
        {"omega": omega, "epsilon": epsilon, "lambda": weight, "clipLow": 0.2, "clipHigh": 0.2}
        for omega in ("one", "one_minus_rate", "sqrt_odds")
        for epsilon, weight in ((1.0, 1.0), (0.1, 0.5), (0.01, 0.0))
    ],
    "grpo": [{"clipLow": 0.2, "clipHigh": 0.2}, {"clipLow": 0.5, "clipHigh": 1.0}],
    "dapo": [{"clipLow": 0.2, "clipHigh": 0.28}],
}
ANSWERS = 8


def cases(name):
    """Tokens of correct and incorrect answers of mixed groups, at ratios that stay off the kinks of the clips."""
    random = np.random.default_rng(20)
    log_ratios = np.concatenate([random.normal(0, 0.5, 40), [0.0, -3.0, 3.0, 11.0]])
    for options in OPTIONS[name]:
        for correct in range(1, ANSWERS):
            for reward in (0, 1):
                for log_ratio in log_ratios.tolist():
                    yield [name, log_ratio, reward, correct / ANSWERS, options]


def by_library(name, log_ratio, reward, rate, options):
    chosen = {"omega": "omega", "epsilon": "epsilon", "lambda": "negative_weight"}
    if name != "nft":
        chosen = {"clipLow": "clip_low", "clipHigh": "clip_high"}
    loss = resolve(name, {ours: options[theirs] for theirs, ours in chosen.items()})
    count = len(log_ratio)
    correct_QK = jnp.arange(ANSWERS, dtype=jnp.float32)[None] < jnp.round(rate * ANSWERS)[:, None]
    advantage_QK = loss.advantage(correct_QK.astype(jnp.float32), jnp.ones((count, ANSWERS), jnp.int32), 2**30)
    advantage_B = jnp.where(reward > 0, advantage_QK[:, 0], advantage_QK[:, -1])
    batch = LossBatch(
        old_logp_BT=jnp.zeros((1, count)),
        answer_BT=jnp.arange(count, dtype=jnp.int32)[None],
        reward_BT=reward[None],
        rate_BT=rate[None],
        advantage_BT=advantage_B[None],
        pair_BT=jnp.full((1, count), -1, jnp.int32),
    )
    return np.asarray(token_multipliers(loss, log_ratio[None], batch)[0])


@pytest.mark.skipif(NODE is None, reason="no node to run the page's formulas")
@pytest.mark.parametrize("name", OPTIONS)
def test_multipliers_of_the_page_are_those_of_the_losses(name):
    rows = list(cases(name))
    code = (
        f"const {{ MULTIPLIERS }} = require({json.dumps(str(SCRIPT))});"
        "const rows = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(rows.map(([name, ...rest]) => MULTIPLIERS[name](...rest))));"
    )
    done = subprocess.run([NODE, "-e", code], input=json.dumps(rows), capture_output=True, text=True, check=True)
    page = np.array(json.loads(done.stdout))
    for options in OPTIONS[name]:
        chosen = [place for place, row in enumerate(rows) if row[4] == options]
        columns = (jnp.asarray([rows[place][i] for place in chosen], jnp.float32) for i in (1, 2, 3))
        np.testing.assert_allclose(page[chosen], by_library(name, *columns, options), rtol=2e-4, atol=1e-6)
