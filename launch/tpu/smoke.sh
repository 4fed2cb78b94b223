#!/usr/bin/env bash
# The first command on a new slice, after create.sh and setup.sh; about ten minutes. Runs nft_jax.smoke on all workers:
#   bash launch/tpu/smoke.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] --workdir=gs://BUCKET/FOLDER
# All hosts present; decode loops of different lengths; the verifier on every host; each attention kernel against XLA;
# three training steps, killed, resumed. It prints a line a check, a table at the end, and leaves smoke.json in the
# workdir; exit code 1 if one failed. What has run is noted on the workers: rollout.lockstep=auto reads it.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

options "name zone project slices" "$@"
place
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "--workdir=gs://BUCKET/FOLDER is needed"

# Weights are not split between slices.
if ((slices > 1)); then rest+=("--config.mesh.replica=$slices"); fi
on_workers all "$(shown bash nft_jax/launch/tpu/worker.sh --module=nft_jax.smoke -- "${rest[@]}")"
