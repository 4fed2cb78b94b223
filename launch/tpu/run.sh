#!/usr/bin/env bash
# Starts a run on all workers of a slice, in the background there; the same command goes on with the same --workdir.
#   bash launch/tpu/run.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] [--module=nft_jax.train]
#       --config=NAME_OR_FILE --workdir=gs://BUCKET/FOLDER [--config.section.field=value ...]
# Each worker runs the command again while it ends with exit code 75 (saved), which SIGTERM and lost machines lead to.
# The workdir must be seen by all workers: gs://…, or a disk that they share. LIBTPU_INIT_ARGS, where it is set here, is
# set there too. After that: logs.sh, stop.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

module=nft_jax.train
options "name zone project slices module" "$@"
place
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "--workdir=gs://BUCKET/FOLDER is needed"

start=(bash nft_jax/launch/tpu/worker.sh --background --module="$module" -- "${rest[@]}")
if [ -n "${LIBTPU_INIT_ARGS:-}" ]; then start=(env LIBTPU_INIT_ARGS="$LIBTPU_INIT_ARGS" "${start[@]}"); fi
on_workers all "$(shown "${start[@]}")"
