"""The search for the largest size that fits: right for any machine that needs more for more, and sparing of probes."""

import pytest

from nft_jax.plan.search import largest


class Machine:
    """Needs `base + slope · n`, and a step more from each `period` on."""

    def __init__(self, base, slope, period=10**9, step=0):
        self.base, self.slope, self.period, self.step, self.asked = base, slope, period, step, []

    def __call__(self, size):
        self.asked.append(size)
        return int(self.base + self.slope * size + self.step * (size // self.period))


def by_trying_all(machine, room, most, multiple):
    return max((n for n in range(multiple, most + 1, multiple) if machine(n) <= room), default=0)


@pytest.mark.parametrize("first", [1, 8, 64, 200, 1000])
@pytest.mark.parametrize("room", [50, 108, 1000, 1100, 5000])
@pytest.mark.parametrize("shape", [(100, 1), (100, 5), (0, 3), (100, 2, 40, 30), (107, 0.01)])
@pytest.mark.parametrize(("most", "multiple"), [(512, 8), (500, 8), (30, 1), (7, 8)])
def test_it_finds_what_trying_all_finds(first, room, shape, most, multiple):
    machine = Machine(*shape)
    found = largest(machine, room, first, most, slope=2.0, multiple=multiple)
    asked = machine.asked
    assert len(set(asked)) == len(asked), "a size was tried twice"
    assert found == by_trying_all(Machine(*shape), room, most, multiple)


def test_a_line_takes_few_probes():
    machine = Machine(3_000, 57)
    assert largest(machine, 15_000, first=128, most=512, slope=50.0) == 208
    assert len(machine.asked) <= 4
