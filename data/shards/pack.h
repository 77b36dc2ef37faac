#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/datasets/dataset.h"
#include "data/datasets/text_format.h"

namespace permafrost {

/// How a dataset is cut into shards: a pure function of the dataset and of the wanted size, the same on every rank.
struct PackPlan {
  TextTask task = TextTask::kCaptions;
  const Tokenizer* tokenizer = nullptr;  ///< null with kClasses
  std::vector<int64_t> images;           ///< of the dataset that are in a sample, ascending
  std::vector<size_t> shard_begin;       ///< of each shard in `images`, then the end
  std::vector<int64_t> samples;          ///< ordered by image, then by place in the dataset
  std::vector<size_t> first_sample;      ///< of each entry of `images` in `samples`, then the end
  int64_t image_bytes = 0;
  /// SHA-256 of all ids, texts, names and sizes of images, of the tokenizer and of the cut. The images' bytes are not
  /// in it.
  std::string packed_from;

  int64_t shards() const { return static_cast<int64_t>(shard_begin.size()) - 1; }
};

/// A shard takes images in order until the next would bring it over `shard_bytes`; at least one.
/// Errors: kData for an image that cannot be read, kInvalidArgument for shard_bytes below 1.
PackPlan plan_pack(const Dataset& dataset, TextTask task, const Tokenizer* tokenizer, int64_t shard_bytes);

/// Refuses a folder with shards that this plan would not write. Shards of the plan may be there. Removes what
/// interrupted writers left behind, so nobody else may be packing into it. Errors: kConfig naming the file and both
/// hashes.
void prepare_pack_folder(const PackPlan& plan, const std::filesystem::path& folder);

/// Writes a shard unless it is complete already; true when it was written. Errors: kData, kStorage.
bool pack_shard(const Dataset& dataset, const PackPlan& plan, int64_t shard, const std::filesystem::path& folder);

}  // namespace permafrost
