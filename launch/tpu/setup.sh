#!/usr/bin/env bash
# Copies this working tree to every worker of a slice and makes the environment there. Run it again after each change.
#   bash launch/tpu/setup.sh [--dry-run] --name=NAME --zone=ZONE [--project=ID] [--slices=1]
# If HF_TOKEN is set here, it is copied as a file that only its owner can read, never inside a command. To reach many
# workers at once, gcloud needs its key in the ssh agent: ssh-add ~/.ssh/google_compute_engine
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

parse_options "name zone project slices" "$@"
require_slice
refuse_words

copy() {
  local way=(tpu-vm scp "$1" "$name:$2")
  if ((slices > 1)); then way=(queued-resources scp "$1" "$name:$2" --node=all); fi
  run gcloud compute tpus "${way[@]}" "${where[@]}" --worker=all
}

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
pack "$folder/nft_jax.tar.gz"
copy "$folder/nft_jax.tar.gz" nft_jax.tar.gz
if [ -n "${HF_TOKEN:-}" ]; then
  (umask 077 && printf '%s' "$HF_TOKEN" >"$folder/token")
  on_workers all 'mkdir -p -m 700 ~/.cache/huggingface'
  copy "$folder/token" .cache/huggingface/token
  on_workers all 'chmod 600 ~/.cache/huggingface/token'
fi
on_workers all 'mkdir -p nft_jax && cd nft_jax && rm -rf nft_jax configs launch && tar -xzf ../nft_jax.tar.gz'
on_workers all 'bash nft_jax/launch/tpu/worker.sh --setup'
