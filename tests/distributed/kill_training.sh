#!/usr/bin/env bash
# A rank of a training run that is killed while sharded weights are gathered takes the others down within 10 s, and every other rank's last
# line names it. Nothing may stay: no process, nothing in /dev/shm, no file among the temporary ones (Open MPI leaves empty folders there).
#   kill_training.sh MPIRUN_SCRIPT PROGRAM CONFIG GATHER RANKS_PER_NODE
# GATHER: INLINE | PREFETCH. RANKS_PER_NODE: 0 for one node (parts are copied), else nodes are pretended (parts are exchanged).
# Between nodes nearly all of the time of this run is spent in gathers, which is checked; on one node a gather waits for nobody, so there
# the kill falls into copies, computation or the exchange after them.
set -uo pipefail
mpirun_script=$1 program=$2 config=$3 gather=$4 ranks_per_node=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
output=$work/output
mkdir "$work/tmp"
"$program" data sample-photos --count 24 --size 32 --out "$work/photos" >/dev/null || exit 1

problems=0
complain() { echo "FAIL: $*"; problems=1; }
run=("$program" train "$config" --run-dir "$work/run" --set "data.root=$work/photos" --set train.max_steps=1000000 --set schedule.warmup_steps=1
  --set train.global_batch=48 --set train.micro_batch=2 --set precision.compute=FP32 --set checkpoint.every_steps=0
  --set 'freeze[0].pattern=connector*' --set 'freeze+={pattern: "*" trainable: false}' --set parallel.threads=1
  --set parallel.frozen_policy=SHARDED --set "parallel.gather=$gather" --set "parallel.ranks_per_node=$ranks_per_node")
# Each rank leaves the number of its process.
start=("$mpirun_script" -n 3 --tag-output bash -c 'echo $$ >"$0/process.$OMPI_COMM_WORLD_RANK"; exec "$@"' "$work" "${run[@]}")
if unshare -m true 2>/dev/null; then  # a /dev/shm of its own, because other programs use the common one meanwhile
  start=(unshare -m bash -c 'mount -t tmpfs tmpfs /dev/shm || exit 99; "$@"; code=$?; ls -A /dev/shm >"$0/left"; exit $code' "$work" "${start[@]}")
fi
TMPDIR=$work/tmp timeout -k 2 60 "${start[@]}" >"$output" 2>&1 &
launcher=$!
for _ in {1..400}; do  # until the third step is done
  [ "$(cat "$work/run/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] && break
  kill -0 $launcher 2>/dev/null || break
  sleep 0.1
done
[ "$(cat "$work/run/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] || complain "three steps expected before the kill"
victim=$(cat "$work/process.1")
killed_at=$(date +%s%3N)
kill -9 "$victim" || complain "rank 1 had ended before"
wait $launcher
code=$?
elapsed_ms=$(($(date +%s%3N) - killed_at))
echo "exit code $code after $elapsed_ms ms"; cat "$output"

value() { tail -1 "$work/run/metrics.jsonl" | sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }
echo "last step: $(value step_ms) ms, $(value exposed_comm_ms) of them waiting for weights and other ranks; $(value gathered_bytes) bytes gathered"
# The working copies of what trains are gathered once; weights are more than ten times that, or the kill could hardly hit them.
(($(value gathered_bytes) > 10 * $(value reduced_bytes))) || complain "sharded weights must be gathered; got $(value gathered_bytes) bytes"

((code != 0 && code != 124)) || complain "exit code must say that ranks failed; got $code"
((elapsed_ms <= 10000)) || complain "all ranks must end within 10000 ms; took $elapsed_ms ms"
for rank in 0 2; do
  line=$(grep -a "^\[1,$rank\]<stderr>:" "$output" | tail -1 | sed 's/^[^:]*://')
  [[ "$line" =~ ^"permafrost: rank $rank/3: ".*"rank 1/3 ".*"process $victim".*"is gone (killed, or crashed)" ]] ||
    complain "the last line of rank $rank must name rank 1 and its process $victim; got '$line'"
done
grep -Eq "rank 1 .*signal 9 " "$output" || complain "the launcher must name rank 1 and signal 9"
sleep 0.2
for rank in 0 1 2; do  # Z: it has ended, and whoever inherited it from the launcher has not asked how
  process=$(cat "$work/process.$rank")
  state=$(sed -n 's/^State:\s*//p' "/proc/$process/status" 2>/dev/null)
  [[ -z "$state" || "$state" == Z* ]] || complain "rank $rank, process $process, is still there: $state"
done
[[ -s "$work/left" ]] && complain "left in /dev/shm: $(cat "$work/left")"
[[ -z "$(find "$work/tmp" ! -type d)" ]] || complain "left in TMPDIR: $(find "$work/tmp" ! -type d)"
echo "folders left in TMPDIR: $(find "$work/tmp" -mindepth 1 -type d | wc -l)"
[[ -z "$(ls "$work/run/checkpoints" 2>/dev/null)" ]] || complain "left among checkpoints: $(ls "$work/run/checkpoints")"
exit $problems
