#!/usr/bin/env bash
# A rank that fails takes the others down within 10 s, with its exit code, and every rank's last line names it.
# fail_together.sh MPIRUN_SCRIPT PROGRAM HOW, HOW: wait | compute | stream | all | late (see failing_rank.cc), and for a rank that is killed
# kill | kill-compute | term (exchange by messages) | node-gather | node-scratch | node-barrier | node-compute (through shared memory).
# Nothing may stay in /dev/shm or in the folder for temporary files.
set -uo pipefail
mpirun_script=$1 program=$2 how=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
output=$work/output time_file=$work/time
mkdir "$work/tmp"
start=("$mpirun_script" -n 3 --tag-output "$program" "$how" "$time_file")
if unshare -m true 2>/dev/null; then  # a /dev/shm of its own, because other programs use the common one meanwhile
  start=(unshare -m bash -c 'mount -t tmpfs tmpfs /dev/shm || exit 99; "$@"; code=$?; ls -A /dev/shm >"$0/left"; exit $code' "$work" "${start[@]}")
fi
TMPDIR=$work/tmp timeout -k 2 50 "${start[@]}" >"$output" 2>&1
code=$?
failed_at=$(cat "$time_file")  # written by the failing rank; starting up is not counted
elapsed_ms=$(($(date +%s%3N) - ${failed_at:-0}))
echo "exit code $code after $elapsed_ms ms"; cat "$output"

problems=0
complain() { echo "FAIL: $*"; problems=1; }
last_line() { grep -a "^\[1,$1\]<stderr>:" "$output" | tail -1 | sed 's/^[^:]*://'; }
expect_last() { [[ "$(last_line "$1")" == "$2" ]] || complain "last line of rank $1 must be '$2'; got '$(last_line "$1")'"; }

((elapsed_ms <= 10000)) || complain "all ranks must end within 10000 ms; took $elapsed_ms ms"
grep -q "went on" "$output" && complain "a rank passed the collective"
sleep 0.2
[[ -s "$work/left" ]] && complain "left in /dev/shm: $(cat "$work/left")"
[[ -z "$(find "$work/tmp" -type f)" ]] || complain "left in TMPDIR: $(find "$work/tmp" -type f)"
pgrep -f "^$program $how $time_file" >/dev/null && complain "a rank is still running"
reason="loss: must be finite; got nan [step 3]"
case $how in
  wait | compute | stream)
    ((code == 5)) || complain "exit code must be 5 (non-finite); got $code"
    expect_last 1 "permafrost: rank 1/3: $reason"
    expect_last 0 "permafrost: rank 0/3: rank 1/3 failed: $reason"
    expect_last 2 "permafrost: rank 2/3: rank 1/3 failed: $reason" ;;
  all)
    ((code == 2)) || complain "exit code must be 2 (config); got $code"
    # Every rank fails for its own reason, or is told of another's; the reason is there in both cases.
    for rank in 0 1 2; do
      [[ "$(last_line $rank)" == *"config: steps must be > 0; got 0" ]] || complain "rank $rank gives no reason"
    done
    # One has the launcher end the others; it waits for each that aborts as well.
    grep -q "more process.*mpi-abort" "$output" && complain "more than one rank called MPI_Abort" ;;
  late)  # the others' time limit of 1 s passes; whichever rank says so first is named by the rest
    ((code == 6)) || complain "exit code must be 6 (peer); got $code"
    for rank in 0 1 2; do
      [[ "$(last_line $rank)" == *"all_reduce 'gradients': all ranks must come within 1000 ms; missing rank "*1* ]] ||
        complain "rank $rank does not name the missing rank"
    done ;;
  kill | kill-compute | term | node-*)
    ((code != 0)) || complain "exit code must not be 0"
    for rank in 0 2; do
      line=$(last_line $rank)
      # What waits may see it first as the group does, with the call's name.
      [[ "$line" =~ ^"permafrost: rank $rank/3: ".*"rank 1/3 ".*process\ [0-9]+.*"is gone (killed, or crashed)" ]] ||
        complain "rank $rank must name rank 1 and its process; got '$line'"
    done
    signal=9
    [[ $how == term ]] && signal=15  # it does what it always does, a moment later
    grep -Eq "rank 1 .*signal $signal " "$output" || complain "the launcher must name rank 1 and signal $signal" ;;
  *) complain "unknown way to fail: $how" ;;
esac
exit $problems
