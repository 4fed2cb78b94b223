#!/usr/bin/env bash
# Runs a program as N processes on this machine's CPUs that work as one, as the hosts of a pod do.
#   bash launch/local_processes.sh N [--dry-run] [--devices=1] [--module=nft_jax.train] [--again] [--grace=90]
#       --config=NAME_OR_FILE --workdir=DIR [--config.section.field=value ...]
# Takes the `python` of PATH (source .venv/bin/activate). Each process has --devices CPU devices; they talk over the
# loopback, by gloo. When one ends, the others have --grace seconds to end too, then they get SIGTERM, and as much later
# SIGKILL. The exit code is the first that is not 0, or 1 if one did not end by itself. 75 means: saved; run the same
# command again (--again does so).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

devices=1 module=nft_jax.train again=no grace=90
options "devices module again grace" "$@"
count="${rest[0]-}"
[[ "$count" =~ ^[1-9][0-9]*$ ]] || fail "how many processes? bash $0 2 --config=…"
flags=("${rest[@]:1}")

alive() {
  local pid
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then return 0; fi
  done
  return 1
}

signal_all() {
  kill "-$1" "${pids[@]}" 2>/dev/null || true
}

# Takes the exit codes of those that have ended since; `result` is the first that is not 0.
take_ended() {
  local i code
  for ((i = 0; i < count; i++)); do
    if [ -z "${ended[i]-}" ] && ! kill -0 "${pids[i]}" 2>/dev/null; then
      code=0
      wait "${pids[i]}" || code=$?
      ended[i]="$code"
      first="${first:-$i}"
      if ((code)); then echo "process $i of $count ended with exit code $code" >&2; fi
      if ((result == 0)); then result="$code"; fi
    fi
  done
}

# Waits so many seconds at most until all have ended.
all_end_within() {
  local deadline=$((SECONDS + $1))
  while alive && ((SECONDS < deadline)); do
    sleep 0.1
    take_ended
  done
  take_ended
  ! alive
}

processes() {
  local i process port=$((20000 + RANDOM % 10000)) first="" result=0
  pids=() ended=()
  for ((i = 0; i < count; i++)); do
    process=(env JAX_PLATFORMS=cpu JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
      XLA_FLAGS="--xla_force_host_platform_device_count=$devices${XLA_FLAGS:+ $XLA_FLAGS}"
      NFT_JAX_DISTRIBUTED="127.0.0.1:$port" NFT_JAX_PROCESSES="$count" NFT_JAX_PROCESS="$i"
      python -m "$module" ${flags[@]+"${flags[@]}"})
    if [ "$dry_run" = yes ]; then
      shown "${process[@]}"
      continue
    fi
    # In a group of its own, which Ctrl-C reaches from here alone, as a SIGTERM.
    set -m
    "${process[@]}" &
    set +m
    pids+=($!)
  done
  if [ "$dry_run" = yes ]; then return; fi
  trap 'signal_all TERM' TERM INT HUP
  while [ -z "$first" ]; do
    sleep 0.1
    take_ended
  done
  if ! all_end_within "$grace"; then
    echo "others did not end within $grace s of process $first: SIGTERM" >&2
    if ((result == 0)); then result=1; fi
    signal_all TERM
    all_end_within "$grace" || signal_all KILL
    all_end_within "$grace" || true
  fi
  if ((result == AGAIN)); then echo "exit code $AGAIN: saved; run the same command again" >&2; fi
  return "$result"
}

if [ "$again" = yes ] && [ "$dry_run" = no ]; then again processes; else processes; fi
