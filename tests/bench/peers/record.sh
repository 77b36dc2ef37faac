#!/bin/bash
# The runs behind docs/benchmarks/peers.md, on a machine of 2 cores: E1 and E4 in both dtypes and both layouts, E3 in one, and once with ViT-L and OPT-1.3B. Agreement of 100 steps where that
# takes minutes, of 20 where it would take longer or the layout alone differs; rounds are short, so that all of it ends within two hours.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

compare() {  # workload dtype ranks agree-steps agree-batch rounds steps side...
  local workload=$1 dtype=$2 ranks=$3 agree_steps=$4 agree_batch=$5 rounds=$6 steps=$7
  shift 7
  # shellcheck disable=SC2086  # the workload may have options
  "$here/run.sh" --workload $workload --dtype "$dtype" --ranks "$ranks" --agree-steps "$agree_steps" --agree-batch "$agree_batch" --warmup 2 \
    --rounds "$rounds" --steps "$steps" --side ours $(printf -- '--side %s ' "$@")
}

b1="b1-sharded b1-ignored"
[ "${1:-}" = rest ] ||
  compare e1 bf16 1 100 4 6 4 b0 $b1 b2
compare e1 bf16 2 20 4 6 4 b0 $b1 b3
compare e4 bf16 1 100 1 5 3 b0 $b1 b2
compare e4 bf16 2 20 2 5 3 b0 $b1
compare e1 fp32 1 100 2 4 2 b0 $b1
compare e1 fp32 2 20 2 4 2 b0 $b1
compare e4 fp32 1 20 1 3 2 b0 $b1
compare e4 fp32 2 20 2 3 2 b0 $b1
compare e3 bf16 2 20 2 3 2 b0 b1-sharded
compare "e3 --size 1.3b --batch 4" bf16 2 10 2 2 2 b0 b1-sharded
