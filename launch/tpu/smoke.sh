#!/usr/bin/env bash
# Runs nft_jax.smoke on all workers: the first command on a new slice after create.sh and setup.sh. Takes some minutes.
#   bash launch/tpu/smoke.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] --workdir=gs://BUCKET/FOLDER
# It checks that all hosts are present, decode loops of different lengths, the verifier on every host, each attention
# kernel against XLA, and three training steps that are killed and resumed. It prints a line for each check and a table,
# and writes smoke.json into the workdir. The exit code is 1 if a check failed. Each worker keeps notes about what ran,
# which rollout.lockstep=auto reads.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

parse_options "name zone project slices" "$@"
require_slice
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "--workdir=gs://BUCKET/FOLDER is needed"

# Weights are not split between slices.
if ((slices > 1)); then rest+=("--config.mesh.replica=$slices"); fi
on_workers all "$(quote_command bash nft_jax/launch/tpu/worker.sh --module=nft_jax.smoke -- "${rest[@]}")"
