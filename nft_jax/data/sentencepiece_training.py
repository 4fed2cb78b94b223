"""Training of a SentencePiece model, for problems that come with no tokenizer."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from nft_jax.files import atomically


def train_sentencepiece(texts: Iterable[str], path: str | Path, *, symbols: Sequence[str] = ("\\boxed{",)) -> Path:
    """Trains a character-level SentencePiece model, in which each of `symbols` is one piece, and writes it to `path`.

    Ids are 0 for `<unk>`, 1 for `</s>` (EOS), then the symbols, then the characters of `texts`, most frequent first.
    There is no dummy prefix and no normalization. The bytes of the file depend on `texts` and `symbols` only.

    Returns:
      The path.

    Raises:
      ValueError: if `path` does not end in `.model`, there is no text, or a character can't become a piece.
    """
    import sentencepiece

    path = Path(path)
    if path.suffix != ".model":
        raise ValueError(f"{path} does not end in .model, by which a SentencePiece model is recognized")
    texts = [text for text in texts if text]
    characters = set().union(*texts)
    if not characters:
        raise ValueError("training a tokenizer needs at least one text that is not empty")
    unusable = sorted(characters & set("\n\r\0\u2581"))
    if unusable:
        raise ValueError(
            f"the texts contain {unusable!r}, which SentencePiece can't give back; replace these characters"
        )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="char",
        vocab_size=len(characters) + len(symbols) + 2,
        hard_vocab_limit=False,
        character_coverage=1.0,
        user_defined_symbols=list(symbols),
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        max_sentence_length=1 << 20,
        shuffle_input_sentence=False,
        num_threads=1,
        minloglevel=2,
    )
    with atomically(path) as temporary:
        temporary.write_bytes(model.getvalue())
    return path
