"""Parts for tests of the benchmark: small sizes, a row of a sweep, and a stand-in for a peer's Python."""

import sys
from pathlib import Path

from nft_jax.bench.measure import StepTimes

SIZES = {
    **{"model__vocab": 24, "rollout__slots": 8, "selection__max_rounds": 1, "loss__name": "grpo"},
    **{"verify__grader": "nft_jax.verify.coin:coin", "data__max_prompt_tokens": 8, "rollout__max_answer_tokens": 12},
}
STUB = '''#!{python}
"""Stands in for another Python: writes down its workload and its turns, and does something for each line."""
import pathlib, sys
folder, name = pathlib.Path("{folder}"), pathlib.Path(sys.argv[2]).stem
assert sys.argv[1] == "-P"
(folder / (name + ".workload")).write_text(sys.argv[3])
for line in sys.stdin:
    with open(folder / "turns", "a") as turns:
        print(name, file=turns)
    {action}
'''
PRINT_TIMES = r"""print('noise\n{"step": 1.5, "rollout": 0.5, "tokens": 7}', flush=True)"""


def fake_python(folder: Path, action: str) -> str:
    """Writes an executable that runs `action` for each line of its input; returns its path."""
    path = folder / "python"
    path.write_text(STUB.format(python=sys.executable, folder=folder, action=action))
    path.chmod(0o755)
    return str(path)


def row(value: str, tokens: float, step: float, **more) -> dict:
    """Returns a row of a sweep."""
    median = StepTimes(step, step / 4, 0.0, step / 2, tokens, tokens, 1.0, 0.0, 0.0)._asdict()
    return {"value": value, "median": median, "compile_seconds": 2.0, "peak_memory_mib": {"host": 500.0}} | more
