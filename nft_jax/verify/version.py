"""The version of a grader; reproducing a score needs the same version."""

import hashlib
from importlib import metadata
from pathlib import Path

from ..own_code import own_sources
from .grade import GRADERS

_HERE = Path(__file__).parent
# The sources that decide the verdicts of `GRADERS`. How responses reach a grader (`callback.py`, `pool/`) decides none.
_SOURCES = (
    "extract.py",
    "grade.py",
    "gsm8k.py",
    "prose.py",
    *sorted(f"math/{path.name}" for path in (_HERE / "math").glob("*.py")),
)
_LIBRARIES = {"math": ("python-flint",)}


def version(grader: str) -> str:
    """Returns a grader's name, a digest of the sources that decide its verdicts, and the versions of its libraries."""
    if grader in GRADERS:
        sources = [_HERE / name for name in _SOURCES]
    else:
        sources = [path for _, path in sorted(own_sources(grader).items())]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES.get(grader, ())]
    return ", ".join([f"{grader} {digest}", *libraries])
