#!/usr/bin/env bash
# Runs a program as N processes on this machine's CPUs, which work together like the hosts of a pod.
#   bash launch/local_processes.sh N [--dry-run] [--devices=1] [--module=nft_jax.train] [--again] [--grace=90]
#       --config=NAME_OR_FILE --workdir=DIR [--config.section.field=value ...]
# Uses the `python` of PATH (source .venv/bin/activate). Each process has --devices CPU devices; gloo connects them over
# the loopback. When one ends, the others have --grace seconds to end too; then they get SIGTERM, and after as many
# seconds again SIGKILL. The exit code is the first that is not 0, or 1 if a process had to be ended. 75 means: the work
# is saved; run the same command again (--again does that). It is also the code where a process was killed (137, as by
# the kernel when memory is short) and no other one failed by itself: the last checkpoint is there.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

KILLED=137
devices=1 module=nft_jax.train again=no grace=90
parse_options "devices module again? grace" "$@"
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
  kill "-$1" ${pids[@]+"${pids[@]}"} 2>/dev/null || true
}

# Collects the exit codes of the processes that have ended; `result` is the first failure, else 75 if one ended with 75
# or was killed.
collect_exit_codes() {
  local i code
  for ((i = 0; i < count; i++)); do
    if [ -z "${ended[i]-}" ] && ! kill -0 "${pids[i]}" 2>/dev/null; then
      code=0
      wait "${pids[i]}" || code=$?
      ended[i]="$code"
      first="${first:-$i}"
      if ((code)); then echo "process $i of $count ended with exit code $code" >&2; fi
      if ((code == KILLED)); then code="$AGAIN"; fi
      # Those that notice that another one is gone end with 75, and may be seen before it.
      if ((result == 0 || (result == AGAIN && code != 0))); then result="$code"; fi
    fi
  done
}

# wait_for_all SECONDS: succeeds if all processes end within that time.
wait_for_all() {
  local deadline=$((SECONDS + $1))
  while alive && ((SECONDS < deadline)); do
    sleep 0.1
    collect_exit_codes
  done
  collect_exit_codes
  ! alive
}

run_processes() {
  local i process port=$((20000 + RANDOM % 10000)) first="" result=0
  pids=() ended=()
  if [ "$dry_run" = no ]; then trap 'signal_all TERM' TERM INT HUP; fi
  for ((i = 0; i < count; i++)); do
    process=(env JAX_PLATFORMS=cpu JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
      XLA_FLAGS="--xla_force_host_platform_device_count=$devices${XLA_FLAGS:+ $XLA_FLAGS}"
      NFT_JAX_DISTRIBUTED="127.0.0.1:$port" NFT_JAX_PROCESSES="$count" NFT_JAX_PROCESS="$i"
      python -m "$module" ${flags[@]+"${flags[@]}"})
    if [ "$dry_run" = yes ]; then
      quote_command "${process[@]}"
      continue
    fi
    # In a separate process group, which gets Ctrl-C only from here, as SIGTERM.
    set -m
    "${process[@]}" &
    set +m
    pids+=($!)
  done
  if [ "$dry_run" = yes ]; then return; fi
  while [ -z "$first" ]; do
    sleep 0.1
    collect_exit_codes
  done
  if ! wait_for_all "$grace"; then
    echo "other processes did not end within $grace s after process $first; sending SIGTERM" >&2
    if ((result == 0)); then result=1; fi
    signal_all TERM
    wait_for_all "$grace" || signal_all KILL
    wait_for_all "$grace" || true
  fi
  if ((result == AGAIN)); then echo "exit code $AGAIN: the work is saved; run the same command again" >&2; fi
  return "$result"
}

if [ "$again" = yes ] && [ "$dry_run" = no ]; then repeat run_processes; else run_processes; fi
