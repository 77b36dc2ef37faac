#include "parallel/reduce/exponents.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "core/kernels/order_free.h"

namespace permafrost {

Exponents::Exponents(int64_t params, int32_t headroom)
    : headroom_(headroom), agreed_(static_cast<size_t>(params), kZeroExponent), limits_(agreed_.size()) {
  set_limits();
}

void Exponents::learn(std::span<const int32_t> agreed) {
  PERMAFROST_CHECK(agreed.size() == agreed_.size(), "exponents: one per parameter (", agreed_.size(),
                   ") is needed; got ", agreed.size());
  const int32_t above = std::clamp(2 * kHeadroom - headroom_, 0, kMostAbove);
  for (size_t i = 0; i < agreed.size(); ++i)
    if (agreed_[i] == kZeroExponent)
      agreed_[i] = agreed[i];
    else if (agreed[i] != kZeroExponent)
      agreed_[i] = std::max(agreed[i], std::min(agreed_[i] - 1, agreed[i] + above));
  known_ = true;
  set_limits();
}

void Exponents::set_limits() {
  int32_t largest = kZeroExponent;
  for (const int32_t e : agreed_) largest = std::max(largest, e);
  if (largest == kZeroExponent) largest = 0;
  for (size_t i = 0; i < agreed_.size(); ++i)
    limits_[i] = (agreed_[i] == kZeroExponent ? largest : agreed_[i]) + headroom_;
}

void Exponents::restore(std::span<const int32_t> agreed) {
  std::ranges::fill(agreed_, kZeroExponent);
  learn(agreed);
}

}  // namespace permafrost
