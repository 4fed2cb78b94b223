#!/usr/bin/env bash
# Creates a TPU slice and waits for it: step 1 of setup.sh, smoke.sh, run.sh, logs.sh, stop.sh, delete.sh.
#   bash launch/tpu/create.sh [--dry-run] --name=NAME --zone=ZONE --type=v5litepod-64 [--spot | --reserved]
#       [--project=ID] [--version=RUNTIME] [-- more flags of `gcloud compute tpus tpu-vm create`]
# Types and their names in nft_jax.plan: v5e:8x8 is v5litepod-64, v6e:8x8 is v6e-64 (N chips); v5p:4x4x4 is v5p-128,
# v4:4x4x4 is v4-128 (N = 2 × chips). If no slice is free, use queue.sh, which waits and resumes after a preemption.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

type="" version="" spot=no reserved=no
parse_options "name zone project type version spot? reserved?" "$@"
require_slice
require type
[ "$spot$reserved" != yesyes ] || fail "give --spot or --reserved, not both"
version="${version:-$(runtime "$type")}"

how=()
if [ "$spot" = yes ]; then how+=(--spot); fi
if [ "$reserved" = yes ]; then how+=(--reserved); fi
run gcloud compute tpus tpu-vm create "$name" "${where[@]}" --accelerator-type="$type" --version="$version" \
  ${how[@]+"${how[@]}"} ${rest[@]+"${rest[@]}"}
