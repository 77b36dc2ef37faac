#!/usr/bin/env bash
# Installs what Permafrost needs from the distribution's packages; says nothing and touches no network when nothing
# is missing. Without root or sudo, or with --no-install (clusters), it names what is missing and stops.
set -euo pipefail

packages=(
  cmake ninja-build g++ pkg-config
  libdnnl-dev                        # matrix products and convolutions
  libopenmpi-dev openmpi-bin         # ranks
  libprotobuf-dev protobuf-compiler  # configuration
  nlohmann-json3-dev libcli11-dev libgoogle-glog-dev libssl-dev
  libjpeg-dev libpng-dev             # photographs
  libhdf5-dev zlib1g-dev             # dataset shards, compressed weight archives
  libpcre2-dev                       # tokenizers
  libgtest-dev                       # tests
)

install=yes
for argument in "$@"; do
  case "$argument" in
    --no-install) install=no ;;
    *) echo "setup.sh: expected [--no-install]; got '$argument'" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "setup.sh: no dpkg-query here, so nothing was checked. Needed, by their Debian 12 names: ${packages[*]}" >&2
  [ "$install" = no ] && exit 0
  exit 2
fi

installed=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' "${packages[@]}" 2>/dev/null || true)"
missing=()
for package in "${packages[@]}"; do
  [[ "$installed" == *" installed=$package "* ]] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

become=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then become=(sudo); else install=no; fi
fi
if [ "$install" = no ]; then
  echo "setup.sh: these packages are missing, and may not be installed from here: ${missing[*]}" >&2
  echo "setup.sh: as root: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 2
fi

echo "Installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { ${become[@]+"${become[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1; }
# A bare machine has no package lists; a machine behind a mirror may have good ones although the update fails.
apt update || true
if ! apt install -y --no-install-recommends "${missing[@]}"; then
  tail -n 25 "$log" >&2
  echo "setup.sh: apt-get could not install ${missing[*]}" >&2
  exit 2
fi
