"""Files and folders that appear complete or not at all, and the folder of files that can be made again."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

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


def _flush_to_disk(path: Path | epath.Path) -> None:
    """Waits until the file's bytes are on the disk: a rename may otherwise reach it before them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
