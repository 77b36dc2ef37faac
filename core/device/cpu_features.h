#pragma once
#include <string>

namespace permafrost {

/// Instruction sets of this processor that the operating system lets us use.
struct CpuFeatures {
  bool avx2 = false;    ///< with FMA and F16C
  bool avx512 = false;  ///< F, BW, VL, DQ
  bool avx512_bf16 = false;
  bool amx_bf16 = false;  ///< tiles permitted by the kernel for this process
};

/// Detected once (asks the kernel for tile permission on first use).
const CpuFeatures& cpu_features();

/// "avx2 avx512 avx512_bf16 amx_bf16", those present.
std::string to_string(const CpuFeatures& features);

/// The processor's own name, "unknown" where the system does not say.
std::string processor_name();

}  // namespace permafrost
