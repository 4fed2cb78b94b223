"""The teacher's structure from a folder, and folders that can't teach this policy."""

import dataclasses
import shutil

import jax
import pytest

from helpers.model_folders import random_tensors, write_model, write_tokenizer
from helpers.small_parts import MODEL, one_device
from nft_jax.config import Config, DataConfig, DistillationConfig, RolloutConfig
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.teacher import build_teacher, load_teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model"
    return write_tokenizer(write_model(path, random_tensors(), max_position_embeddings=64))


def config_with(folder, **limits):
    return Config(
        old_logp="sampler",
        model=dataclasses.replace(MODEL, dtype="bfloat16"),
        data=DataConfig(max_prompt_tokens=limits.get("prompt", 8)),
        rollout=RolloutConfig(max_answer_tokens=limits.get("answer", 8)),
        distillation=DistillationConfig(teacher=str(folder)),
    )


def test_teacher_has_its_own_sizes_and_the_policys_number_format(folder):
    teacher = build_teacher(config_with(folder), load_tokenizer(folder), "xla", one_device())
    weights = load_teacher(teacher)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(weights)} == {"bfloat16"}
    assert jax.tree.map(lambda leaf: leaf.shape, weights) == jax.tree.map(lambda leaf: leaf.shape, teacher.shapes)
    assert build_teacher(config_with(""), load_tokenizer(folder), "xla", one_device()) is None


def test_teacher_of_another_vocabulary_is_refused_by_name(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"7"', '"x7"'))
    with pytest.raises(ValueError, match=r"config.distillation.teacher=.*other: .* id \d+ is 'x7' in one and '7' in"):
        build_teacher(config_with(other), load_tokenizer(folder), "xla", one_device())


def test_teacher_that_is_too_short_or_not_there_is_refused_by_name(folder, tmp_path):
    with pytest.raises(
        ValueError, match="config.distillation.teacher=.*: a prompt and its answer take up to 99998 tok"
    ):
        build_teacher(config_with(folder, prompt=49999, answer=49999), load_tokenizer(folder), "xla", one_device())
    with pytest.raises(FileNotFoundError, match="config.distillation.teacher=.*nowhere"):
        build_teacher(config_with(tmp_path / "nowhere"), load_tokenizer(folder), "xla", one_device())
