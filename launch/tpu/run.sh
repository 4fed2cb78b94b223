#!/usr/bin/env bash
# Starts a run in the background on all workers of a slice. The same --workdir resumes.
#   bash launch/tpu/run.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] [--module=nft_jax.train]
#       --config=NAME_OR_FILE --workdir=gs://BUCKET/FOLDER [--config.section.field=value ...]
# Each worker repeats the command while it ends with exit code 75 (work is saved), as it does after SIGTERM or the loss
# of a machine. All workers must share the workdir: gs://…, or a shared disk. LIBTPU_INIT_ARGS is passed on to
# the workers. Next: logs.sh, stop.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

module=nft_jax.train
parse_options "name zone project slices module" "$@"
require_slice
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "--workdir=gs://BUCKET/FOLDER is needed"

start=(bash nft_jax/launch/tpu/worker.sh --background --module="$module" -- "${rest[@]}")
if [ -n "${LIBTPU_INIT_ARGS:-}" ]; then start=(env LIBTPU_INIT_ARGS="$LIBTPU_INIT_ARGS" "${start[@]}"); fi
on_workers all "$(quote_command "${start[@]}")"
