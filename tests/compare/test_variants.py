"""The plan of a comparison, read from a config."""

import pytest

from helpers.experiments import small
from nft_jax import config_files, losses
from nft_jax.compare.variants import Variant, read_loss, read_plan
from nft_jax.config import load


def plan(**changes):
    return read_plan(small(**{f"compare__{name}": value for name, value in changes.items()}))


def test_read_loss_fills_in_defaults():
    found = read_loss("nft omega=one epsilon=0.1 clamp_rate=false normalizer=token_mean")
    assert (found.name, found.normalizer) == ("nft", "token_mean")
    changed = {"omega": "one", "epsilon": 0.1, "clamp_rate": False}
    assert found.options == losses.default_options("nft") | changed
    assert read_loss("nft epsilon=1").options["epsilon"] == 1.0
    assert read_loss("rft").options == {}
    with_bonus = read_loss("grpo entropy_weight=0.01 mask_truncated=true dual_clip=3")
    assert with_bonus.additions == losses.Additions(entropy_weight=0.01, mask_truncated=True)
    assert with_bonus.options == losses.default_options("grpo") | {"dual_clip": 3.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nfft", "unknown loss 'nfft'.*did you mean 'nft'"),
        ("nft omga=one", "unknown option 'omga' of loss 'nft'.*did you mean 'omega'"),
        ("nft one", "'one' in 'nft one' is not of the form OPTION=VALUE"),
        ("nft epsilon=big", "'epsilon' of loss 'nft' is of type float, not str"),
        ("nft omega=two", "unknown omega 'two'"),
        ("nft normalizer=mean", "config.loss.normalizer='mean'"),
    ],
)
def test_read_plan_refuses_an_unknown_loss(text, words):
    with pytest.raises(ValueError, match=words):
        plan(losses=f"rft; {text}")


def test_read_plan_makes_a_variant_of_every_loss_in_every_regime():
    found = plan(
        losses="nft\n rft ;\n\ngrpo  clip_low=0.1",
        updates_per_rollout="1, 2",
        seeds="3,1",
        learning_rates="1e-3,2e-3",
        tuning_seeds="7",
    )
    names = ["nft", "rft", "grpo clip_low=0.1"]
    assert found.variants == [Variant(name, updates) for updates in (1, 2) for name in names]
    assert (found.seeds, found.tuning_seeds, found.rates) == ([3, 1], [7], [1e-3, 2e-3])
    assert found.runs == 6 * (2 + 2)
    assert plan(losses="nft", seeds="3,1", learning_rates="1e-3", tuning_seeds="7").runs == 2
    assert plan(losses="nft", seeds="3,1").rates == [small().optimizer.learning_rate]


def test_variant_config_keeps_the_prompts_and_candidates_of_an_update():
    config = small(prompts_per_step=8, updates_per_step=2, selection__candidates_per_round=6)
    for updates in (1, 2, 4):
        variant = Variant("rft", updates).config(config)
        assert variant.prompts_per_step == 4 * updates
        assert variant.candidates_per_round == 3 * updates
        assert variant.strict_on_policy == (updates == 1)
        assert variant.old_logp == ("current" if updates == 1 else "sampler")


def test_variant_config_keeps_the_settings_that_hold_for_any_loss():
    """Its own are its name, options and normalizer; what it adds itself comes before what is added to all."""
    given = {"constant_tokens": 250.0, "kl_weight": 0.1, "kl": "k2", "entropy_weight": 0.01, "mask_truncated": True}
    config = small(loss__normalizer="constant", **{f"loss__{name}": value for name, value in given.items()})
    for text, own in (("grpo", {}), ("rft entropy_weight=0.5", {"entropy_weight": 0.5})):
        loss = Variant(text, 1).config(config).loss
        assert {name: getattr(loss, name) for name in given} == given | own
        assert (loss.name, loss.normalizer) == (text.split()[0], "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "0, 1", "tuning_seeds": "1"}, r"\[1\] are reported too"),
        ({"learning_rates": "1e-3, 2e-3", "tuning_seeds": ""}, "give seeds that are not reported"),
        ({"learning_rates": "-1"}, "learning_rates='-1': each must be a number, above 0 and 10 or less"),
        ({"learning_rates": "inf"}, "learning_rates='inf': each must be a number, above 0 and 10 or less"),
        ({"learning_rates": "nan"}, "learning_rates='nan': each must be a number"),
        ({"updates_per_rollout": "0"}, "updates_per_rollout='0': each must be a whole number, 1 or more"),
        ({"updates_per_rollout": str(2**64)}, "each must be a whole number, 1 or more and 2147483647 or less"),
        ({"seeds": str(10**30)}, "use seeds from 0 to 2047"),
        ({"seeds": "a"}, "config.compare.seeds='a'.*separate values by ','"),
        ({"seeds": "1, 1"}, "each once"),
        ({"losses": " ; "}, "give at least one value"),
        ({"seeds": "-1"}, "use seeds from 0 to 2047"),
        ({"seeds": "2048"}, "use seeds from 0 to 2047"),
    ],
)
def test_read_plan_refuses(changes, words):
    with pytest.raises(ValueError, match=words):
        plan(**changes)


def test_read_plan_refuses_a_rate_that_decays():
    with pytest.raises(ValueError, match="use constant"):
        read_plan(small(optimizer__schedule="linear"))


@pytest.mark.parametrize("name", [name for name in config_files.names() if name.startswith("compare_")])
def test_read_plan_accepts_the_comparisons_in_configs(name):
    found = read_plan(load(config_files.config(name)))
    assert len(found.seeds) >= 3
    assert found.tuning_seeds
