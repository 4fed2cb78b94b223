#!/usr/bin/env bash
# Deletes a slice and its disks (files in gs://… stay); it then costs nothing any more.
#   bash launch/tpu/delete.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--queued] [--yes]
# --queued: queue.sh requested it; deletes all its slices. gcloud asks for confirmation, except with --yes.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

queued=no yes=no
parse_options "name zone project queued? yes?" "$@"
require_slice
refuse_words

if [ "$yes" = yes ]; then where+=(--quiet); fi
if [ "$queued" = yes ]; then
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force
else
  run gcloud compute tpus tpu-vm delete "$name" "${where[@]}"
fi
