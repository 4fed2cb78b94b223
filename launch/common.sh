#!/usr/bin/env bash
# What the launch scripts share, for them to source; run by itself it does nothing:
#   bash launch/common.sh --help
# Every script knows --help (the comment at its head) and --dry-run (prints the commands, runs none). Exit code 75 of a
# program means: stopped on request, all that was done is saved, run the same command again.
# Variables: PYTHON (the interpreter to use), VENV (default .venv), EXTRAS (of setup.py).
# Works with bash 3.2, which macOS has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

AGAIN=75
# Against a program that ends with 75 without having done anything.
PAUSE="${PAUSE:-10}"
MOST_TRIES="${MOST_TRIES:-1000}"

dry_run=no rest=()
# Of the scripts in tpu/: which slice, and how many of it.
name="" zone="" project="" slices=1

fail() {
  echo "error: $*" >&2
  exit 2
}

# options "NAMES" WORDS: --NAME=VALUE goes into the variable NAME (with _ for -), a bare --NAME is "yes"; other words,
# and all after --, go into the array `rest`.
options() {
  local allowed=" $1 " word option
  shift
  while (($#)); do
    word="$1"
    shift
    option="${word#--}"
    option="${option%%=*}"
    case "$word" in
      --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      --dry-run) dry_run=yes ;;
      --)
        rest+=("$@")
        return
        ;;
      --*)
        if [[ "$allowed" != *" $option "* ]]; then
          rest+=("$word")
        elif [[ "$word" == *=* ]]; then
          printf -v "${option//-/_}" '%s' "${word#*=}"
        else
          printf -v "${option//-/_}" yes
        fi
        ;;
      *) rest+=("$word") ;;
    esac
  done
}

# needed NAMES: each of these variables must have a value.
needed() {
  local option
  for option in "$@"; do
    [ -n "${!option}" ] || fail "--${option//_/-}=… is needed; bash $0 --help says more"
  done
}

# For scripts that take nothing but their own flags.
nothing_else() {
  ((${#rest[@]} == 0)) || fail "what is ${rest[0]}? bash $0 --help lists the flags"
}

# A command as a person would type it.
shown() {
  local word line="" flag
  for word in "$@"; do
    flag=""
    if [[ "$word" =~ ^[A-Za-z0-9_.-]+= ]]; then flag="${BASH_REMATCH[0]}"; fi
    word="${word#"$flag"}"
    if [[ "$word" == *\'* ]]; then
      word="$(printf '%q' "$word")"
    elif [[ ! "$word" =~ ^[A-Za-z0-9_./:=,@%+-]*$ || -z "$flag$word" ]]; then
      word="'$word'"
    fi
    line+="${line:+ }$flag$word"
  done
  echo "$line"
}

# Runs a command, or in a dry run prints it.
run() {
  if [ "$dry_run" = yes ]; then shown "$@"; else "$@"; fi
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python of version 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
  return 1
}

# Makes the virtual environment once for each set of requirements, and puts it first in PATH.
environment() {
  EXTRAS="${EXTRAS:-$1}" VENV="${VENV:-.venv}"
  case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
  # The stamp holds what was installed: the environment is made again when the requirements change.
  local python stamp
  stamp="$EXTRAS $(cksum <setup.py)"
  if [ "$(cat "$VENV/.installed" 2>/dev/null)" != "$stamp" ]; then
    python="$(find_python)"
    [ "$dry_run" = yes ] || echo "making the environment $VENV (once; a few minutes of download)"
    run "$python" -m venv "$VENV"
    run "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$EXTRAS]"
    [ "$dry_run" = yes ] || echo "$stamp" >"$VENV/.installed"
  fi
  export PATH="$VENV/bin:$PATH"
}

# Runs a command, and again while it ends with 75, unless the one who stopped it asked this script to stop: signals are
# passed on.
again() {
  local child="" code=0 asked=no tries
  if [ "$dry_run" = yes ]; then
    shown "$@"
    return
  fi
  # In a group of its own the command gets Ctrl-C from here alone, and doesn't ignore it, as background jobs do.
  set -m
  trap 'asked=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM HUP
  trap 'asked=yes; [ -z "$child" ] || kill -INT "$child" 2>/dev/null || true' INT
  for ((tries = 1; ; tries++)); do
    "$@" &
    child=$!
    code=0
    wait "$child" || code=$?
    # A signal ends `wait`, not the command.
    while kill -0 "$child" 2>/dev/null; do
      code=0
      wait "$child" || code=$?
    done
    if ((code != AGAIN)) || [ "$asked" = yes ]; then break; fi
    if ((tries >= MOST_TRIES)); then
      echo "exit code $AGAIN for the ${tries}th time: enough" >&2
      break
    fi
    echo "exit code $AGAIN (saved; run the same command again): again in $PAUSE s" >&2
    # In the background, so that a signal need not wait for it.
    sleep "$PAUSE" &
    wait $! || true
    if [ "$asked" = yes ]; then break; fi
  done
  trap - TERM HUP INT
  set +m
  return "$code"
}

# The flags of gcloud that say where the slice is.
place() {
  needed name zone
  where=("--zone=$zone")
  if [ -n "$project" ]; then where+=("--project=$project"); fi
}

# on_workers WHICH COMMAND: by ssh on these workers (a number, or all) of every slice.
on_workers() {
  local way=(tpu-vm ssh "$name")
  if ((slices > 1)); then way=(queued-resources ssh "$name" --node=all); fi
  run gcloud compute tpus "${way[@]}" "${where[@]}" "--worker=$1" "--command=$2"
}

# The working tree as an archive, without what belongs to this machine alone.
pack() {
  run tar -czf "$1" --exclude=.git --exclude=.venv --exclude=./runs --exclude=./build --exclude=./dist \
    --exclude=__pycache__ --exclude='*.egg-info' --exclude='.*_cache' .
}

# The runtime version that a TPU type wants.
runtime() {
  case "$1" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "--type=$1: use v5litepod-N, v6e-N (N chips), v5p-N, v4-N (N = 2 × chips), or give --version=RUNTIME too" ;;
  esac
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  options "" "$@"
  nothing_else
fi
