#include "parallel/group/mpi_loader.h"

#include <dlfcn.h>

#include <system_error>
#include <vector>

#include "core/base/check.h"

namespace permafrost {
namespace {

constexpr const char* kLibraryName = "libpermafrost_mpi.so";

std::vector<std::filesystem::path> candidates(const MpiOptions& options) {
  if (!options.library.empty()) return {options.library};
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {kLibraryName};
  const auto folder = program.parent_path();
  return {folder / kLibraryName, folder.parent_path() / "lib" / kLibraryName};
}

[[noreturn]] void not_built(const std::string& what) {
  fail(ErrorKind::kNotBuilt, "mpi: several ranks need the MPI backend, built with -DPERMAFROST_MPI=ON; got ", what);
}

void* load(const MpiOptions& options) {
  std::string tried;
  for (const auto& path : candidates(options)) {
    std::error_code error;
    if (std::filesystem::exists(path, error)) {
      // Global: Open MPI's own plug-ins look up symbols of libmpi. Never unloaded: MPI does not survive it.
      if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) return library;
      not_built(concat(path.string(), ", which does not load: ", dlerror()));
    }
    tried += (tried.empty() ? "no " : ", no ") + path.string();
  }
  not_built(tried);
}

template <typename Function>
Function find(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  if (!symbol) not_built(concat("a library without ", name));
  return reinterpret_cast<Function>(symbol);
}

}  // namespace

std::unique_ptr<MpiEnvironment> open_mpi(const MpiOptions& options) {
  void* library = load(options);
  const int version = find<int (*)()>(library, "permafrost_mpi_version")();
  if (version != kMpiLibraryVersion)
    not_built(concat("a library of version ", version, " for a program of version ", kMpiLibraryVersion));
  return std::unique_ptr<MpiEnvironment>(
      find<MpiEnvironment* (*)(const MpiOptions*)>(library, "permafrost_open_mpi")(&options));
}

}  // namespace permafrost
