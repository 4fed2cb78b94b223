#!/usr/bin/env bash
# Runs an experiment on GPUs of a SLURM cluster: submits one job, with a process for each GPU.
#   bash launch/slurm.sh [--dry-run] [--nodes=1] [--gpus=8] [--cpus=8] [--time=24:00:00] [--partition=NAME]
#       [--account=NAME] [--grace=180] --config=NAME_OR_FILE --workdir=DIR [--config.section.field=value ...]
# --gpus are those of a node, --cpus those of a GPU. This folder, its .venv (made on the submitting machine;
# EXTRAS=cuda13,data,isolation takes CUDA 13) and the workdir must lie on a disk that all nodes see. --grace seconds
# before the time limit the run gets SIGTERM, saves, ends with exit code 75, and the job is queued again, as it is when a
# node fails or it is pre-empted; scancel ends it for good. More options of sbatch come by its own variables
# (SBATCH_QOS, SBATCH_RESERVATION, …).
# Secrets: the job has the environment of this shell (HF_TOKEN).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MOST_RESTARTS=100
nodes=1 gpus=8 cpus=8 time=24:00:00 partition="" account="" grace=180 inside=no
options "nodes gpus cpus time partition account grace inside" "$@"
environment cuda12,data,isolation

if [ "$inside" = no ]; then
  job=(sbatch --job-name=nft_jax --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus"
    --cpus-per-task="$cpus" --time="$time" --requeue --open-mode=append --output=slurm-%j.out
    # To the processes, not to the shell around them, which must live to queue the job again.
    --signal="TERM@$grace" --chdir="$PWD")
  if [ -n "$partition" ]; then job+=(--partition="$partition"); fi
  if [ -n "$account" ]; then job+=(--account="$account"); fi
  run "${job[@]}" --wrap="$(shown bash launch/slurm.sh --inside -- ${rest[@]+"${rest[@]}"})"
  exit
fi

code=0
# srun doesn't take over --cpus-per-task by itself. Every process sees all GPUs of its node and takes one by its number.
run srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-$cpus}" \
  env JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}" NFT_JAX_DISTRIBUTED=auto \
  python -m nft_jax.train ${rest[@]+"${rest[@]}"} || code=$?
if ((code == AGAIN && ${SLURM_RESTART_COUNT:-0} < MOST_RESTARTS)); then
  echo "exit code $AGAIN (saved; run the same command again): the job is queued again" >&2
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
