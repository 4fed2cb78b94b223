"""A grader that is right too often."""


def at_least(response: str, answer: str) -> bool:
    """Whether the response is a number that is not smaller than the answer."""
    return int(response) >= int(answer)
