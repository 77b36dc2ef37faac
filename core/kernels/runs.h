#pragma once
#include "core/tensor/tensor.h"

namespace permafrost {

/// A rectangle inside a row-major matrix: runs of elements beside each other, `stride` elements apart.
struct Runs {
  Tensor tensor;
  int64_t offset = 0, stride = 0;
};

}  // namespace permafrost
