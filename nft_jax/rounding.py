"""Whole numbers rounded up to a multiple."""

from typing import TypeVar

Number = TypeVar("Number")


def ceil_div(number: Number, divisor: int) -> Number:
    """Divides and rounds up: `⌈number / divisor⌉`, for Python integers and integer arrays alike."""
    return -(-number // divisor)


def round_up(number: Number, multiple: int) -> Number:
    """Rounds up to a multiple: the smallest one that is at least `number`."""
    return ceil_div(number, multiple) * multiple
