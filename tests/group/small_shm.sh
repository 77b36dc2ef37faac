#!/usr/bin/env bash
# Two ranks want 256 MB of node memory where /dev/shm has 64 MB: memory files do not care; MPI windows refuse in words, on
# every rank, with the numbers. Needs the right to make a mount namespace (skipped with 77 otherwise).
# small_shm.sh MPIRUN_SCRIPT PROGRAM
set -uo pipefail
mpirun_script=$1 program=$2
unshare -m true 2>/dev/null || { echo "SKIPPED: this user may not make a mount namespace"; exit 77; }
output=$(mktemp)
trap 'rm -f "$output"' EXIT
problems=0
complain() { echo "FAIL: $*"; problems=1; }
run() {  # ARGUMENTS...
  unshare -m bash -c 'mount -t tmpfs -o size=64m tmpfs /dev/shm && "$@"; code=$?; echo "left in /dev/shm: $(ls -A /dev/shm | wc -l)"; exit $code' \
    - timeout 60 "$mpirun_script" -n 2 --tag-output "$program" "$@" >"$output" 2>&1
  code=$?
  echo "== $*: exit code $code"; cat "$output"
  grep -q "left in /dev/shm: 0" "$output" || complain "files are left in /dev/shm"
}
run room
((code == 0)) || complain "memory files must not depend on /dev/shm"
[[ $(grep -c "sees 256 MB$" "$output") == 2 ]] || complain "both ranks must see 256 MB"
run room windows
((code == 4)) || complain "windows of 256 MB in 64 MB must end with exit code 4 (storage)"
for rank in 0 1; do
  grep -Eq "^\[1,$rank\]<stderr>:permafrost: rank $rank/2: .*node memory 'weights': an MPI window of 268[0-9]* bytes must fit /dev/shm; got [0-9]+ bytes available there" "$output" ||
    complain "rank $rank must say what it needs and what there is"
done
exit $problems
