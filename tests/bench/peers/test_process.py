"""Peers: their processes, Pythons, workloads and ratios."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.bench import SIZES, fake_python
from helpers.experiments import small
from nft_jax.bench.peers import process
from nft_jax.bench.peers.process import PEERS, Peer, compare_peer, match_pythons, peer_workload
from nft_jax.bench.workload import Lengths, read_lengths


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            "print('loading', file=sys.stderr); sys.exit('no module named trl\\n\\n')",
            "its last line: no module named trl",
        ),
        ("break", "without output"),
    ],
)
def test_peer_step_reports_the_log_of_a_process_that_ended(tmp_path, action, words):
    with (
        Peer("tunix", fake_python(tmp_path, action), {}, tmp_path) as peer,
        pytest.raises(ValueError, match=f"--peer=tunix: the other process ended, {words} \\({tmp_path}/tunix.log"),
    ):
        peer.step()


def test_peer_refuses_a_python_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="--peer_python=/nowhere/python: .*name the Python that has google-tunix"):
        Peer("tunix", "/nowhere/python", {}, tmp_path)


def test_match_pythons():
    assert match_pythons([], ["python3"]) == []
    assert match_pythons(["trl", "generate"], ["a"]) == [("trl", "a"), ("generate", "a")]
    assert match_pythons(["trl", "tunix", "generate"], ["a", "b", "c"]) == [
        ("trl", "a"),
        ("tunix", "b"),
        ("generate", "c"),
    ]
    for names, pythons, message in (
        (["trll"], ["a"], r"--peer=trll: use trl, tunix, generate, vllm.*did you mean 'trl'"),
        (["trl", "trl"], ["a"], "--peer=trl,trl: name each peer once"),
        (["trl", "tunix", "generate"], ["a", "b"], "--peer_python=a,b: 2 for 3 peers"),
    ):
        with pytest.raises(ValueError, match=message):
            match_pythons(names, pythons)


def test_peer_workload():
    config = small(**SIZES)
    assert peer_workload(config, read_lengths("full", config), ["trl"])["max_answer_tokens"] == 12
    assert peer_workload(config, read_lengths("fixed:5", config), ["vllm"])["max_answer_tokens"] == 5
    with pytest.raises(ValueError, match="--lengths=lognormal:5:0.5: a peer can't take a length for each answer"):
        peer_workload(config, read_lengths("lognormal:5:0.5", config), ["trl"])
    for changes in ({"model__dtype": "bfloat16"}, {"updates_per_step": 2}, {"rollout__temperature": 0.5}):
        with pytest.raises(
            ValueError, match=f"config.{next(iter(changes)).replace('__', '.')}=.*use the same to compare"
        ):
            peer_workload(small(**SIZES | changes), Lengths("full"), ["vllm", "trl"])
    half = small(**SIZES, model__dtype="bfloat16", updates_per_step=2)
    assert peer_workload(half, Lengths("full"), ["generate", "vllm"])["dtype"] == "bfloat16"
    with pytest.raises(ValueError, match="config.model.dtype='auto': name the number format"):
        peer_workload(small(**SIZES, model__dtype="auto"), Lengths("full"), ["vllm"])


def test_compare_peer_divides_medians_of_the_same_part():
    ours = {"step": 2.0, "rollout": 0.5}
    steps = [{"step": s, "rollout": 1.0, "tokens": 5} for s in (3.0, 5.0, 9.0)]
    found = compare_peer(SimpleNamespace(name="trl", part="step"), steps, ours)
    assert (found["ratio"], found["median"]["step"], found["spread"]) == (2.5, 5.0, [3.0, 9.0])
    steps = [{"rollout": s, "tokens": 5} for s in (3.0, 5.0, 9.0)]
    found = compare_peer(SimpleNamespace(name="generate", part="rollout"), steps, ours)
    assert (found["ratio"], found["spread"]) == (10.0, [3.0, 9.0])


def test_peers_scripts_import_nothing_of_this_package():
    for script in PEERS.values():
        tree = ast.parse(Path(process.__file__).with_name(script.file).read_text())
        plain = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        from_ = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = [*plain, *(node.module for node in from_)]
        assert names
        assert not [name for name in names if name.startswith("nft_jax")]
        assert not any(node.level for node in from_)
