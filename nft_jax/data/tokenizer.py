"""Text to token ids and back: one interface over Hugging Face and SentencePiece tokenizers."""

import abc
import copy
import functools
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nft_jax.data import gguf_tokenizer
from nft_jax.data.control_tokens import (
    TURN_MARK,
    ControlTokens,
    Encode,
    Prompt,
    find_control_ids,
    rename_in_hugging_face,
    rename_in_sentencepiece,
)
from nft_jax.data.gguf_files import is_gguf, open_gguf
from nft_jax.data.model_folders import check_files, download_hint, find_eos_ids, read_json_object
from nft_jax.data.stops import byte_level_pieces, compile_stops, cut_at_stop, sentencepiece_pieces
from nft_jax.data.template_process import render_apart

# Copied byte for byte on export, so that the exported folder holds the same tokenizer.
_HUGGING_FACE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


class Tokenizer(abc.ABC):
    """The interface of all tokenizers; its methods may be called from several threads.

    Attributes:
      vocab_size: Token ids, added tokens included, are in [0, vocab_size); a model may have more, padded, rows.
      eos_ids: The ids that end an answer, never empty; the first one is appended to training examples.
      stop_texts, stop_table: The texts that end an answer too, and their automaton (`compile_stops`), if there are any.
      place: The folder or file that it was read from, for messages; empty if there is none.
    """

    vocab_size: int
    eos_ids: tuple[int, ...]
    place: str = ""
    stop_texts: tuple[str, ...] = ()
    stop_table: np.ndarray | None = None

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without BOS or EOS; control tokens count wherever they stand.

        `encode_prompts` is for text of which only a part was written by a template.
        """

    @abc.abstractmethod
    def apply_chat_templates(self, chats: Sequence[Sequence[dict[str, str]]]) -> list[str]:
        """Returns the prompt text for a reply to each chat, a list of messages.

        Raises:
          ValueError: if there is no chat template, or it fails.
        """

    def apply_chat_template(self, messages: Sequence[dict[str, str]]) -> str:
        """Returns the prompt text for a reply to `messages`; raises as `apply_chat_templates`."""
        return self.apply_chat_templates([messages])[0]

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Returns the ids of each prompt, without BOS or EOS; only its template writes control tokens.

        Raises:
          MixedTextError: if a prompt does not tell which of its text the template wrote.
        """
        return self._control_tokens.encode(prompts)

    @abc.abstractmethod
    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer's files into `folder`, from which `load_tokenizer` reads the same tokenizer.

        The generation_config.json, which may declare further EOS ids, belongs to the model and is not written.
        """

    @abc.abstractmethod
    def _decode(self, ids: list[list[int]]) -> list[str]:
        """Returns the text of each list of valid ids, without special tokens."""

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Returns the text of each single id, also of special ids, for a person to read."""
        return self._decode([[i] for i in ids])

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without BOS or EOS."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text before the first EOS or stop text; special ids and ids of padded rows are left out."""
        return self.decode_batch([ids])[0]

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Decodes several lists or NumPy arrays of ids, each as by `decode`."""
        return [cut_at_stop(text, self.stop_texts) for text in self._decode([self._cut_at_eos(row) for row in ids])]

    def stop_at(self, texts: Sequence[str]) -> None:
        """Lets these texts end answers, of which `decode` leaves them out; raises ValueError as `compile_stops`."""
        self.stop_texts = tuple(texts)
        self.stop_table = compile_stops(texts, self._pieces()) if texts else None

    @functools.cached_property
    def _control_tokens(self) -> ControlTokens:
        return ControlTokens(self._control_ids(), self.encode_batch, self._make_twin)

    def _control_ids(self) -> dict[str, int]:
        """Returns the texts that become control tokens, with their ids."""
        return {}

    def _make_twin(self, names: Mapping[str, str]) -> Encode:
        """Returns an encoder that differs from `encode_batch` in the names of the control tokens, given by their texts.

        Only tokenizers with control tokens have one.
        """
        raise NotImplementedError

    def _pieces(self) -> list[bytes]:
        """Returns the bytes of each id, which join to the text of several ids; raises ValueError if they do not."""
        raise ValueError("config.rollout.stop: this tokenizer does not tell the bytes of its ids; use stop=''")

    def _cut_at_eos(self, ids: Sequence[int]) -> list[int]:
        row = np.asarray(ids, dtype=np.int64)
        ends = np.flatnonzero(np.isin(row, self.eos_ids))
        row = row[: ends[0]] if ends.size else row
        return row[(row >= 0) & (row < self.vocab_size)].tolist()


class HuggingFaceTokenizer(Tokenizer):
    """The tokenizer of a Hugging Face folder with a `tokenizer.json`."""

    def __init__(self, folder: Path, name: Path | None = None):
        self.place = str(name or folder)
        for file in (folder / name for name in _HUGGING_FACE_FILES if name.endswith(".json")):
            if file.is_file():
                read_json_object(file)  # which names a broken file, and a key with two values; other readers do not
        # Silences the advice to install PyTorch, which only models need.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers import PreTrainedTokenizerFast  # slow to import, so imported on use

        try:
            # Not AutoTokenizer: a model's own class may rebuild the tokenizer from its vocabulary by other rules. This
            # class reads tokenizer.json as it is and never runs code from the folder.
            self._tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:
            raise ValueError(f"{folder} has no readable Hugging Face tokenizer: {error!r}") from error
        self._files = {n: (folder / n).read_bytes() for n in _HUGGING_FACE_FILES if (folder / n).is_file()}
        self._backend = self._tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._lock = threading.Lock()  # `tokenizers` may raise "Already borrowed" when threads share an object
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.eos_ids = find_eos_ids(folder, vocabulary, self._tokenizer.eos_token_id)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with self._lock:
            return [encoding.ids for encoding in self._backend.encode_batch(list(texts), add_special_tokens=False)]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        with self._lock:
            return self._backend.decode_batch([[i] for i in ids], skip_special_tokens=False)

    def apply_chat_templates(self, chats: Sequence[Sequence[dict[str, str]]]) -> list[str]:
        if not self._tokenizer.chat_template:
            raise ValueError(
                f"{self.place}: it has no chat template; use another config.data.template, e.g. 'plain_boxed'"
            )
        try:
            template, fault = self._tokenizer.get_chat_template(), ""
        except ValueError as error:  # it has several templates, and none is the default
            fault = str(error)
        if not fault:
            inputs, constants = [{"messages": list(chat)} for chat in chats], self._tokenizer.special_tokens_map
            texts, fault, _ = render_apart("chat", template, inputs, constants)
        if fault:
            raise ValueError(f"{self.place}: its chat template can't be used: {fault}; choose another prompt template")
        return texts

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (folder / name).write_bytes(content)

    def _decode(self, ids: list[list[int]]) -> list[str]:
        with self._lock:
            return self._backend.decode_batch(ids, skip_special_tokens=True)

    def _pieces(self) -> list[bytes]:
        return byte_level_pieces(self._backend, self.vocab_size)

    def _control_ids(self) -> dict[str, int]:
        return find_control_ids(self._backend.get_added_tokens_decoder(), self._tokenizer.unk_token)

    def _make_twin(self, names: Mapping[str, str]) -> Encode:
        twin = copy.copy(self)
        twin._backend = type(self._backend).from_str(rename_in_hugging_face(self._backend.to_str(), names))
        return twin.encode_batch


class SentencePieceTokenizer(Tokenizer):
    """The tokenizer of a SentencePiece model file."""

    def __init__(self, path: Path):
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{path} is not a readable SentencePiece model: {error}") from error
        if self._processor.eos_id() < 0:
            raise ValueError(
                f"the SentencePiece model {path} has no end-of-sequence piece, so no answer could end; "
                "train it with an eos_id of 0 or more"
            )
        self.vocab_size = self._processor.vocab_size()
        self.eos_ids = (self._processor.eos_id(),)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts), add_bos=False, add_eos=False)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return [self._processor.id_to_piece(i).replace("\u2581", " ") for i in ids]

    def apply_chat_templates(self, chats: Sequence[Sequence[dict[str, str]]]) -> list[str]:
        raise ValueError(
            "a SentencePiece tokenizer has no chat template; use another config.data.template, e.g. 'plain'"
        )

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(self._processor.serialized_model_proto())

    def _decode(self, ids: list[list[int]]) -> list[str]:
        return self._processor.decode(ids) if ids else []  # decode([]) would return "", not []

    def _pieces(self) -> list[bytes]:
        return sentencepiece_pieces(self._processor)

    def _control_ids(self) -> dict[str, int]:
        # No text becomes a control piece, but a mark may be a piece of the user's definition.
        pieces = ((self._processor.id_to_piece(i), i) for i in range(self.vocab_size))
        return {text: i for text, i in pieces if TURN_MARK.fullmatch(text) and not self._processor.is_control(i)}

    def _make_twin(self, names: Mapping[str, str]) -> Encode:
        model = rename_in_sentencepiece(self._processor.serialized_model_proto(), names)
        twin = copy.copy(self)
        twin._processor = type(self._processor)(model_proto=model)
        return twin.encode_batch


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Loads a folder with a `tokenizer.json`, a SentencePiece `.model` file, a folder with one, or a GGUF file's.

    Nothing is downloaded and no code from the folder is run.

    Raises:
      FileNotFoundError: if there is no such path.
      ValueError: if it has no tokenizer, several `.model` files, an unreadable file, or a tokenizer without EOS.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer at {path}: no such file or folder. {download_hint(path)}")
    if path.is_file():
        if path.suffix == ".model":
            return SentencePieceTokenizer(path)
        if is_gguf(path):
            with tempfile.TemporaryDirectory() as folder:
                gguf_tokenizer.write_tokenizer(open_gguf(path), Path(folder))
                return HuggingFaceTokenizer(Path(folder), path)
        raise ValueError(
            f"{path} is neither a SentencePiece .model file nor a .gguf file; for a Hugging Face tokenizer, give the "
            f"folder of this file"
        )
    check_files(path)
    if (path / "tokenizer.json").is_file():
        return HuggingFaceTokenizer(path)
    models = sorted(path.glob("*.model"))
    if len(models) == 1:
        return SentencePieceTokenizer(models[0])
    names = ", ".join(p.name for p in models) if models else ", ".join(sorted(p.name for p in path.iterdir())[:8])
    raise ValueError(
        f"{path} has neither a tokenizer.json nor exactly one SentencePiece .model file, but: {names or 'nothing'}. "
        "Give a folder with a tokenizer.json, or the path of one .model file"
    )
