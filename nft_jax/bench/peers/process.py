"""Another library's step in its own process and Python, one at a time."""

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
    """A peer's file, which of our parts its seconds are compared with, and what its Python must have."""

    file: str
    part: str
    needs: str


PEERS = {
    "trl": Script("grpo_trl.py", "step", "torch and trl"),
    "tunix": Script("grpo_tunix.py", "step", "google-tunix"),
    "generate": Script("generate_transformers.py", "rollout", "torch and transformers"),
}
# What the peers are not told, and so must be:
NEEDED = {"model.dtype": "float32", "updates_per_step": 1, "rollout.temperature": 1.0}


class Peer:
    """A peer at work; what it says goes to `<workdir>/<name>.log`.

    Raises:
      ValueError: when there is no such Python.
    """

    def __init__(self, name: str, python: str, workload: dict[str, Any], workdir: Path):
        self.name, script = name, PEERS[name]
        self.part = script.part
        workdir.mkdir(parents=True, exist_ok=True)
        self.log = workdir / f"{name}.log"
        # Without -P, the script's folder would come first among those that its imports are looked for in.
        command = [python, "-P", str(Path(__file__).with_name(script.file)), json.dumps(workload)]
        try:
            with open(self.log, "w") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        except OSError as error:
            raise ValueError(f"--peer_python={python}: {error}; name the Python that has {script.needs}") from error

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def step(self) -> dict[str, float]:
        """Takes one step; its seconds in all ("step", of those that train) and of the "rollout", its "tokens" sampled.

        Raises:
          ValueError: when the process has ended, with what it said last.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(f'{{"{self.part}"'):
                return json.loads(line)
        said = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        last = f"its last words: {said[-1]}" if said else "without a word"
        raise ValueError(f"--peer={self.name}: the other process ended, {last} ({self.log} has all that it said)")


def paired(names: Sequence[str], pythons: Sequence[str]) -> list[tuple[str, str]]:
    """Each peer with its Python: one for all, or one for each.

    Raises:
      ValueError: for a name that is none or comes twice, or when there are too few or too many Pythons.
    """
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--peer={name}: use {', '.join(PEERS)}, comma between them{suggestion(name, PEERS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"--peer={','.join(names)}: name each peer once")
    if len(pythons) not in (1, len(names)):
        raise ValueError(
            f"--peer_python={','.join(pythons)}: {len(pythons)} for {len(names)} peers; give one Python for all, or "
            f"one for each in the order of --peer={','.join(names)}"
        )
    return list(zip(names, list(pythons) * (len(names) // len(pythons)), strict=True))


def peer_workload(config: Config, lengths: Lengths) -> dict[str, Any]:
    """What the peers are told: shapes and sizes, as in the config.

    Raises:
      ValueError: for what they could not be told.
    """
    if lengths.forced_B is not None and lengths.forced_B.size > 1:
        raise ValueError(f"--lengths={lengths.told}: a peer can't be told each answer's; use full, ends:N or fixed:N")
    for name, needed in NEEDED.items():
        if (value := attrgetter(name)(config)) != needed:
            raise ValueError(f"config.{name}={value!r}: the peers' step has {needed!r}; compare with that")
    shape = ("vocab", "layers", "width", "mlp_width", "heads", "kv_heads", "head_size", "tied_embedding")
    limit = config.rollout.max_answer_tokens if lengths.forced_B is None else int(lengths.forced_B[0])
    return {
        **{name: getattr(config.model, name) for name in shape},
        **{name: getattr(config, name) for name in ("prompts_per_step", "answers_per_prompt")},
        **{"max_prompt_tokens": config.data.max_prompt_tokens, "max_answer_tokens": limit, "ends": lengths.ends},
    }


def compared(peer: Peer, steps: list[dict[str, float]], ours: dict[str, float]) -> dict[str, Any]:
    """A peer's medians, and how many of ours (the step, or the rollout where it has no more) go into its own."""
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
