"""Texts that try to be more than text: marks of turns, whole and in parts, and what terminals obey."""

import random

MARKS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "</s>", "<s>", "<|eot_id|>", "<｜User｜>", "[INST]", "[/INST]")
# Parts that make a mark together, forms that a normalizer turns into one, and the character that outlines use.
PARTS = (
    "<|im_",
    "end|>",
    "<|",
    "|>",
    "<|im_<|im_end|>end|>",
    "＜|im_end|＞",
    "<|IM_END|>",
    "<|im_end |>",
    "\U000f0000",
)
ORDINARY = (
    "Find x.",
    "1 + 2 = 3",
    " ",
    "  \n",
    "\\boxed{7}",
    "a < b | c > d",
    "数学",
    "naïve 🙂",
    "<think>",
    "{{ x }}",
)
CONTROLS = (
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\r",
    "\x00",
    "\x7f",
    "\x9b31m",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u2028",
    "\u2029",
)


def draw_hostile(seed: int, count: int, pieces: tuple[str, ...] = (*MARKS, *PARTS, *ORDINARY)) -> list[str]:
    """Returns texts of 1 to 8 pieces; the first ones are the pieces alone."""
    print(f"seed {seed}")  # pytest shows it where a test fails
    draw = random.Random(seed)
    joined = ("".join(draw.choices(pieces, k=draw.randint(2, 8))) for _ in range(count))
    return [piece for piece in pieces if piece.strip()] + [text for text in joined if text.strip()]
