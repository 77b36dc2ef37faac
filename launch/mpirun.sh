#!/usr/bin/env bash
# mpirun that also works as root, in containers, and with more ranks than cores: launch/mpirun.sh -n 2 PROGRAM ...
# Ranks are not bound to cores, because each runs a pool of threads. What the caller has set is left alone.
set -euo pipefail
command -v mpirun >/dev/null || { echo "mpirun.sh: mpirun is not installed; launch/setup.sh installs it" >&2; exit 2; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Containers often forbid reading another process's memory, and Open MPI then fails in the middle of a message.
export OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}"
exec mpirun --oversubscribe --bind-to none "$@"
