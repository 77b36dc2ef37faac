#pragma once
#include "core/tensor/dtype.h"

namespace permafrost {

// Short names for the dtypes that kernels are tested with.
inline constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16, kU8 = DType::kU8;
inline constexpr DType kDtypes[] = {kF32, kBF16};

/// Half a unit in the last of a number's 24, 8 or 11 bits: what rounding to nearest changes at most, relatively.
constexpr double unit_of(DType dtype) { return dtype == kBF16 ? 0x1p-8 : dtype == kF16 ? 0x1p-11 : 0x1p-24; }
/// The same of numbers below 2^-14 in f16, absolutely: their last place stays where it is.
constexpr double subnormal_of(DType dtype) { return dtype == kF16 ? 0x1p-25 : 0; }

}  // namespace permafrost
