#pragma once
#include <string>
#include <string_view>
#include <vector>

// Libraries of CUDA that are opened when they are first needed, so that the program starts where they are not, and says
// which one it misses. In a build with CUDA alone.
namespace permafrost::cuda {

/// A library that was looked for: where it is, or which places have none.
struct LibraryPlace {
  void* handle = nullptr;  ///< dlopen's; null where there is none
  std::string path;        ///< of its file; "" where there is none
  std::string reason;      ///< why there is none, in one sentence; "" where there is one
};

/// Where CUDA's installer, distributions and Python wheels put libraries, as patterns of folders; in the order in which
/// they are searched, behind what the system's loader knows (LD_LIBRARY_PATH, ldconfig).
const std::vector<std::string>& library_patterns();

/// Opens `name` ("libcublasLt.so.13") at its first call with that name and keeps it open; later calls get the same.
/// `patterns` are for tests.
const LibraryPlace& find_library(std::string_view name);
LibraryPlace open_library(std::string_view name, const std::vector<std::string>& patterns);

}  // namespace permafrost::cuda
