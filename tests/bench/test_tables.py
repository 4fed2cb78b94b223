"""The table of a sweep with several devices and peers."""

from types import SimpleNamespace

from helpers.bench import row
from nft_jax.bench.peers.process import compare_peer
from nft_jax.bench.sweep import Sweep
from nft_jax.bench.tables import sweep_table


def test_sweep_table_shows_devices_and_peers():
    peers = [
        compare_peer(
            SimpleNamespace(name="trl", part="step"), [{"step": 8.0, "rollout": 1.0, "tokens": 3}], {"step": 2.0}
        )
    ]
    memory = {"host": 500.0, "TPU_0": 70.0, "TPU_1": 90.0}
    lines = sweep_table(
        Sweep("seed", ("1",)), [row("1", 10, 2.0, peers=peers, peak_memory_mib=memory)], {}
    ).splitlines()
    assert lines[0].split()[-6:] == ["host", "MiB", "device", "MiB", "trl", "s"]
    assert lines[1].split()[-3:] == ["500", "90", "8.000"]
