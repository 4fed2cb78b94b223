"""JAX's persistent compile cache, which keeps compiled programs for later processes."""

import os
import socket
import sys

import jax
from etils import epath

from nft_jax.files import cache_folder


def folder() -> epath.Path:
    """Returns the folder of compiled programs: `$JAX_COMPILATION_CACHE_DIR` (maybe in a bucket), else `…/xla`."""
    return epath.Path(jax.config.jax_compilation_cache_dir or cache_folder() / "xla")


def start() -> epath.Path | None:
    """Lets JAX keep compiled programs in `folder()`; returns the folder, or None if it is off or can't be written.

    JAX never keeps a program that calls the host (jax/_src/compiler.py, `_cache_write`). The step and the evaluation
    call the verifier, so they are compiled at every start. The warm start and the first weights and moments are kept if
    they take a second to compile. On GPUs XLA keeps its autotuning results of all programs there too. With several
    processes only the first writes, so the others find nothing unless the folder is shared. Whoever can write to the
    folder can make this process run any code: it must belong to the user.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"probe.{socket.gethostname()}.{os.getpid()}"
        probe.write_bytes(bytes(2**10))
        probe.unlink()
    except Exception as error:  # for a bucket, its library may raise anything
        print(
            f"the compile cache {path} can't be written, and isn't used: {error}\n"
            f"(set NFT_JAX_CACHE=FOLDER for another folder, --compile_cache=false for none)",
            file=sys.stderr,
            flush=True,
        )
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    return path
