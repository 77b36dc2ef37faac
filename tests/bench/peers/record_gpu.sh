#!/usr/bin/env bash
# The figures of docs/benchmarks/gpu.md, "Beside PyTorch", in about seven minutes on a machine with an H200 and 16 cores:
#   PERMAFROST_TEST_DATA=FOLDER PEERS_PYTHON=PYTHON tests/bench/peers/record_gpu.sh [--out FOLDER] [--work FOLDER] [--program FILE] [--limit SECONDS] [--only NAME,...] [--prepare]
# NAME: e1-2.7b, e1-6.7b, e3-1.3b, e4-6.7b, and each with -compiled behind it: B2 beside ours. First all weights are written, every workload at once; then one workload after the other is
# timed, alone, without B2; then all code is compiled at once (some 80 s on 16 cores for a size of E1), and B2 is timed. One that fails stops no other; behind each the table so far is written.
# --prepare ends there; a later call with the same --work on the same machine does not do it again.
# FOLDER (default: peers-gpu) gets results.jsonl, table.md and logs.tar.gz. --work (default: in /dev/shm where 40 GB are free, else in /tmp) gets 23 GB.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() { echo "record_gpu.sh: $*" >&2; exit 2; }
out=peers-gpu work="" limit=420 only="" prepare=no device=cuda program=() sizes=(2.7b 6.7b 1.3b) tokens="--tokens 2048"
while [ $# -gt 0 ]; do
  case "$1" in
    --out|--work|--program|--limit|--only) [ $# -ge 2 ] || die "expected a value behind $1" ;;&
    --out) out=$2; shift ;;
    --work) work=$2; shift ;;
    --program) program=(--program "$2"); shift ;;
    --limit) [[ "$2" =~ ^[1-9][0-9]*$ ]] || die "expected --limit SECONDS; got '$2'"; limit=$2; shift ;;
    --only) only=$2; shift ;;
    --prepare) prepare=yes ;;
    --tiny) device=cpu sizes=(tiny tiny tiny) tokens="--tokens 40" only=e1-2.7b,e3-1.3b,e4-6.7b,e4-6.7b-compiled ;;  # to try this script where there is no GPU
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) die "expected [--out FOLDER] [--work FOLDER] [--program FILE] [--limit SECONDS] [--only NAME,...] [--prepare]; got '$1'" ;;
  esac
  shift
done
if [ -z "$work" ]; then
  work=/tmp/peers-gpu
  [ "$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -n 1 || echo 0)" -lt 40 ] || work=/dev/shm/peers-gpu
fi
mkdir -p "$out/logs" "$work" || die "expected folders that can be made; got '$out' and '$work'"
out=$(readlink -f "$out") work=$(readlink -f "$work")
results=$out/results.jsonl
rm -f "$results"
seconds() { echo $((SECONDS - began)); }
wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }
began=$SECONDS failed=0

declare -A workload=(
  [e1-2.7b]="--workload e1 --size ${sizes[0]}" [e1-6.7b]="--workload e1 --size ${sizes[1]}" [e3-1.3b]="--workload e3 --size ${sizes[2]}"
  [e4-6.7b]="--workload e4 --size ${sizes[1]} $tokens")
# Six times the weights and activations of E4 do not fit into 141 GB.
declare -A sides=([e1-2.7b]="ours b0 b1-ignored b3" [e1-6.7b]="ours b0 b1-ignored b3" [e3-1.3b]="ours b0 b1-ignored b3" [e4-6.7b]="ours b0 b3"
  [e1-2.7b-compiled]="ours b2 b2:compile=reduce-overhead" [e1-6.7b-compiled]="ours b2" [e3-1.3b-compiled]="ours b2" [e4-6.7b-compiled]="ours b1-ignored b2")
# Steps whose losses are compared, rounds, steps of a round: an E4 step takes half a second.
declare -A counts=([e1-2.7b]="10 5 10" [e1-6.7b]="10 4 8" [e3-1.3b]="10 4 8" [e4-6.7b]="5 3 4")
names=(e1-2.7b e1-6.7b e3-1.3b e4-6.7b)

# peers NAME SIDES LOG SECONDS ARGUMENTS ...
peers() {
  local name=$1 these=$2 log=$3 most=$4 left=$((limit - $(seconds)))
  shift 4
  [ "$left" -ge 5 ] || { echo "no time left" >"$log"; return 124; }
  [ "$most" -le "$left" ] || most=$left
  # shellcheck disable=SC2046,SC2086  # lists of words
  timeout -k 10 "$most" "$here/run.sh" --device "$device" --ranks 1 --dtype bf16 --starts 0 --at-once --go-on --work "$work" --results "$results" --compiled "$work/compiled-$name" \
    ${workload[${name%-compiled}]} $(printf -- '--side %s ' $these) ${program[@]+"${program[@]}"} "$@" >"$log" 2>&1
}

# all_at_once inputs|code NAME ...: the first halves, which are not timed
all_at_once() {
  local what=$1 name these pids=()
  shift
  for name in "$@"; do
    wanted "$name" || continue
    these=ours
    [ "$what" = inputs ] || these=$(tr ' ' '\n' <<<"${sides[$name]}" | grep '^b2')
    [ ! -e "$work/$what-$name.done" ] || continue
    peers "$name" "$these" "$out/logs/$what-$name.log" 120 --prepare "$what" && : >"$work/$what-$name.done" &
    pids+=("$!")
  done
  for name in ${pids[@]+"${pids[@]}"}; do wait "$name" || echo "$what: one failed; see its log"; done
  echo "$what: $(seconds) s since the beginning"
}
# timed NAME: the second half
timed() {
  local name=$1 agree rounds steps
  wanted "$name" || return 0
  read -r agree rounds steps <<<"${counts[${name%-compiled}]}"
  if peers "$name" "${sides[$name]}" "$out/logs/$name.log" 100 --agree-steps "$agree" --warmup "$agree" --rounds "$rounds" --steps "$steps"; then
    echo "$name: done, $(seconds) s since the beginning"
  else
    echo "$name: code $?, $(seconds) s since the beginning; $out/logs/$name.log ends:"
    tail -n 5 "$out/logs/$name.log" | cut -c1-300 | sed 's/^/    /'
    failed=1
  fi
  cp -r "$work/logs" "$out/logs/sides-$name" 2>/dev/null
  [ ! -s "$results" ] || "$here/run.sh" short "$results" >"$out/table.md"
}
# E4 with OPT-6.7B takes its weights from E1's, if that is wanted.
all_at_once inputs e1-2.7b e1-6.7b e3-1.3b
all_at_once inputs e4-6.7b
[ "$prepare" = yes ] || for name in "${names[@]}"; do timed "$name"; done
all_at_once code "${names[@]/%/-compiled}"
[ "$prepare" = yes ] || for name in "${names[@]}"; do timed "$name-compiled"; done
tar -C "$out" -czf "$out/logs.tar.gz" logs && rm -r "$out/logs"
[ ! -e "$out/table.md" ] || cat "$out/table.md"
exit $failed
