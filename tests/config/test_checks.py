"""Checks of a configuration: every fault in one message, with what was given, what is allowed and what to type."""

import pytest

from helpers.configs import changed, faults
from nft_jax.config import Config, load, settings_of
from nft_jax.losses import LOSSES, NORMALIZERS, default_options

TYPOS = {
    "lora.base": ("int9", "int8"),
    "packing.share_prompts": ("yess", "yes"),
    "model.dtype": ("flot32", "float32"),
    "model.precision": ("heighest", "highest"),
    "model.remat": ("ful", "full"),
    "model.attention": ("splsh", "splash"),
    "model.rope_scaling.kind": ("llama", "llama3"),
    "model.qk_norm": ("heads", "head"),
    "model.norms": ("befor", "before"),
    "model.activation": ("gelu_tan", "gelu_tanh"),
    "data.long_prompts": ("refused", "refuse"),
    "rollout.lockstep": ("yess", "yes"),
    "rollout.weights": ("int9", "int8"),
    "verify.isolation": ("require", "required"),
    "loss.kl": ("k3_strait", "k3_straight"),
    "loss.correction": ("tsi", "tis"),
    "distillation.kl": ("k3_strait", "k3_straight"),
    "optimizer.name": ("adam", "adamw"),
    "optimizer.schedule": ("cosin", "cosine"),
    "warm_start.optimizer.name": ("moun", "muon"),
    "warm_start.optimizer.schedule": ("liner", "linear"),
    "old_logp": ("recomputed", "recompute"),
    "record.best_by": ("greddy", "greedy"),
}


SETTINGS = {setting.name: setting for setting in settings_of(Config)}
NUMBERS = {name: setting for name, setting in SETTINGS.items() if setting.type in (int, float)}


def test_every_setting_with_choices_has_a_typo_here():
    assert set(TYPOS) == {name for name, setting in SETTINGS.items() if setting.limits.choices}


@pytest.mark.parametrize("path", TYPOS)
def test_check_names_the_nearest_of_all_choices(path):
    given, near = TYPOS[path]
    message = faults(**{path.replace(".", "__"): given})
    allowed = ", ".join(SETTINGS[path].limits.choices)
    assert f"config.{path}={given!r}: use one of {allowed}; did you mean {near!r}?" in message


def test_every_number_has_a_lower_bound():
    assert [name for name, it in NUMBERS.items() if it.limits.at_least is None and it.limits.above is None] == []


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_check_refuses_numbers_outside_their_bounds(name):
    setting = NUMBERS[name]
    limits = setting.limits
    outside = [-2, limits.above, limits.below]
    outside += [] if limits.at_least is None else [limits.at_least - 1]
    outside += [] if limits.at_most is None else [limits.at_most + 1]
    outside += [float("nan")] if setting.type is float else []
    for value in outside:
        if value is not None:
            given = setting.type(value)
            assert f"config.{name}={given}: must be {limits}" in faults(**{name.replace(".", "__"): given})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation__top_p": 1.5}, ["config.evaluation.top_p=1.5: must be above 0 and 1 or less"]),
        ({"evaluation__pass_at": "1,5"}, ["pass_at='1,5': 4 sampled answers give pass@k for k from 1 to 4"]),
        ({"evaluation__pass_at": "0"}, ["pass_at='0': 4 sampled"]),
        ({"evaluation__pass_at": "2, two"}, ["pass_at='2, two': 4 sampled"]),
        ({"rollout__top_p": 0.9}, ["config.rollout.top_p=0.9, top_k=0", "use top_p=1.0, top_k=0"]),
        (
            {"model__rope_scaling__kind": "yarn", "model__rope_scaling__low_frequency": 5.0},
            ["kind='yarn' needs config.model.rope_scaling.original_tokens", "low_frequency=5 must be below high_fre"],
        ),
        ({"rollout__end_ids": "151643, end"}, ["config.rollout.end_ids='151643, end'", "such as 151643"]),
        ({"rollout__top_k": 40}, ["config.rollout.top_p=1.0, top_k=40", "biases the ratio"]),
        (
            {"selection__rate_above": 0.5, "selection__rate_below": 0.5},
            ["config.selection.rate_above=0.5 must be below rate_below=0.5", "rate_above=0 rate_below=1 keeps every"],
        ),
        ({"selection__rate_above": -0.1}, ["config.selection.rate_above=-0.1: must be 0 or more and 1 or less"]),
        ({"selection__rate_below": 1.1}, ["config.selection.rate_below=1.1: must be 0 or more and 1 or less"]),
        ({"selection__rate_above": float("nan")}, ["config.selection.rate_above=nan"]),
        ({"selection__candidates_per_round": -8}, ["config.selection.candidates_per_round=-8: must be 0 or more"]),
        (
            {"warm_start__incorrect_share": 1.5},
            ["config.warm_start.incorrect_share=1.5: must be 0 or more and 1 or less"],
        ),
        (
            {"selection__carry": True, "old_logp": "recompute"},
            ["carry=true with config.old_logp='recompute'", "use old_logp='sampler'"],
        ),
        (
            {"rollout__partial": True, "old_logp": "recompute"},
            ["partial=true with config.old_logp='recompute'", "use old_logp='sampler'"],
        ),
        (
            {"rollout__partial": True, "rollout__lockstep": "no"},
            ["partial=true with config.rollout.lockstep='no'", "use lockstep='auto'"],
        ),
        (
            {"rollout__partial": True, "distillation__teacher": "FOLDER"},
            ["partial=true with config.distillation.teacher", "use partial=false"],
        ),
        (
            {"rollout__partial": True, "strict_on_policy": True},
            ["strict_on_policy=true needs config.rollout.partial=False, got True"],
        ),
        (
            {"model__bitwise": True, "rollout__partial": True, "lora__rank": 2},
            ["bitwise=true needs config.rollout.partial=False, got True", "needs config.lora.rank=0, got 2"],
        ),
        (
            {"model__experts": 4, "model__experts_per_token": 5, "model__mlp_bias": True},
            ["experts_per_token=5: use a number from 1 to config.model.experts=4", "use mlp_bias=false"],
        ),
        ({"model__experts": 4}, ["config.model.experts_per_token=0: use a number from 1"]),
        ({"model__experts_per_token": 2}, ["experts_per_token and experts_normalized need config.model.experts"]),
        (
            {"prompts_per_step": 64, "updates_per_step": 3},
            ["updates_per_step=3 does not divide config.prompts_per_step=64", "[1, 2, 4, 8, 16, 32, 64]"],
        ),
        ({"model__heads": 6, "model__kv_heads": 4}, ["config.model.kv_heads=4 does not divide config.model.heads=6"]),
        ({"model__head_size": 7}, ["config.model.head_size=7", "even"]),
        ({"model__layer_kinds": "wx"}, ["layer_kinds='wx': use one letter", "f or w, such as 'wwwf'"]),
        ({"lora__base": "int8"}, ["config.lora.base='int8' freezes the layers' matrices", "such as lora.rank=16"]),
        (
            {"lora__base": "int8", "lora__rank": 2, "rollout__weights": "int8"},
            ["the sampler already reads the frozen int8 matrices; leave rollout.weights out"],
        ),
        ({"model__layer_kinds": "w"}, ["layers of kind w need config.model.window, such as 512, or"]),
        ({"model__window": 8}, ["config.model.window=8 needs layers of kind w", "'w' makes all layers so"]),
        ({"model__layer_kinds": ""}, ["layer_kinds='': use one letter"]),
        ({"loss__name": "ntf"}, ["config.loss: unknown loss 'ntf': known are", "did you mean 'nft'?"]),
        ({"loss__name": "no_such_module:f"}, ["config.loss:", "no_such_module", "can't be imported"]),
        ({"loss__nft__omega": "sqrt_od"}, ["config.loss:", "sqrt_odds"]),
        ({"loss__nft__epsilon": "large"}, ["config.loss:", "'epsilon' of loss 'nft' is of type float, not str"]),
        (
            {"loss__correction": "tis"},
            ["config.loss.correction='tis' with config.old_logp='sampler'", "use old_logp='recompute'"],
        ),
        ({"loss__correction": "mis", "loss__correction_low": 3.0}, ["correction_low=3.0", "below correction_high=2.0"]),
        ({"loss__name": "dpo", "loss__mask_truncated": True}, ["'dpo' learns from pairs", "mask_truncated=false"]),
        ({"loss__nft__epsilom": 1.0}, ["unknown option 'epsilom' of loss 'nft'", "did you mean 'epsilon'?"]),
        (
            {"loss__normalizer": "tokenmean"},
            ["config.loss.normalizer='tokenmean': use one of", *NORMALIZERS, "did you mean 'token_mean'?"],
        ),
        ({"loss__normalizer": "pair_mean"}, ["'pair_mean' does not fit loss 'nft', whose unit is the answer"]),
        (
            {"loss__name": "dpo", "loss__normalizer": "token_mean"},
            ["'token_mean' does not fit loss 'dpo', whose unit is the pair"],
        ),
        ({"loss__kl_weight": -0.1}, ["config.loss.kl_weight=-0.1: must be 0 or more"]),
        ({"loss__name": "dapo", "loss__dapo__overlong_buffer": 65}, ["config.loss.dapo:", "65", "64"]),
        ({"packing__row_tokens": 63}, ["config.packing.row_tokens=63: one answer of loss 'nft'", "at least 64, or 0"]),
        (
            {"packing__row_tokens": 126, "packing__share_prompts": "no"},
            [
                "row_tokens=126: one answer",
                "127 = (max_prompt_tokens + max_answer_tokens − 1) tokens",
                "at least 127, or 0",
            ],
        ),
        (
            {"loss__name": "dpo", "packing__row_tokens": 127},
            [
                "config.packing.row_tokens=127: one pair of loss 'dpo'",
                "128 = 2 × max_answer_tokens tokens",
                "at least 128, or 0",
            ],
        ),
        (
            {"strict_on_policy": True, "updates_per_step": 2},
            ["config.strict_on_policy=true needs config.updates_per_step=1, got 2"],
        ),
        (
            {"strict_on_policy": True, "rollout__temperature": 0.7},
            ["config.strict_on_policy=true needs config.rollout.temperature=1.0, got 0.7"],
        ),
        (
            {"strict_on_policy": True, "rollout__weights": "int8"},
            ["config.strict_on_policy=true needs config.rollout.weights=model, got int8"],
        ),
        (
            {"strict_on_policy": True, "selection__carry": True},
            ["config.strict_on_policy=true needs config.selection.carry=False, got True"],
        ),
        (
            {"strict_on_policy": True, "old_logp": "sampler"},
            ["config.strict_on_policy=true needs config.old_logp=current, got sampler"],
        ),
    ],
)
def test_check_refuses_settings_that_do_not_fit_together(changes, words):
    message = faults(**changes)
    assert message.startswith("the configuration can't run:\n  config.")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "changes",
    [
        {"packing__row_tokens": 64},
        {"packing__row_tokens": 127, "packing__share_prompts": "no"},
        {"loss__name": "dpo", "packing__row_tokens": 128},
        {"loss__name": "dpo", "packing__row_tokens": 254, "packing__share_prompts": "no"},
        {"loss__name": "dapo", "loss__dapo__overlong_buffer": 64},
        {"selection__rate_above": 0.0, "selection__rate_below": 0.01},
        {"selection__carry": True, "selection__candidates_per_round": 128},
        {"warm_start__incorrect_share": 1.0},
        {"strict_on_policy": True, "loss__kl_weight": 0.1},
    ],
)
def test_check_accepts_settings_just_inside_the_limits(changes):
    load(changed(**changes))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("warm_start__optimizer__learning_rate", 0.0),
        ("warm_start__optimizer__epsilon", 0.0),
        ("warm_start__steps", -1),
        ("optimizer__clip_norm", 0.0),
        ("optimizer__clip_norm", -1.0),
        ("optimizer__warmup_updates", -1),
        ("optimizer__beta2", 1.0),
        ("loss__constant_tokens", -1),
        ("loss__kl_weight", float("nan")),
    ],
)
def test_check_refuses_training_on_nothing_or_backwards(path, value):
    assert f"config.{path.replace('__', '.')}" in faults(**{path: value})


@pytest.mark.parametrize("loss", ["nft", "rft", "dapo", "dpo", "contrast"])
def test_check_refuses_one_answer_where_groups_must_be_mixed(loss):
    message = faults(answers_per_prompt=1, loss__name=loss)
    assert f"config.answers_per_prompt=1: loss {loss!r} trains on prompts with both" in message
    assert "use 2 or more" in message


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo"])
def test_check_accepts_one_answer_where_all_groups_train(loss):
    load(changed(answers_per_prompt=1, loss__name=loss))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39, 10**400])
def test_check_refuses_options_of_losses_that_are_no_numbers(value):
    for loss in LOSSES:
        for option, default in default_options(loss).items():
            if isinstance(default, float):
                message = faults(loss__name=loss, **{f"loss__{loss}__{option}": value})
                assert f"option {option!r} of loss {loss!r} is " in message
                assert "it must be a number from -3.4" in message


def test_check_refuses_rewards_that_have_no_meaning():
    message = faults(verify__correct_from=0.5)
    assert "config.verify.correct_from=0.5: grader 'boxed_exact' gives verdicts alone" in message
    name = "helpers.step_programs:cost_of_boxes"
    message = faults(loss__token_reward=name)
    assert "loss 'nft' learns from verdicts, not from advantages" in message
    load(changed(loss__token_reward=name, loss__name="dr_grpo"))
    teacher = {"distillation__teacher": "folder", "distillation__alone": True}
    assert "distillation alone learns from a teacher" in faults(
        loss__token_reward=name, loss__name="dr_grpo", **teacher
    )
    message = faults(loss__token_reward="helpers.step_programs:cost_of_boxen", loss__name="dr_grpo")
    assert "did you mean 'cost_of_boxes'?" in message


def test_check_needs_a_teacher_for_distillation():
    assert "config.distillation.alone=true: there is no teacher" in faults(distillation__alone=True)
    load(changed(distillation__alone=True, distillation__teacher="folder"))


def test_check_names_all_faults_at_once():
    message = faults(
        steps=0, model__dtype="float31", rollout__top_k=5, updates_per_step=3, loss__normalizer="sum", verify__workers=0
    )
    named = [line.strip().split("=")[0] for line in message.splitlines()[1:]]
    assert sorted(named) == [
        "config.loss.normalizer",
        "config.model.dtype",
        "config.rollout.top_p",
        "config.steps",
        "config.updates_per_step",
        "config.verify.workers",
    ]


@pytest.mark.parametrize(
    ("stop", "texts"),
    [("", ()), ("\\nQ:", ("\nQ:",)), ("\nQ:", ("\nQ:",)), ('["\\nQ:", "###"]', ("\nQ:", "###")), ("[]", ())],
)
def test_stop_texts_are_one_text_or_a_json_list(stop, texts):
    assert load(changed(rollout__stop=stop)).rollout.stop_texts == texts


@pytest.mark.parametrize("stop", ["[Q:", '["a", ""]', "[1]"])
def test_check_refuses_stop_texts_that_are_no_list_of_texts(stop):
    assert f"config.rollout.stop={stop!r}: " in faults(rollout__stop=stop)
