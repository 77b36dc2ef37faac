#include "data/datasets/selection.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"
#include "core/base/philox.h"

namespace permafrost {

SelectedDataset::SelectedDataset(std::unique_ptr<const Dataset> base, std::vector<int64_t> indices)
    : WrappedDataset(std::move(base)), indices_(std::move(indices)) {
  const bool in_range = indices_.empty() || (indices_.front() >= 0 && indices_.back() < this->base().size());
  PERMAFROST_CHECK(in_range && std::ranges::adjacent_find(indices_, std::greater_equal()) == indices_.end(),
                   "selection: ascending indices below ", this->base().size(), " are expected; got others");
}

int64_t SelectedDataset::base_index(int64_t index) const {
  PERMAFROST_CHECK(index >= 0 && index < size(), "dataset: index must lie in 0..", size() - 1, "; got ", index);
  return indices_[static_cast<size_t>(index)];
}

std::vector<int64_t> first_indices(int64_t samples, int64_t count) {
  std::vector<int64_t> indices(static_cast<size_t>(std::min(samples, count)));
  std::iota(indices.begin(), indices.end(), int64_t{0});
  return indices;
}

std::vector<int64_t> random_indices(int64_t samples, int64_t count, uint64_t seed) {
  constexpr uint32_t kRound = UINT32_MAX;  // no epoch is ordered by the same permutation
  std::vector<int64_t> indices = first_indices(samples, count);
  for (int64_t& index : indices)
    index =
        static_cast<int64_t>(permute_index(static_cast<uint64_t>(index), static_cast<uint64_t>(samples), seed, kRound));
  std::ranges::sort(indices);
  return indices;
}

}  // namespace permafrost
