#!/usr/bin/env bash
# Side by side with PyTorch: tests/bench/peers/run.sh [--device cpu|cuda] [--workload e1|e3|e4] [--ranks N] ...; --help lists the rest.
#   run.sh report [FILE.jsonl]   the page docs/benchmarks/peers.md from results
#   run.sh short FILE.jsonl ...  ours and the ratios to the other sides, on one page of text
#   run.sh --selftest            checks of the harness itself, on tiny shapes
# Takes the Python of $PEERS_PYTHON, or makes a virtual environment in build/peers from requirements.txt. Runs in a network
# namespace of its own where that is allowed, so that bytes on the loopback interface are those of the sides alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=${PEERS_PYTHON:-$root/build/peers/venv/bin/python}
if [ ! -x "$python" ]; then
  python3 -m venv "$root/build/peers/venv"
  "$python" -m pip install --quiet --requirement "$here/requirements.txt"
fi
case ${1:-} in
  short) shift; exec "$python" "$here/short.py" "$@" ;;
  report) shift; exec "$python" "$here/page.py" "$@" ;;
  --selftest) shift; exec "$python" "$here/selftest.py" "$@" ;;
esac
alone=(unshare --net)
[ "$(id -u)" = 0 ] || alone=(unshare --map-root-user --net)
if "${alone[@]}" ip link set lo up 2>/dev/null; then
  exec "${alone[@]}" sh -c 'ip link set lo up && exec "$@"' sh "$python" "$here/run.py" "$@"
fi
echo "run.sh: no network namespace of its own; whatever else uses the loopback interface is counted too" >&2
exec "$python" "$here/run.py" "$@"
