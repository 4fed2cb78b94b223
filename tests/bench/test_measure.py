"""A step's times, turns with peers, and shares of a chip."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.bench import PRINT_TIMES, SIZES, fake_python
from helpers.experiments import small
from nft_jax.bench.measure import _chip_shares, open_bench, summarize, take_turns
from nft_jax.bench.peers.process import Peer, peer_workload
from nft_jax.bench.tables import _chip_lines, step_table
from nft_jax.bench.workload import Lengths, read_lengths
from nft_jax.machine.chips import Chip


def test_bench_step_and_summarize(tmp_path):
    config = small(**SIZES)
    lengths = read_lengths("lognormal:5:0.5", config)
    with open_bench(config, tmp_path, lengths) as made:
        steps = [made.step() for _ in range(2)]
        found = summarize(made, steps)
        # With partial rollouts a step may find all its answers drawn.
        idle = summarize(made, [steps[0], steps[1]._replace(slots=math.nan)])
    assert idle["median"]["slots"] == steps[0].slots
    for step in steps:
        assert step.rollout > 0
        assert step.update > 0
        assert step.rollout + step.grading + step.update == pytest.approx(step.step)
        assert 0 < step.slots <= 1
        assert step.trained == step.tokens
    # Requests are numbered on: the lengths are those of the first 32 answers, then of the next.
    assert [step.tokens for step in steps] == [lengths.forced_B[:32].sum(), lengths.forced_B[32:64].sum()]
    assert found["tokens_per_second"] == pytest.approx(np.median([s.tokens for s in steps]) / found["median"]["step"])
    assert found["share"]["rollout"] == pytest.approx(sum(s.rollout for s in steps) / sum(s.step for s in steps))
    assert found["share"]["other"] == pytest.approx(0, abs=1e-6)
    text = step_table(found)
    for part in ("step ", "rollout ", "update ", "slots useful", "GB/s", "compiled in", "MiB"):
        assert part in text
    assert "other" not in text
    assert re.search("other +12% of the step", step_table(found | {"share": found["share"] | {"other": 0.12}}))


def test_chip_shares_of_a_known_chip(monkeypatch):
    chip = Chip("x1", "Some chip", flops=1e12, memory=1e9, bandwidth=1e9, links=1.0, network=0.0, source="")
    monkeypatch.setattr("nft_jax.bench.measure.chip_of", lambda kind: chip)
    found = _chip_shares(read=0.25e9, update=0.5e12)
    assert found == {"chip": "Some chip", "rollout_share_of_bandwidth": 0.25, "update_mfu": 0.5}
    assert "Some chip: rollout 25% of its bandwidth" in _chip_lines(found)[0]
    monkeypatch.setattr("nft_jax.bench.measure.chip_of", lambda kind: None)
    assert _chip_lines(_chip_shares(1.0, 1.0)) == []


def test_bench_refuses_a_config_without_a_vocabulary(tmp_path):
    with pytest.raises(ValueError, match=r"config\.model\.vocab=0.*give the vocabulary's size"):
        open_bench(small(), tmp_path, Lengths("full")).__enter__()


class OurTurns:
    """Stands in for a `Bench`: writes down its turns where the stubs do."""

    def __init__(self, folder: Path):
        self.turns = folder / "turns"

    def step(self) -> str:
        with open(self.turns, "a") as turns:
            print("ours", file=turns)
        return "a step of ours"


def test_take_turns_with_peers(tmp_path):
    python = fake_python(tmp_path, PRINT_TIMES)
    workload = peer_workload(small(**SIZES), Lengths("ends:3", ends=3), ["trl"])
    with Peer("trl", python, workload, tmp_path) as one, Peer("tunix", python, workload, tmp_path) as other:
        ours, theirs = take_turns(OurTurns(tmp_path), [one, other], warmup=1, repeats=2)
    assert (tmp_path / "turns").read_text().split() == ["ours", "grpo_trl", "grpo_tunix"] * 3
    assert ours == ["a step of ours"] * 2
    assert theirs == [[{"step": 1.5, "rollout": 0.5, "tokens": 7}] * 2] * 2
    expected = {
        **{"vocab": 24, "layers": 2, "width": 32, "mlp_width": 48, "heads": 4, "kv_heads": 2, "head_size": 8},
        **{"tied_embedding": False, "prompts_per_step": 8, "answers_per_prompt": 4},
        **{"max_prompt_tokens": 8, "max_answer_tokens": 12, "ends": 3, "dtype": "float32"},
        "qwen2": {
            **{"vocab_size": 24, "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 20},
            **{"tie_word_embeddings": False, "use_sliding_window": False},
        },
    }
    for name in ("grpo_trl", "grpo_tunix"):
        assert json.loads((tmp_path / f"{name}.workload").read_text()) == expected
