"""launch/tpu/worker.sh: what runs on a worker. Stand-ins record how programs are called."""

from helpers.launch import RUN, SLEEPS, STUB, until, worker_folder


def test_worker_runs_again_after_75_and_not_after_another_code(stand):
    stand.ends("python", 75, 75, 3)
    copy = worker_folder(stand)
    ran = stand.script(str(copy / "launch/tpu/worker.sh"), "--module=some.module", "--", *RUN)
    assert ran.returncode == 3
    runs = [record for record in stand.records if record["words"][0] == "python"]
    assert [record["words"][1:] for record in runs] == 3 * [["-m", "some.module", *RUN]]
    assert runs[0]["environment"] == {"JAX_PLATFORMS": "tpu,cpu", "NFT_JAX_DISTRIBUTED": "auto"}


def test_worker_installs_a_python_where_all_are_too_old(stand, tmp_path):
    (stand.venv / ".installed").unlink()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        stand.add(tmp_path / "bin" / name, STUB.replace("exit", '[ "$1" != -c ] || exit 1\nexit'))
    stand.says("python3", f"{tmp_path}/bin/python")
    stand.add(stand.venv / "bin" / "python")
    ran = stand.script(str(worker_folder(stand) / "launch/tpu/worker.sh"), "--setup", EXTRAS="tpu")
    assert ran.returncode == 0, ran.stderr
    calls = [call for call in stand.calls if "-c" not in call]
    assert calls[0] == ["python3", "-m", "pip", "install", "--quiet", "--user", "uv"]
    assert calls[1] == ["python3", "-m", "uv", "python", "install", "--quiet", "3.12"]
    assert calls[3] == ["python", "-m", "venv", str(stand.venv)]
    assert calls[4][-2:] == ["-e", ".[tpu]"]


def test_worker_runs_one_program_at_a_time_in_the_background_and_stops_it(stand, tmp_path):
    copy = worker_folder(stand)
    script = str(copy / "launch/tpu/worker.sh")
    for name in ("nohup", "setsid"):
        (tmp_path / "bin" / name).unlink()
    stand.add(tmp_path / "bin" / "python", SLEEPS.format(folder=tmp_path))
    assert stand.script(script, "--background", *RUN).returncode == 0
    until((tmp_path / "started").exists)
    again = stand.script(script, "--background", *RUN)
    assert (again.returncode, "a run is active" in again.stderr) == (2, True)
    stopped = stand.script(script, "--stop")
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)
    assert (tmp_path / "started").read_text() == "started\n"
    assert (tmp_path / "signals").read_text() == "-m TERM\n"
