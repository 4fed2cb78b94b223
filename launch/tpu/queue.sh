#!/usr/bin/env bash
# Requests TPU slices that may become available later; the run starts on them by itself, and again after each reboot.
#   bash launch/tpu/queue.sh [--dry-run] --name=NAME --zone=ZONE --type=v5litepod-64 [--spot | --reserved] [--slices=1]
#       [--project=ID] [--version=RUNTIME] [--token-secret=NAME] [--keep]
#       --config=NAME_OR_FILE --workdir=gs://BUCKET/FOLDER [--config.section.field=value ...]
# Copies this working tree into the workdir. Every worker fetches it from there at boot (startup.sh), and resumes the
# run from its newest checkpoint. Cloud TPU does not bring a preempted slice back: with --keep this script keeps running,
# requests the slice again after a preemption, and deletes it when the run has its result. --slices: several slices for
# one run. --token-secret: the secret in Secret Manager from which workers read a Hugging Face token. For the types see
# create.sh --help. Each slice is new and lacks the notes of a smoke test; if that passed on the same type, add
# --config.rollout.lockstep=no. Next: logs.sh --queued, stop.sh --queued, delete.sh --queued.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

type="" version="" spot=no reserved=no token_secret="" keep=no
parse_options "name zone project type version spot? reserved? slices token-secret keep?" "$@"
require_slice
require type
[ "$spot$reserved" != yesyes ] || fail "give --spot or --reserved, not both"
version="${version:-$(runtime "$type")}"
workdir=""
for word in ${rest[@]+"${rest[@]}"}; do
  case "$word" in --workdir=*) workdir="${word#--workdir=}" ;; esac
done
[[ "$workdir" == gs://?* ]] || fail "--workdir=gs://BUCKET/FOLDER is needed: the disk of a slice is lost with it"
code="${workdir%/}/launch/nft_jax.tar.gz"

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
values="$(quote_command export CODE="$code" TOKEN_SECRET="$token_secret" FLAGS="$(quote_command "${rest[@]}")")"
printf '%s\n' '#!/usr/bin/env bash' "$values" | cat - launch/tpu/startup.sh >"$folder/startup.sh"
if [ "$dry_run" = yes ]; then printf '%s\n' "# startup.sh, after:" "$values"; fi

nodes=(--node-id="$name")
if ((slices > 1)); then nodes=(--node-count="$slices" --node-prefix="$name"); fi
how=()
if [ "$spot" = yes ]; then how+=(--spot); fi
if [ "$reserved" = yes ]; then how+=(--reserved); fi

create() {
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" --accelerator-type="$type" \
    --runtime-version="$version" "${nodes[@]}" ${how[@]+"${how[@]}"} \
    --metadata-from-file=startup-script="$folder/startup.sh"
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

state() {
  run gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)'
}

finished() {
  run gcloud storage ls "${workdir%/}/result.json"
}

if [ "$keep" = yes ] && [ "$dry_run" = no ] && finished >/dev/null 2>&1; then
  fail "$workdir/result.json exists already, so --keep would take the run for finished; give another --workdir"
fi
pack "$folder/nft_jax.tar.gz"
run gcloud storage cp "$folder/nft_jax.tar.gz" "$code"
create
if [ "$keep" = yes ] && [ "$dry_run" = yes ]; then
  echo "# every ${EVERY:-300} s, until there is a result; deleted and created again when SUSPENDED or FAILED:"
  state && finished && delete
fi
while [ "$keep" = yes ] && [ "$dry_run" = no ]; do
  sleep "${EVERY:-300}"
  now="$(state || echo unknown)"
  echo "$(date) $name: $now"
  if finished >/dev/null 2>&1; then
    echo "the run has its result"
    delete
    exit
  fi
  case "$now" in
    SUSPENDED | FAILED)
      delete
      create
      ;;
  esac
done
