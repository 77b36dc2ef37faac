# Sourced by the programs of a bundle: $bundle is its folder. Nothing here depends on where that is.
# Open MPI and its parts, told where they are now.
export OPAL_PREFIX="$bundle" OPAL_BINDIR="$bundle/libexec" OPAL_LIBDIR="$bundle/lib" OPAL_PKGLIBDIR="$bundle/lib/openmpi" \
  OPAL_PKGDATADIR="$bundle/share/openmpi" OPAL_SYSCONFDIR="$bundle/etc" \
  PMIX_PREFIX="$bundle" PMIX_LIBDIR="$bundle/lib" PMIX_PKGLIBDIR="$bundle/lib/pmix" PMIX_PKGDATADIR="$bundle/share/pmix" PMIX_SYSCONFDIR="$bundle/etc" \
  HWLOC_PLUGINS_PATH="$bundle/lib/hwloc"
# CUDA's libraries in the Python that is active here: CUDA's own places, distributions' and those of /opt the program knows itself.
permafrost_wheels() {
  for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}" "${HOME:-}/.local" "$(dirname "$(dirname "$(command -v python3 || command -v python || echo /bin/none)")")"; do
    [ -n "$prefix" ] || continue
    for folder in "$prefix"/lib/python3*/site-packages/nvidia/*/lib; do
      if [ -e "$folder/libcublasLt.so.13" ] || [ -e "$folder/libnccl.so.2" ] || [ -e "$folder/libcupti.so.13" ] || [ -e "$folder/libcudnn.so.9" ]; then printf '%s\n' "$folder"; fi
    done
  done
}
IFS='
'  # paths may have spaces
for folder in $(permafrost_wheels | sort -u); do
  case ":${LD_LIBRARY_PATH:-}:" in
    *":$folder:"*) ;;
    *) LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"; export LD_LIBRARY_PATH ;;
  esac
done
unset IFS
