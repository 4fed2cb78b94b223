"""How long a step takes, and where the time goes: python -m nft_jax.bench --config=bench --workdir=DIR

Any config will do; its data is not read. Prompts are random tokens, as many as `data.prompt_limit` allows, and weights
are random. `--lengths` says how long the answers are: `full` (all at the limit), `ends:N` (N of the ids end an answer),
or `lognormal:MEDIAN:SIGMA`. Writes <workdir>/bench.json; `--profile` also a trace for TensorBoard or Perfetto.

`--peer=trl --peer_python=PYTHON` takes the same step in TRL's GRPOTrainer too, turn by turn with ours; that Python has
torch and trl.
"""

import contextlib
import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.data.dataset import Dataset
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.experiment import Experiment
from nft_jax.rollout.engine import Engine
from nft_jax.step import compile_step
from nft_jax.training.metrics import step_metrics
from nft_jax.training.optimizer import make_optimizer
from nft_jax.training.record import provenance

PROMPTS = 1024  # in the table that a step draws from


class Measured(NamedTuple):
    """One step. Seconds are from the host's clock at events of the program itself: its call, its end, its callbacks.

    `step`     from call to end            `rollout`  to the last answer, in all rounds
    `grading`  the callback that grades    `update`   after the last verdict: selection, packing, optimizer
    `tokens`   answer tokens sampled       `trained`  answer tokens trained on
    `slots`    share of the slots' time that drew a token of an answer
    """

    step: float
    rollout: float
    grading: float
    update: float
    tokens: int
    trained: int
    slots: float


class Numbers(Tokenizer):
    """Ids as their own texts."""

    def __init__(self, vocabulary: int, eos_ids: tuple[int, ...]):
        self.vocab_size, self.eos_ids = vocabulary, eos_ids

    def encode_batch(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def apply_chat_template(self, messages):
        return messages[-1]["content"]

    def save(self, folder):
        """Nothing to keep."""

    def _decode(self, ids):
        return [" ".join(map(str, row)) for row in ids]


class Stamped:
    """A grader that notes when it was called, and when it was done."""

    def __init__(self, grader: Callable):
        self.grader, self.submit, self.calls = grader, grader.submit, []

    def __call__(self, *arguments):
        begin = time.perf_counter()
        result = self.grader(*arguments)
        self.calls.append((begin, time.perf_counter()))
        return result


class Bench:
    """A config's step on random prompts, compiled, ready to be timed."""

    def __init__(self, config: Config, workdir: Path, lengths: str):
        ends, limits = read_lengths(lengths, config)
        self.config, self.lengths = config, lengths
        self.experiment = Experiment(config, workdir, dataset=random_data(config, ends))
        experiment = self.experiment
        optimizer = make_optimizer(config.optimizer, config.steps, experiment.axes)
        step = experiment.step(optimizer)
        self.stamps = Stamped(step.grader)
        engine = step.engine if limits is None else _limited(step.engine, limits)
        step = dataclasses.replace(step, grader=self.stamps, engine=engine)
        self.prompts = experiment.prompts(experiment.dataset.tables["train"])
        state = experiment.initial_state(optimizer, experiment.random_weights())
        began = time.perf_counter()
        self.program = compile_step(step, state, self.prompts, experiment.state_shardings(optimizer))
        self.compile_seconds = time.perf_counter() - began
        self.state = state

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.experiment.__exit__()

    def step(self) -> Measured:
        """Takes one step, and waits for it."""
        self.stamps.calls.clear()
        began = time.perf_counter()
        self.state, record = jax.block_until_ready(self.program(self.state, self.prompts))
        ended = time.perf_counter()
        metrics = step_metrics(jax.device_get(record))
        grading, rollout, previous = 0.0, 0.0, began
        calls, devices = sorted(self.stamps.calls), self.experiment.mesh.size
        for first in range(0, len(calls), devices):
            round_ = calls[first : first + devices]
            # The last device to call has waited for nobody; grading is what the others wait for then.
            called, done = max(begin for begin, _ in round_), max(end for _, end in round_)
            rollout, grading, previous = rollout + called - previous, grading + done - called, done
        tokens = metrics["tokens"], metrics["tokens_trained"]
        return Measured(ended - began, rollout, grading, ended - previous, *tokens, metrics["slots_useful"])


class Peer:
    """Another library's step in its own process and Python, one at a time; what it says goes to a file."""

    def __init__(self, name: str, python: str, config: Config, lengths: str, workdir: Path):
        ends, limits = read_lengths(lengths, config)
        if limits is not None:
            raise ValueError(f"--peer={name}: the peer can't be told how long its answers are; use full or ends:N")
        workdir.mkdir(parents=True, exist_ok=True)
        self.log = workdir / f"{name}.log"
        script = Path(__file__).with_name(f"bench_{name}.py")
        command = [python, "-P", str(script), json.dumps(peer_workload(config, ends))]
        try:
            with open(self.log, "w") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        except OSError as error:
            raise ValueError(f"--peer_python={python}: {error}; name the Python that has torch and {name}") from error

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def step(self) -> dict[str, float]:
        """Takes one step; its "step" seconds and "tokens" sampled.

        Raises:
          ValueError: when the process has ended, with where it said why.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"step"'):
                return json.loads(line)
        raise ValueError(f"--peer: the other process ended; {self.log} says why")


def peer_workload(config: Config, ends: int) -> dict[str, int]:
    """What a peer is told: shapes and sizes, as in the config."""
    model = {
        name: getattr(config.model, name) for name in ("vocab", "layers", "width", "mlp_width", "heads", "kv_heads")
    }
    step = {name: getattr(config, name) for name in ("prompts_per_step", "answers_per_prompt")}
    lengths = {"prompt_limit": config.data.prompt_limit, "answer_limit": config.rollout.answer_limit, "ends": ends}
    # The best of those that were tried for it.
    return model | step | lengths | {"micro_batch": min(16, step["prompts_per_step"] * step["answers_per_prompt"])}


def read_lengths(lengths: str, config: Config) -> tuple[int, tuple[float, float] | None]:
    """How many ids end an answer, and (median, sigma) of forced lengths or None.

    Raises:
      ValueError: for anything but full, ends:N and lognormal:MEDIAN:SIGMA.
    """
    kind, *values = lengths.split(":")
    try:
        if kind == "full" and not values:
            return 0, None
        if kind == "ends" and 0 < int(values[0]) < config.model.vocab and len(values) == 1:
            return int(values[0]), None
        if kind == "lognormal" and len(values) == 2:
            median, sigma = map(float, values)
            if median > 0 and sigma >= 0:
                return 0, (median, sigma)
    except (IndexError, ValueError):
        pass
    raise ValueError(
        f"--lengths={lengths}: use full, ends:N (N ids end an answer, fewer than config.model.vocab="
        f"{config.model.vocab}), or lognormal:MEDIAN:SIGMA such as lognormal:50:0.8"
    )


def random_data(config: Config, ends: int) -> Dataset:
    """Prompts of exactly `prompt_limit` random tokens; the last `ends` ids of the vocabulary end an answer."""
    V = config.model.vocab
    if not V:
        raise ValueError("config.model.vocab=0: a benchmark has no tokenizer; give the vocabulary's size, such as 512")
    # An id beyond the vocabulary is never drawn.
    tokenizer = Numbers(V, tuple(range(V - ends, V)) or (V,))
    token_NP = np.random.default_rng(config.seed).integers(0, V - ends, (PROMPTS, config.data.prompt_limit))
    length_N = np.full(PROMPTS, config.data.prompt_limit, np.int32)
    texts = [""] * PROMPTS
    return Dataset(tokenizer, {"train": PromptTable(token_NP.astype(np.int32), length_N, texts, texts, [], 0)}, None)


def _limited(engine: Engine, rule: tuple[float, float]) -> Engine:
    """The engine with answers of lognormal lengths, by request number."""
    median, sigma = rule
    drawn = median * np.exp(sigma * np.random.default_rng(0).normal(size=4096))
    limits = np.clip(np.round(drawn), 1, engine.config.answer_limit).astype(np.int32)
    engine.limit = lambda request_B: jnp.asarray(limits)[request_B % limits.size]
    return engine


def forward_flops(config: Config, weights: int, tokens: float, context: float) -> float:
    """Of a forward pass: 2 a weight and token (the embedding's rows are looked up, the head's multiplied), and
    attention's two products over a mean context.
    """
    model = config.model
    looked_up = 0 if model.tied_embedding else model.vocab * model.width
    return tokens * (2 * (weights - looked_up) + 4 * model.layers * model.heads * model.head_size * context)


def machine() -> dict[str, float]:
    """This machine's own limits: GFLOP/s of a float32 matrix product, and GB/s of adding to a large array."""
    size = 2048

    def best(function, *operands):
        jax.block_until_ready(function(*operands))
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(function(*operands))
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    square, long = jnp.ones((size, size)), jnp.ones(1 << 26)
    return {
        "matmul_gflops": 2 * size**3 / best(jax.jit(jnp.matmul), square, square) / 1e9,
        "bandwidth_gbs": 2 * long.nbytes / best(jax.jit(lambda x: x + 1.0), long) / 1e9,
    }


def summary(bench: Bench, steps: list[Measured]) -> dict[str, Any]:
    """Medians of the steps, with what follows from them."""
    config, weights = bench.config, bench.experiment.parameters
    median = Measured(*(float(np.median(part)) for part in zip(*steps, strict=True)))
    spread = {part: [min(values), max(values)] for part in Measured._fields[:4] for values in [_column(steps, part)]}
    answers = config.prompts_per_step * config.answers_per_prompt
    P, length = config.data.prompt_limit, median.tokens / answers
    decode = forward_flops(config, weights, median.tokens, P + length / 2)
    prefill = forward_flops(config, weights, config.prompts_per_step * P, P / 2)
    trained = median.trained / max(length, 1) * (P + length)
    update = 3 * forward_flops(config, weights, trained, (P + length) / 2)
    limits = machine()
    peak = limits["matmul_gflops"] * 1e9
    return {
        "lengths": bench.lengths,
        "median": median._asdict(),
        "spread": spread,
        "tokens_per_second": median.tokens / median.step,
        "rollout_tokens_per_second": median.tokens / median.rollout,
        "trained_tokens_per_second": trained / median.update,
        "rollout_share_of_matmul": (decode + prefill) / median.rollout / peak,
        "update_share_of_matmul": update / median.update / peak,
        "compile_seconds": bench.compile_seconds,
        "peak_memory_mib": peak_memory_mib(),
        **limits,
    }


def peak_memory_mib() -> dict[str, float]:
    """The most that this process ever held, and where the backend tells, each device."""
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    for device in jax.local_devices():
        statistics = device.memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            found[str(device)] = statistics["peak_bytes_in_use"] / 2**20
    return found


def compared(name: str, found: dict[str, Any], peers: list[dict[str, float]]) -> dict[str, Any]:
    """The peer's medians, and how many of our steps go into one of its."""
    seconds = [step["step"] for step in peers]
    median = {part: float(np.median([step[part] for step in peers])) for part in ("step", "tokens")}
    peer = {"name": name, **median, "spread": [min(seconds), max(seconds)], "steps": seconds}
    return {"peer": peer | {"ratio": median["step"] / found["median"]["step"]}}


def table(found: dict[str, Any]) -> str:
    """The summary in words."""
    median, spread = found["median"], found["spread"]
    lines = [f"answers {found['lengths']}: {median['tokens']:.0f} tokens a step, {median['trained']:.0f} trained"]
    for part in ("step", "rollout", "grading", "update"):
        low, high = spread[part]
        lines.append(f"{part:<9}{median[part]:8.3f} s   ({low:.3f} to {high:.3f})")
    if "peer" in found:
        peer = found["peer"]
        low, high = peer["spread"]
        lines.append(
            f"{peer['name']:<9}{peer['step']:8.3f} s   ({low:.3f} to {high:.3f}), {peer['tokens']:.0f} tokens: "
            f"{peer['ratio']:.2f} times ours"
        )
    return "\n".join(
        [
            *lines,
            f"{found['tokens_per_second']:.0f} tokens/s in all, {found['rollout_tokens_per_second']:.0f} sampled, "
            f"{found['trained_tokens_per_second']:.0f} trained (prompts too); slots useful {median['slots']:.0%}",
            f"of this machine's matmul ({found['matmul_gflops']:.0f} GFLOP/s; {found['bandwidth_gbs']:.1f} GB/s): "
            f"rollout {found['rollout_share_of_matmul']:.0%}, update {found['update_share_of_matmul']:.0%}",
            f"compiled in {found['compile_seconds']:.1f} s; peak memory "
            + ", ".join(f"{where} {mib:.0f} MiB" for where, mib in found["peak_memory_mib"].items()),
        ]
    )


def _column(steps: list[Measured], part: str) -> list[float]:
    return [getattr(step, part) for step in steps]


def main(config: Config, workdir: Path) -> None:
    """Times what the flags say."""
    given = flags.FLAGS
    with contextlib.ExitStack() as stack:
        peer = None
        if given.peer:
            peer = stack.enter_context(Peer(given.peer, given.peer_python, config, given.lengths, workdir))
        bench = stack.enter_context(Bench(config, workdir, given.lengths))
        print(f"attention: {bench.experiment.attention.name}", file=sys.stderr, flush=True)
        steps, peers = [], []
        for number in range(given.warmup + given.repeats):
            taken, other = bench.step(), peer.step() if peer else {}
            if number >= given.warmup:
                steps.append(taken)
                peers.append(other)
        if given.profile:
            with jax.profiler.trace(given.profile):
                bench.step()
        found = summary(bench, steps)
    if peer:
        found |= compared(given.peer, found, peers)
    workdir.mkdir(parents=True, exist_ok=True)
    result = found | {
        "steps": [step._asdict() for step in steps],
        "run": provenance(config, bench.experiment.attention.name),
    }
    (workdir / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result) if flags.FLAGS.json else table(found), flush=True)


def _define_flags() -> None:
    """Not at import, where flags of the same names of two programs would clash."""
    flags.DEFINE_string("lengths", "full", "full, ends:N or lognormal:MEDIAN:SIGMA: how long answers are.")
    flags.DEFINE_integer("repeats", 5, "Steps that are timed; medians are of these.", lower_bound=1)
    flags.DEFINE_integer("warmup", 1, "Steps before, that are not.", lower_bound=0)
    flags.DEFINE_bool("json", False, "Print the JSON that <workdir>/bench.json has.")
    flags.DEFINE_enum("peer", None, ["trl"], "Another library that takes the same step, turn by turn with ours.")
    flags.DEFINE_string("peer_python", "python3", "The Python that has the peer.")
    flags.DEFINE_string("profile", None, "A folder for a trace of one more step.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
