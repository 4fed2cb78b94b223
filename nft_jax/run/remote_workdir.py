"""A run whose workdir is in a bucket, gs://BUCKET/PATH: what is heavy lies there, what is light in a local folder too.

Checkpoints and weights are written to the bucket and read from it by Orbax, through TensorStore's own driver. All else
(config.json, run.json, metrics.jsonl, evaluation.jsonl, rollouts/, evaluations/, tensorboard/, model/, …) is small, and
grows line by line, which nothing in a bucket can. So it lives in a local folder under the cache; is copied to the
bucket before each checkpoint, after each evaluation and at the end; and is copied back at the start, where the
bucket's is newer or the local folder is gone, as on the new machines of a slice that was pre-empted. The local
folder's file `bucket.json` says which bucket it belongs to: whoever has the folder finds the checkpoints.

The tests let a local folder stand for the bucket, so they show which files are copied when, and that runs resume from
them. They show nothing of gcsfs, of credentials, or of how long it takes.
"""

import importlib.util
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
from etils import epath

from nft_jax.files import TEMPORARY_PREFIX, atomically
from nft_jax.processes import distributed
from nft_jax.run.compile_cache import cache_folder

SCHEME = "gs://"
LINK = "bucket.json"
HEAVY = ("checkpoints", "weights")  # folders of these names, wherever they are
_AT_ONCE = 16
_ATTACHED: dict[Path, "RemoteWorkdir"] = {}


class RemoteWorkdir:
    """A run's folder in a bucket and the local one that stands for it; any two folders will do.

    A copy is stamped with the time at which it was begun, first in the local folder, last in the bucket: the side with
    the later stamp is the newer one, and a copy that was cut short leaves the local one newer.

    Raises:
      OSError: from `fetch` and `push`, with the folder's name and whatever the bucket's library said.
    """

    def __init__(self, remote: epath.Path, local: Path):
        self.remote, self.local = remote, local
        self._pushed: dict[Path, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Brings the local folder up to date; nothing happens where it is."""
        try:
            stamp = _stamp(self.remote / LINK)
            if (self.local / LINK).exists() and stamp <= _stamp(self.local / LINK):
                return
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                list(threads.map(self._fetch, _light_files(self.remote, epath.Path())))
        except Exception as error:
            raise OSError(f"{self.remote} can't be copied to {self.local}: {_said(error)}") from error
        self._write_link(stamp)

    def push(self) -> None:
        """Copies to the bucket what has changed since the last time."""
        changed = {path: found for path, found in self._found().items() if self._pushed.get(path) != found}
        if not changed:
            return
        stamp = time.time_ns()
        self._write_link(stamp)
        try:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                list(threads.map(self._push, changed))
            self._push(Path(LINK))
        except Exception as error:
            raise OSError(f"{self.local} can't be copied to {self.remote}: {_said(error)}") from error
        self._pushed |= changed

    def _found(self) -> dict[Path, tuple[int, int]]:
        """The light files, with what changes when they do."""
        files = [Path(path) for path in _light_files(epath.Path(self.local), epath.Path())]
        stats = [(self.local / path).stat() for path in files]
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in zip(files, stats, strict=True)}

    def _fetch(self, path: epath.Path) -> None:
        target = self.local / path
        with atomically(target) as temporary:
            temporary.write_bytes((self.remote / path).read_bytes())
        stat = target.stat()
        self._pushed[Path(path)] = stat.st_mtime_ns, stat.st_size

    def _push(self, path: Path) -> None:
        target = self.remote / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.local / path).read_bytes())

    def _write_link(self, stamp: int) -> None:
        with atomically(self.local / LINK) as temporary:
            temporary.write_text(json.dumps({"bucket": str(self.remote), "pushed": stamp}) + "\n")


def attached(folder: Path) -> RemoteWorkdir | None:
    """The bucket that a local folder stands for, the same object at each call; None: it stands for itself."""
    folder = folder.resolve()
    link = folder / LINK
    if not link.is_file():
        return None
    if folder not in _ATTACHED:
        attach(epath.Path(json.loads(link.read_text())["bucket"]), folder)
    return _ATTACHED[folder]


def attach(remote: epath.Path, local: Path) -> RemoteWorkdir:
    """Has a local folder stand for one in a bucket, once `fetch` has brought it up to date."""
    local = local.resolve()
    _ATTACHED[local] = RemoteWorkdir(remote, local)
    return _ATTACHED[local]


def opened(workdir: str, setting: str = "--workdir") -> Path:
    """The folder to work in, of a `--workdir` or the like: itself, or the local one of a bucket, brought up to date.

    Raises:
      ValueError: when there is no such bucket, no access to it, or no library for it.
    """
    if "://" not in workdir:
        return Path(workdir)
    name = workdir.removeprefix(SCHEME).strip("/")
    if not workdir.startswith(SCHEME) or not name:
        raise ValueError(f"{setting}={workdir}: give a folder, or one in a bucket: {SCHEME}BUCKET/PATH")
    if importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{setting}={workdir}: that takes one more package: pip install 'nft_jax[gcs]' (or gcsfs)")
    local = (Path(cache_folder()) / "workdirs" / name).resolve()
    if local in _ATTACHED:
        return local
    bucket = RemoteWorkdir(epath.Path(SCHEME + name), local)
    try:
        bucket.fetch()
    except OSError as error:
        raise ValueError(
            f"{setting}={workdir}: {error}\n(access: gcloud auth application-default login, or the machine's service "
            f"account)"
        ) from error
    _ATTACHED[local] = bucket
    return local


def share(workdir: Path) -> None:
    """Copies what is new in a folder to its bucket, if it has one; only process 0 does.

    Raises:
      OSError: when that fails.
    """
    bucket = attached(workdir)
    # The number of a process that is alone is not asked for: that would take a TPU, which a report has no need of.
    if bucket is not None and not (jax.distributed.is_initialized() and jax.process_index()):
        bucket.push()


def level(folder: Path) -> None:
    """Brings the local folders of a run's other hosts up to date with process 0's; all processes call it.

    Raises:
      OSError: when that fails.
    """
    bucket = attached(folder)
    if bucket is None:
        return
    distributed.on_process_0(bucket.push, "bucket")
    if distributed.is_multiprocess():
        bucket.fetch()


def home(folder: Path | epath.Path) -> epath.Path:
    """Where the checkpoints and weights of a folder lie, absolute: in itself, or in the bucket of a folder it is in."""
    if str(folder).startswith(SCHEME):
        return epath.Path(folder)
    folder = Path(folder).resolve()
    for parent in (folder, *folder.parents):
        if (bucket := attached(parent)) is not None:
            return bucket.remote / folder.relative_to(parent)
    return epath.Path(folder)


def is_remote(folder: Path | epath.Path) -> bool:
    """Whether `home` is in a bucket."""
    return str(folder).startswith(SCHEME) or str(home(folder)) != str(Path(folder).resolve())


def _light_files(folder: epath.Path, inside: epath.Path) -> Iterator[epath.Path]:
    """What is copied, by its path in `folder`."""
    if not (folder / inside).is_dir():
        return
    for path in (folder / inside).iterdir():
        name, inner = path.name, inside / path.name
        if name in HEAVY or name.startswith(TEMPORARY_PREFIX) or name == LINK:
            continue
        if path.is_dir():
            yield from _light_files(folder, inner)
        else:
            yield inner


def _stamp(link: epath.Path | Path) -> int:
    return json.loads(link.read_text())["pushed"] if link.exists() else 0


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
