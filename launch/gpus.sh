#!/usr/bin/env bash
# Runs an experiment on this machine's GPUs, in one process, and again while it ends with exit code 75.
#   bash launch/gpus.sh [--dry-run] --config=NAME_OR_FILE --workdir=DIR [--config.section.field=value ...]
# CUDA_VISIBLE_DEVICES=0,1 takes some of them. EXTRAS=cuda13,data,isolation takes CUDA 13 in place of 12. Ctrl-C
# and SIGTERM save the running step and end it. Several machines: launch/slurm.sh, or on each of them
#   NFT_JAX_DISTRIBUTED=FIRST_HOST:PORT NFT_JAX_PROCESSES=N NFT_JAX_PROCESS=i bash launch/gpus.sh …
# with a workdir that all of them see.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options "" "$@"
environment cuda12,data,isolation

# The verifier's callback needs JAX's CPU backend too.
again env JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}" python -m nft_jax.train ${rest[@]+"${rest[@]}"}
