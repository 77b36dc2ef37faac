#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor/tensor.h"
#include "models/epalm/decoding.h"
#include "models/model.h"

namespace permafrost {

/// Where a text continues.
enum class DecodingPadding : uint8_t {
  kClean,      ///< right behind its own last token: nothing depends on the rest of the batch
  kPublished,  ///< behind the padding up to the longest prompt of the batch, as the released code does: the first token
               ///< is predicted from a padding position, padding is hidden from texts and counts as length
};

/// The texts of a batch as they grow, and the inputs of the programs of models/epalm/decoding.h that follow from them.
class DecodingTexts {
 public:
  /// One prompt per sample, each of 1 to shape.prompt tokens. `config` and `shape` must outlive the object.
  /// Errors: kInvalidArgument for another number of prompts, or lengths out of range.
  DecodingTexts(const EpalmConfig& config, const EpalmDecodingShape& shape, DecodingPadding padding, int32_t pad_id,
                std::vector<std::vector<int32_t>> prompts);

  /// Tokens of a sample's prompt, padding included where it counts.
  int64_t prompt_length(int64_t sample) const { return base_[static_cast<size_t>(sample)]; }

  /// Row r becomes the text of row parents[r] with tokens[r] behind it. A text that is as long as the shape allows
  /// stays at its end: its sample must be done. Errors: kInvalidArgument when all are, or for a parent of another
  /// sample.
  void advance(std::span<const int32_t> parents, std::span<const int32_t> tokens);

  void fill_prefill(const InputTensors& input) const;
  void fill_see(const InputTensors& input) const;
  /// After at least one advance.
  void fill_step(const InputTensors& input) const;
  void fill_whole(const InputTensors& input) const;

 private:
  bool visible(int64_t sample, int64_t token) const;
  bool open_to_vis(int64_t sample, int64_t token) const;
  void fill_allowed(uint8_t* row, int64_t sample, int64_t slots, int64_t last, bool vis) const;

  const EpalmConfig& config_;
  const EpalmDecodingShape& shape_;
  DecodingPadding padding_;
  int32_t pad_id_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<int64_t> base_;         // per sample: where its first generated token stands
  std::vector<int32_t> texts_;        // (R, most generated): generated tokens
  std::vector<int32_t> parents_;      // of the last advance
  std::vector<int32_t> before_;       // texts_ while rows are exchanged
  int64_t generated_ = 0, most_ = 0;  // per row
};

}  // namespace permafrost
