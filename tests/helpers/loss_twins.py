"""Every loss once more in plain Python, from the papers: one answer (or pair) at a time, one token at a time."""

import math

from helpers.packed_answers import Answer


def omega_twin(rate, omega):
    return {"one": 1.0, "one_minus_rate": 1 - rate, "sqrt_odds": math.sqrt((1 - rate) / rate)}[omega]


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
    return [incorrect(sum(logs)) / len(logs)] * len(logs)


def rft_twin(answer: Answer) -> list[float]:
    return [-new if answer.reward == 1 else 0.0 for new in answer.logp]


def clipped_twin(answer: Answer, clip_low, clip_high) -> list[float]:
    losses = []
    for new, old in zip(answer.logp, answer.old_logp, strict=True):
        ratio = math.exp(new - old)
        if answer.advantage >= 0:
            losses.append(-answer.advantage * min(ratio, 1 + clip_high))
        else:
            losses.append(-answer.advantage * max(ratio, 1 - clip_low))
    return losses


def grpo_twin(answer: Answer, clip_low=0.2, clip_high=0.2) -> list[float]:
    return clipped_twin(answer, clip_low, clip_high)


def dapo_twin(answer: Answer, clip_low=0.2, clip_high=0.28) -> list[float]:
    return clipped_twin(answer, clip_low, clip_high)


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
    "grpo": grpo_twin,
    "dr_grpo": grpo_twin,
    "dapo": dapo_twin,
    "contrast": contrast_twin,
}
