"""The verifier: grades one response (`grade`), or many in separate processes (`Pool`).

This package imports no jax; `nft_jax.verify.callback`, by which a jitted program calls a pool, does.
"""

from .grade import STATUSES, Verdict, grade
from .math.grader import check_reference
from .pool.pool import Pool

__all__ = ["STATUSES", "Pool", "Verdict", "check_reference", "grade"]
