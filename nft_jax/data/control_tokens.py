"""Control tokens: those that prompt templates write, and that no text from outside may become.

A prompt is tokenized as one text, in which problems, messages and solutions might hold "<|im_end|>". A prompt therefore
comes with its outline, in which the characters from outside are blanks: a control token counts only where the outline
has it too. Elsewhere the same characters are encoded as any other text, by a twin of the tokenizer that knows its
control tokens by secret names alone; the names stand where the template wrote a control token.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Stands for each character from outside, white space aside, so that templates trim and split an outline as the text.
BLANK = "\U000f0000"
# How families mark turns: <|im_start|>, <｜User｜>, <start_of_turn>, [INST], <s>. Some do not declare them as special.
TURN_MARK = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>|</?(?:start_of_turn|end_of_turn|s|bos|eos)>|\[/?INST\]")

Encode = Callable[[Sequence[str]], list[list[int]]]


class Prompt(NamedTuple):
    """A text of which a template wrote a part.

    Attributes:
      text: The exact text.
      outline: What the template makes of the same messages with a `BLANK` for each of their characters.
    """

    text: str
    outline: str

    @property
    def is_aligned(self) -> bool:
        """Whether each character of the outline is a blank or that of the text, so that both have the same places."""
        return len(self.text) == len(self.outline) and all(
            mine in (its, BLANK) for its, mine in zip(self.text, self.outline, strict=True)
        )


def blank(text: str) -> str:
    """Returns the outline of a text from outside."""
    return re.sub(r"\S", BLANK, text)


def outside(text: str) -> Prompt:
    """Returns a text of which no template wrote anything, such as a worked solution."""
    return Prompt(text, blank(text))


class MixedTextError(ValueError):
    """A prompt's text from outside can't be distinguished from what its template wrote.

    Attributes:
      place: The number of the prompt, from 0.
    """

    def __init__(self, place: int, text: str):
        super().__init__(
            f"its text {text!r} would become a control token, and the template changes texts, so that they can't be "
            "distinguished from its own; take it out, or choose another config.data.template"
        )
        self.place = place


class ControlTokens:
    """The control tokens of a tokenizer, and how it encodes prompts.

    Attributes:
      ids: The id of each by its text.
    """

    def __init__(self, ids: Mapping[str, int], encode: Encode, make_twin: Callable[[dict[str, str]], Encode]):
        """Makes them of their `ids`.

        Args:
          encode: Encodes texts, in which each control token counts wherever it stands.
          make_twin: Returns an encoder to which each control token is known only by the name in the given dict.
        """
        self.ids = dict(ids)
        self._numbers = frozenset(ids.values())
        self._pattern = re.compile("|".join(map(re.escape, sorted(ids, key=len, reverse=True))) or "(?!)")
        self._encode, self._make_twin = encode, make_twin
        self._twin: tuple[dict[str, str], Encode] | None = None

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Returns the ids of each prompt, whose control tokens are those that its template wrote.

        Raises:
          MixedTextError: if a template changes the text of its messages so that it can't be distinguished from its own.
        """
        rows = self._encode([prompt.text for prompt in prompts])
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            if not self._has_only_written(prompt, row):
                rows[place] = self._encode_apart(place, prompt, row)
        return rows

    def _has_only_written(self, prompt: Prompt, row: list[int]) -> bool:
        """Returns whether the control tokens of a row are those of the outline, at the same places of both texts."""
        text, outline = ([(match.start(), match[0]) for match in self._pattern.finditer(each)] for each in prompt)
        return text == outline and self._find(row) == [self.ids[mark] for _, mark in outline]

    def _find(self, row: Sequence[int]) -> list[int]:
        return [i for i in row if i in self._numbers]

    def _encode_apart(self, place: int, prompt: Prompt, row: list[int]) -> list[int]:
        """Encodes a prompt whose ids `row` may have control tokens that its outline does not have."""
        # The tokenizer itself decides what a control token is: some count only between spaces.
        written = self._find(self._encode([prompt.outline])[0])
        if prompt.is_aligned:
            names, encode = self._twin_and_names()
            pieces, end = [], 0
            for match in self._pattern.finditer(prompt.outline):
                pieces += [prompt.text[end : match.start()], names[match[0]]]
                end = match.end()
            row = encode(["".join([*pieces, prompt.text[end:]])])[0]
        if self._find(row) == written:
            return row
        raise MixedTextError(place, self._excerpt(prompt))

    def _twin_and_names(self) -> tuple[dict[str, str], Encode]:
        if self._twin is None:
            # Nobody can write these names into a text that was there before.
            names = {text: f"control{secrets.token_hex(16)}" for text in self.ids}
            self._twin = names, self._make_twin(names)
        return self._twin

    def _excerpt(self, prompt: Prompt) -> str:
        places = {match.start() for match in self._pattern.finditer(prompt.outline)}
        found = [match for match in self._pattern.finditer(prompt.text) if match.start() not in places]
        return found[0][0] if found else prompt.text[:80]


def find_control_ids(added: Mapping[int, Any], unknown: str | None) -> dict[str, int]:
    """Returns the control tokens of a Hugging Face tokenizer: the special ones, and those that mark turns.

    Others that were added, such as runs of spaces or `<think>`, are text. So is the token of unknown characters.

    Args:
      added: `AddedToken` by id.
    """
    return {
        token.content: i
        for i, token in added.items()
        if (token.special or TURN_MARK.fullmatch(token.content)) and token.content.strip() and token.content != unknown
    }


def rename_in_hugging_face(content: str, names: Mapping[str, str]) -> str:
    """Returns a tokenizer.json in which tokens have other names; no merge makes them of parts any more."""
    tokenizer = json.loads(content)
    for token in tokenizer["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    tokenizer["post_processor"] = None  # it may name them, and adds what prompts don't have
    model = tokenizer["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(text, text): i for text, i in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
    if "merges" in model:
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if not names.keys() & {*pair, "".join(pair)}]
    return json.dumps(tokenizer)


def rename_in_sentencepiece(content: bytes, names: Mapping[str, str]) -> bytes:
    """Returns a serialized SentencePiece model in which pieces have other names."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(content)
    for piece in model.pieces:
        piece.piece = names.get(piece.piece, piece.piece)
    return model.SerializeToString()
