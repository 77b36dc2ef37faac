#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"
#include "core/weights/initializer.h"

namespace permafrost {

struct RandomParameter {
  std::string name;
  Shape shape;
  Initializer initializer;
};

struct RandomWeightsOptions {
  DType dtype = DType::kF16;  ///< of every tensor: f32, bf16 or f16
  uint64_t seed = 0;
  int64_t max_shard_bytes = 5'000'000'000;  ///< of tensor data; a larger tensor has a shard to itself
  int threads = 1;                          ///< that draw; the bits do not depend on it
};

struct WrittenWeights {
  std::vector<std::string> files;  ///< paths, the index last
  int64_t bytes = 0;               ///< of all files
};

/// Writes seeded random weights into `directory` (made when absent), as the Hugging Face Hub lays them out:
/// model.safetensors, or model-00001-of-0000N.safetensors with model.safetensors.index.json. Every tensor is what
/// `fill` gives for (seed, name), whatever the shards. Memory: about 4 MiB a thread. Free space is looked at before
/// anything is written; the index comes last, and files already written go away again after a failure. Errors: kStorage
/// when room is short (both numbers), writing fails or the folder already holds weights; kInvalidArgument for a name
/// twice or another dtype.
WrittenWeights write_random(const std::vector<RandomParameter>& parameters, const std::string& directory,
                            const RandomWeightsOptions& options);

}  // namespace permafrost
