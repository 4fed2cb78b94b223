"""Losses beside TRL's own `_compute_loss`, on the random answers of `verl_parity`."""

import ast
import contextlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from helpers.verl_parity import LIMIT, prepare, relative_differences
from nft_jax.losses import KLS, Additions, total_loss
from nft_jax.precision import in_float64

KL_WEIGHT = 0.04


class Case(NamedTuple):
    """A loss of ours, and the fields of TRL's trainer and of its arguments that give it; `kl` adds TRL's KL term."""

    name: str
    options: dict[str, Any]
    settings: dict[str, Any]
    arguments: dict[str, Any] = {}
    additions: Additions = Additions()
    kl: bool = False


CASES = {
    "grpo": Case("grpo", {}, {"loss_type": "grpo"}),
    "grpo, KL by k3": Case("grpo", {}, {"loss_type": "grpo"}, kl=True),
    "grpo, dual clip 3": Case("grpo", {"dual_clip": 3.0}, {"loss_type": "grpo"}, {"delta": 3.0}),
    "grpo, tis": Case("grpo", {}, {"loss_type": "grpo", "use_vllm": True}, additions=Additions(correction="tis")),
    "dr_grpo": Case("dr_grpo", {}, {"loss_type": "dr_grpo"}),
    "dapo": Case("dapo", {}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": Case(
        "gspo",
        {"clip_low": 0.1, "clip_high": 0.2},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.1},
    ),
    "cispo": Case("cispo", {"clip_high": 0.5}, {"loss_type": "cispo", "epsilon_high": 1.5}),
    "sapo": Case("sapo", {}, {"loss_type": "sapo"}),
}


def load_compute_loss(trl_folder: Path, torch: Any) -> Callable:
    """Returns TRL's `GRPOTrainer._compute_loss` alone: the rest of its module needs packages that a loss does not."""
    path = trl_folder / "trainer" / "grpo_trainer.py"
    trainer = next(each for each in ast.parse(path.read_text()).body if getattr(each, "name", "") == "GRPOTrainer")
    method = next(each for each in trainer.body if getattr(each, "name", "") == "_compute_loss")
    values = {"torch": torch, "nanmin": torch.min, "nanmax": torch.max}
    exec(compile(ast.Module([method], []), str(path), "exec"), values)
    return values["_compute_loss"]


def make_trainer(case: Case, logp: Any, torch: Any) -> SimpleNamespace:
    """Returns what the method reads of its trainer, in training with one process and one micro-batch."""
    fixed = {"delta": None, "use_bias_correction_kl": False, "steps_per_generation": 1}
    temperatures = {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    switches = ("aux_loss_enabled", "_entropy_bonus_enabled", "use_vllm")
    values = dict.fromkeys(switches, False) | {
        "args": SimpleNamespace(**fixed | temperatures | case.arguments),
        "accelerator": accelerator,
        "model": SimpleNamespace(training=True),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_get_per_token_logps_and_entropies": lambda *_, **__: (logp, torch.zeros_like(logp), None),
        "beta": KL_WEIGHT if case.kl else 0.0,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "vllm_importance_sampling_correction": True,
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": LIMIT,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
    }
    return SimpleNamespace(**values | case.settings)


def compare_loss(compute: Callable, torch: Any, case: Case, dtype: str) -> tuple[float, float]:
    """Returns the relative differences of the objective and of its gradient."""
    with in_float64() if dtype == "float64" else contextlib.nullcontext():
        drawn, loss, advantage_BT, batch, totals = prepare(case, dtype)

        def objective(logp_BT):
            loss_BT = loss.function(logp_BT, batch)
            if case.kl:
                loss_BT += KL_WEIGHT * KLS["k3"](logp_BT, batch.sampler_logp_BT, batch.answer_BT)
            return total_loss(loss_BT, batch, totals, loss.normalizer, LIMIT)

        value, gradient_BT = map(np.asarray, jax.value_and_grad(objective)(jnp.asarray(drawn["logp"])))
    logp, mask = torch.tensor(drawn["logp"], requires_grad=True), torch.tensor(drawn["mask"]).to(torch.long)
    old, sampler = torch.tensor(drawn["old"]), torch.tensor(drawn["sampler"])
    inputs = {
        **{name: torch.zeros((len(mask), 1), dtype=torch.long) for name in ("prompt_ids", "prompt_mask")},
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": torch.tensor(advantage_BT[:, 0]),
        "old_per_token_logps": old,
        "ref_per_token_logps": sampler,
        "importance_sampling_ratio": torch.exp(old - sampler).clamp(max=2.0),
        "num_items_in_batch": mask.sum(),
    }
    peer = compute(make_trainer(case, logp, torch), None, inputs)
    peer.backward()
    return relative_differences((value, gradient_BT), (peer.item(), logp.grad.numpy()), drawn["mask"])
