#!/usr/bin/env bash
# Saves the running step and ends the run on all workers of a slice; run.sh resumes it. The slice stays and costs:
#   bash launch/tpu/stop.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] [--queued] [--machines]
# --queued: queue.sh started the run. --machines: also stops the TPU VM (`gcloud compute tpus tpu-vm start` starts it
# again). Cloud TPU offers that only for a slice of one machine that is neither queued nor spot; else use delete.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

queued=no machines=no
parse_options "name zone project slices queued? machines?" "$@"
require_slice
refuse_words

# On a queued slice, root owns the files.
if [ "$queued" = yes ]; then there="sudo bash /root/nft_jax"; else there="bash nft_jax"; fi
on_workers all "$there/launch/tpu/worker.sh --stop"
if [ "$machines" = yes ]; then run gcloud compute tpus tpu-vm stop "$name" "${where[@]}"; fi
