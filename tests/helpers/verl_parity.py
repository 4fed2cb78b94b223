"""Losses, advantages and estimates of the KL divergence beside verl's own functions, on the same random answers."""

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.losses import Additions, Loss, resolve, total_loss
from nft_jax.precision import in_float64
from nft_jax.types import LossBatch, Totals

GROUPS, SIZE, LIMIT = 5, 4, 9
AGGREGATIONS = {"token_mean": "token-mean", "sequence_mean": "seq-mean-token-mean", "constant": "seq-mean-token-sum"}


class ActorConfig(SimpleNamespace):
    """What verl's losses read of its config of the same name."""

    global_batch_info: dict = {}
    clip_ratio, clip_ratio_low, clip_ratio_high = 0.2, None, None

    def get(self, name, default=None):
        """As a dict's."""
        return getattr(self, name, default)


class Case(NamedTuple):
    """A loss of ours and verl's: its name there, and its settings."""

    name: str
    options: dict[str, Any]
    peer: str
    settings: dict[str, Any]
    additions: Additions = Additions()


COVARIANCE = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.5, "clip_cov_ub": 3.0, "kl_cov_ratio": 0.2, "ppo_kl_coef": 0.7}
CASES = {
    "grpo, dual clip 3": Case("grpo", {"dual_clip": 3.0}, "vanilla", {"clip_ratio_c": 3.0}),
    "dr_grpo, dual clip 1.2": Case("dr_grpo", {"dual_clip": 1.2}, "vanilla", {"clip_ratio_c": 1.2}),
    "dapo, dual clip 3": Case("dapo", {"dual_clip": 3.0}, "vanilla", {"clip_ratio_high": 0.28, "clip_ratio_c": 3.0}),
    "rloo": Case("rloo", {}, "vanilla", {"clip_ratio_c": 1e9}),
    "grpo, tis": Case("grpo", {}, "vanilla", {"clip_ratio_c": 1e9}, Additions(correction="tis")),
    "gspo": Case("gspo", {"clip_low": 0.1, "clip_high": 0.2}, "gspo", {"clip_ratio_low": 0.1, "clip_ratio_high": 0.2}),
    "gmpo": Case("gmpo", {}, "geo_mean", {"clip_ratio": 0.4}),
    "cispo": Case("cispo", {"clip_high": 0.5}, "cispo", {"clip_ratio_low": 1.0, "clip_ratio_high": 0.5}),
    "sapo": Case("sapo", {}, "sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
    "dppo, tv": Case("dppo", {}, "dppo_tv", {"clip_ratio": 0.15, "clip_ratio_c": 20.0}),
    "dppo, kl": Case(
        "dppo",
        {"divergence": "kl", "limit_low": 0.05, "limit_high": 0.05},
        "dppo_kl",
        {"clip_ratio": 0.05, "clip_ratio_c": 20.0},
    ),
    "clip_cov, all candidates": Case(
        "clip_cov",
        {"share": 1.0, "covariance_low": 0.5, "covariance_high": 3.0},
        "clip_cov",
        {"policy_loss": SimpleNamespace(**COVARIANCE)},
    ),
    "kl_cov": Case("kl_cov", {"share": 0.2, "penalty": 0.7}, "kl_cov", {"policy_loss": SimpleNamespace(**COVARIANCE)}),
}


def load_core_algos(verl_folder: Path) -> ModuleType:
    """Loads verl's `core_algos` alone; what it imports of verl beyond PyTorch functions is left empty."""
    names = {
        "omegaconf": {"DictConfig": dict},
        "tensordict": {"TensorDict": dict},
        "verl": {},
        "verl.trainer": {},
        "verl.trainer.config": {"AlgoConfig": type("AlgoConfig", (), {})},
        "verl.utils": {"as_torch_index": None, "group_mean_std": None},
        "verl.utils.device": {"get_device_name": None, "get_torch_device": None},
        "verl.utils.import_utils": {"deprecated": lambda _: lambda function: function},
        "verl.workers": {},
        "verl.workers.config": {"ActorConfig": ActorConfig},
    }
    saved = {name: sys.modules.get(name) for name in (*names, "verl.utils.torch_functional")}
    try:
        for name, values in names.items():
            module = ModuleType(name)
            vars(module).update(values)
            sys.modules[name] = module
        functions = _load("verl.utils.torch_functional", verl_folder / "utils" / "torch_functional.py")
        sys.modules["verl.utils"].torch_functional = functions
        return _load("verl_core_algos", verl_folder / "trainer" / "ppo" / "core_algos.py")
    finally:
        for name, module in saved.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def draw(dtype) -> dict[str, np.ndarray]:
    """Answers, one a row: log-probs under three policies, a mask, verdicts and group numbers."""
    random = np.random.default_rng(5)
    B = GROUPS * SIZE
    length_B = random.integers(1, LIMIT + 1, B)
    old_BT = -random.exponential(1.5, (B, LIMIT)) - 0.05
    moved_BT = np.minimum(old_BT + random.normal(0, 0.5, old_BT.shape), -0.01)
    sampler_BT = old_BT + random.normal(0, 0.5, old_BT.shape)
    reward_B = random.permuted(np.arange(SIZE) < np.arange(GROUPS)[:, None] % (SIZE + 1), axis=1).reshape(-1)
    values = {"old": old_BT, "logp": moved_BT, "sampler": sampler_BT, "reward": reward_B, "length": length_B}
    values = {name: np.asarray(value, dtype) for name, value in values.items()}
    return values | {"mask": np.arange(LIMIT) < length_B[:, None], "group": np.repeat(np.arange(GROUPS), SIZE)}


def make_batch(drawn, advantage_BT) -> LossBatch:
    """The answers as a batch of one answer a row."""
    mask_BT = jnp.asarray(drawn["mask"])
    zero_BT = jnp.zeros(mask_BT.shape, drawn["logp"].dtype)
    keys_BT = jax.random.split(jax.random.key(0), mask_BT.shape)
    rate_B = np.repeat(drawn["reward"].reshape(GROUPS, SIZE).mean(axis=1), SIZE)
    fill = [jnp.where(mask_BT, value, zero_BT) for value in (drawn["reward"][:, None], rate_B[:, None], advantage_BT)]
    return LossBatch(
        jnp.where(mask_BT, drawn["old"], zero_BT),
        jnp.where(mask_BT, 0, -1).astype(jnp.int32),
        *fill,
        jnp.full(mask_BT.shape, -1, jnp.int32),
        sampler_logp_BT=jnp.where(mask_BT, drawn["sampler"], zero_BT),
        choice_BT=zero_BT,
        key_BT=keys_BT,
    )


def our_advantages(loss, drawn) -> np.ndarray:
    """The advantage of each token, after `prepare`."""
    shape = (GROUPS, SIZE)
    correct_QK, length_QK = drawn["reward"].reshape(shape), drawn["length"].reshape(shape).astype(np.int32)
    advantage_B = np.asarray(loss.advantage(jnp.asarray(correct_QK), jnp.asarray(length_QK), LIMIT)).reshape(-1, 1)
    batch = make_batch(drawn, jnp.asarray(advantage_B))
    if loss.prepare is not None and not loss.forward:
        batch = loss.prepare(None, batch)
    return np.asarray(batch.advantage_BT)


def prepare(case: Any, dtype: str) -> tuple[dict, Loss, np.ndarray, LossBatch, Totals]:
    """Returns the drawn answers, the loss of a case, its advantages, the batch that it gets, and their counts."""
    drawn = draw(dtype)
    loss = resolve(case.name, case.options, case.additions)
    advantage_BT = our_advantages(loss, drawn)
    totals = Totals(*(jnp.asarray(n, dtype) for n in (len(drawn["reward"]), drawn["mask"].sum(), 0)))
    return drawn, loss, advantage_BT, make_batch(drawn, jnp.asarray(advantage_BT)), totals


def relative_differences(ours: tuple, theirs: tuple, mask_BT: np.ndarray) -> tuple[float, float]:
    """Returns the relative differences of two pairs of an objective and its gradient."""
    (value, gradient_BT), (peer_value, peer_gradient_BT) = ours, theirs
    return (
        float(abs(value - peer_value) / abs(peer_value)),
        float(np.abs(np.where(mask_BT, gradient_BT - peer_gradient_BT, 0)).max() / np.abs(peer_gradient_BT).max()),
    )


def compare_loss(core, torch, case: Case, dtype: str) -> tuple[float, float]:
    """Returns the relative differences of the objective and of its gradient."""
    with in_float64() if dtype == "float64" else contextlib.nullcontext():
        drawn, loss, advantage_BT, batch, totals = prepare(case, dtype)
        logp_BT = jnp.asarray(drawn["logp"])
        if loss.forward:
            batch = loss.prepare(logp_BT, batch)

        def objective(logp_BT):
            return total_loss(loss.function(logp_BT, batch), batch, totals, loss.normalizer, 1)

        value, gradient_BT = map(np.asarray, jax.value_and_grad(objective)(logp_BT))
    theirs, mask = torch.tensor(drawn["logp"], requires_grad=True), torch.tensor(drawn["mask"]).to(torch.float64)
    old = torch.tensor(drawn["old"])
    arguments = {"loss_agg_mode": AGGREGATIONS[loss.normalizer], "config": ActorConfig(**case.settings)}
    if case.additions.correction == "tis":
        gap = torch.exp(old - torch.tensor(drawn["sampler"])).clamp(max=case.additions.correction_high)
        arguments["rollout_is_weights"] = gap
    policy_loss = core.get_policy_loss_fn(case.peer)
    peer, _ = policy_loss(old, theirs, torch.tensor(advantage_BT), mask.to(theirs.dtype), **arguments)
    peer.backward()
    peers = peer.detach().numpy(), theirs.grad.numpy()
    return relative_differences((value, gradient_BT), peers, drawn["mask"])
