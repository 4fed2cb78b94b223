#!/usr/bin/env bash
# Runs an experiment on this machine's GPUs in one process; repeats the command while it ends with exit code 75.
#   bash launch/gpus.sh [--dry-run] --config=NAME_OR_FILE --workdir=DIR [--config.section.field=value ...]
# CUDA_VISIBLE_DEVICES=0,1 chooses some of the GPUs. EXTRAS=cuda13,data,isolation installs CUDA 13 instead of 12. Ctrl-C
# and SIGTERM save the running step and end the run. For several machines use launch/slurm.sh, or run on each of them
#   NFT_JAX_DISTRIBUTED=FIRST_HOST:PORT NFT_JAX_PROCESSES=N NFT_JAX_PROCESS=i bash launch/gpus.sh …
# with a workdir that all of them share.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

parse_options "" "$@"
use_environment cuda12,data,isolation

# The verifier's callback also needs JAX's CPU backend.
repeat env JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}" python -m nft_jax.train ${rest[@]+"${rest[@]}"}
