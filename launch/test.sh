#!/usr/bin/env bash
# Sets up, builds, and runs every CPU test, those under mpirun included; closes with CTest's summary.
# PERMAFROST_TEST_DATA, when set, is the folder with photographs, captions and tokenizers; tests that need it skip
# without it. Options of setup.sh are passed on (--no-install).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/setup.sh "$@"
launch/build.sh cpu
ctest --preset cpu --parallel "$(nproc)"
