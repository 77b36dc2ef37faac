#include "parallel/group/nccl/nccl_api.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <vector>

#include "core/base/check.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNcclLibrary = "libnccl.so.2";
constexpr int kLeastNccl = NCCL_VERSION(2, 28, 0);

struct LoadedNccl {
  NcclApi api;
  NcclFound found;
};

std::string nccl_version_text(int version) {  // 22809 -> 2.28.9
  return concat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

/// nvidia/nccl/lib of the Python environments in and above the program's folder.
void add_wheels(const fs::path& program, std::vector<fs::path>& paths) {
  std::error_code error;
  for (fs::path folder = program.parent_path(); folder.has_relative_path(); folder = folder.parent_path())
    for (const char* environment : {"lib", "venv/lib", ".venv/lib"})
      for (const auto& python : fs::directory_iterator(folder / environment, error))
        if (python.path().filename().string().starts_with("python3"))
          for (const char* packages : {"site-packages", "dist-packages"})
            paths.push_back(python.path() / packages / "nvidia/nccl/lib" / kNcclLibrary);
}

std::vector<fs::path> nccl_places() {
  std::vector<fs::path> paths{kNcclLibrary};  // by name alone: as the dynamic linker finds it
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    paths.push_back(program.parent_path() / kNcclLibrary);
    paths.push_back(program.parent_path().parent_path() / "lib" / kNcclLibrary);
  }
  for (const char* folder : {"/usr/local/cuda/lib64", "/usr/local/cuda/lib", "/usr/local/cuda-13.0/lib64"})
    paths.push_back(fs::path(folder) / kNcclLibrary);
  if (!error) add_wheels(program, paths);
  std::erase_if(paths, [&](const fs::path& path) { return path.has_parent_path() && !fs::exists(path, error); });
  return paths;
}

std::string path_of(void* function, const fs::path& asked) {
  Dl_info info{};
  return dladdr(function, &info) != 0 && info.dli_fname ? info.dli_fname : asked.string();
}

/// Either a version, or what is wrong with it as "PATH ...".
LoadedNccl load_nccl(const fs::path& path) {
  LoadedNccl result;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    result.found.missing = concat(path.string(), " does not load (", dlerror(), ")");
    return result;
  }
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (!function && result.found.missing.empty()) result.found.missing = concat(path.string(), " has no ", name);
  };
#define PERMAFROST_NCCL_FIND(name) find("nccl" #name, result.api.name);
  PERMAFROST_NCCL_FUNCTIONS(PERMAFROST_NCCL_FIND)
#undef PERMAFROST_NCCL_FIND
  int version = 0;
  if (result.api.GetVersion && result.api.GetVersion(&version) == ncclSuccess && version < kLeastNccl)
    result.found.missing = concat(path.string(), " is NCCL ", nccl_version_text(version));
  if (result.found.missing.empty()) {
    result.found.version = nccl_version_text(version);
    result.found.path = path_of(reinterpret_cast<void*>(result.api.GetVersion), path);
  } else {
    dlclose(library);  // one that works is never unloaded
  }
  return result;
}

LoadedNccl load_first(const std::vector<fs::path>& paths) {
  std::string wrong;
  for (const fs::path& path : paths) {
    LoadedNccl loaded = load_nccl(path);
    if (loaded.found.missing.empty()) return loaded;
    wrong += (wrong.empty() ? "" : "; ") + loaded.found.missing;
  }
  LoadedNccl none;
  none.found.missing = concat("no usable ", kNcclLibrary, ", version ", nccl_version_text(kLeastNccl),
                              " or later: install NCCL, or put its folder into LD_LIBRARY_PATH (", wrong, ")");
  return none;
}

const LoadedNccl& the_library() {
  static const LoadedNccl loaded = load_first(nccl_places());
  return loaded;
}

std::atomic<const LoadedNccl*> nccl_instead = nullptr;

const LoadedNccl& nccl_in_use() {
  const LoadedNccl* instead = nccl_instead.load();
  return instead ? *instead : the_library();
}

}  // namespace

bool nccl_built() { return true; }

const NcclFound& find_nccl() { return nccl_in_use().found; }

NcclFound find_nccl(const fs::path& library) { return load_first({library}).found; }

const NcclApi& nccl_api() {
  const LoadedNccl& loaded = nccl_in_use();
  if (!loaded.found.missing.empty()) fail(ErrorKind::kNotBuilt, "nccl: ", loaded.found.missing);
  return loaded.api;
}

void use_nccl_api(const NcclApi* api) {
  LoadedNccl* loaded = nullptr;
  if (api) {
    int version = 0;
    api->GetVersion(&version);
    loaded = new LoadedNccl{*api, {nccl_version_text(version), "linked in", ""}};  // stays, as a library does
  }
  nccl_instead = loaded;
}

}  // namespace permafrost
