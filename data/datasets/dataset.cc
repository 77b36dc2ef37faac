#include "data/datasets/dataset.h"

namespace permafrost {

std::string sample_name(const Sample& sample) {
  return sample.name.empty() ? std::to_string(sample.id) : std::string(sample.name);
}

}  // namespace permafrost
