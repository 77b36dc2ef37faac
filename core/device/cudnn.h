#pragma once
#include <string>

// What can be known of cuDNN without using it: cudnn.cc in a build with cuDNN's headers, core/kernels/cudnn/no_cudnn.cc
// in one without.
namespace permafrost::cuda {

/// True in a build that can call cuDNN, whether or not this machine has the library.
bool cudnn_built();

struct CudnnFound {
  std::string version;  ///< "9.19.0"; "" where it cannot be used
  std::string path;     ///< of the library; "" where there is none
  std::string missing;  ///< why it cannot be used, in one sentence; "" when it can
};

/// Looks for the library at the first call (where: library_patterns). Never throws.
const CudnnFound& find_cudnn();

}  // namespace permafrost::cuda
