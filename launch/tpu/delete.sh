#!/usr/bin/env bash
# Deletes a slice, with what is on its disks (not what is in gs://…): from then on it costs nothing.
#   bash launch/tpu/delete.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--queued] [--yes]
# --queued: it was asked for by queue.sh, with all its slices. gcloud asks before it does so, unless --yes.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

queued=no yes=no
options "name zone project queued yes" "$@"
place
nothing_else

if [ "$yes" = yes ]; then where+=(--quiet); fi
if [ "$queued" = yes ]; then
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force
else
  run gcloud compute tpus tpu-vm delete "$name" "${where[@]}"
fi
