"""The version of a grader; reproducing a score needs the same version."""

import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path

from .grade import GRADERS

_HERE = Path(__file__).parent
# The sources that decide the verdicts of `GRADERS`. How responses reach a grader (`callback.py`, `pool/`) decides none.
_SOURCES = (
    "extract.py",
    "grade.py",
    "gsm8k.py",
    *sorted(f"math/{path.name}" for path in (_HERE / "math").glob("*.py")),
)
_LIBRARIES = {"math": ("python-flint",)}


def version(grader: str) -> str:
    """Returns a grader's name, a digest of the sources that decide its verdicts, and the versions of its libraries."""
    if grader in GRADERS:
        sources = [_HERE / name for name in _SOURCES]
    else:
        module = importlib.util.find_spec(grader.partition(":")[0])
        sources = [Path(module.origin)] if module is not None and module.has_location else []
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES.get(grader, ())]
    return ", ".join([f"{grader} {digest}", *libraries])
