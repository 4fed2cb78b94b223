#!/usr/bin/env bash
# Starts a run on TPU slices of a GKE cluster, as a JobSet (jobset.yaml). The same workdir resumes.
#   bash launch/gke/run.sh [--dry-run] --name=NAME --image=IMAGE --accelerator=tpu-v5-lite-podslice --topology=8x8
#       [--chips=4] [--slices=1] [--queue=multislice-queue] [--restarts=3] [--module=nft_jax.train]
#       --config=NAME_OR_FILE --workdir=gs://BUCKET/FOLDER [--config.section.field=value ...]
# It uses the current context of kubectl. The cluster needs the JobSet controller (xpk installs it). --chips
# counts the chips of a machine: 4 in slices of several machines. Accelerators: tpu-v5-lite-podslice (v5e),
# tpu-v6e-slice, tpu-v5p-slice, tpu-v4-podslice. Make the image by
#   docker build -f launch/gke/Dockerfile -t IMAGE . && docker push IMAGE
# A HF_TOKEN is a secret of the cluster, made from a file by
#   kubectl create secret generic nft-jax --from-file=HF_TOKEN=FILE
# After exit code 75 (work is saved) or the loss of a node, all hosts start again. Run --module=nft_jax.smoke first,
# without --config. Its notes are lost with its pods, so when it has passed, add --config.rollout.lockstep=no. To follow
# and delete the run:
#   kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=NAME,batch.kubernetes.io/job-completion-index=0
#   kubectl delete jobset NAME
# The same by xpk:
#   xpk workload create --cluster=CLUSTER --workload=NAME --tpu-type=v5litepod-64 --num-slices=1 --docker-image=IMAGE \
#       --max-restarts=100 --restart-on-exit-codes=75 --env=JAX_PLATFORMS=tpu,cpu --env=NFT_JAX_DISTRIBUTED=auto \
#       --command='exec python -m nft_jax.train --config=NAME --workdir=gs://BUCKET/FOLDER'
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

# These variables are read by name.
# shellcheck disable=SC2034
image="" accelerator="" topology="" chips=4 queue=multislice-queue restarts=3 module=nft_jax.train
parse_options "name image accelerator topology chips slices queue restarts module" "$@"
require name image accelerator topology
[[ "$topology" =~ ^[0-9]+(x[0-9]+)+$ ]] || fail "--topology=$topology: give the chips of each axis, like 8x8 or 4x4x4"
[[ " ${rest[*]-} " == *" --workdir="* ]] || fail "--workdir=gs://BUCKET/FOLDER is needed"
all_chips=$((${topology//x/*}))
((all_chips % chips == 0)) || fail "--chips=$chips: the chips of a machine must divide those of the slice, $all_chips"
# shellcheck disable=SC2034
hosts=$((all_chips / chips))

# Each word as a JSON string, which is also YAML.
flags=""
for word in "${rest[@]}"; do
  word="${word//\\/\\\\}"
  flags+="${flags:+, }\"${word//\"/\\\"}\""
done

manifest="$(cat launch/gke/jobset.yaml)"
for field in name image accelerator topology chips slices queue restarts module hosts flags; do
  manifest=${manifest//"\${$field}"/"${!field}"}
done
if [ "$dry_run" = yes ]; then
  echo "kubectl apply --filename=- <<'END'"
  echo "$manifest"
  echo END
else
  kubectl apply --filename=- <<<"$manifest"
fi
