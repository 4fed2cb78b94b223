"""The peer `vllm`, with a stand-in for vLLM's module: what it asks for, and how it counts."""

import json
import os
import sys
import time

import pytest

from helpers.bench import SIZES
from helpers.experiments import small
from nft_jax.bench.peers.process import Peer, peer_workload
from nft_jax.bench.workload import Lengths

# Writes down its arguments and the files of the folder that it is given; answer k of a prompt has k + 1 tokens.
VLLM = """
import json, pathlib, time, types
HERE = pathlib.Path(__file__).parent

class SamplingParams:
    def __init__(self, **given):
        self.given = given

class LLM:
    def __init__(self, model, **given):
        folder = pathlib.Path(model)
        given |= {"config": json.loads((folder / "config.json").read_text())}
        given |= {"files": sorted(path.name for path in folder.iterdir()), "began": (HERE / "asked").exists()}
        (HERE / "engine").write_text(json.dumps(given | {"ready": time.monotonic()}))

    def generate(self, prompts, sampling, use_tqdm):
        time.sleep(0.2)
        print("a line of vLLM's own")
        with open(HERE / "calls", "a") as file:
            print(json.dumps({"prompts": prompts, "sampling": sampling.given, "tqdm": use_tqdm}), file=file)
        groups = [[[7] * (k + 1) for k in range(sampling.given["n"])] for _ in prompts]
        answer = lambda ids: types.SimpleNamespace(token_ids=ids)
        return [types.SimpleNamespace(outputs=[answer(ids) for ids in group]) for group in groups]
"""


def test_vllm_samples_the_workload_from_a_folder_with_random_weights(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    (tmp_path / "vllm.py").write_text(VLLM, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    config = small(**SIZES, model__dtype="bfloat16", model__tied_embedding=True)
    workload = peer_workload(config, Lengths("ends:3", ends=3), ["vllm"])
    with Peer("vllm", sys.executable, workload, tmp_path) as peer:
        # It starts with the first turn, when our program has taken its memory.
        assert not (tmp_path / "engine").exists()
        (tmp_path / "asked").touch()
        steps, ends = [], []
        for _ in range(2):
            steps.append(peer.step())
            ends.append(time.monotonic())
    Q, K = config.prompts_per_step, config.answers_per_prompt
    engine = json.loads((tmp_path / "engine").read_text())
    for step, begin, end in zip(steps, (engine["ready"], ends[0]), ends, strict=True):
        assert step["tokens"] == Q * K * (K + 1) / 2
        # Without the start of the engine.
        assert 0.2 <= step["rollout"] <= end - begin
    assert engine["began"]
    assert {"config.json", "model.safetensors"} <= {*engine["files"]}
    assert engine["config"]["model_type"] == "qwen2"
    assert engine["config"]["dtype"] == engine["dtype"] == "bfloat16"
    assert [engine["config"][name] for name in ("vocab_size", "num_hidden_layers", "hidden_size")] == [24, 2, 32]
    assert (engine["max_model_len"], engine["max_num_seqs"]) == (8 + 12, Q * K)
    first, second = (json.loads(line) for line in (tmp_path / "calls").read_text().splitlines())
    assert first["sampling"] == {
        **{"n": K, "temperature": 1.0, "max_tokens": 12, "detokenize": False},
        **{"ignore_eos": True, "stop_token_ids": [21, 22, 23]},
    }
    ids = [prompt["prompt_token_ids"] for prompt in first["prompts"]]
    assert [len(prompt) for prompt in ids] == [8] * Q
    assert max(map(max, ids)) < 21
    assert first["prompts"] != second["prompts"]
