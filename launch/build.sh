#!/usr/bin/env bash
# Configures and builds one preset without noise; prints the end of the log when that fails. build.sh PRESET [TARGET ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 1 ] || { echo "build.sh: expected PRESET [TARGET ...]; got nothing" >&2; exit 2; }
preset=$1
shift
# Where CUDA's own installer puts it, and nobody's PATH leads.
if [ "$preset" = cuda ] && [ -z "${CUDACXX:-}" ] && ! command -v nvcc >/dev/null; then
  [ -x /usr/local/cuda/bin/nvcc ] || { echo "build.sh: the preset cuda needs nvcc, on PATH, in CUDACXX or in /usr/local/cuda/bin; got none" >&2; exit 2; }
  export CUDACXX=/usr/local/cuda/bin/nvcc
fi
log="build/$preset/build.log"
mkdir -p "build/$preset"
start=$SECONDS
targets=()
for target in "$@"; do targets+=(--target "$target"); done
if ! { cmake --preset "$preset" && cmake --build --preset "$preset" --parallel "$(nproc)" ${targets[@]+"${targets[@]}"}; } >"$log" 2>&1; then
  grep -nE 'error|FAILED|CMake Error' "$log" | head -n 20 >&2 || true
  tail -n 40 "$log" >&2
  echo "build.sh: preset '$preset' does not build; the whole log is in $log" >&2
  exit 1
fi
echo "Built preset $preset in $((SECONDS - start)) s"
