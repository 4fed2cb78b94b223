"""A grader that accepts too much."""


def at_least(response: str, answer: str) -> bool:
    """Returns whether the response is a number of at least the answer."""
    return int(response) >= int(answer)
