"""What several processes are told, by flags and environment, and what they tell one another."""

import jax
import pytest

from nft_jax.processes.distributed import AUTO, VARIABLES, Launch, read_launch
from nft_jax.processes.ending import is_process_loss
from nft_jax.processes.preflight import _differences, _host_faults


def asking(environment=None, **flags):
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
        # A flag that says one process, where a launcher's environment says several.
        ({"distributed": ""}, variables("a:1", "2", "0"), None),
    ],
)
def test_what_is_asked_for(flags, environment, launch):
    assert asking(environment, **flags) == launch


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
def test_what_can_not_be_meant_is_refused_in_words(flags, environment, words):
    with pytest.raises(ValueError, match=words) as refused:
        asking(environment, **flags)
    assert all(name in str(refused.value) for name in VARIABLES.values())


def told(**changes):
    """What a host tells at the start."""
    versions = {"nft_jax": "0.1.0", "jax": "0.10.2", "jaxlib": "0.10.2"}
    host = {"host": "a", "folder": "", "clock": 100.0, "versions": versions, "sources": "0" * 16}
    return host | {"config": {"steps": 4, "loss": {"name": "nft", "options": {"omega": "one"}}}} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"clock": 104.0}, []),
        ({"clock": 109.0}, ["its clock is 9 s ahead of process 0's"]),
        ({"clock": 40.0}, ["its clock is 60 s behind process 0's"]),
        ({"clock": None}, []),
        ({"folder": "can't write"}, ["can't write"]),
        ({"sources": "1" * 16}, ["sources of digest 1111111111111111, process 0 0000000000000000"]),
        ({"versions": told()["versions"] | {"jax": "0.11.2"}}, ["jax 0.11.2, process 0 has 0.10.2"]),
        (
            {"config": {"steps": 5, "loss": {"name": "rft", "options": {}}}},
            [
                "config.steps=5, process 0 has 4",
                "config.loss.name='rft', process 0 has 'nft'",
                "config.loss.options.omega=None, process 0 has 'one'",
            ],
        ),
    ],
)
def test_a_host_that_differs_from_process_0_is_told_what_differs(changes, words):
    faults = _host_faults(told(**changes), told())
    assert len(faults) == len(words)
    assert all(word in fault for fault, word in zip(faults, words, strict=True))


def test_settings_of_one_side_alone_differ_too():
    assert list(_differences({"a": 1}, {"b": {"c": 2}})) == [("a", 1, None), ("b", None, {"c": 2})]


GLOO = "UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:41656"


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (jax.errors.JaxRuntimeError(GLOO), True),
        (ValueError(GLOO), True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: failed to connect to the coordination service\nmore"), True),
        (caused(OSError("a checkpoint could not be written"), jax.errors.JaxRuntimeError(GLOO)), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory in gloo"), False),
        (ValueError("--distributed=barrier: use HOST:PORT"), False),
        (OSError("No space left on device"), False),
    ],
)
def test_a_loss_is_told_from_other_errors(monkeypatch, error, is_one):
    assert not is_process_loss(error)
    monkeypatch.setattr("nft_jax.processes.ending.is_multiprocess", lambda: True)
    assert is_process_loss(error) == is_one
