"""`read_launch`: how flags and environment say which process this is."""

import pytest

from nft_jax.processes.distributed import AUTO, VARIABLES, Launch, read_launch


def read(environment=None, **flags):
    return read_launch(dict.fromkeys(VARIABLES) | flags, environment or {})


def variables(distributed=None, processes=None, process=None):
    given = zip(VARIABLES.values(), (distributed, processes, process), strict=True)
    return {name: value for name, value in given if value is not None}


@pytest.mark.parametrize(
    ("flags", "environment", "launch"),
    [
        ({}, {}, None),
        ({}, variables(""), None),
        ({"distributed": "auto"}, {}, Launch(AUTO)),
        ({}, variables("auto"), Launch(AUTO)),
        ({"distributed": "a.b:8476", "processes": 4, "process": 3}, {}, Launch("a.b:8476", 4, 3)),
        ({}, variables("10.0.0.1:80", "2", "0"), Launch("10.0.0.1:80", 2, 0)),
        ({"process": 1}, variables("[::1]:80", "2", "0"), Launch("[::1]:80", 2, 1)),
        # A flag for one process, although a launcher has set the variables.
        ({"distributed": ""}, variables("a:1", "2", "0"), None),
    ],
)
def test_read_launch_takes_flags_before_the_environment(flags, environment, launch):
    assert read(environment, **flags) == launch


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        ({"processes": 4}, {}, "--processes=4: --distributed is not given; give --distributed=HOST:PORT too"),
        ({}, variables(None, "4", "0"), "--processes=4 and --process=0: --distributed is not given"),
        (
            {"distributed": "auto", "process": 1},
            {},
            "--process=1: --distributed=auto finds these by itself; leave",
        ),
        ({"distributed": "atuo"}, {}, "--distributed=atuo: use HOST:PORT of process 0, like 10.0.0.1:8476, or auto"),
        ({"distributed": "host:80000", "processes": 1, "process": 0}, {}, "--distributed=host:80000: use HOST:PORT"),
        ({"distributed": ":80"}, {}, "--distributed=:80: use HOST:PORT"),
        ({"distributed": "a:1", "processes": 2}, {}, "needs --processes=N, .*--process is missing"),
        ({}, variables("a:1", "two", "0"), "--processes got 'two'"),
        ({"distributed": "a:1", "processes": 0, "process": 0}, {}, "--processes=0: must be positive"),
        ({"distributed": "a:1", "processes": 2, "process": 2}, {}, "--process=2: of 2 processes, use one of 0 to 1"),
        ({"distributed": "a:1", "processes": 2, "process": -1}, {}, "--process=-1: of 2 processes"),
    ],
)
def test_read_launch_refuses_what_can_not_be_meant(flags, environment, words):
    with pytest.raises(ValueError, match=words) as refused:
        read(environment, **flags)
    assert all(name in str(refused.value) for name in VARIABLES.values())
