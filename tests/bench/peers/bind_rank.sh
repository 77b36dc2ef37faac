#!/usr/bin/env bash
# bind_rank.sh "0;1" PROGRAM ...: runs one rank of Open MPI's on its cores; nothing between two ; leaves it free
set -euo pipefail
IFS=';' read -ra cores <<<"$1"
shift
mine=${cores[OMPI_COMM_WORLD_LOCAL_RANK]:-}
[ -z "$mine" ] || exec taskset -c "$mine" "$@"
exec "$@"
