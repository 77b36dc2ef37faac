#pragma once
#include <cstdint>

namespace permafrost::bench {

/// Loops that touch registers alone: each does `rounds` times a fixed number of floating-point operations, and returns
/// that number. For timing.cc, which asks the processor first.
double spin_tiles_amx(int64_t rounds);
double spin_fma_avx512(int64_t rounds);

}  // namespace permafrost::bench
