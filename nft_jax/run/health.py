"""What goes wrong in a run that goes on: updates that are not finite, steps in which nothing trains.

A run says each once, with what to change, and not at every step.
"""

import math
from collections import Counter

from nft_jax.config import Config

# The bins of the histogram of success rates that hold groups without a correct answer, and without an incorrect one.
_NONE_CORRECT, _ALL_CORRECT = 0, -1
_FAR_BELOW = 0.5  # of the greedy score
_ERRORS = 3.0  # standard errors, beyond which a difference is no accident
# In units of AdamW's ε: where the root mean square of the gradient is smaller, ε takes more than a percent of the step
# of a weight with such a gradient, and more of most others, whose gradients are smaller than the mean.
_SMALLEST_GRADIENT = 100.0


class NonFiniteUpdates:
    """Counts the steps in a row in which all updates were left out, because their gradients held NaN or inf.

    Args:
      limit: The number after which the run ends; 0: it goes on.

    Attributes:
      steps: The number.
    """

    def __init__(self, limit: int):
        self.limit, self.steps = limit, 0

    def add(self, metrics: dict) -> None:
        """Counts one step; one in which there was nothing to train on leaves the number as it is."""
        if metrics["updates_taken"]:
            self.steps = 0
        elif metrics["updates_nonfinite"]:
            self.steps += 1

    def check(self) -> None:
        """Raises a FloatingPointError at the limit."""
        if self.limit and self.steps >= self.limit:
            raise FloatingPointError(
                f"no update of the last {self.steps} steps was finite (config.record.nonfinite_steps={self.limit}): "
                f"the gradients held NaN or inf, so the weights stayed as they were"
            )


class Hints:
    """Finds in the numbers of a run what a person should change; each is returned once, where it begins.

    Args:
      config: That of the run.
    """

    def __init__(self, config: Config):
        self.config = config
        self._given: set[str] = set()
        self._idle_steps, self._idle = 0, Counter()

    def add_step(self, metrics: dict) -> list[str]:
        """Returns what the metrics of the next step show."""
        hints = []
        if (metrics["truncated"] or 0) >= 0.5:
            hints += self._once("cut", self._describe_cut(metrics["truncated"]))
        if self.config.optimizer.name == "adamw" and 0 < (metrics["gradient_over_epsilon"] or 0) < _SMALLEST_GRADIENT:
            hints += self._once("epsilon", self._describe_epsilon(metrics["gradient_over_epsilon"]))
        if not _is_idle(metrics):
            self._idle_steps, self._idle = 0, Counter()
            return hints
        self._idle_steps += 1
        self._idle.update(_count_idle(metrics))
        if self._idle_steps == self.config.record.idle_steps:
            steps = f"{self._idle_steps} steps" if self._idle_steps > 1 else "a step"
            hints.append(f"nothing has trained for {steps}: {self._describe_idle()}")
        return hints

    def add_score(self, greedy: float, sampled: float, errors: tuple[float | None, float | None]) -> list[str]:
        """Returns what a held-out score shows; `errors` are the standard errors of the two."""
        noise = math.hypot(*(error or 0.0 for error in errors))
        if not (sampled < _FAR_BELOW * greedy and greedy - sampled > _ERRORS * noise):
            return []
        config = self.config
        strict = " (with config.strict_on_policy=false)" if config.strict_on_policy else ""
        return self._once(
            "sampled",
            f"sampled answers (at config.evaluation.temperature={config.evaluation.temperature:g}) are correct far "
            f"less often than greedy ones, {sampled:.3f} against {greedy:.3f}, and steps train on sampled ones: try a "
            f"config.rollout.temperature below {config.rollout.temperature:g}{strict}, or a warm start",
        )

    def _once(self, kind: str, hint: str) -> list[str]:
        given = kind in self._given
        self._given.add(kind)
        return [] if given else [hint]

    def _describe_cut(self, share: float) -> str:
        return (
            f"{100 * share:.0f} % of the answers are cut at config.rollout.max_answer_tokens="
            f"{self.config.rollout.max_answer_tokens} and count as incorrect: raise it, or start from weights that end "
            f"their answers (a warm start; an instruct model with config.data.template=chat)"
        )

    def _describe_epsilon(self, gradient: float) -> str:
        return (
            f"the root mean square of the gradient is {gradient:.3g} × config.optimizer.epsilon="
            f"{self.config.optimizer.epsilon:g}. Below {_SMALLEST_GRADIENT:g} ×, epsilon shortens AdamW's steps, which "
            f"then depend on the scale of the loss: use a smaller config.optimizer.epsilon, or with the normalizer "
            f"`constant` a smaller config.loss.constant_tokens"
        )

    def _describe_idle(self) -> str:
        """Returns the causes, the most common first, of what the idle steps sampled."""
        seen, verify = self._idle, self.config.verify
        groups, answers = seen["groups"], seen["answers"]
        causes = {
            f"the grader ended {seen['timeout']} with timeouts and {seen['error']} with errors, which count as "
            f"incorrect: see its first error above, or raise config.verify.seconds_per_answer="
            f"{verify.seconds_per_answer:g}": seen["timeout"] + seen["error"],
            self._describe_cut(seen["truncated"] / max(answers, 1)): seen["truncated"],
            f"the grader {verify.grader} found no answer in {seen['unparsed']} of them: compare rollouts/ with the "
            f"form that it reads, and change the prompt (config.data.template, shots) or the grader": seen["unparsed"],
        }
        found = [f"all answers of {count} are {kind}" for kind in ("incorrect", "correct") if (count := seen[kind])]
        if seen["other"]:
            found.append(
                f"{seen['other']} have success rates outside config.selection.rate_above="
                f"{self.config.selection.rate_above:g} and rate_below={self.config.selection.rate_below:g}"
            )
        harder = "harder" if seen["correct"] > seen["incorrect"] else "easier"
        text = f"of {groups} groups with {answers} answers, {' and '.join(found) or 'none gave a gradient'}"
        causes = {cause: count for cause, count in causes.items() if count and 2 * count >= answers}
        if causes:
            return "; ".join([text, *sorted(causes, key=lambda cause: -causes[cause])])
        return f"{text}; take {harder} problems, or more config.answers_per_prompt={self.config.answers_per_prompt}"


def _is_idle(metrics: dict) -> bool:
    """Returns whether a step changed nothing, other than by updates that were not finite."""
    if metrics["updates_nonfinite"]:
        return False
    return not metrics["updates_taken"] or metrics["gradient_norm"] == 0


def _count_idle(metrics: dict) -> dict[str, int]:
    rates = metrics["rate_histogram"]
    return {
        "groups": sum(rates),
        "incorrect": rates[_NONE_CORRECT],
        "correct": rates[_ALL_CORRECT],
        "other": sum(rates[1:-1]),
        "answers": metrics["answers"],
        "truncated": round((metrics["truncated"] or 0) * metrics["answers"]),
        **{kind: metrics["verdicts"][kind] for kind in ("unparsed", "timeout", "error")},
    }
