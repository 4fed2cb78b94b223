#!/usr/bin/env bash
# The startup script of a queued slice: every worker runs it as root at every boot. queue.sh puts the values before it.
#   CODE=gs://BUCKET/FILE.tar.gz [TOKEN_SECRET=NAME] FLAGS='--config=… --workdir=gs://…' bash startup.sh [--dry-run]
set -euo pipefail

dry_run=no
case "${1-}" in
  --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
  --dry-run) dry_run=yes ;;
esac

run() {
  if [ "$dry_run" = yes ]; then echo "$*"; else "$@"; fi
}

export HOME=/root
folder=/root/nft_jax
run mkdir -p "$folder" /root/.cache/huggingface
run gcloud storage cp "${CODE:-CODE}" "$folder.tar.gz"
run tar -xzf "$folder.tar.gz" -C "$folder"
if [ -n "${TOKEN_SECRET:-}" ]; then
  umask 077
  run gcloud secrets versions access latest --secret="$TOKEN_SECRET" --out-file=/root/.cache/huggingface/token
fi
# The flags are quoted for a shell.
words=()
eval "words=(${FLAGS:-})"
run bash "$folder/launch/tpu/worker.sh" --background -- ${words[@]+"${words[@]}"}
