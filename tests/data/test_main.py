"""The command line `python -m nft_jax.data`, which cleans a problem file."""

import json
import re
import subprocess
import sys

import pytest

from helpers.problem_files import write_split_files
from nft_jax.data.__main__ import main
from nft_jax.data.benchmarks import read


@pytest.fixture
def files(tmp_path):
    return write_split_files(tmp_path)


def test_main_cleans_a_file(files, tmp_path, capsys):
    output, report = tmp_path / "clean.jsonl", tmp_path / "report.json"
    main(
        [
            f"--problems={files['data__train']}",
            "--exclude=test, validation",
            f"--folder={tmp_path}",
            f"--output={output}",
        ]
    )
    assert [problem.problem for problem in read(str(output))] == ["1+1=", "4+4=", "5+5="]
    assert read(str(output)) == [problem for problem in read(files["data__train"]) if problem.problem[0] in "145"][
        :1
    ] + [problem for problem in read(files["data__train"]) if problem.problem[0] in "45"]
    assert capsys.readouterr().out.splitlines() == [
        f"6 problems from {files['data__train']} (problem/answer: problem 'problem', answer 'answer', solution "
        "'solution')",
        "6 training problems: 3 kept, 3 left out",
        "       1  duplicate",
        "       1  overlap with test (1 the same)",
        "       1  overlap with validation (1 the same)",
        f"output: {output}",
    ]
    main(
        [
            "--problems=train",
            f"--folder={tmp_path}",
            f"--report={report}",
            "--fields=problem,id,answer",
        ]
    )
    assert json.loads(report.read_text())["left_out"] == {"contradiction": 2}
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--problems=gsm8k_tran"], "error: 'gsm8k_tran' is neither an existing file .*did you mean 'gsm8k_train'"),
        (
            ["--problems={train}", "--fields=problem,gold"],
            "error: .*no field 'gold', which --fields names; its fields are 'problem', 'answer'",
        ),
        (
            ["--problems=math500", "--folder={folder}"],
            "error: --folder=.* has no file math500.jsonl, .*; without --folder,",
        ),
        (["--problems={train}", "--output={train}/x"], "error: .*(Not a directory|File exists): '{train}"),
        (["--problems={train}", "--output={train}"], "error: --output={train} exists already, .* name a new file"),
        (["--problems={train}", "--report={train}"], "error: --report={train} exists already, "),
        (["--problems={train}", "--output=x", "--report=x"], "error: --output=x exists already, or is given twice"),
        (["--exclude=math500"], "the following arguments are required: --problems"),
        (["--problem={train}"], "the following arguments are required: --problems"),
    ],
)
def test_main_ends_with_one_message_on_an_error(files, tmp_path, capsys, words, message):
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        main([word.format(train=files["data__train"], folder=tmp_path) for word in words])
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert re.search(message.replace("{train}", files["data__train"]), line)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_main_needs_neither_a_device_nor_jax():
    code = "import sys; sys.modules['jax'] = None; import runpy; runpy.run_module('nft_jax.data', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m nft_jax.data --problems=dapo_math_17k" in done.stdout
