"""JAX's persistent compile cache, for every program of the package: compiled programs that outlive their process."""

import os
import socket
import sys

import jax
from etils import epath


def folder() -> epath.Path:
    """Where compiled programs are kept: `$JAX_COMPILATION_CACHE_DIR`, a bucket's perhaps, else `cache_folder()/xla`."""
    return epath.Path(jax.config.jax_compilation_cache_dir or cache_folder() / "xla")


def cache_folder() -> epath.Path:
    """What may be lost and made again: `$NFT_JAX_CACHE`, else `~/.cache/nft_jax`."""
    return epath.Path(os.environ.get("NFT_JAX_CACHE") or "~/.cache/nft_jax").expanduser()


def start() -> epath.Path | None:
    """Has JAX keep compiled programs in `folder()`, and says on stderr if it can't; returns the folder, or None.

    JAX keeps no program that calls the host, whatever it is asked (jax/_src/compiler.py, `_cache_write`): the step and
    the evaluation, which call the verifier, are compiled at every start. What is kept is the rest, if it takes a second
    to compile: the warm start, the first weights and moments. On GPUs XLA keeps what its autotuning found there too, of
    all programs. Of several processes JAX has the first write: the others find nothing, unless the folder is shared.
    Whoever can write to it can have this process run what they like: it is to be the user's own.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"probe.{socket.gethostname()}.{os.getpid()}"
        probe.write_bytes(bytes(2**10))
        probe.unlink()
    except Exception as error:  # of a bucket, whatever its library raises
        print(
            f"the compile cache {path} can't be written, and isn't used: {error}\n"
            f"(another place: NFT_JAX_CACHE=FOLDER; none: --compile_cache=false)",
            file=sys.stderr,
            flush=True,
        )
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    return path
