#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/philox.h"

namespace permafrost::reference {

/// The factors of one sample: draw by draw, as the contract says it.
inline std::vector<double> dropout_factors(uint64_t seed, uint32_t epoch, uint64_t sample, uint32_t layer, float p,
                                           size_t elements) {
  Random random(seed, RandomPurpose::kDropout, epoch, sample, layer);
  std::vector<double> factors(elements);
  for (double& factor : factors) factor = random.next_float() >= p ? 1.0 / (1.0 - static_cast<double>(p)) : 0.0;
  return factors;
}

template <typename S>
std::vector<S> dropout(std::vector<S> x, const std::vector<double>& factors) {
  for (size_t i = 0; i < x.size(); ++i) x[i] *= S(factors[i]);
  return x;
}

}  // namespace permafrost::reference
