"""Searches for the largest size that fits, with few probes, because a probe may take minutes."""

from collections.abc import Callable


def largest_fit(needs: Callable[[int], int], room: int, first: int, most: int, slope: float, multiple: int = 8) -> int:
    """Returns the largest multiple of `multiple`, at most `most`, that needs at most `room`; 0 if none does.

    Args:
      needs: what a size needs; it grows nearly linearly, so that two probes predict the next one.
      first: the size to try first.
      slope: what one more needs, as a guess until there are two probes.
    """
    fits, fails = 0, (most // multiple + 1) * multiple
    tried: dict[int, int] = {}
    size = max(min(first, most) // multiple * multiple, multiple)
    while fits + multiple < fails:
        tried[size] = needs(size)
        fits, fails = (size, fails) if tried[size] <= room else (fits, size)
        if len(tried) > 1:
            low, high = sorted(tried)[:: len(tried) - 1]
            slope = max((tried[high] - tried[low]) / (high - low), 1.0)
        guess = size + (room - tried[size]) / slope
        size = min(max(int(guess) // multiple * multiple, fits + multiple), fails - multiple)
    return fits
