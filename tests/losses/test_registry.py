"""Names, options and traits: what a config may say, and the errors of a config that is invalid."""

import os
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from helpers.packed_answers import draw_answers, pack
from nft_jax.losses import LOSSES, declare, default_options, resolve
from nft_jax.losses.advantage import centered

TABLE = {
    "nft": ("answer", "constant", "mixed", "centered"),
    "rft": ("answer", "constant", "mixed", "centered"),
    "grpo": ("answer", "sequence_mean", "all", "normalized"),
    "dr_grpo": ("answer", "constant", "all", "centered"),
    "dapo": ("answer", "token_mean", "mixed", "overlong_normalized"),
    "dpo": ("pair", "pair_mean", "mixed", "centered"),
    "contrast": ("answer", "constant", "mixed", "centered"),
    "maxrl": ("answer", "constant", "all", "over_rate"),
    "rloo": ("answer", "constant", "all", "leave_one_out"),
    "reinforce_plus_plus": ("answer", "token_mean", "all", "raw"),
    "reinforce_plus_plus_baseline": ("answer", "token_mean", "all", "centered"),
    "ngrpo": ("answer", "token_mean", "some_incorrect", "calibrated"),
    "psr": ("answer", "token_mean", "all", "raw"),
    "nsr": ("answer", "token_mean", "all", "deficit"),
    "w_reinforce": ("answer", "token_mean", "all", "signed"),
    "gspo": ("answer", "sequence_mean", "all", "normalized"),
    "gmpo": ("answer", "sequence_mean", "all", "normalized"),
    "cispo": ("answer", "token_mean", "all", "normalized"),
    "sapo": ("answer", "sequence_mean", "all", "normalized"),
    "dppo": ("answer", "constant", "all", "normalized"),
    "clip_cov": ("answer", "token_mean", "all", "normalized"),
    "kl_cov": ("answer", "token_mean", "all", "normalized"),
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a user's module; returns its name."""

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        return name

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_traits_are_those_of_the_table():
    loss = {name: resolve(name, {}) for name in LOSSES}
    found = {key: (x.unit, x.normalizer, x.groups, x.advantage.func.__name__) for key, x in loss.items()}
    assert found == TABLE


@pytest.mark.parametrize("name", LOSSES)
def test_default_options_round_trip(name):
    packed = pack([draw_answers(seed=12)[:3]], length=30)
    explicit = resolve(name, default_options(name)).function(packed.logp_BT, packed.batch)
    np.testing.assert_array_equal(explicit, resolve(name, {}).function(packed.logp_BT, packed.batch))


def test_default_options_join_the_loss_and_its_advantage():
    assert default_options("rft") == {}
    assert default_options("dapo") == {
        "clip_low": 0.2,
        "clip_high": 0.28,
        "dual_clip": 0.0,
        "overlong_buffer": 0,
        "overlong_weight": 1.0,
        "sample_std": False,
        "delta": 0.0,
    }


def test_resolve_binds_options_to_the_loss_and_its_advantage():
    loss = resolve("grpo", {"clip_low": 0.1, "delta": 0.5})
    assert loss.function.keywords == {"clip_low": 0.1}
    assert loss.advantage.keywords == {"delta": 0.5}
    advantage_QK = loss.advantage(jnp.array([[0.0, 1.0]], jnp.float32), jnp.array([[3, 4]], jnp.int32), 8)
    np.testing.assert_allclose(advantage_QK, [[-0.5, 0.5]])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ntf", {}, "unknown loss 'ntf': known are .*nft.*did you mean 'nft'.*module:function"),
        ("nft", {"epsilom": 1.0}, "unknown option 'epsilom' of loss 'nft': known are .*did you mean 'epsilon'"),
        ("dapo", {"overlong_bufer": 1}, "did you mean 'overlong_buffer'"),
        ("rft", {"epsilon": 1.0}, "known are none"),
        ("nft", {"omega": "sqrt_odd"}, "unknown omega 'sqrt_odd': known are .*did you mean 'sqrt_odds'"),
        ("contrast", {"omega": "two"}, "unknown omega 'two'"),
        ("nft", {"ratio": "tokens"}, "did you mean 'token'"),
        ("nft", {"epsilon": -0.1}, "epsilon must be 0 or more, not -0.1"),
        ("nft", {"epsilon": float("nan")}, "option 'epsilon' of loss 'nft' is nan: it must be a number from -3.4"),
        ("nft", {"negative_weight": -1.0}, "negative_weight must be 0 or more"),
        ("nft", {"clamp_rate": 1}, "'clamp_rate' of loss 'nft' is of type bool, not int"),
        ("nft", {"epsilon": "1"}, "is of type float, not str: '1'"),
        ("nft", {"epsilon": True}, "is of type float, not bool"),
        ("grpo", {"clip_low": 1.5}, r"clip_low must be in \(0, 1\]"),
        ("dr_grpo", {"clip_high": 0.0}, "clip_high above 0"),
        ("dapo", {"overlong_buffer": -1}, "overlong_buffer must be between 0"),
        ("dapo", {"overlong_buffer": 1.5}, "is of type int, not float"),
        ("grpo", {"delta": -1e-6}, "delta must be 0 or more"),
        ("dpo", {"beta": 0.0}, "beta must be above 0"),
        (":f", {}, "write 'module:function'"),
        ("a:b:c", {}, "write 'module:function'"),
        ("module:", {}, "write 'module:function'"),
        (".relative:f", {}, "write 'module:function'"),
        (
            "no_such_module_anywhere:f",
            {},
            "can't be imported: there is no module 'no_such_module_anywhere'.*PYTHONPATH",
        ),
        (
            "nft_jax.losses.nft:ntf",
            {},
            "unknown function 'ntf' of module 'nft_jax.losses.nft': known are .*did you mean 'nft'",
        ),
    ],
)
def test_resolve_names_each_fault(name, options, message):
    with pytest.raises(ValueError, match=message):
        resolve(name, options)


def test_resolve_accepts_whole_numbers_for_floats():
    assert resolve("nft", {"epsilon": 1}).function.keywords == {"epsilon": 1}


def test_resolve_gives_a_users_plain_function_the_default_traits(module):
    name = module(
        "plain_loss", "def push(logp_BT, batch, *, force=2.0):\n    return -force * batch.reward_BT * logp_BT\n"
    )
    loss = resolve(f"{name}:push", {"force": 3.0})
    assert (loss.name, loss.unit, loss.normalizer, loss.groups) == ("plain_loss:push", "answer", "constant", "mixed")
    assert loss.advantage.func is centered
    assert default_options(f"{name}:push") == {"force": 2.0}
    packed = pack([draw_answers(seed=12)[:3]], length=30)
    expected = -3 * np.asarray(packed.batch.reward_BT) * np.asarray(packed.logp_BT)
    np.testing.assert_allclose(loss.function(packed.logp_BT, packed.batch), expected, rtol=1e-6)


def test_resolve_keeps_the_declared_traits_of_a_users_function(module):
    source = """
        from nft_jax.losses import declare
        from nft_jax.losses.advantage import normalized

        @declare(unit="pair", normalizer="token_mean", groups="all", advantage=normalized)
        def mine(logp_BT, batch, *, strength: float):
            return strength * batch.advantage_BT * logp_BT

        def scalar(logp_BT, batch):
            return logp_BT.sum()

        @declare(advantage=normalized)
        def clash(logp_BT, batch, *, delta=1.0):
            return logp_BT
    """
    name = module("declared_loss", source)
    loss = resolve(f"{name}:mine", {"strength": 1.0, "sample_std": True})
    assert (loss.unit, loss.normalizer, loss.groups) == ("pair", "token_mean", "all")
    assert loss.advantage.keywords == {"sample_std": True}
    assert default_options(f"{name}:mine") == {"sample_std": False, "delta": 0.0}
    with pytest.raises(ValueError, match="needs a value for strength"):
        resolve(f"{name}:mine", {})
    with pytest.raises(ValueError, match=r"the loss gave .* want float32\[2,3\]"):
        resolve(f"{name}:scalar", {})
    with pytest.raises(ValueError, match=r"\['delta'\] are options of both"):
        resolve(f"{name}:clash", {})


def test_declare_refuses_unknown_traits():
    with pytest.raises(ValueError, match="unknown normalizer 'tokens'.*did you mean 'token_mean'"):
        declare(normalizer="tokens")
    with pytest.raises(ValueError, match="unknown unit 'row'"):
        declare(unit="row")
    with pytest.raises(ValueError, match="unknown groups 'mix'.*did you mean 'mixed'"):
        declare(groups="mix")


def test_resolve_needs_no_device():
    """Configs are checked before `jax.distributed.initialize`, and `--help` on machines without the accelerator."""
    code = "from nft_jax.losses import LOSSES, resolve; [resolve(name, {}) for name in LOSSES]"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"JAX_PLATFORMS": "no_such_platform"})
