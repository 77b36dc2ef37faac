#!/usr/bin/env bash
# Trains the same small model on 1 to 4 ranks with 1 and 2 threads each, in f32 and in bf16, with clipping and with five micro-batches
# per step (which no rank count but 1 divides), and compares losses (printed to round-trip) and the adapter's SHA-256.
# A control with plain f32 sums must differ: otherwise this test could not fail.
#   same_bits.sh PROGRAM CONFIG
# Prints a table; exits 0 when every row of a dtype is equal and the control is not.
set -euo pipefail
program=$1 config=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$program" data sample-photos --count 24 --size 32 --out "$work/photos" >/dev/null

# run NAME RANKS THREADS COMPUTE REDUCTION -> "<hash of losses> <adapter sha256>"
run() {
  local dir=$work/$1
  if ! "$here/../../launch/mpirun.sh" -n "$2" "$program" train "$config" --run-dir "$dir" \
    --set "data.root=$work/photos" --set train.max_steps=4 --set schedule.warmup_steps=1 --set checkpoint.every_steps=0 --set train.global_batch=10 --set train.micro_batch=2 \
    --set optimizer.clip_norm=0.5 --set "parallel.threads=$3" --set "precision.compute=$4" --set "parallel.reduction=$5" \
    --set train.final_check.loss=false --set train.final_check.exchanged_images=false >"$work/$1.log" 2>&1; then
    cat "$work/$1.log" >&2
    exit 1
  fi
  local losses adapter
  losses=$(sed 's/.*"loss":\([^,]*\),.*"grad_norm":\([^,]*\),.*/\1 \2/' "$dir/metrics.jsonl" | sha256sum | cut -c1-12)
  adapter=$(sha256sum "$dir"/checkpoints/step-*/adapter.safetensors | cut -c1-12)
  echo "$losses $adapter"
}

computes=FP32
if "$program" info | grep -q avx512_bf16; then computes="FP32 BF16"; else echo "this processor has no bf16 instructions: bf16 rows left out"; fi
failed=0
printf '%-6s %5s %7s %-10s %-14s %-14s %s\n' dtype ranks threads reduction losses adapter result
for compute in $computes; do
  expected=
  for ranks in 1 2 3 4; do
    for threads in 1 2; do
      read -r losses adapter < <(run "$compute-$ranks-$threads" "$ranks" "$threads" "$compute" ORDER_FREE)
      : "${expected:=$losses $adapter}"
      result=same
      if [ "$losses $adapter" != "$expected" ]; then result=DIFFERENT failed=1; fi
      printf '%-6s %5s %7s %-10s %-14s %-14s %s\n' "$compute" "$ranks" "$threads" order-free "$losses" "$adapter" "$result"
    done
  done
  controls=
  for ranks in 1 2 3; do
    read -r losses adapter < <(run "$compute-plain-$ranks" "$ranks" 1 "$compute" PLAIN)
    controls+="$adapter"$'\n'
    printf '%-6s %5s %7s %-10s %-14s %-14s %s\n' "$compute" "$ranks" 1 plain "$losses" "$adapter" control
  done
  if [ "$(printf '%s' "$controls" | sort -u | wc -l)" -lt 2 ]; then
    echo "$compute: plain sums gave the same bits on 1, 2 and 3 ranks, so this comparison proves nothing"
    failed=1
  fi
done
exit $failed
