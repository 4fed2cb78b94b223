#!/usr/bin/env bash
# Shows and follows what a run prints on a worker. Only worker 0, the default, reports steps.
#   bash launch/tpu/logs.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] [--worker=0] [--lines=100]
#       [--queued]
# --queued: the run was started by queue.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

worker=0 lines=100 queued=no
parse_options "name zone project slices worker lines queued?" "$@"
require_slice
refuse_words

# On a queued slice, root owns the files.
if [ "$queued" = yes ]; then there="sudo bash /root/nft_jax"; else there="bash nft_jax"; fi
on_workers "$worker" "$there/launch/tpu/worker.sh --log=$lines"
