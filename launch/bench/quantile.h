#pragma once
#include <algorithm>
#include <vector>

namespace permafrost::bench {

/// The value below which `share` (0 to 1) of the values lie, between neighbours in proportion; 0 of nothing.
inline double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace permafrost::bench
