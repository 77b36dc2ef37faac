#pragma once
#include <cmath>

#include "tests/support/compare.h"

namespace permafrost {

/// Of a product of `terms` terms: inputs are of unit size, so partial sums are of size sqrt(terms); four deviations.
inline testing::Tolerance product_tolerance(DType dtype, int64_t terms) {
  return testing::tolerance_for(dtype, terms, 4.0 * std::sqrt(static_cast<double>(terms) + 1.0));
}

}  // namespace permafrost
