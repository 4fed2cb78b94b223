"""What tells a damaged checkpoint from a machine that can't read it now: digests of its parts, and kinds of errors."""

import contextlib
import errno
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from nft_jax.models.finite import find_nonfinite
from nft_jax.run.fingerprint import weights_digest
from nft_jax.state import UNSAVED, State

_LOG = logging.getLogger(__name__)


class DamagedWeights(ValueError):
    """Weights or a state that are not what was saved."""


# What a file system or an allocator says of itself; the bytes of the checkpoint may be whole.
_OF_THE_MACHINE = re.compile(
    r"\[OS error|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED|[Oo]ut of memory|EIO|EACCES|ENOMEM"
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC|EDQUOT")
_NO_SUCH_FILE = re.compile(r"ENOENT|EISDIR|ENOTDIR")


def make_digests(state: State) -> dict[str, str]:
    """Returns a digest of the weights, and one of the rest of a state that is saved."""
    rest = state._replace(weights=None, **dict.fromkeys(UNSAVED))
    return {"weights": weights_digest(state.weights), "rest": weights_digest(rest)}


def compile_checks(state: State) -> None:
    """Compiles what saving a state needs: its digests, and the search for NaN and inf."""
    make_digests(state)
    find_nonfinite(state.saved_parts)


def check_digests(where: Any, found: dict[str, str], saved: dict[str, str] | None) -> None:
    """Raises DamagedWeights if a part of what was restored is not what was saved; warns where that is not known."""
    if saved is None:
        _LOG.warning("%s has no digest, so damage to its bytes would not show", where)
    elif changed := [part for part, digest in found.items() if saved[part] != digest]:
        raise DamagedWeights(f"{where}: its {' and '.join(changed)} differ from what was saved")


@contextlib.contextmanager
def say_damage(where: Any) -> Iterator[None]:
    """Raises DamagedWeights, with the place, for an error in the block that shows damage; Orbax may raise anything."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DamagedWeights) or not is_damage(error):
            raise
        raise DamagedWeights(f"{where} can't be read ({root_cause(error)})") from error


@contextlib.contextmanager
def say_removal(checkpoint: epath.Path) -> Iterator[None]:
    """Raises a FileNotFoundError for an error in the block if the run has removed this older checkpoint meanwhile."""
    try:
        yield
    except (DamagedWeights, FileNotFoundError) as error:
        if checkpoint.exists():
            raise
        raise FileNotFoundError(f"{checkpoint} was removed while it was read: its run keeps only newer ones") from error


def check_names(folders: Sequence[Any]) -> None:
    """Raises a ValueError for the folder of a step with another name than a run gives it, which Orbax would not find.

    Python takes 026, ² and ١ for digits too.
    """
    if odd := [str(path) for path in folders if not re.fullmatch("0|[1-9][0-9]*", path.name)]:
        raise ValueError(f"{', '.join(odd)}: a run names the folder of a step like 26; rename it, or move it away")


def check_damage(step: int, error: Exception) -> None:
    """Raises an OSError unless the error shows that the checkpoint of this step itself is damaged."""
    if not is_damage(error):
        raise OSError(
            f"checkpoint {step} can't be read now ({root_cause(error)}); it may be whole, so nothing was changed: mend "
            f"the cause, and run the same command again"
        ) from error


def is_damage(error: BaseException | None) -> bool:
    """Returns whether an error is about the contents of a checkpoint, and not about reading or holding them."""
    while error is not None:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        text = str(error)
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and not missing):
            return False
        if not missing and _OF_THE_MACHINE.search(text) and not _NO_SUCH_FILE.search(text):
            return False
        error = error.__cause__ or error.__context__
    return True


def is_disk_full(error: BaseException | None) -> bool:
    """Returns whether an error, or one of its causes, is that of a full disk or of a used-up quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # The libraries below Orbax have only the words.
        if not (isinstance(error, OSError) and error.errno) and _DISK_FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def root_cause(error):
    """Returns the first cause of an error in one line, without the paths and settings that TensorStore adds."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = re.split(r"\n| \[\w+=", str(error).strip())[0]
    return line if len(line) <= 320 else f"{line[:140]} … {line[-180:]}"
