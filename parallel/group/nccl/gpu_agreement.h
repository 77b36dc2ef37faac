#pragma once
#include <optional>
#include <string>

#include "parallel/group/group.h"

namespace permafrost {

/// What decides the bits of a rank's GPU, and whether NCCL can be used on it. Texts are cut to 95 bytes when exchanged.
struct GpuFacts {
  std::string name;        ///< of the GPU
  std::string capability;  ///< "9.0"
  std::string driver;      ///< versions, "13.0": CUDA's driver, CUDA's runtime,
  std::string runtime;
  std::string cublaslt;      ///< the caller's own text; compared as it is
  std::string nccl;          ///< "2.28.9"; empty where it cannot be used
  std::string nccl_missing;  ///< then why
  std::string uuid;          ///< of the GPU
  std::string pci;           ///< where it is in its machine
};

/// Errors: those of cuda::device_info.
GpuFacts gpu_facts(Device device, std::string cublaslt);

/// All ranks must have one kind of GPU and one version of each library, or their results would be close, not equal. To
/// be called for ranks on GPUs whether or not NCCL is used; the version of NCCL is left out where a rank has none.
/// Collective over `host`. Errors, the same on all ranks: kConfig with who has what and what to do.
void check_same_gpus(Group& host, const GpuFacts& facts);

/// Why NCCL cannot be used by these ranks: the build, a library that is missing somewhere, two ranks on one GPU.
/// Nothing: it can be; one rank never needs it. Collective over `host`, and the same answer on all ranks. Whoever takes
/// another way then says so in the log.
std::optional<std::string> why_no_nccl(Group& host, const GpuFacts& facts);
std::optional<std::string> why_no_nccl(Group& host, Device device, std::string cublaslt);

}  // namespace permafrost
