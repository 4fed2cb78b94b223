"""A run whose workdir is in a bucket: `--workdir=gs://BUCKET/PATH`.

Orbax writes checkpoints and weights to the bucket and reads them from it. All other files (config.json, metrics.jsonl,
rollouts/, evaluations/, model/, …) are small, and some grow line by line, which no object in a bucket can. They live in
a local folder, the mirror `<cache>/workdirs/BUCKET/PATH`. `pull` copies them from the bucket at the start; `push`
copies changed ones to it before each checkpoint, after each evaluation and at the end. A run therefore resumes on new
machines, for example when those of a slice were preempted.

Each push writes a new random stamp into the bucket and the mirror. Equal stamps mean that no other machine has pushed
since, so the mirror is at least as new as the bucket; different stamps mean that the bucket is newer.

A run that goes on on this machine has locked its mirror, which is then not older than the bucket: `open_workdir` leaves
it alone.

In the tests a local folder stands for the bucket. They cover which files are copied when, but neither gcsfs nor
credentials nor the time that copying takes.
"""

import importlib.util
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from nft_jax.compat import coordination
from nft_jax.files import TEMPORARY_PREFIX, atomically, cache_folder, is_locked
from nft_jax.processes import distributed

SCHEME = "gs://"
STAMP = ".bucket_stamp"
LOCKS = (".lock", "lock.json")  # of the folder here, and of the one in the bucket
_LARGE_FOLDERS = ("checkpoints", "weights")  # in the bucket alone, at any depth
_THREADS = 16


def open_workdir(workdir: str, setting: str = "--workdir") -> Path:
    """Returns the local folder of a workdir: the folder itself, or the mirror of one in a bucket, up to date.

    Raises:
      ValueError: if the bucket doesn't exist or can't be accessed, or the package gcsfs is missing. `setting` names
        the flag or setting that gave the workdir.
    """
    if not workdir.startswith(SCHEME) and "://" not in workdir:
        return _check_local(Path(workdir), setting)
    name = workdir.removeprefix(SCHEME).strip("/")
    if not workdir.startswith(SCHEME) or not name:
        raise ValueError(f"{setting}={workdir}: give a local folder, or one in a bucket: {SCHEME}BUCKET/PATH")
    if importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{setting}={workdir} needs the package gcsfs: pip install 'nft_jax[gcs]'")
    mirror = _mirrors() / name
    try:
        if not is_locked(mirror / LOCKS[0]):
            pull(mirror)
    except OSError as error:
        raise ValueError(
            f"{setting}={workdir}: {error}\n(to get access: gcloud auth application-default login, or the machine's "
            f"service account)"
        ) from error
    return mirror


def _check_local(folder: Path, setting: str) -> Path:
    """Returns the folder of this machine, which may not exist yet; raises a ValueError for what can't become one."""
    try:
        folder.resolve()
        if folder.is_symlink() and not folder.exists():
            fault = f"is a link to {folder.readlink()}, which does not exist"
        elif folder.exists() and not folder.is_dir():
            fault = "is no folder"
        elif str(folder).startswith("~"):
            fault = "names a home folder that this machine does not have"
        else:
            return folder
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        fault = f"can't be used: {error}"
    raise ValueError(f"{setting}={folder} {fault}; give another folder")


def storage_folder(folder: Path) -> epath.Path:
    """Returns the absolute folder for the checkpoints and weights of a workdir: the same one, or that in its bucket."""
    folder = folder.resolve()
    return epath.Path(f"{SCHEME}{folder.relative_to(_mirrors())}" if is_remote(folder) else folder)


def is_remote(folder: Path) -> bool:
    """Returns whether a folder mirrors one in a bucket."""
    return folder.resolve().is_relative_to(_mirrors())


def pull(folder: Path) -> None:
    """Copies the small files of a mirror from its bucket if the bucket is newer; any other folder is left alone.

    Raises:
      OSError: if that fails.
    """
    if not is_remote(folder):
        return
    bucket, stamp = storage_folder(folder), folder / STAMP
    try:
        newest = (bucket / STAMP).read_text(encoding="utf-8") if (bucket / STAMP).exists() else ""
        if stamp.exists() and stamp.read_text(encoding="utf-8") == newest:
            return
        _copy_files(bucket, folder, _small_files(bucket))
        with atomically(stamp) as temporary:
            temporary.write_text(newest, encoding="utf-8")
    except Exception as error:
        raise OSError(f"{bucket} can't be copied to {folder}: {type(error).__name__}: {error}") from error


def push(folder: Path) -> None:
    """Copies what has changed in a mirror since the last copy to its bucket; only process 0 does.

    Raises:
      OSError: if that fails; the next push copies the same files again.
    """
    if not is_remote(folder) or coordination.process_id:
        return
    bucket, stamp = storage_folder(folder), folder / STAMP
    since = stamp.stat().st_mtime_ns if stamp.exists() else 0
    try:
        # The new stamp is older than any later change, and replaces the old one only when all files are copied.
        with atomically(stamp) as temporary:
            temporary.write_text(secrets.token_hex(8), encoding="utf-8")
            files = [file for file in _small_files(folder) if (folder / file).stat().st_mtime_ns >= since]
            _copy_files(folder, bucket, files)
            (bucket / STAMP).write_text(temporary.read_text(encoding="utf-8"), encoding="utf-8")
    except Exception as error:
        raise OSError(f"{folder} can't be copied to {bucket}: {type(error).__name__}: {error}") from error


def synchronize(folder: Path) -> None:
    """Gives the mirrors on all hosts of a run the files of process 0; all processes call it.

    Raises:
      OSError: if that fails.
    """
    if is_remote(folder):
        distributed.on_process_0(lambda: push(folder), "bucket")
        pull(folder)


def _mirrors() -> Path:
    return Path(cache_folder()).resolve() / "workdirs"


def _small_files(folder: Path | epath.Path, inside: str = "") -> Iterator[str]:
    """Yields the files to copy, as paths relative to `folder`."""
    if (folder / inside).is_dir():
        for path in (folder / inside).iterdir():
            if path.name in (*_LARGE_FOLDERS, *LOCKS, STAMP) or path.name.startswith(TEMPORARY_PREFIX):
                continue
            name = f"{inside}/{path.name}" if inside else path.name
            yield from _small_files(folder, name) if path.is_dir() else [name]


def _copy_files(source: Path | epath.Path, target: Path | epath.Path, files: Iterator[str] | list[str]) -> None:
    def copy(file):
        with atomically(target / file) as temporary:
            temporary.write_bytes((source / file).read_bytes())

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(copy, files))
