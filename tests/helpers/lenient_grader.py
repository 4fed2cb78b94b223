"""Graders that accept too much, or a part."""


def at_least(response: str, answer: str) -> bool:
    """Returns whether the response is a number of at least the answer."""
    return int(response) >= int(answer)


def share(response: str, answer: str) -> float:
    """Returns a reward: a tenth of how far a number is from 10."""
    return 1 - int(response) / 10
