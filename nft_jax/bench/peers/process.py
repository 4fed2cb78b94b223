"""Runs another library's step in its own process and Python."""

import contextlib
import json
import subprocess
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nft_jax.bench.workload import Lengths
from nft_jax.config import Config
from nft_jax.names import suggestion


class Script(NamedTuple):
    """A peer.

    Attributes:
      part: the part of our step that its seconds are compared with.
      needs: the libraries of its Python.
    """

    file: str
    part: str
    needs: str


PEERS = {
    "trl": Script("grpo_trl.py", "step", "torch and trl"),
    "tunix": Script("grpo_tunix.py", "step", "google-tunix"),
    "generate": Script("generate_transformers.py", "rollout", "torch and transformers"),
    "vllm": Script("generate_vllm.py", "rollout", "vllm"),
}
# Settings of a peer's part that the workload does not pass on.
REQUIRED = {
    "rollout": {"rollout.temperature": 1.0},
    "step": {"rollout.temperature": 1.0, "model.dtype": "float32", "updates_per_step": 1},
}
# Seconds in which a peer ends by itself.
PATIENCE = 10


class Peer:
    """A running peer, which logs to `<workdir>/<name>.log`. A context manager.

    Raises:
      ValueError: if there is no such Python.
    """

    def __init__(self, name: str, python: str, workload: dict[str, Any], workdir: Path):
        self.name, script = name, PEERS[name]
        self.part = script.part
        workdir.mkdir(parents=True, exist_ok=True)
        self.log = workdir / f"{name}.log"
        # Without -P, imports would search the script's folder first.
        command = [python, "-P", str(Path(__file__).with_name(script.file)), json.dumps(workload)]
        try:
            with open(self.log, "w", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        except OSError as error:
            raise ValueError(f"--peer_python={python}: {error}; name the Python that has {script.needs}") from error

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        # At the end of its input a script ends by itself, and so do the processes that it has started.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def step(self) -> dict[str, float]:
        """Takes one step.

        Returns:
          The seconds of the "rollout", of the whole "step" if the peer trains, and the number of sampled "tokens".

        Raises:
          ValueError: if the process has ended, with the last line of its log.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(f'{{"{self.part}"'):
                return json.loads(line)
        lines = [line.strip() for line in self.log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        last = f"its last line: {lines[-1]}" if lines else "without output"
        raise ValueError(f"--peer={self.name}: the other process ended, {last} ({self.log} has all lines)")


def match_pythons(names: Sequence[str], pythons: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each peer with its Python: one for all, or one for each.

    Raises:
      ValueError: for an unknown or repeated peer, or if the number of Pythons is neither 1 nor that of the peers.
    """
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--peer={name}: use {', '.join(PEERS)}, separated by commas{suggestion(name, PEERS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"--peer={','.join(names)}: name each peer once")
    if len(pythons) not in (1, len(names)):
        raise ValueError(
            f"--peer_python={','.join(pythons)}: {len(pythons)} for {len(names)} peers; give one Python for all, or "
            f"one for each, in the order of --peer={','.join(names)}"
        )
    return list(zip(names, list(pythons) * (len(names) // len(pythons)), strict=True))


def peer_workload(config: Config, lengths: Lengths, names: Sequence[str]) -> dict[str, Any]:
    """Returns the shapes and sizes that these peers need.

    Raises:
      ValueError: for lengths or settings that the peers' step can't have.
    """
    if lengths.forced_B is not None and lengths.forced_B.size > 1:
        raise ValueError(
            f"--lengths={lengths.text}: a peer can't take a length for each answer; use full, ends:N or fixed:N"
        )
    for name, needed in (pair for peer in names for pair in REQUIRED[PEERS[peer].part].items()):
        if (value := attrgetter(name)(config)) != needed:
            raise ValueError(f"config.{name}={value!r}: the peers' step has {needed!r}; use the same to compare")
    if config.model.dtype == "auto":
        raise ValueError("config.model.dtype='auto': name the number format, which the peers must have too")
    model, shape = config.model, ("vocab", "layers", "width", "mlp_width", "heads", "kv_heads", "head_size")
    limit = config.rollout.max_answer_tokens if lengths.forced_B is None else int(lengths.forced_B[0])
    qwen2 = {  # of transformers' Qwen2Config
        **{"vocab_size": model.vocab, "num_hidden_layers": model.layers, "hidden_size": model.width},
        **{"intermediate_size": model.mlp_width, "num_attention_heads": model.heads, "head_dim": model.head_size},
        **{"num_key_value_heads": model.kv_heads, "max_position_embeddings": config.data.max_prompt_tokens + limit},
        **{"tie_word_embeddings": model.tied_embedding, "use_sliding_window": False},
    }
    return {
        **{name: getattr(model, name) for name in (*shape, "tied_embedding")},
        "qwen2": qwen2,
        "dtype": model.dtype,
        **{name: getattr(config, name) for name in ("prompts_per_step", "answers_per_prompt")},
        **{"max_prompt_tokens": config.data.max_prompt_tokens, "max_answer_tokens": limit, "ends": lengths.ends},
    }


def compare_peer(peer: Peer, steps: list[dict[str, float]], ours: dict[str, float]) -> dict[str, Any]:
    """Returns a peer's medians, and the ratio of its step to ours (of the rollouts if it does not train)."""
    seconds = [step[peer.part] for step in steps]
    median = {part: float(np.median([step[part] for step in steps])) for part in steps[0]}
    return {
        "name": peer.name,
        "part": peer.part,
        "median": median,
        "spread": [min(seconds), max(seconds)],
        "ratio": median[peer.part] / ours[peer.part],
        "steps": steps,
    }
