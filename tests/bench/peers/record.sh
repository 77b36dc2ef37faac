#!/usr/bin/env bash
# The runs that docs/benchmarks/peers.md should have, on a machine of 2 cores: E1 and E4 in both dtypes and both layouts, E3 in one, and once with ViT-L and OPT-1.3B.
# Shorter than what run.sh does by itself: the page says how many steps agreed and how many were timed. The page as it stands comes from fewer and shorter runs
# of the same kind, started by hand.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# compare "WORKLOAD OPTIONS" "AGREE-STEPS AGREE-BATCH WARMUP ROUNDS STEPS" SIDE...
compare() {
  local workload=$1 counts
  read -ra counts <<<"$2"
  shift 2
  # shellcheck disable=SC2086  # a workload has options
  "$here/run.sh" --workload $workload --agree-steps "${counts[0]}" --agree-batch "${counts[1]}" --warmup "${counts[2]}" --rounds "${counts[3]}" \
    --steps "${counts[4]}" $(printf -- '--side %s ' "$@")
}

b0_b1="b0 b1-sharded b1-ignored"
lean_b1="b1-sharded:reshard=1,allocator=0 b1-ignored:allocator=0"  # for their memory alone
compare "e1 --dtype bf16 --ranks 1" "100 4 8 5 4" ours $b0_b1 b2
compare "e1 --dtype bf16 --ranks 2" "20 4 8 5 4" ours $b0_b1
compare "e1 --dtype bf16 --ranks 2" "1 16 1 0 1" $lean_b1
compare "e4 --dtype bf16 --ranks 1" "100 1 4 4 3" ours $b0_b1 b2
compare "e4 --dtype bf16 --ranks 2" "20 2 4 4 3" ours $b0_b1
compare "e4 --dtype bf16 --ranks 2" "1 4 1 0 1" $lean_b1
compare "e1 --dtype fp32 --ranks 1" "100 4 2 4 2" ours $b0_b1
compare "e1 --size 1.3b --dtype bf16 --ranks 1" "10 4 2 3 2" ours b0 b1-ignored
compare "e1 --size 2.7b --dtype bf16 --ranks 1" "5 2 1 3 1" ours b0  # with one side more 24 GiB are not enough
compare "e4 --tokens 2048 --batch 2 --dtype bf16 --ranks 1" "10 1 2 3 2" ours b0 b1-ignored
compare "e1 --dtype fp32 --ranks 2" "20 2 2 4 2" ours $b0_b1
compare "e3 --dtype bf16 --ranks 2" "20 2 2 3 2" ours b0 b1-sharded b3
compare "e4 --dtype fp32 --ranks 1" "20 1 2 3 2" ours $b0_b1
compare "e4 --dtype fp32 --ranks 2" "20 2 2 3 2" ours $b0_b1
compare "e3 --size 1.3b --batch 4 --dtype bf16 --ranks 2" "10 2 2 2 2" ours b0 b1-sharded
