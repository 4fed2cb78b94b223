"""What makes two runs the same: every setting, by its name on the command line, and the problems."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from helpers.configs import flat
from helpers.experiments import settings, small
from helpers.model_folders import random_tensors, write_model
from nft_jax.compare.study import VARIED
from nft_jax.config import Config, Phase, default, to_dict
from nft_jax.data.dataset import Dataset
from nft_jax.data.prompts import PromptTable
from nft_jax.data.random_prompts import NumberTokenizer
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.losses import LOSSES
from nft_jax.models.int8 import quantize_stack
from nft_jax.parallel.mesh import make_mesh
from nft_jax.run.fingerprint import (
    FINGERPRINT_FILE,
    check_origin,
    check_same,
    make_fingerprint,
    stored_weights_digest,
    texts_digest,
    weights_digest,
)

OTHER_LOSSES = tuple(f"loss.{name}." for name in LOSSES if name != "nft")


# What may change when a run resumes: where problems come from and which are left out, for problems are compared
# themselves;
MAY_CHANGE = (
    *("base", "model.path", "data.train", "data.validation", "data.test", "data.tokenizer", "data.folder"),
    *("data.hygiene", "data.exclude", "data.shots", "data.validation_size"),
    *("data.train_fields", "data.validation_fields", "data.test_fields"),
    # how fast the run is;
    *(
        "model.remat",
        "model.unrolled_layers",
        "model.attention",
        "optimizer.offload",
        "rollout.lockstep",
        "rollout.slots",
        "rollout.max_halvings",
        "rollout.halving_steps",
        "selection.begin_next_round",
        "verify.answers_per_submission",
        "packing",
        "mesh",
    ),
    *("verify.workers", "verify.seconds_per_answer", "verify.seconds_per_round", "verify.worker_memory_mib"),
    *("verify.second_grader", "verify.isolation", "evaluation.problems_per_batch"),
    # what is written and evaluated how often, the warm start, which is over, and what only comparisons read.
    *("record", "evaluation.every_steps", "warm_start", "compare"),
)
# The settings of an NFT run, by the names that they have on the command line.
NAMES = [name for name in flat(default().to_dict()) if not name.startswith(OTHER_LOSSES)]


def tables(**changes) -> dict[str, PromptTable]:
    token_QP = np.arange(12, dtype=np.int32).reshape(3, 4)
    table = PromptTable(token_QP, np.full(3, 4, np.int32), ["4", "5", "6"], ["a", "b", "c"], [], 0)
    return {"train": table._replace(**changes), "test": table}


def fingerprint(config: Config, tables_: dict[str, PromptTable], tokenizer: Tokenizer | None = None) -> dict:
    return make_fingerprint(config, Dataset(tokenizer or NumberTokenizer(9, (8,)), tables_, None), Path("no workdir"))


# Settings of the warm start that decide when it saves and what it measures.
OBSERVES = {f"warm_start.{name}" for name in ("checkpoint_every_steps", "validate_every_steps", "validation_examples")}


def run(**changes) -> dict:
    return fingerprint(small(**changes), tables())


def within(name: str, sections: tuple[str, ...]) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in sections)


def changed(run: dict, name: str) -> tuple[dict, Any, Any]:
    """The run with another value of a setting, whether or not that one can be run; both values."""
    other = copy.deepcopy(run)
    *path, last = name.split(".")
    section = other["config"]
    for part in path:
        section = section["options" if section is other["config"]["loss"] else part]
    old = section[last]
    section[last] = not old if isinstance(old, bool) else old + {int: 1, float: 0.125, str: "x"}[type(old)]
    return other, old, section[last]


def test_the_names_are_those_of_all_settings():
    assert len(NAMES) == len(flat(to_dict(small())))
    assert "loss.nft.omega" in NAMES
    for section in MAY_CHANGE:
        assert any(within(name, (section,)) for name in NAMES), section


@pytest.mark.parametrize("name", NAMES)
def test_check_same_refuses_another_value_of_what_decides_numbers(name):
    run_ = run(optimizer__schedule="linear")
    other, old, new = changed(run_, name)
    if within(name, MAY_CHANGE):
        check_same(run_, other, "runs/here")
        return
    for saved, given, values in ((run_, other, (old, new)), (other, run_, (new, old))):
        with pytest.raises(ValueError) as caught:
            check_same(saved, given, "runs/here")
        head, fault, *rest = str(caught.value).split("\n")
        assert head == "runs/here holds another run:"
        assert fault == "  config.{}: the run has {!r}, given {!r}".format(name, *values)
        assert len(rest) == 1
        assert "--workdir" in rest[0]
        assert "--config.base=runs/here" in rest[0]


@pytest.mark.parametrize("name", ["rollout.slots", "mesh.data", "mesh.replica"])
def test_check_same_refuses_other_slots_or_shards_only_with_partial(name):
    check_same(run(), changed(run(), name)[0], "runs/here")
    run_ = run(rollout__partial=True)
    other, old, new = changed(run_, name)
    with pytest.raises(ValueError, match=rf"config.{name}: the run has {old}, given {new}"):
        check_same(run_, other, "runs/here")
    check_same(run_, changed(run_, "mesh.tensor")[0], "runs/here")


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_check_same_lets_a_run_be_longer_where_no_schedule_depends_on_its_end(schedule):
    short, long = (run(steps=steps, optimizer__schedule=schedule) for steps in (4, 8))
    if schedule == "constant":
        check_same(short, long, "runs/here")
        check_same(long, short, "runs/here")
    else:
        with pytest.raises(ValueError, match="config.steps: the run has 4, given 8"):
            check_same(short, long, "runs/here")


def test_check_same_names_everything_that_differs():
    with pytest.raises(ValueError) as caught:
        check_same(run(), run(seed=3, loss__name="dapo", loss__dapo__clip_high=0.5, mesh__data=8), "runs/here")
    assert "config.seed: the run has 0, given 3" in str(caught.value)
    assert "config.loss.name: the run has 'nft', given 'dapo'" in str(caught.value)
    # The options of another loss are not compared, and the mesh may change.
    assert str(caught.value).count("config.") == 2 + 1


def own(**options) -> dict:
    """A run with a loss from outside the package; it is only named here, not called."""
    values = run()
    values["config"]["loss"] |= {"name": "my_losses:mine", "options": options}
    return values


@pytest.mark.parametrize(
    ("saved", "given", "words"),
    [
        ({"alpha": 1}, {"alpha": 2}, "the run has 1, given 2"),
        ({}, {"alpha": 2}, "the run has None, given 2"),
        ({"alpha": 1}, {}, "the run has 1, given None"),
    ],
)
def test_check_same_compares_the_options_of_an_external_loss(saved, given, words):
    check_same(own(**saved), own(**saved), "runs/here")
    with pytest.raises(ValueError, match=f"config.loss.own.alpha: {words}"):
        check_same(own(**saved), own(**given), "runs/here")


def test_check_same_ignores_a_setting_that_another_version_did_not_have():
    older = run()
    del older["config"]["rollout"]["lockstep"], older["config"]["selection"]["carry"]
    check_same(older, run(), "runs/here")
    check_same(run(), older, "runs/here")


OTHER_PROBLEMS = {
    "a token": {"token_QP": tables()["train"].token_QP + np.eye(3, 4, dtype=np.int32)},
    "an answer": {"answers": ["4", "5", "7"]},
    "their order": {"answers": ["5", "4", "6"]},
    "one less": {"token_QP": tables()["train"].token_QP[:2], "answers": ["4", "5"]},
}


@pytest.mark.parametrize("phase", [Phase.RUN, Phase.WARM_START])
@pytest.mark.parametrize("what", OTHER_PROBLEMS)
def test_check_same_refuses_other_problems(what, phase):
    saved, given = run(), fingerprint(small(), tables(**OTHER_PROBLEMS[what]))
    with pytest.raises(ValueError) as caught:
        check_same(saved, given, "runs/here", phase)
    (fault,) = str(caught.value).split("\n")[1:-1]
    both = saved["problems"]["train"], given["problems"]["train"]
    assert fault == "  the train problems: the run has those of digest {}, given {}".format(*both)


def test_check_same_accepts_the_same_problems_from_another_place():
    check_same(run(), fingerprint(small(), tables(problems=None, dropped=3)), "runs/here")
    with pytest.raises(ValueError, match="the validation problems: the run has those of digest None, given "):
        check_same(run(), fingerprint(small(), tables() | {"validation": tables()["train"]}), "runs/here")


@pytest.mark.parametrize("name", NAMES)
def test_check_same_of_a_warm_start_compares_its_own_settings_alone(name):
    section = name.partition(".")[0]
    decides = name in ("seed", "rollout.max_answer_tokens") or section == "lora"
    decides |= section == "warm_start" and name not in OBSERVES
    decides |= section in ("model", "data") and not within(name, MAY_CHANGE)
    run_ = run()
    other, old, new = changed(run_, name)
    if not decides:
        check_same(run_, other, "runs/here", Phase.WARM_START)
        return
    with pytest.raises(ValueError) as caught:
        check_same(run_, other, "runs/here", Phase.WARM_START)
    assert f"config.{name}: the run has {old!r}, given {new!r}\n" in str(caught.value)


def test_check_same_lets_what_a_comparison_varies_differ():
    other = run(loss__name="grpo", seed=0, strict_on_policy=True, updates_per_step=1)
    strict = run(updates_per_step=1)
    check_same(strict, other, "runs/here", Phase.ALL, VARIED)
    for change in ({"warm_start__steps": 3}, {"rollout__max_answer_tokens": 3}, {"loss__kl_weight": 0.5}):
        with pytest.raises(ValueError, match=f"config.{next(iter(change)).replace('__', '.')}: the run has"):
            check_same(strict, run(updates_per_step=1, **change), "runs/here", Phase.ALL, VARIED)


@pytest.mark.parametrize("loss", LOSSES)
def test_make_fingerprint_is_the_same_after_json(loss):
    normalizer = {"loss__normalizer": "pair_mean"} if loss == "dpo" else {}
    before = run(loss__name=loss, **normalizer)
    stored = json.loads(json.dumps(before, allow_nan=False))
    assert stored == before
    check_same(stored, before, "runs/here")
    check_same(stored, before, "runs/here", Phase.WARM_START)


def test_make_fingerprint_has_the_settings_with_old_logp_filled_in():
    config = small()
    assert run()["config"] == to_dict(config)
    assert run()["config"]["old_logp"] == "sampler"
    assert settings().old_logp == "auto"


# The tokenizer, the ids that end an answer, and the weights of the model folder.


class Shouting(NumberTokenizer):
    """Has other texts for the same ids."""

    def _decode(self, ids):
        return [f"{text}!" for text in super()._decode(ids)]


def of_folder(folder: Path, tokenizer: Tokenizer | None = None) -> dict:
    return fingerprint(small(model__path=str(folder)), tables(), tokenizer)


@pytest.mark.parametrize("phase", [Phase.RUN, Phase.WARM_START])
def test_check_same_refuses_another_origin(tmp_path, phase):
    one, other = (write_model(tmp_path / name, random_tensors(seed=seed)) for seed, name in enumerate(["a", "b"]))
    saved = of_folder(one)
    check_same(saved, of_folder(write_model(tmp_path / "moved", random_tensors(seed=0))), "runs/here", phase)
    changed_, digests = of_folder(other, Shouting(9, (7, 8))), [saved["origin"], of_folder(other)["origin"]]
    with pytest.raises(ValueError) as caught:
        check_same(saved, changed_, "runs/here", phase)
    assert str(caught.value).split("\n")[1:-1] == [
        "  the ids that end an answer: the run has [8], given [7, 8]",
        f"  the digest of the tokenizer's texts: the run has {digests[0]['tokenizer']}, given "
        f"{changed_['origin']['tokenizer']}",
        f"  the digest of the weights in config.model.path: the run has {digests[0]['weights']}, given "
        f"{digests[1]['weights']}",
    ]
    assert len({digests[0]["tokenizer"], changed_["origin"]["tokenizer"]}) == 2


def test_make_fingerprint_knows_the_origin_of_a_run_whose_model_folder_is_gone(tmp_path):
    source = write_model(tmp_path / "source", random_tensors())
    before = of_folder(source)
    (tmp_path / FINGERPRINT_FILE).write_text(json.dumps(before))
    dataset = Dataset(NumberTokenizer(9, (8,)), tables(), None)
    gone = small(model__path=str(tmp_path / "gone"))
    assert make_fingerprint(gone, dataset, tmp_path)["origin"] == before["origin"]
    assert make_fingerprint(gone, dataset, tmp_path / "elsewhere")["origin"]["weights"] is None
    # A version that kept no origin, and a folder that is gone, can't be compared.
    check_same({name: before[name] for name in ("config", "problems")}, before, "runs/here")
    check_same(before, make_fingerprint(gone, dataset, tmp_path / "elsewhere"), "runs/here")


def test_check_origin_compares_with_the_run_in_a_folder(tmp_path):
    saved = run()
    check_origin(tmp_path, saved["origin"])
    (tmp_path / FINGERPRINT_FILE).write_text(json.dumps(saved))
    check_origin(tmp_path, saved["origin"])
    with pytest.raises(
        ValueError, match=r"of another model:\n  the ids that end an answer: the run has \[8\], given \[5"
    ):
        check_origin(tmp_path, saved["origin"] | {"eos_ids": [5]})


def test_texts_digest_depends_on_every_text():
    digests = {texts_digest(one) for one in (NumberTokenizer(9, (8,)), NumberTokenizer(10, (8,)), Shouting(9, (8,)))}
    assert len(digests) == 3


def test_stored_weights_digest_depends_on_the_bytes_alone(tmp_path):
    tensors = random_tensors()
    first = stored_weights_digest(write_model(tmp_path / "a", tensors))
    assert first == stored_weights_digest(write_model(tmp_path / "b", tensors, rope_theta=5.0))
    assert first == stored_weights_digest(tmp_path / "a" / "model.safetensors")
    assert stored_weights_digest(tmp_path) is stored_weights_digest(tmp_path / "gone") is None
    random, path = np.random.default_rng(0), tmp_path / "b" / "model.safetensors"
    whole = path.read_bytes()
    for place in random.integers(0, len(whole), 8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert stored_weights_digest(tmp_path / "b") != first, place


def test_stored_weights_digest_tells_large_files_of_one_shape_apart(tmp_path):
    random = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / f"{name}.gguf").write_bytes(random.bytes(3 * 2**20))
    assert len({stored_weights_digest(tmp_path / f"{name}.gguf") for name in "ab"}) == 2


# The weights.


def some_weights() -> dict:
    random = np.random.default_rng(0)
    return {"a": {"b": random.normal(size=(4, 6, 8)).astype(np.float32)}, "c": random.normal(size=8).astype(np.float32)}


def test_weights_digest_leaves_out_integers_that_devices_may_round_differently():
    def quantize(weights):
        return {"a": quantize_stack(weights["a"]["b"]), "c": weights["c"]}

    found, other = quantize(some_weights()), some_weights()
    shifted = dataclasses.replace(found["a"], values=found["a"].values ^ 1)
    assert weights_digest(found | {"a": shifted}) == weights_digest(found)
    other["a"]["b"] *= np.float32(1 + 1e-6)
    assert weights_digest(quantize(other)) != weights_digest(found)


def test_weights_digest_is_the_same_on_every_layout():
    weights = some_weights()
    mesh = make_mesh(4, 2, jax.devices()[:8])
    split = jax.device_put(
        weights,
        {
            "a": {"b": NamedSharding(mesh, PartitionSpec(None, "tensor", "data"))},
            "c": NamedSharding(mesh, PartitionSpec("data")),
        },
    )
    assert weights_digest(weights) == weights_digest(split) == weights_digest(weights)


def test_weights_digest_depends_on_every_bit_and_place():
    def digest(change):
        weights = some_weights()
        change(weights)
        return weights_digest(weights)

    def lowest_bit(weights):
        weights["a"]["b"].view(np.uint32)[3, 5, 7] ^= 1

    def sign(weights):
        weights["c"][0] *= -1

    def swap(weights):
        weights["a"]["b"][0, [0, 1]] = weights["a"]["b"][0, [1, 0]]

    def rename(weights):
        weights["d"] = weights.pop("c")

    digests = [digest(change) for change in (lambda _: None, lowest_bit, sign, swap, rename)]
    assert len(set(digests)) == 5
