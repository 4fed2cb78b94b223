"""Reading files of a Hugging Face model folder, with errors that say what a folder holds instead, and what to type."""

import functools
from pathlib import Path

from nft_jax import files
from nft_jax.names import quote

# What a folder without settings, weights or tokenizer may be: a pattern of its files, and what to do. The first that
# is found counts.
_OTHER_FOLDERS = {
    "adapter_config.json": (
        'It is a LoRA adapter; put it into its base model first: python -c "from peft import AutoPeftModelForCausalLM '
        "as M; M.from_pretrained('{folder}').merge_and_unload().save_pretrained('OUTPUT')\", add the base model's "
        "tokenizer files to OUTPUT, and use config.model.path=OUTPUT"
    ),
    "*.gguf": "It holds a GGUF file, which is read too: config.model.path={found}",
    "snapshots/*/config.json": "It is a cache of the Hugging Face hub; use config.model.path={parent}",
    "model_world_size_*.pt": (
        "It is a checkpoint of verl; merge it: python -m verl.model_merger merge --backend fsdp --local_dir {folder} "
        "--target_dir OUTPUT"
    ),
    "actor/model_world_size_*.pt": (
        "It is a checkpoint of verl; merge it: python -m verl.model_merger merge --backend fsdp --local_dir {parent} "
        "--target_dir OUTPUT"
    ),
    "*/actor/model_world_size_*.pt": (
        "It holds checkpoints of verl; merge one: python -m verl.model_merger merge --backend fsdp "
        "--local_dir {parent} --target_dir OUTPUT"
    ),
    "*/mp_rank_*": "It is a checkpoint of DeepSpeed; write its weights as safetensors, by its own zero_to_fp32.py",
    "fingerprint.json": (
        "It is a workdir of this program: start from its weights by config.base={folder}, or write them as a model "
        "folder: python -m nft_jax.export --workdir={folder} --output=OUTPUT"
    ),
    "*.gz": "Its files are packed; type: gunzip {folder}/*.gz",
    "*.bin": (
        'Its weights are in {name}, and only safetensors are read. Convert them with PyTorch: python -c "from '
        "transformers import AutoModelForCausalLM as M; M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    ),
    "*/config.json": "A folder in it is a model folder; use config.model.path={parent}",
}
_OTHER_FOLDERS |= dict.fromkeys(("*.pt", "*.pth"), _OTHER_FOLDERS["*.bin"])
# A tokenizer.json is longer than any other file of JSON.
read_json_object = functools.partial(files.read_json_object, remedy="; download it again", most_bytes=10**9)
_SUFFIXES = (".json", ".jinja", ".model", ".safetensors", ".txt")
# A base model's eos_token ends a document, an instruct model's ends a turn. Whichever is declared, both end an answer.
_END_NAMES = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")


def download_hint(folder: Path) -> str:
    """Returns the sentence that says how a model of the Hugging Face hub is downloaded into `folder`."""
    return f"A model of the Hugging Face hub is downloaded by: hf download OWNER/NAME --local-dir {folder}"


def describe_contents(folder: Path) -> str:
    """Returns what to do with a folder that lacks a part of a model: by what it holds instead, or download it."""
    for pattern, advice in _OTHER_FOLDERS.items():
        if found := sorted(folder.glob(pattern)):
            return advice.format(folder=folder, found=found[0], parent=found[0].parent, name=found[0].name)
    return download_hint(folder)


def check_files(folder: Path) -> None:
    """Raises a ValueError for what is called like a file of a model and is none, which a reader would take for missing.

    A pipe would also wait for a writer, and a link may lead to a device that has no end.
    """
    if odd := sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES and not path.is_file()):
        raise ValueError(
            f"{folder}: no file on a disk, but a folder, a pipe, a device or a broken link: {', '.join(odd[:8])}; put "
            f"the file in its place, or remove it"
        )


def read_declared_eos(path: Path) -> list[int | None]:
    """Returns the `eos_token_id` of a generation_config.json or config.json, which is one id, a list of ids or null.

    Raises:
      ValueError: if it is anything else.
    """
    declared = read_json_object(path).get("eos_token_id")
    ids = declared if isinstance(declared, list) else [declared]
    if not all(i is None or type(i) is int for i in ids):
        raise ValueError(
            f"{path}: eos_token_id is {quote(declared)}; it must be an id like 2 or a list of ids like [2, 5]"
        )
    return ids


def find_eos_ids(folder: Path, vocabulary: dict[str, int], declared: int | None) -> tuple[int, ...]:
    """Returns the declared EOS, then those of the model's settings, then well-known ends of turn or document.

    Raises:
      ValueError: if there is none, or the settings declare what is no id.
    """
    ids, size = [declared], max(vocabulary.values()) + 1
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            ids += read_declared_eos(folder / name)
    ids += [vocabulary.get(name) for name in _END_NAMES]
    eos_ids = tuple(dict.fromkeys(i for i in ids if i is not None and 0 <= i < size))
    if not eos_ids:
        raise ValueError(
            f"the tokenizer in {folder} has no end-of-sequence token, so no answer could end; "
            'add "eos_token": "<its text>" to its tokenizer_config.json'
        )
    return eos_ids
