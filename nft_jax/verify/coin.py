"""Graders for `configs/bench.py` and `configs/smoke.py`: verdicts are arbitrary, and take no time or a known time."""

import time
import zlib


def coin(response: str, answer: str) -> bool:
    """Returns True for every second text; the same text gets the same verdict in every process."""
    return zlib.crc32(response.encode()) % 2 == 0


def slow_coin(response: str, answer: str) -> bool:
    """Returns what `coin` does, after 50 ms."""
    time.sleep(0.05)
    return coin(response, answer)
