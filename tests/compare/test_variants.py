"""What a config says that is to be compared."""

import pytest

from helpers.experiments import small
from nft_jax import config_files, losses
from nft_jax.compare.variants import Variant, read_loss, read_plan
from nft_jax.config import load


def plan(**changes):
    return read_plan(small(**{f"compare__{name}": value for name, value in changes.items()}))


def test_a_loss_has_its_defaults_but_for_what_is_written():
    found = read_loss("nft omega=one epsilon=0.1 clamp_rate=false normalizer=token_mean")
    assert (found.name, found.normalizer) == ("nft", "token_mean")
    changed = {"omega": "one", "epsilon": 0.1, "clamp_rate": False}
    assert found.options == losses.default_options("nft") | changed
    assert read_loss("nft epsilon=1").options["epsilon"] == 1.0
    assert read_loss("rft").options == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nfft", "unknown loss 'nfft'.*did you mean 'nft'"),
        ("nft omga=one", "unknown option 'omga' of loss 'nft'.*did you mean 'omega'"),
        ("nft one", "'one' in 'nft one' is no OPTION=VALUE"),
        ("nft epsilon=big", "'epsilon' of loss 'nft' is of type float, not str"),
        ("nft omega=two", "unknown omega 'two'"),
        ("nft normalizer=mean", "config.loss.normalizer='mean'"),
    ],
)
def test_a_loss_that_is_none_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        plan(losses=f"rft; {text}")


def test_arms_are_every_loss_in_every_regime():
    found = plan(
        losses="nft\n rft ;\n\ngrpo  clip_low=0.1",
        updates_per_rollout="1, 2",
        seeds="3,1",
        learning_rates="1e-3,2e-3",
        tuning_seeds="7",
    )
    names = ["nft", "rft", "grpo clip_low=0.1"]
    assert found.arms == [Variant(name, updates) for updates in (1, 2) for name in names]
    assert (found.seeds, found.tuning_seeds, found.rates) == ([3, 1], [7], [1e-3, 2e-3])
    assert found.runs == 6 * (2 + 2)
    assert plan(losses="nft", seeds="3,1", learning_rates="1e-3", tuning_seeds="7").runs == 2
    assert plan(losses="nft", seeds="3,1").rates == [small().optimizer.learning_rate]


def test_an_arm_keeps_the_prompts_of_an_update_and_the_candidates_for_it():
    config = small(prompts_per_step=8, updates_per_step=2, selection__candidates_per_round=6)
    for updates in (1, 2, 4):
        arm = Variant("rft", updates).config(config)
        assert arm.prompts_per_step == 4 * updates
        assert arm.candidates_per_round == 3 * updates
        assert arm.strict_on_policy == (updates == 1)
        assert arm.old_logp == ("current" if updates == 1 else "sampler")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "0, 1", "tuning_seeds": "1"}, r"\[1\] are reported too"),
        ({"learning_rates": "1e-3, 2e-3", "tuning_seeds": ""}, "give seeds that are not reported"),
        ({"learning_rates": "-1"}, "must be positive"),
        ({"updates_per_rollout": "0"}, "must be positive"),
        ({"seeds": "a"}, "config.compare.seeds='a'.*write values with ',' between"),
        ({"seeds": "1, 1"}, "each once"),
        ({"losses": " ; "}, "give at least one"),
        ({"seeds": "-1"}, "use seeds from 0 to 2047"),
        ({"seeds": "2048"}, "use seeds from 0 to 2047"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        plan(**changes)


def test_a_rate_that_decays_is_refused():
    with pytest.raises(ValueError, match="use constant"):
        read_plan(small(optimizer__schedule="linear"))


@pytest.mark.parametrize("name", [name for name in config_files.names() if name.startswith("compare_")])
def test_shipped_comparisons_can_be(name):
    found = read_plan(load(config_files.config(name)))
    assert len(found.seeds) >= 3
    assert len(found.tuning_seeds) >= 2
