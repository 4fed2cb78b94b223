#!/usr/bin/env bash
# Runs an experiment on the GPUs of a SLURM cluster: submits one job with a process for each GPU.
#   bash launch/slurm.sh [--dry-run] [--nodes=1] [--gpus=8] [--cpus=8] [--time=24:00:00] [--partition=NAME]
#       [--account=NAME] [--grace=180] --config=NAME_OR_FILE --workdir=DIR [--config.section.field=value ...]
# --gpus counts per node, --cpus per GPU. This folder, its .venv (made on the submitting machine; with
# EXTRAS=cuda13,data,isolation for CUDA 13) and the workdir must be on a disk that all nodes share. The run gets SIGTERM
# --grace seconds before the time limit, saves, and ends with exit code 75; then the job is queued again. It is also
# queued again when a node fails or the job is preempted; scancel ends it for good. Set other options of sbatch by its
# variables (SBATCH_QOS, SBATCH_RESERVATION, …). The job gets the environment of this shell, with HF_TOKEN.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MOST_RESTARTS=100
nodes=1 gpus=8 cpus=8 time=24:00:00 partition="" account="" grace=180 inside=no
parse_options "nodes gpus cpus time partition account grace inside?" "$@"
use_environment cuda12,data,isolation

if [ "$inside" = no ]; then
  job=(sbatch --job-name=nft_jax --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus"
    --cpus-per-task="$cpus" --time="$time" --requeue --open-mode=append --output=slurm-%j.out
    # Signals the processes but not the shell around them, which queues the job again.
    --signal="TERM@$grace" --chdir="$PWD")
  if [ -n "$partition" ]; then job+=(--partition="$partition"); fi
  if [ -n "$account" ]; then job+=(--account="$account"); fi
  run "${job[@]}" --wrap="$(quote_command bash launch/slurm.sh --inside -- ${rest[@]+"${rest[@]}"})"
  exit
fi

code=0
# srun does not inherit --cpus-per-task. Every process sees all GPUs of its node and uses the one with its number.
run srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-$cpus}" \
  env JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}" NFT_JAX_DISTRIBUTED=auto \
  python -m nft_jax.train ${rest[@]+"${rest[@]}"} || code=$?
if ((code == AGAIN && ${SLURM_RESTART_COUNT:-0} < MOST_RESTARTS)); then
  echo "exit code $AGAIN (work is saved); the job is queued again" >&2
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
