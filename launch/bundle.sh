#!/usr/bin/env bash
# Makes a folder that runs on other x86-64 machines with Linux: glibc 2.36 or later, NVIDIA's driver, and CUDA 13's libraries
# where CUDA, a distribution or a Python wheel puts them. No compiler, CMake, MPI or package is needed there.
#   launch/bundle.sh [OUT]     default: build/cuda/permafrost-bundle; at most 60 MiB
# Then, there: bin/permafrost info; tests/gpu/run.sh; bin/mpirun -n 2 bin/permafrost train ...
set -euo pipefail
most_mib=60
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
  -h|--help) sed -n '2,5s/^# \{0,1\}//p' launch/bundle.sh; exit 0 ;;
  -*) echo "bundle.sh: expected [OUT]; got '$1'" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "bundle.sh: expected [OUT]; got $# arguments" >&2; exit 2; }
out=${1:-$PWD/build/cuda/permafrost-bundle}
[[ "$out" == /* ]] || out="$here/$out"
if [ -e "$out" ] && [ ! -e "$out/BUNDLE" ] && [ -n "$(ls -A "$out" 2>/dev/null || echo file)" ]; then
  echo "bundle.sh: expected a folder that is new, empty or an older bundle; got '$out'" >&2
  exit 2
fi
mpirun=$(readlink -f "$(command -v mpirun || true)" 2>/dev/null || true)
[ "$(basename "$mpirun")" = orterun ] || { echo "bundle.sh: expected Open MPI 4 from the distribution (launch/setup.sh installs it); mpirun is '${mpirun:-missing}'" >&2; exit 2; }

[ -n "${PERMAFROST_BUNDLE_BUILT:-}" ] || launch/build.sh cuda bundle_programs
rm -rf "$out"
mkdir -p "$out"/{bin,libexec,lib/openmpi,lib/pmix,lib/hwloc,share/openmpi,share/pmix,etc,configs,tests/gpu,tests/goldens}

cp build/cuda/bundle/libexec/* "$out/libexec/"
cp build/cuda/bundle/lib/*.so "$out/lib/"
cp -L build/cuda/bundle/lib/libcurl.so.4 "$out/lib/"  # see launch/bundle/no_curl.c
rm -f "$out/lib/libcurl.so"
cp launch/bundle/{permafrost,mpirun} "$out/bin/"
cp launch/bundle/environment.sh "$out/share/"
chmod +x "$out"/bin/*
cp configs/*.textproto "$out/configs/"
cp tests/gpu/*.sh tests/gpu/*.awk "$out/tests/gpu/"
cp tests/goldens/*.safetensors tests/goldens/*.json "$out/tests/goldens/"
cp build/cuda/gpu_tests.txt "$out/"

# Open MPI: what ranks of one machine need. Left out: networks that NCCL or a cluster's own MPI serve, and OpenSHMEM.
path_of() { ompi_info --parsable --path "$1" | sed -n "s/^path:$1://p"; }
cp "$mpirun" "$(dirname "$mpirun")/orted" "$out/libexec/"
for plugin in "$(path_of pkglibdir)"/mca_*.so; do
  case "$(basename "$plugin")" in
    *_ucx.so|*_ofi.so|*_psm.so|*_psm2.so|mca_btl_openib.so|mca_atomic_*|mca_spml_*|mca_scoll_*|mca_memheap_*|mca_sshmem_*) ;;
    *_monitoring.so|mca_crs_*|mca_compress_*|mca_*_flux.so|mca_io_romio*|mca_vprotocol_*|mca_schizo_jsm.so|mca_ras_simulator.so) ;;
    *) cp "$plugin" "$out/lib/openmpi/" ;;
  esac
done
cp "$(path_of pkgdatadir)"/help-*.txt "$out/share/openmpi/"
rm -f "$out"/share/openmpi/help-{os,mpi-btl-openib,mtl-psm,common-ofi,mtl-ofi,opal-common-verbs}*
: >"$out/etc/openmpi-mca-params.conf"
: >"$out/etc/pmix-mca-params.conf"
pmix=$(ldconfig -p | sed -n 's/.*libpmix\.so\.2 .*=> //p' | head -n 1)
[ -z "$pmix" ] || cp "$(dirname "$(readlink -f "$pmix")")"/pmix/*.so "$out/lib/pmix/" 2>/dev/null || true

# Every library behind all that, but glibc's own, which belong to the machine, and CUDA's, which programs look for.
libraries_of() {  # FILE ...: lines "soname path"; of what was copied already too
  LD_LIBRARY_PATH="$out/lib" ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u
}
of_glibc='^(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil|libanl|libnss_.*|libnsl|libmvec)\.so'
while read -r name path; do
  [[ "$name" =~ $of_glibc ]] && continue
  [ -e "$out/lib/$name" ] || cp -L "$path" "$out/lib/$name"
done < <(libraries_of "$out"/libexec/* "$out"/lib/*.so "$out"/lib/openmpi/*.so "$out"/lib/pmix/*.so)
find "$out" -type f \( -name '*.so*' -o -path '*/libexec/*' \) -exec chmod u+w {} + -exec strip --strip-unneeded {} +

commit=$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
{
  echo "commit: $commit"
  echo "architectures: $(sed -n 's/^PERMAFROST_CUDA_ARCHITECTURES:[A-Z]*=//p' build/cuda/CMakeCache.txt)"
  echo "glibc: $(ldd --version | sed -n '1s/.* //p')"
  echo "Open MPI: $(ompi_info --parsable --version ompi full 2>/dev/null | sed -n 's/^ompi:version:full://p')"
} >"$out/BUNDLE"

missing=$(LD_LIBRARY_PATH="$out/lib" ldd "$out"/libexec/* "$out"/lib/*.so* "$out"/lib/openmpi/*.so 2>/dev/null | grep 'not found' | sort -u || true)
[ -z "$missing" ] || { echo "bundle.sh: expected every library in the bundle; missing: $missing" >&2; exit 1; }
bytes=$(find "$out" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
echo "$out: $(awk -v b="$bytes" 'BEGIN { printf "%.1f", b / 1048576 }') MiB of at most $most_mib"
if [ "$bytes" -gt $((most_mib << 20)) ]; then
  echo "bundle.sh: expected at most $most_mib MiB; got $bytes bytes. The largest files:" >&2
  find "$out" -type f -printf '%s %P\n' | sort -rn | head -n 15 >&2
  exit 1
fi
