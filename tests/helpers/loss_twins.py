"""Every loss once more in plain Python, from the papers: one answer (or pair) at a time, one token at a time."""

import math

from helpers.packed_answers import CHOSEN_BELOW, Answer


def omega_twin(rate, omega):
    odds = (1 - rate) / rate
    return {"one": 1.0, "one_minus_rate": 1 - rate, "sqrt_odds": math.sqrt(odds), "odds": odds}[omega]


def nft_twin(
    answer: Answer, omega="one_minus_rate", epsilon=1.0, negative_weight=1.0, ratio="token", clamp_rate=True
) -> list[float]:
    rate = min(max(answer.rate, 0.02), 0.98) if clamp_rate else answer.rate
    logs = [new - old for new, old in zip(answer.logp, answer.old_logp, strict=True)]
    if answer.reward == 1:
        return [-omega_twin(rate, omega) * log for log in logs]
    floor = max(epsilon, 1e-6)

    def incorrect(log):
        value = (1 - rate * math.exp(min(log, 10))) / (1 - rate)
        return -omega_twin(rate, omega) * negative_weight * math.log(max(value, floor))

    if ratio == "token":
        return [incorrect(log) for log in logs]
    if ratio == "mean":
        return [incorrect(sum(logs) / len(logs))] * len(logs)
    return [incorrect(sum(logs)) / len(logs)] * len(logs)


def rft_twin(answer: Answer) -> list[float]:
    return [-new if answer.reward == 1 else 0.0 for new in answer.logp]


def clip_one(ratio, advantage, clip_low, clip_high, dual_clip=0.0):
    loss = -advantage * (min(ratio, 1 + clip_high) if advantage >= 0 else max(ratio, 1 - clip_low))
    return min(loss, -dual_clip * advantage) if dual_clip and advantage < 0 else loss


def ratios_of(answer: Answer) -> list[float]:
    return [math.exp(new - old) for new, old in zip(answer.logp, answer.old_logp, strict=True)]


def clipped_twin(answer: Answer, clip_low=0.2, clip_high=0.2, dual_clip=0.0) -> list[float]:
    return [clip_one(ratio, answer.advantage, clip_low, clip_high, dual_clip) for ratio in ratios_of(answer)]


def dapo_twin(answer: Answer, clip_low=0.2, clip_high=0.28) -> list[float]:
    return clipped_twin(answer, clip_low, clip_high)


def ngrpo_twin(answer: Answer) -> list[float]:
    return clipped_twin(answer, 0.16, 0.24)


def gspo_twin(answer: Answer, clip_low=3e-4, clip_high=4e-4) -> list[float]:
    ratio = math.prod(ratios_of(answer)) ** (1 / len(answer.logp))
    return [clip_one(ratio, answer.advantage, clip_low, clip_high)] * len(answer.logp)


def gmpo_twin(answer: Answer, bound=0.4) -> list[float]:
    sign = 1 if answer.advantage > 0 else -1
    logs = [sign * min(sign * math.log(ratio), bound) for ratio in ratios_of(answer)]
    return [-answer.advantage * math.exp(sum(logs) / len(logs))] * len(logs)


def cispo_twin(answer: Answer, clip_low=1.0, clip_high=4.0) -> list[float]:
    weights = [min(max(ratio, 1 - clip_low), 1 + clip_high) for ratio in ratios_of(answer)]
    return [-weight * answer.advantage * new for weight, new in zip(weights, answer.logp, strict=True)]


def sapo_twin(answer: Answer, tau_positive=1.0, tau_negative=1.05) -> list[float]:
    tau = tau_positive if answer.advantage > 0 else tau_negative
    return [-4 / tau / (1 + math.exp(-tau * (ratio - 1))) * answer.advantage for ratio in ratios_of(answer)]


def dppo_twin(answer: Answer, divergence="tv", limit_low=0.15, limit_high=0.15, max_ratio=20.0) -> list[float]:
    losses = []
    for new, old in zip(answer.logp, answer.old_logp, strict=True):
        p, q = math.exp(new), math.exp(old)
        if divergence == "tv":
            distance = abs(p - q)
        else:
            # Drawn log-probs can be above 0.
            distance = q * (old - new) + (1 - q) * math.log((max(1 - q, 0) + 1e-8) / (max(1 - p, 0) + 1e-8))
        up = answer.advantage > 0
        stop = distance > (limit_high if up else limit_low) and (p > q if up else p < q)
        losses.append(0.0 if stop else -min(p / q, max_ratio) * answer.advantage * new)
    return losses


def clip_cov_twin(answer: Answer) -> list[float]:
    losses = clipped_twin(answer)
    return [0.0 if old < CHOSEN_BELOW else loss for loss, old in zip(losses, answer.old_logp, strict=True)]


def kl_cov_twin(answer: Answer, penalty=1.0) -> list[float]:
    return [
        -ratio * answer.advantage + penalty * (old < CHOSEN_BELOW) * abs(math.log(ratio))
        for ratio, old in zip(ratios_of(answer), answer.old_logp, strict=True)
    ]


def contrast_twin(answer: Answer, omega="one_minus_rate", clamp_rate=True) -> list[float]:
    rate = min(max(answer.rate, 0.02), 0.98) if clamp_rate else answer.rate
    sign = 1 if answer.reward == 1 else -1
    return [-omega_twin(rate, omega) * sign * (n - o) for n, o in zip(answer.logp, answer.old_logp, strict=True)]


def dpo_twin(correct: Answer, incorrect: Answer, beta=0.1) -> float:
    """The loss of the pair, not of its tokens."""
    margin = sum(correct.logp - correct.old_logp) - sum(incorrect.logp - incorrect.old_logp)
    return math.log(1 + math.exp(-beta * margin))


TWINS = {
    "nft": nft_twin,
    "rft": rft_twin,
    "dapo": dapo_twin,
    "contrast": contrast_twin,
    "ngrpo": ngrpo_twin,
    "gspo": gspo_twin,
    "gmpo": gmpo_twin,
    "cispo": cispo_twin,
    "sapo": sapo_twin,
    "dppo": dppo_twin,
    "clip_cov": clip_cov_twin,
    "kl_cov": kl_cov_twin,
} | dict.fromkeys(
    (
        *("grpo", "dr_grpo", "maxrl", "rloo", "psr", "nsr", "w_reinforce"),
        *("reinforce_plus_plus", "reinforce_plus_plus_baseline"),
    ),
    clipped_twin,
)
