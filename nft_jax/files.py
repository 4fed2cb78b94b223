"""Files and folders that appear complete or not at all, their JSON, locks, and the folder of files to make again."""

import contextlib
import fcntl
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

TEMPORARY_PREFIX = "partial."


def cache_folder() -> epath.Path:
    """Returns the folder of files that can be made again: `$NFT_JAX_CACHE`, else `~/.cache/nft_jax`."""
    return epath.Path(os.environ.get("NFT_JAX_CACHE") or "~/.cache/nft_jax").expanduser()


@contextlib.contextmanager
def atomically(path: Path | epath.Path) -> Iterator[Path | epath.Path]:
    """Yields a temporary path beside `path`, and renames it to `path` at the end of the block.

        with atomically(folder / "result.json") as temporary:
            temporary.write_text("{}")

    The block writes a file or makes a folder at the temporary path, whose name ends like that of `path`. Whenever the
    process dies, `path` holds what it held before or all that the block wrote. A file replaces an existing file; a
    folder replaces only an empty one. If the block raises, what it wrote is removed.

    Args:
      path: A local path, whose missing parent folders are made, or a file in a bucket as `epath.Path`: such a file is
        written directly, because buckets show it only when it is complete.
    """
    if "://" in str(path):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        if temporary.is_file():
            _flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            epath.Path(temporary).rmtree()
        else:
            temporary.unlink(missing_ok=True)
        raise


def name_output(path: str, flag: str) -> Path:
    """Returns the path that a flag names for something new; raises a ValueError for one in a bucket."""
    if "://" in path:
        raise ValueError(f"--{flag}={path}: give a path on this machine; only --workdir can be in a bucket")
    return Path(path)


def json_text(value: Any, indent: int | None = None, *, sort_keys: bool = False) -> str:
    """Returns a value as JSON, in which NaN and inf, which JSON lacks, are null; every file of JSON is written so."""
    options: dict[str, Any] = {"indent": indent, "sort_keys": sort_keys, "ensure_ascii": False, "allow_nan": False}
    try:
        return json.dumps(value, **options)
    except ValueError:
        return json.dumps(_without_nonfinite(value), **options)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Returns the value of a JSON text by `json.loads` with these options; files that a person may have written, too.

    Raises:
      ValueError: for what is no JSON or too deep, and for two values of one key, the first of which would be lost.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = find_twice(name for name, _ in pairs) or ""
        raise ValueError(f"it gives {twice[:80]!r} twice in one object, and only one value can count")
    return values


def find_twice(names: Iterable[str]) -> str | None:
    """Returns the first name that was there before; None if all differ."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def read_json_object(path: Path | epath.Path, remedy: str = "", most_bytes: int = 2**26) -> dict[str, Any]:
    """Returns the object of a JSON file.

    Args:
      remedy: The end of an error's message.
      most_bytes: A longer file is refused unread.

    Raises:
      ValueError: with one line for a file that is longer, is not in UTF-8, or is anything else.
    """
    size = epath.Path(path).stat().length
    if size > most_bytes:
        raise ValueError(f"{path} has {size} bytes, more than any such file{remedy}")
    content = path.read_bytes()
    try:
        value = parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise ValueError(_describe_encoding(path, content) or f"{path} is no JSON: {error}{remedy}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object {{…}}{remedy}")
    return value


def _describe_encoding(path: Path | epath.Path, content: bytes) -> str:
    """Returns how to convert JSON in another encoding than UTF-8; "" for what is none."""
    encoding = json.detect_encoding(content)
    try:
        parse_json(content.decode(encoding))
    except ValueError:
        return ""
    return (
        f"{path} is in {encoding}, as some programs on Windows write it, and other programs can't read it; convert it: "
        f"python -c \"from pathlib import Path; p = Path('{path}'); p.write_text(p.read_text('{encoding}'), 'utf-8')\""
    )


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nonfinite(inner) for key, inner in value.items()}
    return [_without_nonfinite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _flush_to_disk(path: Path | epath.Path) -> None:
    """Waits until the file's bytes are on the disk: a rename may otherwise reach it before them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_file(path: Path) -> int | None:
    """Locks a file, which is made if it is missing, until `unlock_file` or the end of this process.

    Returns:
      A handle for `unlock_file`; None if another process has locked it.

    Raises:
      OSError: if the file can't be opened, or its file system keeps no locks.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder removes the file at its end: the lock of a file that is gone keeps nobody out.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Returns whether a process has locked a file by `lock_file`."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def unlock_file(path: Path, handle: int) -> None:
    """Removes a file that `lock_file` locked, and its lock."""
    path.unlink(missing_ok=True)
    os.close(handle)
