#!/usr/bin/env bash
# Ends a run on all workers of a slice: the running step is saved, run.sh goes on from there. The slice stays, and costs:
#   bash launch/tpu/stop.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] [--queued] [--machines]
# --queued: the run was started by queue.sh. --machines: stops the TPU VM too (`gcloud compute tpus tpu-vm start` brings
# it back), which Cloud TPU offers for a slice of one machine alone, not for a queued or spot one; else: delete.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

queued=no machines=no
options "name zone project slices queued machines" "$@"
place
nothing_else

# A queued slice is root's.
if [ "$queued" = yes ]; then there="sudo bash /root/nft_jax"; else there="bash nft_jax"; fi
on_workers all "$there/launch/tpu/worker.sh --stop"
if [ "$machines" = yes ]; then run gcloud compute tpus tpu-vm stop "$name" "${where[@]}"; fi
