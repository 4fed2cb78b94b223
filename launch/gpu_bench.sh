#!/usr/bin/env bash
# Measures the benchmark on one GPU: four shapes of models, packed rows and decoding by cuDNN, and what XLA's switches
# change. Ends with a table.
#   bash launch/gpu_bench.sh [--dry-run] [--workdir=DIR] [--minutes=8] [--tiny] [--config.section.field=value ...]
# Run it on a GPU that nothing else uses. It takes about 8 minutes on an H200, most of them to compile; what does not fit
# into the minutes is left out, by name. --tiny takes shapes for a machine without a GPU, to try the script.
# Results are in DIR/NAME/bench.json, runs/gpu_bench by default; other words go to every run of nft_jax.bench.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workdir=runs/gpu_bench minutes=8 tiny=""
parse_options "workdir minutes tiny" "$@"
use_environment cuda12
SECONDS=0
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.95}"

names=() plain="XLA_FLAGS=${XLA_FLAGS:-}"

# measure NAME SWITCH FLAGS: one run in what is left of the minutes; SWITCH is an environment variable with its value.
measure() {
  local name="$1" switch="$2" left=$((minutes * 60 - SECONDS)) code=0
  shift 2
  names+=("$workdir/$name")
  run rm -f "$workdir/$name/bench.json"
  if ((left < 20)); then
    echo "$name is left out: the $minutes minutes are over" >&2
    return
  fi
  local command=(env "$switch" timeout "$left" python -m nft_jax.bench --config=bench "--workdir=$workdir/$name" "$@")
  run "${command[@]}" ${rest[@]+"${rest[@]}"} || code=$?
  ((code == 0)) || echo "$name ended with exit code $code; the other runs go on" >&2
}

flags=()
# set_model NAME=VALUE…: sets `flags` to the flags of these settings of the model.
set_model() {
  local pair
  flags=()
  for pair in "$@"; do flags+=("--config.model.$pair"); done
}

all=(--repeats=2 --config.model.dtype=bfloat16 --config.answers_per_prompt=8 --config.data.max_prompt_tokens=256
  --config.rollout.max_answer_tokens=512 --config.rollout.max_halvings=0 --config.packing.row_tokens=768)
many=(--config.prompts_per_step=32 --config.rollout.slots=256 --config.packing.rows_per_micro_batch=16
  --config.packing.logp_chunk_tokens=384)
few=(--config.prompts_per_step=16 --config.rollout.slots=128 --config.packing.rows_per_micro_batch=4
  --config.packing.logp_chunk_tokens=768 --config.optimizer.offload=true)
small=()
if [ -n "$tiny" ]; then
  set_model vocab=512 layers=2 unrolled_layers=2 width=64 heads=4 kv_heads=2 head_size=16 mlp_width=128 dtype=float32
  small=("${flags[@]}" --repeats=1 --config.data.max_prompt_tokens=16 --config.rollout.max_answer_tokens=16
    --config.packing.row_tokens=32 --config.prompts_per_step=4 --config.rollout.slots=8 --config.optimizer.offload=false
    --config.model.attention=xla)
fi
rest=(${small[@]+"${small[@]}"} ${rest[@]+"${rest[@]}"})

set_model vocab=151936 layers=24 unrolled_layers=24 width=896 heads=14 head_size=64 mlp_width=4864
half=("${all[@]}" "${many[@]}" "${flags[@]}")
measure 0.5b "$plain" "${half[@]}"
set_model vocab=152064 layers=28 unrolled_layers=28 width=3584 heads=28 kv_heads=4 head_size=128 mlp_width=18944 tied_embedding=false
measure 7b "$plain" "${all[@]}" "${few[@]}" "${flags[@]}"
set_model vocab=151936 layers=28 unrolled_layers=28 width=1536 heads=12 head_size=128 mlp_width=8960
measure 1.5b "$plain" "${all[@]}" "${many[@]}" "${flags[@]}"
set_model vocab=151936 layers=28 unrolled_layers=28 width=1024 heads=16 kv_heads=8 head_size=128 mlp_width=3072 qkv_bias=false qk_norm=head
measure qwen3_0.6b "$plain" "${all[@]}" "${many[@]}" "${flags[@]}"

shapes=("${names[@]}") names=("$workdir/0.5b")
packed=(--config.model.attention=cudnn_packed)
measure cudnn_packed "$plain" "${half[@]}" "${packed[@]}"
measure cudnn_packed_shared "$plain" "${half[@]}" "${packed[@]}" --config.packing.share_prompts=yes
measure cudnn_only "$plain" "${half[@]}" --config.model.attention=cudnn_only
measure command_buffers "$plain --xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL" "${half[@]}"
measure cublaslt "$plain --xla_gpu_enable_cublaslt=true" "${half[@]}"
measure no_triton_gemm "$plain --xla_gpu_enable_triton_gemm=false" "${half[@]}"
measure O1 "JAX_OPTIMIZATION_LEVEL=O1" "${half[@]}"

run python -m nft_jax.bench.summary "${shapes[@]}"
run python -m nft_jax.bench.summary --ratios "${names[@]}"
