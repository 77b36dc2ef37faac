#include "data/datasets/dataset.h"

#include "data/datasets/sample_id.h"

namespace permafrost {

std::string sample_name(const Sample& sample) {
  if (!sample.name.empty()) return std::string(sample.name);
  return std::to_string(sample.id & ((uint64_t{1} << kSampleIdBits) - 1));  // without the place in a mix
}

}  // namespace permafrost
