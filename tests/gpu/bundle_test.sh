#!/usr/bin/env bash
# launch/bundle.sh's folder, moved elsewhere and run with an empty environment: its size (bundle.sh refuses more), where its
# libraries come from, one rank, two ranks with the same bits, and what it says where CUDA's libraries or a GPU are missing.
#   bundle_test.sh SOURCE BUILD       77 where the bundle's programs were not built (ninja bundle_programs)
set -euo pipefail
source=$1 build=$2
die() { echo "bundle: $*" >&2; exit 1; }
[ -x "$build/bundle/libexec/permafrost" ] && [ -x "$build/bundle/libexec/kernels_test" ] || { echo "bundle: not built here; launch/bundle.sh builds it"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PERMAFROST_BUNDLE_BUILT=1 "$source/launch/bundle.sh" "$folder/made"
if PERMAFROST_BUNDLE_BUILT=1 "$source/launch/bundle.sh" "$source/docs" 2>"$folder/refused"; then die "expected a folder with other things to be refused"; fi
grep -q "expected a folder that is new, empty or an older bundle" "$folder/refused" || die "expected to be told why; got $(cat "$folder/refused")"
mv "$folder/made" "$folder/moved here"
bundle="$folder/moved here"
bare=(env -i PATH=/usr/bin:/bin)

# As bin/permafrost sets it for what is Open MPI's; programs need no such thing.
foreign=$( { "${bare[@]}" ldd "$bundle"/libexec/permafrost "$bundle"/libexec/*_test; "${bare[@]}" LD_LIBRARY_PATH="$bundle/lib" ldd "$bundle"/lib/libpermafrost_mpi.so; } |
  awk -v own="$folder/moved" '$2 == "=>" && index($0, own) == 0 && $1 !~ /^(lib(c|m|dl|pthread|rt|resolv|util|anl)\.so|ld-linux)/ { print $1, $3 }' | sort -u)
[ -z "$foreign" ] || die "expected every library but glibc's from the bundle; got $foreign"

"${bare[@]}" "$bundle/bin/permafrost" info >"$folder/info" || die "expected info to work; got code $?"
grep -q "^permafrost " "$folder/info" || die "expected info; got $(cat "$folder/info")"
code=0
"${bare[@]}" "$bundle/bin/permafrost" bench kernels --quick --only "bf16 opt_125m out forward x1" >"$folder/log" 2>&1 || code=$?
[ "$code" != 0 ] && grep -q "this program is linked without it" "$folder/log" || die "expected the comparison with oneDNN to be refused; got $code: $(cat "$folder/log")"
"${bare[@]}" "$bundle/bin/permafrost" data sample-photos --count 8 --out "$folder/photos" >/dev/null
for ranks in 1 2; do
  start=("$bundle/bin/permafrost")
  [ "$ranks" = 1 ] || start=("$bundle/bin/mpirun" -n "$ranks" "$bundle/bin/permafrost")
  (cd "$bundle" && "${bare[@]}" "${start[@]}" train configs/quickstart.textproto --set "data.root=$folder/photos" --set train.max_steps=2 \
    --set schedule.warmup_steps=1 --set train.global_batch=4 --set train.micro_batch=2 --set parallel.threads=1 --run-dir "$folder/run$ranks") >"$folder/log" 2>&1 ||
    die "expected training on $ranks ranks to work; got $(cat "$folder/log")"
  hashes="${hashes:-}$(sed -n 's/^ "adapter_sha256": "\(.*\)",/\1/p' "$folder/run$ranks/summary.json") "
done
read -r one two <<<"$hashes"
[ -n "$one" ] && [ "$one" = "$two" ] || die "expected the same adapter of one rank and two; got $hashes"

# On a machine that has glibc, a shell and its tools alone: everything else is hidden, where this user may hide anything.
mkdir "$folder/glibc"
cp -L /usr/lib/x86_64-linux-gnu/lib{c,m,dl,pthread,rt,resolv,util,anl}.so.* /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$folder/glibc/"
for library in $(ldd /bin/sh /usr/bin/{env,readlink,dirname,sort,mount} | awk '$3 ~ /^\// { print $3 }' | sort -u); do cp -Ln "$library" "$folder/glibc/"; done
hide='for folder in /usr/local/cuda*; do [ ! -d "$folder" ] || mount -t tmpfs none "$folder"; done; mount --bind "$0" /usr/lib/x86_64-linux-gnu; exec "$@"'
if unshare --mount true 2>/dev/null; then
  hidden=("${bare[@]}" unshare --mount sh -c "$hide" "$folder/glibc")
  "${hidden[@]}" "$bundle/bin/permafrost" info >"$folder/info" || die "expected info to work with glibc alone"
  grep -q "no libcublasLt.so.13 here; expected one that the system's loader knows" "$folder/info" || die "expected the missing library to be named; got $(cat "$folder/info")"
  "${hidden[@]}" "$bundle/bin/mpirun" -n 3 "$bundle/bin/permafrost" info >"$folder/info" || die "expected three ranks with glibc alone"
  grep -q "^ranks  *3," "$folder/info" || die "expected three ranks; got $(cat "$folder/info")"
  "${hidden[@]}" env PERMAFROST_GOLDENS="$bundle/tests/goldens" "$bundle/libexec/kernels_test" --gtest_filter='*ScaleTest*/cuda*' >"$folder/log" ||
    die "expected tests to start with glibc alone; got $(cat "$folder/log")"
  # A wheel of the active virtual environment; any library does for being found.
  wheel="$folder/venv/lib/python3.11/site-packages/nvidia/cu13/lib"
  mkdir -p "$wheel"
  cp "$folder/glibc/libm.so.6" "$wheel/libcublasLt.so.13"
  "${hidden[@]}" env VIRTUAL_ENV="$folder/venv" "$bundle/bin/permafrost" info >"$folder/info" || die "expected info to work with a wheel"
  grep -qF "$wheel/libcublasLt.so.13" "$folder/info" || die "expected the wheel's library; got $(cat "$folder/info")"
else
  echo "bundle: not tried with glibc alone, since nothing may be hidden here"
fi

# A machine without a GPU; where there is one, run.sh itself is the test.
if grep -q "^gpus  *none" "$folder/info"; then
  code=0
  (cd "$folder" && "${bare[@]}" "$bundle/tests/gpu/run.sh" >"$folder/log" 2>&1) || code=$?
  [ "$code" = 77 ] && grep -q "needs a GPU; there is none" "$folder/log" || die "expected code 77 and why; got $code: $(cat "$folder/log")"
fi
echo "bundle: passed"
