"""Fingerprints of runs: the settings, problems, tokenizer and weights that decide the numbers of a run."""

import functools
import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.config import Config, Phase, settings_of, to_dict
from nft_jax.data.dataset import Dataset
from nft_jax.data.order import mix_bits
from nft_jax.data.prompts import ExampleTable, PromptTable
from nft_jax.data.template_files import SUFFIX, read_template
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.losses import LOSSES
from nft_jax.own_code import digest
from nft_jax.parallel.layout import HOST_MEMORY
from nft_jax.run.json_files import find_fault, read_json
from nft_jax.types import Array

# In the folder of a run, of a warm start and of a study.
FINGERPRINT_FILE = "fingerprint.json"
# What `origin` of a fingerprint holds, in words.
_ORIGIN = {
    "eos_ids": "the ids that end an answer",
    "tokenizer": "the digest of the tokenizer's texts",
    "weights": "the digest of the weights in config.model.path",
    "teacher": "the digest of the weights in config.distillation.teacher",
}
_BLOCK, _BLOCKS = 4096, 256


def make_fingerprint(config: Config, dataset: Dataset, folder: Path, frozen: Any = None) -> dict:
    """Returns what a checkpoint keeps of its run: every setting, digests of the problems by split, and the origin.

    Args:
      folder: the workdir, whose fingerprint tells what is not known any more because a model folder is gone.
      frozen: the frozen weights beside adapters.
    """
    origin = make_origin(config, dataset.tokenizer)
    return {
        "config": to_dict(config),
        "own_code": own_code(config),
        "problems": {name: problems_digest(table) for name, table in dataset.tables.items()},
        "origin": {name: read_origin(folder).get(name) if it is None else it for name, it in origin.items()},
        "frozen": frozen and weights_digest(frozen),
    }


def own_code(config: Config) -> dict[str, str]:
    """Returns digests of a user's own code, by the settings that name it: losses, their parts, graders, templates."""
    settings = _settings(to_dict(config)).items()
    named = {key: x for key, x in settings if key.startswith(("loss.", "verify.")) and isinstance(x, str)}
    digests = {setting: digest(name) for setting, name in named.items()}
    if config.data.template.endswith(SUFFIX):
        text = read_template(config.data.template).encode()
        digests["data.template"] = hashlib.sha256(text).hexdigest()[:16]
    return {setting: digest for setting, digest in digests.items() if digest is not None}


def make_origin(config: Config, tokenizer: Tokenizer) -> dict:
    """Returns what ends an answer, and digests of the tokenizer and of the weights of model folder and teacher.

    The last two are None where a run does not start from a model folder, or has no teacher, or the folder is gone.
    """
    path, teacher = "" if config.base else config.model.path, config.distillation.teacher
    return {
        "eos_ids": list(tokenizer.eos_ids),
        "tokenizer": texts_digest(tokenizer),
        "weights": stored_weights_digest(Path(path)) if path else None,
        "teacher": stored_weights_digest(Path(teacher).expanduser()) if teacher else None,
    }


def read_origin(folder: Path) -> dict:
    """Returns the origin of the run in a folder; empty where no version that writes one has run there."""
    path = folder / FINGERPRINT_FILE
    return read_fingerprint_file(path).get("origin", {}) if path.is_file() else {}


def read_fingerprint_file(path: Path) -> dict:
    """Returns a fingerprint that a run has written.

    Raises:
      ValueError: if the file holds anything else.
    """
    values = read_json(path, {"config": dict, "problems": dict})
    loss = {"loss": dict(), **values["config"]}["loss"]
    if not isinstance(loss, dict) or find_fault(loss, {"name": str, "options": dict}):
        raise ValueError(f"{path} has no settings of a loss: repair or remove the file")
    if not isinstance(values.get("origin", {}), dict):
        raise ValueError(f"{path} needs an object as 'origin': repair or remove the file")
    return values


def find_other_origin(saved: dict, given: dict) -> list[str]:
    """Returns a line for each part of two origins that differs; a part that only one of them knows does not."""
    return [
        f"{_ORIGIN[name]}: the run has {saved[name]}, given {value}"
        for name, value in given.items()
        if value is not None and saved.get(name) not in (None, value)
    ]


def check_same(
    saved: dict, given: dict, where: Any, phases: Phase = Phase.RUN, varied: Collection[str] = frozenset()
) -> None:
    """Checks that a run can continue with the fingerprint `given` where a run with the fingerprint `saved` ended.

    Args:
      saved, given: two results of `make_fingerprint`.
      where: the folder of the saved run.
      phases: the settings that decide numbers of one of these phases must be equal.
      varied: names of settings and sections that may differ all the same.

    Raises:
      ValueError: with both values of everything that differs.
    """
    if saved.get("phase") != given.get("phase"):
        kinds = [one.get("phase", "reinforced") for one in (saved, given)]
        raise ValueError(f"{where} holds a {kinds[0]} run, and a {kinds[1]} one is to begin: give another --workdir")
    before, now = _settings(saved["config"]), _settings(given["config"])
    # A setting that only one of the two versions has does not count as a difference. An option of a custom loss that
    # only one of the two runs gives does.
    own = "loss.own." if before["loss.name"] == now["loss.name"] else ()
    shared = [name for name in before | now if (name in before and name in now) or name.startswith(own)]
    deciding = _deciding(given["config"], phases)
    faults = [
        f"config.{name}: the run has {before.get(name)!r}, given {now.get(name)!r}"
        for name in shared
        if before.get(name) != now.get(name) and _is_in(name, deciding) and not _is_in(name, varied)
    ]
    codes = saved.get("own_code", {})
    other_code = [
        f"the code of config.{name}={now[name]!r}: the run has that of digest {codes[name]}, given {code}"
        for name, code in given.get("own_code", {}).items()
        if codes.get(name) not in (None, code)
        and before.get(name) == now[name]
        and _is_in(name, deciding)
        and not _is_in(name, varied)
    ]
    if not given["config"].get("record", {}).get("allow_other_code"):
        faults += [f"{fault} (config.record.allow_other_code=true goes on with it)" for fault in other_code]
    elif other_code and jax.process_index() == 0:
        print("config.record.allow_other_code:", *other_code, sep="\n  ", flush=True)
    faults += [
        f"the {name} problems: the run has those of digest {saved['problems'].get(name)}, given {digest}"
        for name, digest in given["problems"].items()
        if saved["problems"].get(name) != digest
    ]
    faults += find_other_origin(saved.get("origin", {}), given["origin"])
    digests = saved.get("frozen"), given.get("frozen")
    if None not in digests and digests[0] != digests[1]:
        faults.append(f"the frozen weights: the run has those of digest {digests[0]}, given {digests[1]}")
    if faults:
        raise ValueError(
            f"{where} holds another run:\n  " + "\n  ".join(faults) + f"\ngive its values to go on with it, or another "
            f"--workdir (and --config.base={where} to start from its weights)"
        )


def check_origin(folder: Path, given: dict) -> None:
    """Checks that the run in a folder, if there is one, has the origin `given`.

    Raises:
      ValueError: with both values of everything that differs.
    """
    if faults := find_other_origin(read_origin(folder), given):
        raise ValueError(
            f"{folder} holds a run of another model:\n  " + "\n  ".join(faults) + "\ngive the run's own by "
            "--config.model.path=FOLDER and --config.data.tokenizer=FOLDER, or leave these flags out"
        )


def _deciding(config: dict, phases: Phase) -> set[str]:
    """Returns the names of the settings that decide numbers of these phases, and of the sections of loss options."""
    names = {setting.name for setting in settings_of(Config) if setting.decides & phases}
    if config["optimizer"]["schedule"] == "constant":
        # The number of steps matters only to a schedule that decays to the last step.
        names.discard("steps")
    if config["rollout"].get("partial"):
        # What waits in the slots has their shapes, and was drawn when they were free.
        names |= {"rollout.slots", "mesh.replica", "mesh.data"}
    return names | {f"loss.{name}" for name in (*LOSSES, "own") if "loss.options" in names}


def _is_in(name: str, names: Collection[str]) -> bool:
    """Returns whether the setting or a section that holds it is among the names."""
    return any(".".join(name.split(".")[: depth + 1]) in names for depth in range(name.count(".") + 1))


def _settings(config: dict) -> dict[str, Any]:
    """Returns every setting by its name on the command line."""
    loss = config["loss"]
    options = {loss["name"] if loss["name"] in LOSSES else "own": loss["options"]}
    return dict(_flat(config | {"loss": {k: v for k, v in loss.items() if k != "options"} | options}))


def _flat(values: dict, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def problems_digest(table: PromptTable) -> str:
    """Returns 16 hexadecimal digits that depend on every token of the prompts, and on the reference answers."""
    digest = hashlib.sha256(table.token_QP.tobytes())
    digest.update("\0".join(table.answers).encode())
    return digest.hexdigest()[:16]


def texts_digest(tokenizer: Tokenizer) -> str:
    """Returns 16 hexadecimal digits that depend on the text of every id, which is what a grader reads of answers."""
    texts = tokenizer.decode_batch([[i] for i in range(tokenizer.vocab_size)])
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()[:16]


def stored_weights_digest(path: Path) -> str | None:
    """Returns 16 hexadecimal digits of the weights in a model folder's safetensors files, or in a GGUF file.

    They depend on the size of each file and on 256 blocks of 4 KiB spread over it, the header's first. Training changes
    weights everywhere, and reading all of a large model would take minutes. None where there are no such files.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] * path.is_file()
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with open(file, "rb") as opened:
            for number in range(_BLOCKS):
                opened.seek(max(size - _BLOCK, 0) * number // (_BLOCKS - 1))
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()[:16] if files else None


def examples_digest(table: ExampleTable) -> str:
    """Returns 16 hexadecimal digits that depend on every token of worked examples."""
    parts = (table.token_QP, table.prompt_length_Q, table.response_QT, table.response_length_Q)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


def weights_digest(weights: Any) -> str:
    """Returns 16 hexadecimal digits that depend on every bit of the arrays, and not on their layout on a mesh.

    Each array is summed on its devices, in integers, whose sum has no order: Σ mix(bits ⊕ mix(place)) mod 2³². A change
    of one element always changes the sum, because the mix is a bijection.

    Integers of matrices in int8 are left out. They follow from the same weights as the scales of their channels, but a
    quotient near the middle of two integers may be rounded differently on a device of another kind.
    """
    leaves = [(path, x) for path, x in jax.tree_util.tree_leaves_with_path(weights) if x.dtype != jnp.int8]
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    arrays = [jnp.asarray(x) for _, x in leaves]
    waiting = tuple(x.sharding.memory_kind == HOST_MEMORY for x in arrays)
    named = [f"{path}={value}" for path, value in zip(paths, jax.device_get(_checksums(arrays, waiting)), strict=True)]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


def text_digest(values: dict) -> str:
    """Returns 16 hexadecimal digits that depend on every value of a JSON object, and not on the order of its names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@functools.partial(jax.jit, static_argnums=1)
def _checksums(arrays: list[Array], waiting: tuple[bool, ...]) -> list[Array]:
    """Returns the checksum of each array; those that are `waiting` in the host's memory are moved first."""
    moved = (jax.device_put(x, jax.memory.Space.Device) if it else x for x, it in zip(arrays, waiting, strict=True))
    return [_checksum(x) for x in moved]


def _checksum(x: Array) -> Array:
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    if x.dtype == bool:
        bits = x.astype(jnp.uint32)
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    return jnp.sum(mix_bits(bits ^ mix_bits(place)), dtype=jnp.uint32)
