"""The table of several benchmarks."""

import json
import sys

from helpers.bench import row
from nft_jax.bench import summary


def write(folder, seconds, **more):
    folder.mkdir()
    shares = {"rollout_share_of_matmul": 0.5, "update_share_of_matmul": 0.25, "rollout_tokens_per_second": 1234.0}
    result = row("1", 10, seconds, **shares | more)
    result["median"] |= {"gap": 0.01, "gap_max": 0.1}
    (folder / "bench.json").write_text(json.dumps(result))
    return folder


def test_summary_compares_with_the_first_run_and_names_one_without_results(tmp_path, monkeypatch, capsys):
    chip = {"chip": "H200", "rollout_share_of_bandwidth": 0.4, "update_mfu": 0.5}
    folders = [write(tmp_path / "plain", 2.0), write(tmp_path / "switch", 3.0, **chip), tmp_path / "failed"]
    monkeypatch.setattr(sys, "argv", ["summary", "--ratios", *map(str, folders)])
    summary.main()
    head, plain, switch, failed = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "step", "s"]
    assert "2.000 (1.00×)" in plain and "1,234" in plain and "50% of matmul" in plain
    assert "3.000 (1.50×)" in switch and "40% of bandwidth" in switch and "50% MFU" in switch
    assert failed.split() == ["failed", "no", "results"]
    assert "×" not in summary.summarize(folders, ratios=False)
