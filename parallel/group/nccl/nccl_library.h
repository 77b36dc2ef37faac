#pragma once
#include <filesystem>
#include <string>

// What can be known of NCCL without using it: nccl_api.cc in a build with the NCCL backend, no_nccl.cc in one without.
namespace permafrost {

/// True in a build with the NCCL backend, whether or not this machine has the library.
bool nccl_built();

struct NcclFound {
  std::string version;  ///< "2.28.9"; empty: cannot be used
  std::string path;     ///< of the library
  std::string missing;  ///< why it cannot be used, in one sentence that says what to do; "" when it can
};

/// Looks for the library once: as the dynamic linker finds it (LD_LIBRARY_PATH), beside the program, in ../lib, where
/// CUDA lies and in Python wheels near the program. Never throws.
const NcclFound& find_nccl();

/// The same for one file.
NcclFound find_nccl(const std::filesystem::path& library);

}  // namespace permafrost
