"""launch/slurm.sh: the job that it submits, and what the job does. Stand-ins record how programs are called."""

import shlex

from helpers.launch import ROOT, RUN, option

TRAIN = ["nft_jax.train", *RUN]


def test_slurm_runs_a_process_for_each_gpu_and_is_queued_again_after_75(stand):
    words = ("--nodes=2", "--gpus=4", "--cpus=6", "--time=1:00:00", "--partition=p", "--account=a", "--grace=90")
    assert stand.script("launch/slurm.sh", *words, *RUN).returncode == 0
    (call,) = stand.calls
    assert call[0] == "sbatch"
    assert set(call[2:-1]) == {
        *("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=6", "--time=1:00:00", "--requeue"),
        *("--open-mode=append", "--output=slurm-%j.out", "--signal=TERM@90", f"--chdir={ROOT}", "--partition=p"),
        "--account=a",
    }
    # What the job runs, run.
    inside = shlex.split(option(call, "--wrap"))
    assert inside[0] == "bash"
    job = {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "6"}
    for code, restarts, expected in ((75, "0", True), (75, "100", False), (1, "0", False), (0, "0", False)):
        (stand.folder / "calls.jsonl").unlink()
        stand.ends("srun", code)
        ran = stand.script(inside[1], *inside[2:], **job, SLURM_RESTART_COUNT=restarts)
        assert ran.returncode == code
        started, *then = stand.calls
        assert started[:3] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=6"]
        assert started[3:] == ["env", "JAX_PLATFORMS=cuda,cpu", "NFT_JAX_DISTRIBUTED=auto", "python", "-m", *TRAIN]
        assert then == ([["scontrol", "requeue", "17"]] if expected else [])
