#!/usr/bin/env bash
# Runs on a worker of a slice, where the other scripts call it by ssh or at boot. Not for your own machine.
#   bash launch/tpu/worker.sh [--dry-run] --setup | --stop | --log=LINES | [--background] [--module=nft_jax.train] FLAGS
# --setup makes the environment. --stop makes the run save and end, and waits for that. --log shows and follows run.log.
# Without them it runs the module with these flags, one run at a time, and repeats it while it ends with exit code 75.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

setup=no stop=no log="" background=no module=nft_jax.train
parse_options "setup? stop? log background? module" "$@"

if [ -n "$log" ]; then
  run exec tail --lines="$log" --follow=name --retry run.log
  exit
fi
if [ "$stop" = yes ]; then
  run kill -TERM "$(cat run.pid 2>/dev/null || echo 'PID')" || fail "no run is active on $(hostname)"
  # The lock is free when the whole run has ended.
  run flock --timeout 300 run.lock echo "stopped; the work is saved"
  exit
fi
if [ "$background" = yes ]; then
  run flock --nonblock run.lock true || fail "a run is active on $(hostname); launch/tpu/stop.sh ends it"
  command=(bash launch/tpu/worker.sh --module="$module" -- ${rest[@]+"${rest[@]}"})
  if [ "$dry_run" = yes ]; then
    quote_command "${command[@]}"
  else
    nohup setsid "${command[@]}" >>run.log 2>&1 </dev/null &
  fi
  exit
fi

# The Python of the images is older than the package needs.
if ! find_python >/dev/null 2>&1; then
  run python3 -m pip install --quiet --user uv
  run python3 -m uv python install --quiet 3.12
  if [ "$dry_run" = no ]; then PYTHON="$(python3 -m uv python find 3.12)"; else PYTHON=python3; fi
fi
use_environment tpu,data,gcs,isolation
if [ "$setup" = yes ]; then exit; fi

# Without huge pages, starting and ending the TPU's runtime takes minutes.
run sudo --non-interactive sh -c 'echo always >/sys/kernel/mm/transparent_hugepage/enabled' || true
if [ "$dry_run" = no ]; then
  exec 9>run.lock
  flock --nonblock 9 || fail "a run is active on $(hostname); launch/tpu/stop.sh ends it"
  echo $$ >run.pid
fi
# The verifier's callback also needs JAX's CPU backend.
repeat env JAX_PLATFORMS=tpu,cpu NFT_JAX_DISTRIBUTED=auto python -m "$module" ${rest[@]+"${rest[@]}"}
