"""Names of the program's phases (`jax.named_scope`), by which profiles and compiled programs are split."""

import re

SAMPLING_WEIGHTS = "sampling_weights"  # the weights as the sampler wants them
READ = "read_prompts"
DECODE = "decode"  # one token of every slot
MICRO_BATCH = "micro_batch"  # rows, forward and backward
PROMPT_BATCH = "prompt_batch"  # shared prompts, forward, and after the rows forward and backward
OPTIMIZER = "optimizer"
OUTSIDE_DECODE = SAMPLING_WEIGHTS, READ, MICRO_BATCH, PROMPT_BATCH, OPTIMIZER


def is_within(phase: str, scope: str) -> bool:
    """Returns whether a path of scopes, such as "jit(step)/vmap(decode)/while/body/add", leads through a phase."""
    return re.search(rf"(^|[/(]){phase}([/)]|$)", scope) is not None
