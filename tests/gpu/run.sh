#!/usr/bin/env bash
# Everything that needs a GPU, in one command and a few minutes, less than nine: the tests of the label gpu, many at once; the same
# bits on 1, 2 and 4 ranks of one GPU, and whatever the run; loss curves of CPU and GPU side by side; memory that does not grow;
# compute-sanitizer; figures, with nothing beside them. Works in a folder of launch/bundle.sh and in a checkout with a build folder; needs bash and awk.
#   tests/gpu/run.sh [--out FOLDER] [--build FOLDER] [--limit SECONDS] [--only PART,...] [--emulated]
# FOLDER (default: gpu-results) gets gpu.json, gpu.md and the log of every part. Parts that fail do not stop the others.
# --emulated: a few tests on the emulation of a CPU build, trainings on the CPU; figures mean nothing. Tests this script.
# Code: 0 all passed, 1 some did not, 2 cannot be run like this, 77 no GPU.
set -uo pipefail
export LC_ALL=C
self=$(readlink -f "${BASH_SOURCE[0]}")
root=$(dirname "$(dirname "$(dirname "$self")")")
die() { echo "run.sh: $*" >&2; exit 2; }

# ---- Parts. Each runs by itself (run.sh --part NAME), in $work, and may add "name<TAB>value" lines to $facts.

fact() { printf '%s\t%s\n' "$1" "$2" >>"$facts"; }
# number FILE KEY: of a JSON file with keys on lines of their own
number() { sed -n "s/^ *\"$2\": *\"\{0,1\}\([^,\"]*\)\"\{0,1\},\{0,1\}$/\1/p" "$1" | head -n 1; }
device_set() { if [ "$emulated" = yes ]; then echo parallel.device=CPU; else echo parallel.device=CUDA; fi; }
# Threads that read photographs: a GPU waits for one.
decoding=(--set data.decode_threads=8 --set data.prefetch=4)

part_machine() {
  "$permafrost" info || return 1
  command -v nvidia-smi >/dev/null && nvidia-smi
  return 0
}

# One line of gpu_tests.txt, or a shard of it (GTEST_TOTAL_SHARDS).
part_test() {
  local program=$1 filter=$2 rc
  PERMAFROST_TEST_DEVICE=cuda PERMAFROST_GOLDENS="$root/tests/goldens" PERMAFROST_CONFIGS="$root/configs" PERMAFROST_PROGRAM="$permafrost" \
    "$programs/$program" --gtest_filter="$filter" | tee test.log
  rc=${PIPESTATUS[0]}
  local passed failed skipped
  count() { sed -n "s/^\[ *$1 *\] \([0-9]*\) tests\{0,1\}.*/\1/p" test.log | head -n 1; }
  passed=$(count PASSED) failed=$(count FAILED) skipped=$(count SKIPPED)
  fact passed "${passed:-0}"
  fact failed "${failed:-0}"
  fact skipped "${skipped:-0}"
  return "$rc"
}

photos() { [ -e "$shared/photos/captions.json" ] || "$permafrost" data sample-photos --count 32 --out "$shared/photos" >/dev/null; }

# texts_of TOKENS: a folder with the photographs and, for each, a text of that many tokens or more: its caption again and again.
# The tokenizer of generated photographs has a token for every byte.
texts_of() {
  local folder="$shared/texts-$1"
  photos || return 1
  [ ! -e "$folder/captions.json" ] || { echo "$folder"; return; }
  mkdir -p "$folder"
  ln -sfn ../photos/images "$folder/images"
  awk -v tokens="$1" '
    match($0, /"caption": "/) {
      head = substr($0, 1, RSTART + RLENGTH - 1)
      text = substr($0, RSTART + RLENGTH)
      sub(/".*/, "", text)
      all = text
      while (length(all) < tokens) all = all " " text
      print head all "\""
      next
    }
    { print }' "$shared/photos/captions.json" >"$folder/captions.json"
  echo "$folder"
}

# train_ranks N RUN: the very small model of the quickstart, 8 steps
train_ranks() {
  local ranks=$1 run=$2 start=() threads=1
  [ "$ranks" = 1 ] || start=("$mpirun" -n "$ranks")
  ${start[@]+"${start[@]}"} "$permafrost" train "$root/configs/quickstart.textproto" --set "data.root=$shared/photos" --set "$(device_set)" \
    --set train.max_steps=8 --set schedule.warmup_steps=2 --set train.global_batch=16 --set train.micro_batch=4 \
    --set "parallel.threads=$threads" --set precision.compute=BF16 --run-dir "$run"
}

# Ranks that share a GPU, their collectives through host memory: slow, and the same bits.
part_ranks() {
  photos
  local ranks hash first=""
  for ranks in $(if [ "$emulated" = yes ]; then echo 1 1 2; else echo 1 1 2 4; fi); do
    local run="run-$ranks"
    [ -e "$run" ] && run=run-1-again
    train_ranks "$ranks" "$run" || { echo "run.sh: training on $ranks ranks failed"; return 1; }
    hash=$(number "$run/summary.json" adapter_sha256)
    echo "$run: $hash"
    [ -n "$hash" ] || { echo "run.sh: expected a hash in $run/summary.json; got none"; return 1; }
    first=${first:-$hash}
    [ "$hash" = "$first" ] || { echo "run.sh: expected the adapter of run-1, $first; got $hash in $run"; return 1; }
    fact "samples_per_s_$run" "$(number "$run/summary.json" median_samples_per_s)"
  done
  fact adapter_sha256 "$first"
}

losses() { grep -o '"loss": [^,}]*' "$1/metrics.jsonl" | cut -d ' ' -f 2; }

# largest_difference A B LEAST_LINES [LINES]: of the losses of two runs, relative, over all steps or the first ones
largest_difference() {
  paste <(losses "$1") <(losses "$2") | head -n "${4:-1000000}" | awk -v least="$3" '
    NF != 2 || $1 + 0 != $1 + 0 || $1 == 0 { bad = 1 }
    $1 !~ /^-?[0-9]/ || $2 !~ /^-?[0-9]/ { bad = 1 }
    { d = ($1 - $2) / $1; if (d < 0) d = -d; if (!(d <= most)) most = d; n++ }
    END { if (bad || n < least) { print "none"; exit 1 } printf "%.3g\n", most }'
}

# curve PRECISION CPU|CUDA THREADS RUN [--set ...]: one training of those that part_curves compares
curve() {
  local steps precision=$1 device=$2 threads=$3 run=$4
  shift 4
  steps=$(curve_steps)
  "$permafrost" train "$root/configs/epalm_demo.textproto" --set "data.root=$shared/curves/demo" --set "weights.vision=$shared/curves/weights/vision" \
    --set "weights.text=$shared/curves/weights/text" --set "train.max_steps=$steps" --set "schedule.warmup_steps=$((steps / 4))" --set "precision.compute=$precision" \
    --set "parallel.device=$device" --set "parallel.threads=$threads" "${decoding[@]}" "$@" --run-dir "$shared/curves/$run"
}
curve_steps() { if [ "$emulated" = yes ]; then echo 4; else echo 200; fi; }

# The CPU's half, which takes longest: all at once, on three quarters of the cores together. Other parts run beside it.
part_curves_cpu() {
  local threads=$(($(nproc) / 4)) precision pids=() pid bad=0
  [ "$threads" -ge 1 ] || threads=1
  mkdir -p "$shared/curves"
  "$permafrost" data demo --out "$shared/curves/demo" --pretrain 0 --text 0 --train 1000 --val 0 --test 0 || return 1
  "$permafrost" weights random "$root/configs/epalm_demo.textproto" --set "data.root=$shared/curves/demo" --out "$shared/curves/weights" --dtype f32 || return 1
  for precision in FP32 BF16; do
    curve "$precision" CPU "$threads" "$precision-CPU" >"$precision.log" 2>&1 &
    pids+=($!)
  done
  curve FP32 CPU "$threads" FP32-CPU-smaller --set train.micro_batch=8 >FP32-smaller.log 2>&1 &
  pids+=($!)
  for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
  cat FP32.log FP32-smaller.log BF16.log
  return $bad
}

# 200 steps of the demo's eP-ALM on random frozen weights, by CPU and GPU. AdamW makes steps of one size out of gradients of any,
# so runs that differ in a rounding drift apart. How far is measured: one CPU against itself with micro-batches of half the size, which
# rounds the sums of weight gradients elsewhere and nothing else. A GPU rounds every sum elsewhere, forward and backward through some
# 16 layers: 16 times that drift is allowed (but no more than bf16 is, and a drift of 3e-4, some four times what was seen), and before there is any, in the first five steps, 2e-6 (a loss is rounded to 6e-8). In bf16,
# which differs from fp32 by 4.7e-4 at most on one CPU, four times that: 2e-3.
part_curves() {
  local steps precision bound difference drift device bad=0 folder="$shared/curves"
  steps=$(curve_steps) device=$(device_set | cut -d = -f 2)
  drift=$(largest_difference "$folder/FP32-CPU" "$folder/FP32-CPU-smaller" "$steps") || { echo "run.sh: expected $steps finite losses of both CPU runs; see $folder"; return 1; }
  fact drift_of_a_cpu_FP32 "$drift"
  curve_within "a CPU and itself in FP32" "$drift" 3e-4 cpu_FP32 || bad=1
  for precision in FP32 BF16; do
    curve "$precision" "$device" 1 "$precision-GPU" || return 1
    difference=$(largest_difference "$folder/$precision-CPU" "$folder/$precision-GPU" "$steps") ||
      { echo "run.sh: expected $steps finite losses of both; see $folder"; return 1; }
    bound=2e-3
    if [ "$precision" = FP32 ]; then
      bound=$(awk -v d="$drift" 'BEGIN { b = 2e-6 + 16 * d; printf "%.3g", b < 2e-3 ? b : 2e-3 }')
      curve_within "first five steps in FP32" "$(largest_difference "$folder/FP32-CPU" "$folder/FP32-GPU" 1 5)" 2e-6 first_five_FP32 || bad=1
    fi
    curve_within "$precision" "$difference" "$bound" "$precision" || bad=1
  done
  return $bad
}
# curve_within WHAT DIFFERENCE BOUND FACT
curve_within() {
  echo "$1: largest relative difference of a step's loss $2, allowed $3"
  fact "largest_difference_$4" "$2"
  fact "allowed_difference_$4" "$3"
  [[ "$2" =~ ^[0-9] ]] && awk -v d="$2" -v b="$3" 'BEGIN { exit !(d + 0 <= b + 0) }'
}

# The card's memory while steps go by. Other programs on the card would show too: then this part says nothing.
part_soak() {
  [ "$emulated" = yes ] || command -v nvidia-smi >/dev/null || { echo "no nvidia-smi to ask"; return 77; }
  photos
  local steps=400 pid used
  [ "$emulated" = yes ] && steps=8
  "$permafrost" train "$root/configs/quickstart.textproto" --set "data.root=$shared/photos" --set "$(device_set)" \
    "${decoding[@]}" --set "train.max_steps=$steps" --set schedule.warmup_steps=2 --set train.final_check.loss=false --set train.final_check.exchanged_images=false \
    --set "checkpoint.every_steps=$steps" --set logging.every_steps=1 --run-dir soak >soak.log 2>&1 &
  pid=$!
  : >used.txt
  while kill -0 "$pid" 2>/dev/null; do
    # Behind the first steps and before the last ones, where memory is given back.
    used=$( [ "$emulated" = yes ] && echo 0 || nvidia-smi ${CUDA_VISIBLE_DEVICES:+-i "${CUDA_VISIBLE_DEVICES%%,*}"} --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1 )
    printf '%s\t%s\n' "$(wc -l 2>/dev/null <soak/metrics.jsonl || echo 0)" "$used" >>used.txt
    sleep 0.1
  done
  wait "$pid" || { cat soak.log; return 1; }
  local result
  result=$(awk -v steps="$steps" '$1 >= 3 && $1 < steps - 1 { if (!n++) least = most = $2; if ($2 < least) least = $2; if ($2 > most) most = $2 }
    END { print n + 0, least + 0, most + 0 }' used.txt)
  echo "readings, least and most MiB in use behind step 2: $result"
  read -r n least most <<<"$result"
  fact memory_readings "$n"
  fact memory_growth_mib $((most - least))
  [ "$emulated" = yes ] && return 0
  [ "$n" -ge 3 ] || { echo "run.sh: expected 3 readings of memory or more while steps went by; got $n"; return 1; }
  [ "$most" = "$least" ] || { echo "run.sh: expected as much memory in use behind every step; got $least to $most MiB"; return 1; }
}

part_sanitizer() {
  local tool=""
  for tool in "$(command -v compute-sanitizer || true)" /usr/local/cuda/bin/compute-sanitizer /usr/local/cuda*/bin/compute-sanitizer /opt/cuda/bin/compute-sanitizer; do
    [ -n "$tool" ] && [ -x "$tool" ] && break
    tool=""
  done
  [ -n "$tool" ] || { echo "no compute-sanitizer on this machine (the CUDA toolkit has it)"; return 77; }
  local check pids=() bad=0 checks=(memcheck racecheck synccheck)
  for check in "${checks[@]}"; do
    PERMAFROST_GOLDENS="$root/tests/goldens" PERMAFROST_CONFIGS="$root/configs" "$tool" --tool "$check" --error-exitcode 9 \
      "$programs/kernels_test" --gtest_filter='*ScaleTest*/cuda*:*LayerNormTest*/cuda*:*CrossEntropyTest*/cuda*:*EmbeddingTest*/cuda*:*AttentionTest.EveryChoiceOfWantedGradients/cuda*:*AttentionTest.RowsThatSeeNothingGiveZero/cuda*:*CudnnAttention.ForwardWithoutLse*/cuda*' >"$check.log" 2>&1 &
    pids+=($!)
  done
  for check in "${!checks[@]}"; do
    wait "${pids[$check]}" || bad=1
    grep -q 'Running [1-9]' "${checks[$check]}.log" || bad=1  # no test that ran is as bad as one that failed
    echo "== ${checks[$check]}"
    cat "${checks[$check]}.log"
  done
  [ "$bad" = 0 ] || return 1
  fact sanitizer "$("$tool" --version | sed -n 's/^Version //p')"
}

part_kernels() {
  if [ "$emulated" = yes ]; then
    # What the program itself, which knows no emulation, would write.
    PERMAFROST_BENCH_ROWS=$PWD/kernels.jsonl "$programs/bench_gpu_test" --gtest_filter='BenchGpu.OnlyWhatWasAskedFor'
    return
  fi
  "$permafrost" bench kernels --device cuda --quick --json kernels.jsonl
}

# Steps of whole models at their true shapes, on weights that the program draws: speed does not depend on them. Every text has all
# its tokens, so that every step is the same and no FLOP that is counted is padding.
part_step() {
  local config=$1 batch=$2 tokens=$3 folder predicted
  shift 3
  folder=$(texts_of "$tokens") || return 1
  local set=(--set "data.root=$folder" --set "data.tokenizer.root=$shared/photos/tokenizer" --set "data.max_text_tokens=$tokens" --set data.long_text=TRUNCATE
    --set "data.length_buckets=$tokens" --set "train.global_batch=$batch" --set "train.micro_batch=$batch" --set "$(device_set)" "${decoding[@]}")
  for field in "$@"; do set+=(--set "$field"); done
  "$permafrost" bench step "$root/configs/$config.textproto" "${set[@]}" --warmup "$warmup" --steps "$timed" --json step.json || return 1
  predicted=$(sed -n 's/.*"tokens": *\[\([0-9]*\)[],].*/\1/p' step.json)
  [ "$predicted" = $((batch * (tokens - 1))) ] || { echo "run.sh: expected $batch x $((tokens - 1)) predicted tokens in a step; got '$predicted'"; return 1; }
  fact samples_per_s "$(sed -n 's/.*"samples_per_s": *\([^,}]*\).*/\1/p' step.json)"
  fact flop_per_s "$(sed -n 's/.*"gflop_per_s": *\([^,}]*\).*/\1/p' step.json | awk '{ print $1 * 1e9 }')"
  fact step_ms "$(sed -n 's/.*"step_seconds": *{"median": *\([^,}]*\).*/\1/p' step.json | awk '{ print $1 * 1e3 }')"
  fact tokens_per_s "$(sed -n 's/.*"samples_per_s": *\([^,}]*\).*/\1/p' step.json | awk -v tokens="$tokens" '{ print $1 * tokens }')"
  local idle
  idle=$(sed -n 's/.*"device_outside_share": *\([^,}]*\).*/\1/p' step.json)
  [ -z "$idle" ] || fact gpu_outside_percent "$(awk -v share="$idle" 'BEGIN { print 100 * share }')"
}

# ---- One part by itself.

if [ "${1:-}" = --part ]; then
  shift
  cd "$work" || exit 2
  "part_$1" "${@:2}"
  exit
fi

# ---- The whole.

out=gpu-results build="" limit=530 only="" emulated=no
while [ $# -gt 0 ]; do
  case "$1" in
    --out) [ $# -ge 2 ] || die "expected --out FOLDER"; out=$2; shift ;;
    --build) [ $# -ge 2 ] || die "expected --build FOLDER"; build=$2; shift ;;
    --limit) [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || die "expected --limit SECONDS; got '${2:-}'"; limit=$2; shift ;;
    --only) [ $# -ge 2 ] || die "expected --only PART,..."; only=$2; shift ;;
    --emulated) emulated=yes ;;
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$self"; exit 0 ;;
    *) die "expected [--out FOLDER] [--build FOLDER] [--limit SECONDS] [--only PART,...] [--emulated]; got '$1'" ;;
  esac
  shift
done
command -v timeout >/dev/null || die "expected timeout (coreutils); got none on PATH"

commit=unknown
if [ -e "$root/BUNDLE" ] && [ -z "$build" ]; then
  bundle=$root
  . "$root/share/environment.sh"
  programs=$root/libexec permafrost=$root/bin/permafrost mpirun=$root/bin/mpirun list=$root/gpu_tests.txt
  commit=$(sed -n 's/^commit: //p' "$root/BUNDLE")
else
  default=$root/build/cuda
  [ "$emulated" = yes ] && default=$root/build/cpu
  build=$(readlink -f "${build:-$default}")
  programs=$build/bin permafrost=$build/bin/permafrost mpirun=$root/launch/mpirun.sh list=$build/gpu_tests.txt
  commit=$(git -C "$root" describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
fi
[ -x "$permafrost" ] || die "expected a program; got none at $permafrost (launch/build.sh cuda, or launch/bundle.sh)"
[ -e "$list" ] || die "expected a list of tests; got none at $list"
mkdir -p "$out" || die "expected a folder that can be made; got '$out'"
out=$(readlink -f "$out")
rm -rf "$out"/{parts,shared,gpu.json,gpu.md,parts.tsv,facts.tsv}
mkdir -p "$out/parts" "$out/shared"
"$permafrost" info --json >"$out/info.json" || die "expected 'permafrost info' to work; see above"
missing=$(awk '/^ *"gpus": \{/ { inside = 1 } inside && /^ *"missing":/ { sub(/^ *"missing": */, ""); sub(/,$/, ""); print; exit }' "$out/info.json")
if [ "$emulated" = no ] && [ "$missing" != null ]; then
  echo "run.sh: needs a GPU; there is none: $missing"
  exit 77
fi
began=$SECONDS
shared=$out/shared warmup=5 timed=20
[ "$emulated" = yes ] && warmup=1 timed=2
export root programs permafrost mpirun emulated shared warmup timed

wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }
# run_part FOLDER SECONDS FUNCTION ARGUMENTS ...: its output in FOLDER/log, its outcome (state<TAB>seconds) in FOLDER/outcome
run_part() {
  local folder=$1 most=$2 left=$((limit - (SECONDS - began))) rc=0 state start=$SECONDS
  shift 2
  mkdir -p "$folder"
  : >"$folder/log"
  [ "$left" -ge 5 ] || { printf 'no time left\t0\n' >"$folder/outcome"; return; }
  [ "$emulated" = no ] || most=$((3 * most))  # a machine that builds and tests beside it
  [ "$most" -le "$left" ] || most=$left
  work=$folder facts=$folder/facts.tsv timeout -k 5 "$most" "$self" --part "$@" >"$folder/log" 2>&1 </dev/null || rc=$?
  case $rc in
    0) state=passed ;;
    77) state=skipped ;;
    124|137) state="over $most s" ;;
    *) state=failed ;;
  esac
  printf '%s\t%s\n' "$state" $((SECONDS - start)) >"$folder/outcome"
}
folder_of() { echo "$out/parts/${1//[^A-Za-z0-9_.-]/_}"; }
# note_part NAME: what run_part left in its folder, to parts.tsv and facts.tsv
note_part() {
  local name=$1 folder state took
  folder=$(folder_of "$name")
  IFS=$'\t' read -r state took <"$folder/outcome"
  printf '%s\t%s\t%s\n' "$name" "$state" "$took" >>"$out/parts.tsv"
  [ ! -e "$folder/facts.tsv" ] || awk -v p="$name" '{ print p "\t" $0 }' "$folder/facts.tsv" >>"$out/facts.tsv"
  printf '%-12s  %s, %d s\n' "$state" "$name" "$took"
  [ "$state" = passed ] || tail -n 4 "$folder/log" | sed 's/^/    /'
}
# part NAME SECONDS FUNCTION ARGUMENTS ...
part() {
  local name=$1
  shift
  wanted "${name%%:*}" || wanted "$name" || return 0
  run_part "$(folder_of "$name")" "$@"
  note_part "$name"
}

# Reads how much of the card is free: nothing may run beside it.
alone=CudaDevice.BufferIsZeroAndAlignedAndGivenBack
# test_shards PROGRAM FILTER SECONDS: one after the other into parts/test_PROGRAM.N; a shard for each minute that the program may take
test_shards() {
  local program=$1 filter=$2 shards=$(($3 / 60)) shard
  [ "$shards" -ge 1 ] || shards=1
  for ((shard = 0; shard < shards; shard++)); do
    while [ "$(jobs -rp | wc -l)" -ge "$most_jobs" ]; do wait -n; done
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard run_part "$(folder_of "test:$program").$shard" "$3" test "$program" "$filter" &
  done
}
# join_shards PROGRAM: the worst outcome of its shards, their longest time, and the sums of what they counted
join_shards() {
  local folder shard state took worst=passed longest=0
  folder=$(folder_of "test:$1")
  mkdir -p "$folder"
  for shard in "$folder".*; do
    IFS=$'\t' read -r state took <"$shard/outcome"
    cat "$shard/log" >>"$folder/log"
    [ "$took" -le "$longest" ] || longest=$took
    [ "$state" = passed ] || [ "$worst" = failed ] || worst=$state
  done
  cat "$folder".*/facts.tsv 2>/dev/null | awk -F '\t' -v OFS='\t' '{ n[$1] += $2 } END { print "passed", n["passed"] + 0; print "failed", n["failed"] + 0; print "skipped", n["skipped"] + 0 }' >"$folder/facts.tsv"
  # No test that ran is as bad as one that failed.
  if [ "$worst" = passed ] && grep -qx $'passed\t0' "$folder/facts.tsv"; then
    worst=failed
    echo "run.sh: expected tests in $1 that match its filter; got none that passed" >>"$folder/log"
  fi
  printf '%s\t%s\n' "$worst" "$longest" >"$folder/outcome"
  note_part "test:$1"
}
# Programs take their tests from gpu_tests.txt: lines program|filter|seconds.
all_tests() {
  local program filter seconds programs_here=()
  while IFS='|' read -r program filter seconds; do
    if [ "$emulated" = yes ]; then
      case "$program" in  # what takes no time on an emulation
        device_test) ;;
        kernels_test) filter='*ScaleTest*/cuda*:*EmbeddingTest*/cuda*' ;;
        trainer_test) filter='TrainerCuda.RanksAndTheirGraphsChangeNoBit' ;;
        *) continue ;;
      esac
    fi
    wanted test || wanted "test:$program" || continue
    [ -x "$programs/$program" ] || { printf 'test:%s\tnot built\t0\n' "$program" >>"$out/parts.tsv"; echo "not built     test:$program"; continue; }
    programs_here+=("$program")
    if [ "$program" = device_test ]; then
      run_part "$(folder_of "test:$program").alone" 30 test "$program" "$alone"
      case "$filter" in *-*) filter+=":$alone" ;; *) filter+="-$alone" ;; esac
    fi
    test_shards "$program" "$filter" "$seconds"
  done < <(grep '^device_test|' "$list"; grep '|' "$list" | grep -v '^device_test|')  # what runs alone before anything else
  wait
  for program in ${programs_here[@]+"${programs_here[@]}"}; do join_shards "$program"; done
}
export -n out
: >"$out/parts.tsv"
: >"$out/facts.tsv"
most_jobs=$(($(nproc) / 2))
[ "$most_jobs" -ge 2 ] || most_jobs=2

part machine 20 machine
all_tests
# The CPU's curves take longest; beside them what needs a GPU and little of the host. Nothing but the soak is on the GPU while it reads how much of it is in use.
if wanted curves; then
  run_part "$(folder_of curves:cpu)" 150 curves_cpu &
  curves=$!
fi
part ranks 60 ranks
part soak 60 soak
part sanitizer 90 sanitizer
if wanted curves; then
  wait "$curves"
  note_part curves:cpu
fi
part curves 60 curves

# Figures: nothing runs beside them.
part kernels 100 kernels
if [ "$emulated" = yes ]; then
  part step:quickstart 20 step quickstart 8 48
else
  late="model.epalm.start_layer=19 model.epalm.end_layer=31"  # as published for 32 layers
  # E1: 49 tokens behind ten prompt vectors and a class token are 60 a sample.
  part step:e1-125m 30 step epalm_vitb_opt125m_coco 16 49
  part step:e1-2.7b 60 step epalm_vitb_opt125m_coco 16 49 model.epalm.text.size=OPT_2_7B $late
  part step:e1-6.7b 60 step epalm_vitb_opt125m_coco 16 49 model.epalm.text.size=OPT_6_7B model.epalm.vision.size=VIT_L16 $late
  part step:e3-1.3b 60 step projector_vitb_opt125m_coco 16 45 model.projector.text.size=OPT_1_3B model.projector.vision.size=VIT_L16
  part step:e4-125m 30 step adaptors_opt125m 4 512
  part step:e4-6.7b 90 step adaptors_opt125m 4 2048 model.language_model.text.size=OPT_6_7B
fi

# ---- gpu.json and gpu.md.

export commit
awk -v info="$out/info.json" -v seconds=$((SECONDS - began)) -v kernels="$out/parts/kernels/kernels.jsonl" -v folder="$out" -v emulated=$emulated \
  -v date="$(date -u +%Y-%m-%dT%H:%M:%SZ)" -f "$(dirname "$self")/report.awk" "$out/parts.tsv" "$out/facts.tsv" || die "writing $out/gpu.json failed"
echo "$out/gpu.md, $out/gpu.json: $(awk -F '\t' '{ n[$2]++ } END { for (s in n) printf "%s%d %s", (i++ ? ", " : ""), n[s], s }' "$out/parts.tsv") in $((SECONDS - began)) s"
awk -F '\t' '$2 != "passed" && $2 != "skipped" { bad = 1 } END { exit bad || NR == 0 }' "$out/parts.tsv"
