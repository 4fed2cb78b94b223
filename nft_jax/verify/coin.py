"""Graders for benchmarks: their verdicts cost nothing, or a known time, and mean nothing."""

import time
import zlib


def coin(response: str, answer: str) -> bool:
    """Right for every second text, the same in every process."""
    return zlib.crc32(response.encode()) % 2 == 0


def slow_coin(response: str, answer: str) -> bool:
    """`coin`, after 50 ms."""
    time.sleep(0.05)
    return coin(response, answer)
