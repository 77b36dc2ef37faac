#!/usr/bin/env bash
# Trains two small models on 1 to 4 ranks with 1 and 2 threads each, in f32 and in bf16, with clipping and with five micro-batches
# per step (which no rank count but 1 divides), and compares losses (printed to round-trip) and the adapter's SHA-256:
#   all     everything trains, as the configuration says
#   frozen  only connectors train, below dropout in the frozen text model, on augmented images, with the loss summed per sample;
#           frozen weights resident, sharded in every way they can be, and mixed, on one node and on several
# Controls with plain f32 sums must differ, and gradients must be beyond the clipping threshold: otherwise this could not fail.
#   same_bits.sh PROGRAM CONFIG [MODEL] [COMPUTE]
# MODEL: all | frozen, COMPUTE: FP32 | BF16; without them, each. Prints a table; exits 0 when every row of a model and dtype is
# equal, its controls are not, and it was clipped; 77, which CTest calls skipped, where BF16 alone is asked for and the
# processor has no avx512_bf16.
set -euo pipefail
program=$1 config=$2 models=${3:-all frozen} computes=${4:-FP32 BF16}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$program" data sample-photos --count 24 --size 32 --out "$work/photos" >/dev/null
clip_norm=0.5
steps=2  # the second with moments and weights that are sums of the first

# options MODEL: what it has beside the configuration, one argument per line
options() {
  if [ "$1" = frozen ]; then
    printf '%s\n' --set 'freeze[0].pattern=connector*' --set 'freeze+={pattern: "*" trainable: false}' --set quirks.frozen_dropout=true \
      --set quirks.vis_row=PUBLISHED --set data.transform=TRAIN --set loss.kind=SAMPLE_SUM
  fi
}

# policy NAME: how frozen weights reach the ranks, one argument per line. Nodes are pretended: ranks of a machine that share nothing.
policy() {
  case $1 in
    resident) ;;
    in-place) printf '%s\n' --set parallel.frozen_policy=SHARDED ;;
    copied) printf '%s\n' --set parallel.frozen_policy=SHARDED --set parallel.gather=INLINE ;;
    ahead) printf '%s\n' --set parallel.frozen_policy=SHARDED --set parallel.gather=PREFETCH ;;
    gathered) printf '%s\n' --set parallel.frozen_policy=SHARDED --set parallel.gather=PREFETCH --set parallel.ranks_per_node=1 ;;
    mixed) printf '%s\n' --set 'parallel.policies+={unit: "text.layers*" policy: SHARDED}' --set parallel.frozen_policy=RESIDENT \
      --set parallel.gather=PREFETCH --set parallel.ranks_per_node=2 ;;
    *) echo "same_bits.sh: no policy $1" >&2; exit 2 ;;
  esac
}

# run NAME MODEL RANKS THREADS COMPUTE REDUCTION POLICY -> "<hash of losses> <adapter sha256> <steps that were clipped>"
run() {
  local dir=$work/$1 more
  mapfile -t more < <(options "$2"; policy "$7")
  if ! "$here/../../launch/mpirun.sh" -n "$3" "$program" train "$config" --run-dir "$dir" \
    --set "data.root=$work/photos" --set "train.max_steps=$steps" --set schedule.warmup_steps=1 --set checkpoint.every_steps=0 \
    --set train.global_batch=10 --set train.micro_batch=2 --set "optimizer.clip_norm=$clip_norm" --set "parallel.threads=$4" \
    --set "precision.compute=$5" --set "parallel.reduction=$6" --set train.final_check.loss=false \
    --set train.final_check.exchanged_images=false ${more[@]+"${more[@]}"} >"$work/$1.log" 2>&1; then
    cat "$work/$1.log" >&2
    exit 1
  fi
  local values losses adapter clipped
  values=$(sed -n 's/.*"loss":\([^,]*\),.*"grad_norm":\([^,]*\),.*/\1 \2/p' "$dir/metrics.jsonl")
  [ "$(wc -l <<<"$values")" = "$steps" ] || { echo "$steps steps expected in $1; got '$values'" >&2; exit 1; }
  losses=$(sha256sum <<<"$values" | cut -c1-12)
  adapter=$(sha256sum "$dir/checkpoints/step-0000000$steps/adapter.safetensors" | cut -c1-12)
  clipped=$(awk -v most="$clip_norm" '$2 > most { ++n } END { print n + 0 }' <<<"$values")
  echo "$losses $adapter $clipped"
}

failed=0
row() { printf '%-7s %-6s %5s %7s %-10s %-9s %-14s %-14s %7s %s\n' "$@"; }

# check MODEL COMPUTE: all rows of it
check() {
  local expected='' controls='' policies=resident policy ranks threads losses adapter clipped result
  if [ "$1" = frozen ]; then policies="resident in-place copied ahead gathered mixed"; fi
  for policy in $policies; do
    for ranks in 1 2 3 4; do
      for threads in 1 2; do
        read -r losses adapter clipped < <(run "$1-$2-$policy-$ranks-$threads" "$1" "$ranks" "$threads" "$2" ORDER_FREE "$policy")
        : "${expected:=$losses $adapter}"
        result=same
        if [ "$losses $adapter" != "$expected" ]; then result=DIFFERENT failed=1; fi
        if [ "$clipped" = 0 ]; then result="NEVER CLIPPED" failed=1; fi
        row "$1" "$2" "$ranks" "$threads" order-free "$policy" "$losses" "$adapter" "$clipped/$steps" "$result"
      done
    done
  done
  for ranks in 1 2 3; do
    read -r losses adapter clipped < <(run "$1-$2-plain-$ranks" "$1" "$ranks" 1 "$2" PLAIN resident)
    controls+="$adapter"$'\n'
    row "$1" "$2" "$ranks" 1 plain resident "$losses" "$adapter" "$clipped/$steps" control
  done
  if [ "$(printf '%s' "$controls" | sort -u | wc -l)" -lt 2 ]; then
    echo "$1 $2: plain sums gave the same bits on 1, 2 and 3 ranks, so this comparison proves nothing"
    failed=1
  fi
}

if ! "$program" info | grep -q avx512_bf16 && [[ $computes == *BF16* ]]; then
  echo "SKIPPED: bf16 rows, because this processor has no avx512_bf16"
  computes=${computes/BF16/}
  [ -n "$computes" ] || exit 77
fi
row model dtype ranks threads reduction policy losses adapter clipped result
for model in $models; do
  for compute in $computes; do check "$model" "$compute"; done
done
exit $failed
