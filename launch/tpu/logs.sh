#!/usr/bin/env bash
# Shows what a run prints, and follows it: of worker 0, which alone reports steps, or of another.
#   bash launch/tpu/logs.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1] [--worker=0] [--lines=100]
#       [--queued]
# --queued: the run was started by queue.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

worker=0 lines=100 queued=no
options "name zone project slices worker lines queued" "$@"
place
nothing_else

# A queued slice is root's.
if [ "$queued" = yes ]; then there="sudo bash /root/nft_jax"; else there="bash nft_jax"; fi
on_workers "$worker" "$there/launch/tpu/worker.sh --log=$lines"
