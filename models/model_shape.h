#pragma once
#include <cstdint>

namespace permafrost {

/// Shape of one micro-batch and what shall be computed of it.
struct ModelShape {
  int64_t batch = 1;
  int64_t tokens = 1;       ///< of the longest text; not looked at by a model without text
  bool all_values = false;  ///< false, for training: what the loss does not need is left out
};

}  // namespace permafrost
