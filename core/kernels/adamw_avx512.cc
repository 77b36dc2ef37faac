#include "core/kernels/adamw_loops.h"

namespace permafrost::cpu {

void adamw_loop_avx512(const AdamwFactors& factors, const AdamwBlock& block) { adamw_any(factors, block); }

}  // namespace permafrost::cpu
