"""Notes about what ran correctly on which kind of device; `python -m nft_jax.smoke` writes them."""

import re
import sys
from typing import Any

from etils import epath
from jax.sharding import Mesh

from nft_jax.files import atomically, cache_folder, json_text, read_json_object
from nft_jax.parallel.mesh import TENSOR
from nft_jax.processes import distributed

# The note that decode loops with callbacks gave correct answers with a different number of trips on each data shard.
DIVERGING = "diverging_loops"


def folder() -> epath.Path:
    """Returns the folder of the notes."""
    return cache_folder() / "executed"


def write_note(kind: str, what: str, details: dict[str, Any]) -> epath.Path:
    """Notes that `what` ran on devices of a kind; returns the file.

    Raises:
      OSError: if it can't be written.
    """
    path = _path(kind)
    notes = {**_read(path), what: details}
    with atomically(path) as temporary:
        temporary.write_text(json_text(notes, 2) + "\n", encoding="utf-8")
    return path


def read_note(kind: str, what: str) -> dict[str, Any] | None:
    """Returns the details of a note, or None; an unreadable file counts as no note, and is named on stderr."""
    return _read(_path(kind)).get(what)


def uses_lockstep(mesh: Mesh) -> bool:
    """Returns whether the data shards of a mesh decode in lockstep by default; all processes call it.

    On TPUs they do until a note says that diverging loops ran on this kind of device, with collectives over `tensor`
    inside if this mesh has them. All processes must decide alike, so one without the note decides for all.
    """
    device = mesh.devices.flat[0]
    if device.platform != "tpu":
        return False
    seen = read_note(device.device_kind, DIVERGING)
    diverges = seen is not None and (mesh.shape[TENSOR] == 1 or seen["tensor"] > 1)
    return distributed.any_process(not diverges)


def _path(kind):
    return folder() / f"{re.sub(r'[^a-z0-9]+', '_', kind.lower())}.json"


def _read(path):
    if not path.exists():
        return {}
    try:
        return read_json_object(path)
    except ValueError as error:
        print(f"{error}; the file is ignored; `python -m nft_jax.smoke` writes it", file=sys.stderr)
        return {}
