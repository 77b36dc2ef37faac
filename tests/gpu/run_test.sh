#!/usr/bin/env bash
# tests/gpu/run.sh on the emulation: every part but those that need a tool of NVIDIA's runs, the files are written, and a part
# that fails fails the whole.   run_test.sh SOURCE BUILD
set -euo pipefail
source=$1 build=$2
die() { echo "run: $*" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
run() { "$source/tests/gpu/run.sh" --emulated --build "$build" "$@"; }

run --out "$folder/all" >"$folder/log" 2>&1 || die "expected code 0; got $?: $(cat "$folder/log")"
for part in machine test:device_test test:kernels_test ranks kernels step:quickstart curves soak; do
  grep -qP "^$part\tpassed\t" "$folder/all/parts.tsv" || die "expected $part to pass; got $(cat "$folder/all/parts.tsv")"
done
python=$(command -v python3 || true)
if [ -n "$python" ]; then
  "$python" - "$folder/all/gpu.json" <<'PYTHON' || die "expected gpu.json to say what was found; got $(cat "$folder/all/gpu.json")"
import json, sys
found = json.load(open(sys.argv[1]))
assert found["emulated"] is True and found["info"]["version"]
parts = {p["name"]: p for p in found["parts"]}
assert parts["test:kernels_test"]["facts"]["passed"] > 5 and parts["test:kernels_test"]["facts"]["failed"] == 0
assert len(parts["ranks"]["facts"]["adapter_sha256"]) == 64
assert [line["kind"] for line in found["kernels"]][0] == "machine" and len(found["kernels"]) == 5
assert parts["curves"]["facts"]["largest_difference_FP32"] == 0  # both on the CPU
assert found["steps"]["quickstart"]["samples_per_s"] > 0
PYTHON
fi
grep -q "Emulated: on a CPU" "$folder/all/gpu.md" || die "expected gpu.md to say that it means nothing; got $(cat "$folder/all/gpu.md")"
grep -q "| e3 | projector | dw | 6N |" "$folder/all/gpu.md" || die "expected rows of kernels; got $(cat "$folder/all/gpu.md")"
grep -q "| ranks | passed |" "$folder/all/gpu.md" || die "expected a table of parts; got $(cat "$folder/all/gpu.md")"

# A program that fails, one that hangs, one without tests, one that is not there.
mkdir -p "$folder/fake/bin"
cp "$build/bin/permafrost" "$folder/fake/bin/"
printf '#!/bin/sh\necho broken; exit 3\n' >"$folder/fake/bin/device_test"
printf '#!/bin/sh\nexec sleep 60\n' >"$folder/fake/bin/kernels_test"
printf '#!/bin/sh\necho "[==========] 0 tests ran."\n' >"$folder/fake/bin/trainer_test"
chmod +x "$folder"/fake/bin/*_test
printf 'device_test|*|20\nkernels_test|*|1\ntrainer_test|*|20\n' >"$folder/fake/gpu_tests.txt"
code=0
"$source/tests/gpu/run.sh" --emulated --build "$folder/fake" --out "$folder/bad" --only test >"$folder/log" 2>&1 || code=$?
[ "$code" = 1 ] || die "expected code 1; got $code: $(cat "$folder/log")"
for outcome in "device_test\tfailed" "kernels_test\tover 3 s" "trainer_test\tfailed"; do
  grep -qP "^test:$outcome\t" "$folder/bad/parts.tsv" || die "expected $outcome; got $(cat "$folder/bad/parts.tsv")"
done
rm "$folder/fake/bin/device_test"
"$source/tests/gpu/run.sh" --emulated --build "$folder/fake" --out "$folder/bad" --only test >"$folder/log" 2>&1 && die "expected a program that is not there to fail the whole"
grep -qP "^test:device_test\tnot built\t" "$folder/bad/parts.tsv" || die "expected 'not built'; got $(cat "$folder/bad/parts.tsv")"

code=0
run --limit 1 --only ranks --out "$folder/short" >"$folder/log" 2>&1 || code=$?
[ "$code" = 1 ] && grep -q "no time left" "$folder/short/parts.tsv" || die "expected no time to be a failure; got $code: $(cat "$folder/log")"
code=0
run --fast >"$folder/log" 2>&1 || code=$?
[ "$code" = 2 ] && grep -q "got '--fast'" "$folder/log" || die "expected an unknown option to be named; got $code: $(cat "$folder/log")"
code=0
"$source/tests/gpu/run.sh" --build "$build" --out "$folder/none" >"$folder/log" 2>&1 || code=$?
[ "$code" = 77 ] && grep -q "needs a GPU; there is none" "$folder/log" || die "expected code 77 without a GPU; got $code: $(cat "$folder/log")"
echo "run: passed"
