"""A grader whose import takes longer than an item may."""

import time

time.sleep(2.5)


def equal(response: str, answer: str) -> bool:
    """Compares, or hangs for the response "hang"."""
    while response == "hang":
        time.sleep(1)
    return response == answer
