"""The largest size that fits, found with few probes, for each may take minutes."""

from collections.abc import Callable


def largest(needs: Callable[[int], int], room: int, first: int, most: int, slope: float, multiple: int = 8) -> int:
    """The largest multiple of `multiple`, at most `most`, that needs at most `room`; 0 if none does.

    `needs(n)` grows with n, nearly in a line: each probe says where to try next. `first` is tried first, and `slope` is
    what one more is thought to need until two probes tell.
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
