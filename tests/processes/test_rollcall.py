"""Processes meet at one address, or each hears who is missing. Threads stand for them."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from helpers.processes import free_port
from nft_jax.processes.rollcall import roll_call


def meet(numbers, processes=3, seconds=1.0, port=None):
    """What each of these processes heard: None where all was well."""
    address = f"127.0.0.1:{port or free_port()}"

    def come(number):
        try:
            return roll_call(address, processes, number, seconds)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(come, numbers))


def test_all_who_are_there_go_on():
    assert meet([2, 0, 1], seconds=30) == [None] * 3
    assert meet([0], processes=1) == [None]


def test_those_who_came_hear_who_is_missing():
    for heard in meet([0, 2, 4], processes=5):
        assert "within 1 s not all 5 processes came to 127.0.0.1:" in heard
        assert "missing: process 1, 3;" in heard


def test_without_process_0_nobody_is_to_be_reached():
    (heard,) = meet([1])
    assert f"process 0 is not to be reached from process 1 on {socket.gethostname()}" in heard


def test_two_of_one_number_are_refused():
    for heard in meet([0, 1, 1], seconds=2):
        assert "process 1 came from" in heard


def test_a_port_that_somebody_has_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (heard,) = meet([0], port=port)
    assert f"port {port} can't be opened on {socket.gethostname()} ([Errno" in heard


def test_a_stranger_at_the_port_is_no_process():
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


def test_the_port_is_free_again():
    port = free_port()
    for _ in range(2):
        assert meet([0, 1], processes=2, seconds=30, port=port) == [None, None]
