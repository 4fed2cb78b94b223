"""Verification of answers: one response (`grade`), or many in isolated processes (`Pool`). Importing it loads no jax.

`nft_jax.verify.callback` is how a jitted program calls a pool; it is imported by its own path because it needs jax.
"""

from .grade import STATUSES, Verdict, grade
from .math.grader import check_reference
from .pool.pool import Pool

__all__ = ["STATUSES", "Pool", "Verdict", "check_reference", "grade"]
