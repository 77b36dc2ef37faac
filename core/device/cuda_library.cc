#include "core/device/cuda_library.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>

#include <map>
#include <mutex>

#include "core/base/check.h"

namespace permafrost::cuda {

namespace {

std::string path_of(void* handle) {
  const link_map* map = nullptr;
  return dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map ? std::string(map->l_name) : std::string();
}

std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found{};
  // Backwards: of several versions the highest comes first.
  if (glob(pattern.c_str(), GLOB_BRACE, nullptr, &found) == 0)
    for (size_t i = found.gl_pathc; i-- > 0;) paths.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  return paths;
}

}  // namespace

const std::vector<std::string>& library_patterns() {
  static const std::vector<std::string> patterns{
      "/usr/local/cuda/lib64",
      "/usr/local/cuda-13*/lib64",
      "/usr/local/cuda*/targets/x86_64-linux/lib",
      "/opt/cuda/lib64",
      "/usr/lib/x86_64-linux-gnu",
      "{/usr,/usr/local,/opt/*}/lib/python3*/{site,dist}-packages/nvidia/*/lib",
  };
  return patterns;
}

LibraryPlace open_library(std::string_view name, const std::vector<std::string>& patterns) {
  LibraryPlace place;
  const std::string file(name);
  std::string refused;
  const auto open = [&](const std::string& path) {
    place.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!place.handle && path.find('/') != std::string::npos) refused = dlerror();
    return place.handle != nullptr;
  };
  bool found = open(file);
  std::string looked;
  for (size_t i = 0; i < patterns.size() && !found; ++i) {
    looked += (looked.empty() ? "" : ", ") + patterns[i];
    for (const std::string& path : matches(patterns[i] + "/" + file))
      if ((found = open(path))) break;
  }
  if (found)
    place.path = path_of(place.handle);
  else if (!refused.empty())
    place.reason = concat("the system's loader refuses ", file, ": ", refused);
  else
    place.reason =
        concat("no ", file, " here; expected one that the system's loader knows (ldconfig, LD_LIBRARY_PATH) or in ",
               looked, ": install CUDA's libraries, version 13");
  return place;
}

const LibraryPlace& find_library(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, LibraryPlace, std::less<>> places;
  const std::lock_guard lock(mutex);
  auto known = places.find(name);
  if (known == places.end()) known = places.emplace(std::string(name), open_library(name, library_patterns())).first;
  return known->second;
}

}  // namespace permafrost::cuda
