#pragma once
#include "core/tensor/dtype.h"

namespace permafrost {

// Short names for the dtypes that kernels are tested with.
inline constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16, kU8 = DType::kU8;
inline constexpr DType kDtypes[] = {kF32, kBF16};

}  // namespace permafrost
