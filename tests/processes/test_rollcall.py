"""`roll_call`: processes meet at one address, or each learns the fault. Threads stand for them."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.processes import free_port
from nft_jax.processes import rollcall
from nft_jax.processes.rollcall import roll_call


@pytest.fixture(autouse=True)
def digest(monkeypatch):
    """Reads the sources once, and not in each thread: on a busy machine, all come within the seconds of a test."""
    digest = rollcall.sources_digest()
    monkeypatch.setattr(rollcall, "sources_digest", lambda: digest)


def meet(numbers, processes=3, seconds=1.0, port=None, given=({},) * 5):
    """Returns the error of each of these processes; None where all is well. `given`: further arguments of each."""
    address = f"127.0.0.1:{port or free_port()}"

    def come(number, more):
        try:
            return roll_call(address, processes, number, seconds, **more)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(come, numbers, given[: len(numbers)]))


def test_roll_call_returns_when_all_are_there():
    assert meet([2, 0, 1], seconds=30) == [None] * 3
    assert meet([0], processes=1) == [None]


def test_roll_call_names_who_is_missing_to_all_who_came():
    for heard in meet([0, 2, 4], processes=5):
        assert "not all 5 processes came to 127.0.0.1:" in heard
        assert " within 1 s: missing: process 1, 3\n" in heard


def test_roll_call_says_that_process_0_can_not_be_reached():
    (heard,) = meet([1])
    assert "process 0 can't be reached at 127.0.0.1:" in heard
    assert f" from process 1 on {socket.gethostname()} within 1 s" in heard


def test_roll_call_refuses_two_processes_of_one_number():
    for heard in meet([0, 1, 1], seconds=2):
        assert "process 1 came from" in heard


def test_roll_call_names_a_port_that_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (heard,) = meet([0], port=port)
    assert f"127.0.0.1:{port} can't be opened on {socket.gethostname()} ([Errno" in heard


def test_roll_call_ignores_a_stranger_at_the_port():
    port, done = free_port(), threading.Event()

    def stranger():
        while not done.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as call:
                    call.sendall(b"GET / HTTP/1.0\n")
                    call.recv(1)
                    return
            except OSError:
                done.wait(0.01)

    thread = threading.Thread(target=stranger)
    thread.start()
    heard = meet([0, 1], processes=2, seconds=30, port=port)
    done.set()
    thread.join()
    assert heard == [None, None]


def test_roll_call_leaves_the_port_free():
    port = free_port()
    for _ in range(2):
        assert meet([0, 1], processes=2, seconds=30, port=port) == [None, None]


CONFIG = {"steps": 4, "loss": {"name": "nft", "options": {"omega": "one"}}}
VERSIONS = {"nft_jax": "0.1.0", "jax": "0.10.2", "jaxlib": "0.10.2"}
FACTS = {"config": CONFIG, "version": VERSIONS}


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        (
            {"nft_jax sources": "1" * 16},
            [f"nft_jax sources='1111111111111111', process 0 has '{rollcall.sources_digest()}'"],
        ),
        ({"version": VERSIONS | {"jax": "0.11.2"}}, ["version.jax='0.11.2', process 0 has '0.10.2'"]),
        (
            {"config": {"steps": 5, "loss": {"name": "rft", "options": {}}}},
            [
                "config.steps=5, process 0 has 4",
                "config.loss.name='rft', process 0 has 'nft'",
                "config.loss.options.omega=None, process 0 has 'one'",
            ],
        ),
        ({"config": {"steps": 4, "loss": 2}}, [f"config.loss=2, process 0 has {CONFIG['loss']!r}"]),
    ],
)
def test_roll_call_names_facts_that_differ_from_those_of_process_0(changes, faults):
    heard = meet([0, 1], processes=2, seconds=30, given=({"facts": FACTS}, {"facts": FACTS | changes}))
    lines = [f"  process 1 on {socket.gethostname()}: {fault}" for fault in faults]
    for words in heard:
        assert words is None if not faults else words.splitlines()[1:-1] == lines


def test_roll_call_names_settings_that_only_one_side_has():
    heard = meet([0, 1], processes=2, seconds=30, given=({"facts": {"b": {"c": 2}}}, {"facts": {"a": 1}}))
    for words in heard:
        assert "a=1, process 0 has None" in words
        assert "b=None, process 0 has {'c': 2}" in words


def test_roll_call_refuses_another_folder_or_one_that_can_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(rollcall, "_FOLDER_SECONDS", 0.3)
    (tmp_path / "file").touch()
    folders = [tmp_path / name for name in ("here", "there", "file/run")]
    given = tuple({"workdir": folder} for folder in folders)
    assert meet([0, 1, 2], seconds=30, given=(given[0],) * 3) == [None] * 3
    for words in meet([0, 1, 2], seconds=30, given=given):
        assert (
            f"process 1 on {socket.gethostname()}: --workdir={folders[1]} is not the folder that process 0 has" in words
        )
        assert (
            f"process 2 on {socket.gethostname()}: --workdir={folders[2]} is not the folder that process 0 has" in words
        )
    for words in meet([0, 1], processes=2, seconds=30, given=(given[2], given[2])):
        assert f"process 0 on {socket.gethostname()}: --workdir={folders[2]} can't be written: Not a directory" in words
        assert f"process 1 on {socket.gethostname()}: --workdir={folders[2]} can't be written: Not a directory" in words
    assert list(tmp_path.rglob(".rollcall*")) == []
