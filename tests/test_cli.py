"""The command line: help and errors within seconds, in one message, and without a device."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from helpers import commands
from helpers.commands import ROOT
from helpers.experiments import small
from nft_jax import cli
from nft_jax.config_files import locate
from nft_jax.losses import resolve
from nft_jax.own_code import digest
from nft_jax.printing import visible

# No such platform exists: whoever touches a device, or only asks how many there are, dies of it.
NO_DEVICE = "no_such_platform"

BOTH = "--config=tiny", "--workdir={folder}/run"
CASES = {
    "help": ("train", "--help"),
    "help of sft": ("sft", "--help"),
    "help of report": ("report", "--help"),
    "mistyped setting": ("train", *BOTH, "--config.answer_per_prompt=3"),
    "help of all settings": ("train", "--config=tiny", "--help", "--config.rollout.slots=7"),
    "help of all settings of plan": ("plan", "--help", "--config", "eval_7b"),
    "option of an external loss without one": ("train", *BOTH, "--config.loss.own.strength=3"),
    "mistyped option of an external loss": (
        "train",
        *BOTH,
        "--config.loss.name=nft_jax.losses.rft:rft",
        "--config.loss.own.strength=3",
    ),
    "mistyped section": ("train", *BOTH, "--config.optimiser.learning_rate=1e-3"),
    "mistyped setting without a value": ("train", *BOTH, "--noconfig.strict_on_polcy"),
    "mistyped setting and help": ("train", "--config=tiny", "--help", "--config.step=3"),
    "config of another version": ("train", "--workdir={folder}/old"),
    "mistyped setting of a section": ("train", *BOTH, "--config.loss.nft.epsilom=0.5"),
    "mistyped flag": ("train", *BOTH, "--wokdir=3"),
    "wrong kind": ("train", *BOTH, "--config.steps=many"),
    "no number": ("train", *BOTH, "--config.optimizer.learning_rate=nan"),
    "seed of 30 digits": ("train", *BOTH, f"--config.seed={10**30}"),
    "neither true nor false": ("train", *BOTH, "--config.strict_on_policy=maybe"),
    "no number for a loss": ("train", *BOTH, "--config.loss.nft.epsilon=x"),
    "cut config of a run": ("train", "--workdir={folder}/cut"),
    "values that can't run": ("train", *BOTH, "--config.loss.name=ntf", "--config.prompts_per_step=7"),
    "unknown config": ("train", "--config=tinny", "--workdir={folder}/run"),
    "home folder": ("train", "--config=~/no_such_config", "--workdir={folder}/run"),
    "no workdir": ("train", "--config=tiny"),
    "study without a workdir": ("compare", "--config=tiny"),
    "study without a config": ("compare", "--workdir={folder}/run"),
    "no config": ("train", "--workdir={folder}/run"),
    "spaces instead of =": ("train", "--config", "tiny", "--workdir", "{folder}/run", "--config.steps=0"),
    "settings ahead of their config": ("train", "--config.steps=0", *BOTH),
    "stray word": ("train", *BOTH, "config.steps=3"),
    "mistyped setting in a file": ("train", "--config={folder}/mistyped.py", "--workdir={folder}/run"),
    "file without get_config": ("train", "--config={folder}/empty.py", "--workdir={folder}/run"),
    "bucket elsewhere": ("report", "--config=tiny", "--workdir=s3://bucket/run"),
    "unwritable": ("train", "--config=tiny", "--workdir={folder}/empty.py/run"),
    "nothing to draw": ("report", *BOTH),
    "no such platform": ("train", "--config=tiny", "--workdir={folder}/idle"),
    "config of nothing": ("train", "--config={folder}/nothing.py", "--workdir={folder}/run"),
    "config with an argument": ("train", "--config={folder}/asks.py", "--workdir={folder}/run"),
    "two configs": ("train", *BOTH, "--config=smollm2"),
    "two workdirs": ("train", *BOTH, "--workdir", "elsewhere"),
    "a setting twice": ("train", *BOTH, "--config.seed=1", "--config.steps=3", "--config.seed", "-2"),
    "bytes that are no text": ("train", *BOTH, "--config.data.system=\udcff"),
    "Ctrl-C": ("train", "--config={folder}/interrupts.py", "--workdir={folder}/run"),
    "no value": ("evaluate", *BOTH, "--against="),
    "commas alone": ("evaluate", *BOTH, "--problems=, ,"),
    "one dash": ("train", "-config=tiny", "-workdir={folder}/run", "-config.steps=0"),
    "a section as a setting": ("train", *BOTH, "--config.model=qwen"),
    "workdir that is a file": ("report", "--config=tiny", "--workdir={folder}/empty.py"),
    "workdir that is a link to nothing": ("report", "--config=tiny", "--workdir={folder}/dangling"),
    "workdir that is a link in a circle": ("report", "--config=tiny", "--workdir={folder}/circle"),
    "workdir of nobody": ("report", "--config=tiny", "--workdir=~no-such-user/run"),
    "workdir with a long name": ("report", "--config=tiny", f"--workdir={'a' * 300}"),
    "no problems": ("data", "--problems="),
    "unknown chip": ("plan", "--config=tiny", "--topology=v5:2x2"),
    "chips without a shape": ("plan", "--config=tiny", "--topology=v5e"),
    "no chips": ("plan", "--config=tiny", "--topology=v5e:0x2"),
    "too many chips": ("plan", "--config=tiny", "--topology=v5e:99999x99999"),
}
# What a terminal obeys, in whatever a command line or a file may hold; FILE has it in its name, problems and ids.
EVIL = "\x1b[31m\x9b2J\u202e\u2066\u200b\u2028\r\x7f"
HOSTILE = {
    f"hostile {name}": words
    for name, words in {
        "config": ("train", f"--config={EVIL}", "--workdir={folder}/run"),
        "setting": ("bench", *BOTH, f"--config.steps={EVIL}"),
        "workdir": ("report", "--config=tiny", f"--workdir={{folder}}/{EVIL}"),
        "problems": ("data", f"--problems={{folder}}/{EVIL}.jsonl"),
        "fields": ("data", f"--problems={{folder}}/{EVIL}.jsonl", "--fields=problem,gold"),
        "record": ("data", "--problems={folder}/evil.jsonl"),
        "lines": ("data", "--problems={folder}/evil_lines.jsonl"),
        "config file": ("train", "--config={folder}/evil.py", "--workdir={folder}/run"),
    }.items()
}
CASES |= HOSTILE
# Config files, and what is said of them.
WRONG_FILES = {
    "divides": ("\nx = 1 / 0\n", "ZeroDivisionError: division by zero, in {path}:2"),
    "exits": ("import sys\nsys.exit(3)\n", "it exits, by SystemExit: 3, in {path}:2"),
    "stumbles": ("def get_config()\n", "SyntaxError: expected ':', in {path}:1"),
    "holds bytes": ("x = '\0'", "SyntaxError: source code string cannot contain null bytes"),
    "wonders": ("def get_config():\n    return undefined\n", "name 'undefined' is not defined, in {path}:2"),
}
CASES |= {
    f"file that {name}": ("report", f"--config={{folder}}/{name}.py", "--workdir={folder}/run") for name in WRONG_FILES
}
# Run as they would be typed. Whether a folder can be written is process 0's to try, and who that is the device knows.
ALONE = {"help": NO_DEVICE, "mistyped setting": NO_DEVICE, "unwritable": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "old").mkdir()
    (folder / "old" / "config.json").write_text("{}")
    (folder / "cut").mkdir()
    (folder / "cut" / "config.json").write_text('{"seed": 0, "ste')
    (folder / "empty.py").write_text("config = 3\n")
    (folder / "mistyped.py").write_text(
        "from nft_jax.config import default\n\n\n"
        "def get_config():\n    config = default()\n    config.answer_per_prompt = 3\n    return config\n"
    )
    problem = {"problem": f"1{EVIL}", "answer": f"2{EVIL}", "id": EVIL, EVIL: 1}
    (folder / f"{EVIL}.jsonl").write_text(json.dumps(problem))
    (folder / "evil.jsonl").write_text(json.dumps({"problem": {EVIL: EVIL}, "answer": "1"}))
    (folder / "evil_lines.jsonl").write_text(json.dumps(problem, ensure_ascii=False) + f"\n{{{EVIL}")
    for name, (source, _) in WRONG_FILES.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "interrupts.py").write_text("raise KeyboardInterrupt\n")
    (folder / "nothing.py").write_text("def get_config():\n    return {}\n")
    (folder / "asks.py").write_text("def get_config(name):\n    return name\n")
    for name, target in {"dangling": "nothing", "circle": "circle"}.items():
        (folder / name).symlink_to(folder / target)
    (folder / "evil.py").write_text(f"raise NameError({EVIL!r})\n")
    return folder


@pytest.fixture(scope="module")
def answer(folder):
    """`(name) -> CompletedProcess` of a command line above."""

    @functools.cache
    def get(name):
        module, *words = (word.format(folder=folder) for word in CASES[name])
        if name not in ALONE:
            return commands.run(f"nft_jax.{module}", *words, JAX_PLATFORMS=NO_DEVICE)
        typed = [sys.executable, "-m", f"nft_jax.{module}", *words]
        platform = os.environ | {"JAX_PLATFORMS": ALONE[name]}
        return subprocess.run(typed, cwd=ROOT, env=platform, capture_output=True, text=True)

    return get


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mistyped setting", ["no setting 'answer_per_prompt'; did you mean 'answers_per_prompt'?"]),
        ("option of an external loss without one", ["config.loss.name='nft'; write --config.loss.nft.strength"]),
        (
            "mistyped option of an external loss",
            ["unknown option 'strength' of loss 'nft_jax.losses.rft:"],
        ),
        ("mistyped section", ["no setting 'optimiser.learning_rate'; did you mean 'optimizer.learning_rate'?"]),
        ("mistyped setting of a section", ["no setting 'loss.nft.epsilom'; did you mean 'loss.nft.epsilon'?"]),
        ("mistyped setting without a value", ["no setting 'strict_on_polcy'; did you mean 'strict_on_policy'?"]),
        ("mistyped setting and help", ["no setting 'step'; did you mean 'steps'?"]),
        ("config of another version", ["{folder}/old/config.json is no configuration that this version wrote"]),
        ("mistyped flag", ["wokdir", "workdir", "--help"]),
        ("wrong kind", ["config.steps='many': must be a whole number, 1 or more and 2147483647 or less; --help lists"]),
        ("no number", ["config.optimizer.learning_rate=nan: must be above 0 and 10 or less"]),
        ("seed of 30 digits", [f"config.seed={10**30}: must be 0 or more and 4294967295 or less"]),
        ("neither true nor false", ["config.strict_on_policy='maybe': must be true or false"]),
        ("no number for a loss", ["config.loss.nft.epsilon='x': must be a number, -3.4"]),
        ("cut config of a run", ["{folder}/cut/config.json is no JSON: "]),
        (
            "values that can't run",
            ["unknown loss 'ntf'", "did you mean 'nft'?", "config.prompts_per_step=7; use one of [1, 7]"],
        ),
        ("unknown config", ["--config=tinny: no such file, and no shipped config", "problem_file", "tiny"]),
        ("home folder", [f"--config={Path.home()}/no_such_config: no such file"]),
        ("no workdir", ["--workdir=DIR", "needed", "--config=tiny --workdir=runs/tiny"]),
        ("study without a workdir", ["a study needs --workdir=DIR"]),
        ("study without a config", ["--workdir={folder}/run holds no run; for a new one also give --config=FILE"]),
        ("no config", ["--workdir={folder}/run holds no run; for a new one also give --config=FILE"]),
        ("spaces instead of =", ["config.steps=0: must be 1 or more"]),
        ("settings ahead of their config", ["config.steps=0: must be 1 or more"]),
        ("stray word", ["config.steps=3"]),
        (
            "mistyped setting in a file",
            ["--config={folder}/mistyped.py: ", "'answer_per_prompt'; did you mean 'answers_per_prompt'?"],
        ),
        ("file without get_config", ["get_config"]),
        ("bucket elsewhere", ["--workdir=s3://bucket/run: give a local folder, or one in a bucket: gs://BUCKET/PATH"]),
        ("unwritable", ["--workdir={folder}/empty.py/run can't be written"]),
        ("nothing to draw", ["metrics.jsonl: nothing to draw yet"]),
        ("no such platform", ["JAX can't start (JAX_PLATFORMS='no_such_platform'): Unable to initialize backend"]),
        (
            "config of nothing",
            ["nothing.py: get_config() returns a dict, not a ConfigDict as nft_jax.config.default()"],
        ),
        ("config with an argument", ["--config={folder}/asks.py: TypeError: get_config() missing 1 required"]),
        ("two configs", ["--config is given twice: 'tiny' and 'smollm2'"]),
        ("two workdirs", ["--workdir is given twice: '{folder}/run' and 'elsewhere'"]),
        ("bytes that are no text", ["--config.data.system=\\udcff: its bytes are no text in the encoding utf-8"]),
        ("no value", ["--against= is empty; give a value, or leave the flag out"]),
        ("commas alone", ["--problems=, , is empty; give a value, or leave the flag out"]),
        ("one dash", ["config.steps=0: must be 1 or more"]),
        ("a section as a setting", ["config.model is a section; set what is in it, by --config.model.NAME=VALUE"]),
        ("workdir that is a file", ["--workdir={folder}/empty.py is no folder"]),
        ("workdir that is a link to nothing", ["dangling is a link to {folder}/nothing, which does not exist"]),
        ("workdir that is a link in a circle", ["--workdir={folder}/circle can't be used: "]),
        ("workdir of nobody", ["--workdir=~no-such-user/run names a home folder that this machine does not have"]),
        ("workdir with a long name", ["can't be used: ", "give another folder"]),
        ("no problems", ["--problems= is empty: name a file, a folder or a set of problems"]),
        ("unknown chip", ["--topology=v5:2x2: write a chip and a shape", "did you mean 'v5"]),
        ("chips without a shape", ["--topology=v5e: write a chip and a shape, such as v5e:8x8"]),
        ("no chips", ["--topology=v5e:0x2: write a chip and a shape"]),
        ("too many chips", ["--topology=v5e:99999x99999: write a chip and a shape"]),
    ],
)
def test_run_answers_an_incorrect_command_line_with_one_message_and_code_2(answer, folder, name, words):
    done = answer(name)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("error: ")
    assert all(word.format(folder=folder) in done.stderr for word in words), done.stderr
    assert done.returncode == 2
    assert not (folder / "run").exists()


def test_run_says_which_of_two_values_of_a_setting_counts(answer):
    said, *fault = answer("a setting twice").stderr.splitlines()
    assert said == "--config.seed is given twice: '1', and then '-2', which counts"
    assert fault[0].startswith("error: ") and "config.seed=-2" in fault[1]


@pytest.mark.parametrize(("name", "module"), [("help", "train"), ("help of sft", "sft"), ("help of report", "report")])
def test_run_shows_a_command_and_the_two_flags_under_help(answer, name, module):
    done = answer(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m nft_jax.{module} --config=tiny --workdir=" in done.stdout
    assert "--config:" in done.stdout
    assert "--workdir:" in done.stdout


def test_run_ends_in_silence_where_nobody_reads_its_help(folder):
    """As in `python -m nft_jax.train --help | head`."""
    (folder / "unread.py").write_text(
        "import os, runpy, sys\nreader, writer = os.pipe()\nos.close(reader)\n"
        "sys.stdout = sys.__stdout__ = open(writer, 'w')\ndel sys.modules['nft_jax.train']\n"
        "sys.argv = ['train', '--help']\n"
        "runpy.run_module('nft_jax.train', {}, '__main__')\n"
    )
    done = commands.run(folder / "unread.py")
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_run_lists_every_setting_under_help(answer):
    done = answer("help of all settings")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"rollout.slots=0", "loss.nft.epsilon=1"} <= {line.strip() for line in answer("help").stdout.splitlines()}
    assert "settings, with their values in the defaults" in answer("help").stdout
    assert done.stdout.startswith(answer("help").stdout.partition("\nsettings")[0])
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert {"rollout.slots=7", "rollout.max_answer_tokens=16", "loss.nft.epsilon=1"} <= {*lines}
    assert "settings, with their values in --config=tiny" in done.stdout
    of_plan = answer("help of all settings of plan").stdout
    assert "--topology" in of_plan
    assert "model.dtype=bfloat16" in of_plan


def test_locate_takes_the_name_of_a_shipped_config_or_a_path(tmp_path, monkeypatch):
    assert Path(locate("tiny")) == Path(locate("tiny.py")) == ROOT / "configs" / "tiny.py"
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("")  # whatever else has that name
    assert Path(locate("tiny")) == ROOT / "configs" / "tiny.py"
    mine = tmp_path / "mine.py"
    mine.write_text("")
    assert locate(str(mine)) == str(mine)
    for name, words in {
        "mine2": "mine2.*there are: .*tiny",
        " Tiny": "there are: .*; did you mean 'tiny'",
        str(ROOT / "configs"): "no such file",
    }.items():
        with pytest.raises(FileNotFoundError, match=words):
            locate(name)
    for name in ("mine.yaml", "mine"):
        Path(name).write_text("steps: 3")
        with pytest.raises(ValueError, match=f"--config={name}: give a .py file with a function get_config()"):
            locate(name)


def test_locate_names_the_config_of_a_run_for_its_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=f"the config of the run in it: --config={tmp_path}/config.json$"):
        locate(str(tmp_path))


@pytest.mark.parametrize("name", HOSTILE)
def test_run_prints_no_control_characters_from_outside(answer, name):
    done = answer(name)
    printed = done.stdout + done.stderr
    assert printed == visible(printed)
    assert "\\x1b[31m" in printed
    assert done.returncode == (0 if name == "hostile problems" else 2)


# Programs that print no text from outside: a page of settings, and JSON that their parent reads.
WITHOUT_DOOR = ("config/__main__", "data/template_worker", "bench/peers/")


def test_every_command_shows_control_characters():
    """Each module that is run prints through the door: by `cli.run`, or of itself."""
    package = ROOT / "nft_jax"
    commands = {path for path in package.rglob("*.py") if '__name__ == "__main__"' in path.read_text()}
    commands |= {*package.rglob("__main__.py")}
    doors = ("cli.run(", "show_control_characters()")
    without = {str(path.relative_to(package)) for path in commands if not any(x in path.read_text() for x in doors)}
    assert {name for name in without if not name.startswith(WITHOUT_DOOR)} == set()
    assert len(commands) > 10


# Errors in a config file, and what processes compare.


@pytest.mark.parametrize("name", WRONG_FILES)
def test_run_names_the_line_of_an_error_in_a_config_file(answer, folder, name):
    done, path = answer(f"file that {name}"), folder / f"{name}.py"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --config={path}: ")
    assert done.stderr.endswith(f"{WRONG_FILES[name][1].format(path=path)}\n")
    assert done.stderr.count("\n") == 1


def test_an_error_in_a_users_own_code_ends_a_command_with_one_sentence(tmp_path, monkeypatch, capsys):
    path = tmp_path / "late_of_cli.py"
    path.write_text("def mine(a, b):\n    assert a.shape[-1] < 8, 'rows are too long'\n    return a\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cli, "DEBUG", SimpleNamespace(value=False))
    # It fails only at the sizes of a run, when the step is traced.
    loss = resolve("late_of_cli:mine", {})
    with pytest.raises(SystemExit) as ended, cli._errors_in_one_message():
        jax.eval_shape(jax.jit(loss.function), jax.ShapeDtypeStruct((2, 9), "float32"), None)
    assert ended.value.code == 2
    sentence = f"error: AssertionError: rows are too long, in {path}:2\n(--debug_errors shows the whole traceback)\n"
    assert capsys.readouterr().err == sentence
    with pytest.raises(ZeroDivisionError), cli._errors_in_one_message():
        1 // 0  # noqa: B018


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nAllocator: …"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_a_lack_of_memory_ends_a_command_with_what_needs_less(monkeypatch, capsys, error):
    monkeypatch.setattr(cli, "DEBUG", SimpleNamespace(value=False))
    with pytest.raises(SystemExit) as ended, cli._errors_in_one_message():
        raise error
    assert ended.value.code == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("error: out of memory: ") and (str(error) or "MemoryError").splitlines()[0] in first
    assert len(rest) == 1 and "config.rollout.slots" in rest[0] and "nft_jax.plan" in rest[0]


def test_a_lack_of_shared_memory_is_named_as_such(monkeypatch, capsys):
    monkeypatch.setattr(cli, "DEBUG", SimpleNamespace(value=False))
    with pytest.raises(SystemExit), cli._errors_in_one_message():
        raise RuntimeError("RESOURCE_EXHAUSTED: Shared memory size limit exceeded: requested 9")
    assert "requested 9" in (said := capsys.readouterr().err) and "attention=xla" in said and "slots" not in said


def test_ctrl_c_ends_a_command_in_one_line(answer):
    done = answer("Ctrl-C")
    assert (done.returncode, done.stderr) == (130, "error: interrupted by Ctrl-C\n")


def test_processes_compare_the_code_of_a_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_of_cli.py").write_text("def mine(a, b):\n    return a\n")
    monkeypatch.syspath_prepend(tmp_path)
    config, seen = small(verify__grader="own_of_cli:mine"), {}
    monkeypatch.setattr(cli.distributed, "start", lambda *given: seen.update(given[4]))
    monkeypatch.setattr(cli, "FLAGS", SimpleNamespace(wait_seconds=1, heartbeat_seconds=10))
    cli._connect_processes(None, config, tmp_path, None)
    assert seen["own code"] == {"verify.grader": digest("own_of_cli:mine")}
