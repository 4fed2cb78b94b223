"""The search for the largest size that fits: correct for any growing need, with few probes."""

import pytest

from nft_jax.plan.search import largest_fit


class Machine:
    """Needs `base + slope · n`, and `step` more from each `period` on."""

    def __init__(self, base, slope, period=10**9, step=0):
        self.base, self.slope, self.period, self.step, self.sizes = base, slope, period, step, []

    def __call__(self, size):
        self.sizes.append(size)
        return int(self.base + self.slope * size + self.step * (size // self.period))


def by_trying_all(machine, room, most, multiple):
    return max((n for n in range(multiple, most + 1, multiple) if machine(n) <= room), default=0)


@pytest.mark.parametrize("first", [1, 8, 64, 200, 1000])
@pytest.mark.parametrize("room", [50, 108, 1000, 1100, 5000])
@pytest.mark.parametrize("shape", [(100, 1), (100, 5), (0, 3), (100, 2, 40, 30), (107, 0.01)])
@pytest.mark.parametrize(("most", "multiple"), [(512, 8), (500, 8), (30, 1), (7, 8)])
def test_largest_fit_finds_what_trying_all_finds(first, room, shape, most, multiple):
    machine = Machine(*shape)
    found = largest_fit(machine, room, first, most, slope=2.0, multiple=multiple)
    assert len(set(machine.sizes)) == len(machine.sizes), "a size was tried twice"
    assert found == by_trying_all(Machine(*shape), room, most, multiple)


def test_largest_fit_takes_few_probes_on_a_line():
    machine = Machine(3_000, 57)
    assert largest_fit(machine, 15_000, first=128, most=512, slope=50.0) == 208
    assert len(machine.sizes) <= 4
