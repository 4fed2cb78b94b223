"""The tokenizer of a GGUF file, written as the files of a Hugging Face folder.

A GGUF file names its rules of splitting text ("pre-tokenizer") and lists the tokens and merges of byte-level BPE.
"""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors

from nft_jax.data.gguf_files import Gguf
from nft_jax.files import json_text
from nft_jax.names import unknown

# Kinds of tokens in `tokenizer.ggml.token_type`.
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PREFIX = "tokenizer.ggml."
_OTHER = "name the tokenizer of the model's own folder by config.data.tokenizer=FOLDER"


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    parts = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
_SINGLE_DIGITS = _split(rf"{_WORDS}|\p{{N}}|{_REST}")
_THREE_DIGITS = _split(rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}")
# Rules by their names in `tokenizer.ggml.pre`. transformers' reader lacks SmolLM's. "default" comes from a converter
# that doesn't know the tokenizer.
_RULES = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
    "qwen2": _SINGLE_DIGITS,
    "deepseek-r1-qwen": _SINGLE_DIGITS,
    "llama-bpe": _THREE_DIGITS,
    "llama3": _THREE_DIGITS,
    "llama-v3": _THREE_DIGITS,
}


def eos_ids(gguf: Gguf) -> list[int]:
    """Returns the ids that end a document, a turn or a message, as far as the file names them."""
    ids = [gguf.values.get(f"{_PREFIX}{name}_token_id") for name in ("eos", "eot", "eom")]
    return list(dict.fromkeys(i for i in ids if i is not None))


def write_tokenizer(gguf: Gguf, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json, generation_config.json (EOS ids) and the chat template.

    Raises:
      ValueError: if the tokenizer is of another kind than byte-level BPE, or parts of it are missing.
    """
    values = {key.removeprefix(_PREFIX): value for key, value in gguf.values.items() if key.startswith(_PREFIX)}
    _check(gguf.path, values)
    try:
        tokenizer = _build(values)
    except Exception as error:  # the library raises nothing more exact
        raise ValueError(f"{gguf.path}: its tokens and merges make no tokenizer ({error}); {_OTHER}") from error
    special = {
        f"{name}_token": values["tokens"][values[f"{key}_token_id"]]
        for name, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
        if f"{key}_token_id" in values
    }
    if _adds_bos(values):
        bos = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{bos} $A", f"{bos} $A {bos} $B", [(bos, values["bos_token_id"])]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = special | {
        "add_bos_token": _adds_bos(values),
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "generation_config.json", {"eos_token_id": eos_ids(gguf)})
    if template := gguf.values.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _check(path: Path, values: dict[str, Any]) -> None:
    if values.get("model") != "gpt2":
        raise ValueError(f"{path}: its tokenizer is of kind {values.get('model')!r}, and only 'gpt2' is read; {_OTHER}")
    if missing := [_PREFIX + key for key in ("tokens", "merges", "token_type", "pre") if not values.get(key)]:
        raise ValueError(f"{path} has no {', '.join(missing)}; {_OTHER}")
    if values["pre"] not in _RULES:
        raise ValueError(f"{path}: {unknown('pre-tokenizer', values['pre'], _RULES)}; {_OTHER}")
    count = len(values["tokens"])
    faults = [f"{key}={i}" for key, i in values.items() if key.endswith("_token_id") and not 0 <= i < count]
    if len(values["token_type"]) != count:
        faults.append(f"{len(values['token_type'])} kinds of tokens")
    if faults:
        raise ValueError(f"{path} has {count} tokens, but {_PREFIX}… {', '.join(faults)}; download it again")


def _build(values: dict[str, Any]) -> tokenizers.Tokenizer:
    tokens, kinds = values["tokens"], values["token_type"]
    # Converters fill up the table with unused tokens, which the model's own tokenizer does not have.
    vocabulary = {text: i for i, (text, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != _UNUSED}
    merges = [tuple(merge.split(" ", 1)) for merge in values["merges"]]
    rule = _RULES[values["pre"]]
    model = tokenizers.models.BPE(vocabulary, merges, ignore_merges=rule is _THREE_DIGITS)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = rule, decoders.ByteLevel()
    if values["pre"] == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    added = {
        kind: [AddedToken(text, normalized=False, special=kind == _CONTROL) for text in texts]
        for kind in (_CONTROL, _USER_DEFINED)
        if (texts := [text for text, each in zip(tokens, kinds, strict=True) if each == kind])
    }
    for each in added.values():
        tokenizer.add_tokens(each)
    return tokenizer


def _adds_bos(values: dict[str, Any]) -> bool:
    """Returns whether other programs begin a text with BOS; this one leaves it to the prompt template."""
    default = _RULES[values["pre"]] is _THREE_DIGITS
    return "bos_token_id" in values and bool(values.get("add_bos_token", default))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json_text(values, 2) + "\n", encoding="utf-8")
