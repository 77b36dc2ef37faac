#include "models/epalm/decoding_inputs.h"

#include <algorithm>
#include <numeric>

#include "core/base/narrow.h"
#include "models/epalm/inputs.h"

namespace permafrost {

DecodingTexts::DecodingTexts(const EpalmConfig& config, const EpalmDecodingShape& shape, DecodingPadding padding,
                             int32_t pad_id, std::vector<std::vector<int32_t>> prompts)
    : config_(config), shape_(shape), padding_(padding), pad_id_(pad_id), prompts_(std::move(prompts)) {
  PERMAFROST_CHECK(std::ssize(prompts_) == shape.batch, "decoding: one prompt per sample expected (", shape.batch,
                   "); got ", prompts_.size());
  int64_t longest = 0;
  for (size_t b = 0; b < prompts_.size(); ++b) {
    const int64_t length = std::ssize(prompts_[b]);
    PERMAFROST_CHECK(length >= 1 && length <= shape.prompt, "decoding: prompts must have 1 to ", shape.prompt,
                     " tokens; got ", length, " in sample ", b);
    longest = std::max(longest, length);
  }
  for (const auto& prompt : prompts_)
    base_.push_back(padding == DecodingPadding::kPublished ? longest : std::ssize(prompt));
  most_ = shape.tokens - *std::ranges::min_element(base_);
  texts_.assign(static_cast<size_t>(shape.rows() * most_), pad_id);
  before_ = texts_;
  parents_.resize(static_cast<size_t>(shape.rows()));
  std::iota(parents_.begin(), parents_.end(), 0);
}

void DecodingTexts::advance(std::span<const int32_t> parents, std::span<const int32_t> tokens) {
  const int64_t rows = shape_.rows();
  PERMAFROST_CHECK(std::ssize(parents) == rows && std::ssize(tokens) == rows, "decoding: ", rows,
                   " parents and tokens expected; got ", parents.size(), " and ", tokens.size());
  PERMAFROST_CHECK(generated_ < most_, "decoding: texts of this batch take ", most_, " generated tokens; got one more");
  before_ = texts_;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t parent = parents[static_cast<size_t>(r)];
    PERMAFROST_CHECK(parent >= 0 && parent < rows && parent / shape_.beams == r / shape_.beams,
                     "decoding: a row must go on from one of its own sample; got ", parent, " for row ", r);
    std::copy_n(before_.begin() + parent * most_, generated_, texts_.begin() + r * most_);
    texts_[static_cast<size_t>(r * most_ + generated_)] = tokens[static_cast<size_t>(r)];
  }
  parents_.assign(parents.begin(), parents.end());
  ++generated_;
}

/// Whether later tokens of the text see its token: all but padding.
bool DecodingTexts::visible(int64_t sample, int64_t token) const {
  const int64_t base = base_[static_cast<size_t>(sample)];
  return token < std::ssize(prompts_[static_cast<size_t>(sample)]) || (token >= base && token < base + generated_);
}

/// Whether the open VIS row sees it: as in training, padding of the batch counts where the model says so.
bool DecodingTexts::open_to_vis(int64_t sample, int64_t token) const {
  if (config_.padding == EpalmConfig::Padding::kPublished)
    return token < base_[static_cast<size_t>(sample)] + generated_;
  return visible(sample, token);
}

/// What a query sees of `slots` slots and the text up to token `last`.
void DecodingTexts::fill_allowed(uint8_t* row, int64_t sample, int64_t slots, int64_t last, bool vis) const {
  std::fill_n(row, slots, uint8_t{1});
  for (int64_t t = 0; t < shape_.tokens; ++t)
    row[slots + t] = t <= last && (vis ? open_to_vis(sample, t) : visible(sample, t)) ? 1 : 0;
}

void DecodingTexts::fill_see(const InputTensors& input) const {
  std::fill_n(input("cache_begin").data<int32_t>(), shape_.batch, 0);
}

void DecodingTexts::fill_prefill(const InputTensors& input) const {
  fill_see(input);
  const int64_t tokens = shape_.prompt, slots = config_.slots();
  std::vector<int32_t> lengths;
  auto* ids = input("input_ids").data<int32_t>();
  std::fill_n(ids, shape_.batch * tokens, pad_id_);
  const Tensor open = input("open_lengths");
  for (int64_t b = 0; b < shape_.batch; ++b) {
    const auto& prompt = prompts_[static_cast<size_t>(b)];
    const int64_t length = std::ssize(prompt), base = base_[static_cast<size_t>(b)];
    std::ranges::copy(prompt, ids + b * tokens);
    lengths.push_back(narrow<int32_t>(length));
    input("lengths_before").data<int32_t>()[b] = narrow<int32_t>(config_.prompt_tokens() + length);
    input("lengths_after").data<int32_t>()[b] = narrow<int32_t>(slots + length);
    if (open.defined())
      open.data<int32_t>()[b] =
          narrow<int32_t>(slots + (config_.padding == EpalmConfig::Padding::kPublished ? base : length));
    input("last_rows").data<int32_t>()[b] = narrow<int32_t>(b * (slots + tokens) + slots + base - 1);
  }
  fill_position_ids(lengths, input("position_ids"));
}

void DecodingTexts::fill_step(const InputTensors& input) const {
  PERMAFROST_CHECK(generated_ > 0, "decoding: a step follows a generated token; got none");
  const int64_t prompts = config_.prompt_tokens(), slots = config_.slots();
  const int64_t before = prompts + shape_.tokens, after = slots + shape_.tokens;
  const Tensor vis = input("allowed_vis");
  if (vis.defined()) std::fill_n(input("vis_place").data<int32_t>(), shape_.rows(), 0);
  std::ranges::copy(parents_, input("parents").data<int32_t>());
  for (int64_t r = 0; r < shape_.rows(); ++r) {
    const int64_t sample = r / shape_.beams, length = std::ssize(prompts_[static_cast<size_t>(sample)]);
    const int64_t token = std::min(base_[static_cast<size_t>(sample)] + generated_, shape_.tokens) - 1;
    const int64_t position = length + token - base_[static_cast<size_t>(sample)];
    const auto set = [&](const char* name, int64_t number) {
      input(name).data<int32_t>()[r] = narrow<int32_t>(number);
    };
    set("input_ids", texts_[static_cast<size_t>(r * most_ + generated_ - 1)]);
    set("position_ids", OptConfig::kPositionOffset + position);
    for (const char* name : {"used_before", "place_before"}) set(name, prompts + token);
    for (const char* name : {"used_after", "place_after"}) set(name, slots + token);
    set("keys_before", prompts + token + 1);
    set("keys_after", slots + token + 1);
    fill_allowed(input("allowed_before").data<uint8_t>() + r * before, sample, prompts, token, false);
    fill_allowed(input("allowed_after").data<uint8_t>() + r * after, sample, slots, token, false);
    if (!vis.defined()) continue;
    fill_allowed(vis.data<uint8_t>() + 2 * r * after, sample, slots, token, true);
    fill_allowed(vis.data<uint8_t>() + (2 * r + 1) * after, sample, slots, token, false);
  }
}

void DecodingTexts::fill_whole(const InputTensors& input) const {
  const int64_t tokens = shape_.tokens, prompts = config_.prompt_tokens(), slots = config_.slots();
  const int64_t before = prompts + tokens, after = slots + tokens;
  auto *ids = input("input_ids").data<int32_t>(), *positions = input("position_ids").data<int32_t>();
  auto *allowed_before = input("allowed_before").data<uint8_t>(),
       *allowed_after = input("allowed_after").data<uint8_t>();
  const auto first = narrow<int32_t>(OptConfig::kPositionOffset);
  std::fill_n(ids, shape_.rows() * tokens, pad_id_);
  std::fill_n(positions, shape_.rows() * tokens, first - 1);
  for (int64_t r = 0; r < shape_.rows(); ++r) {
    const int64_t sample = r / shape_.beams, base = base_[static_cast<size_t>(sample)];
    const int64_t generated = std::min(generated_, tokens - base);
    const auto& prompt = prompts_[static_cast<size_t>(sample)];
    std::ranges::copy(prompt, ids + r * tokens);
    std::iota(positions + r * tokens, positions + r * tokens + std::ssize(prompt), first);
    std::copy_n(texts_.begin() + r * most_, generated, ids + r * tokens + base);
    std::iota(positions + r * tokens + base, positions + r * tokens + base + generated,
              first + narrow<int32_t>(prompt.size()));
    input("lengths_before").data<int32_t>()[r] = narrow<int32_t>(prompts + base + generated);
    input("lengths_after").data<int32_t>()[r] = narrow<int32_t>(slots + base + generated);
    input("last_rows").data<int32_t>()[r] = narrow<int32_t>(r * after + slots + base + generated - 1);
    // Soft prompts are causal like tokens; VIS, in front of them, is seen by all.
    for (int64_t q = 0; q < before; ++q)
      fill_allowed(allowed_before + (r * before + q) * before, sample, prompts, q - prompts, false);
    for (int64_t q = 0; q < after; ++q)
      fill_allowed(allowed_after + (r * after + q) * after, sample, slots, q == 0 ? tokens : q - slots, q == 0);
    for (int64_t q = 0; q < prompts; ++q) {
      uint8_t* row = allowed_before + (r * before + q) * before;
      std::fill(row + q + 1, row + before, uint8_t{0});
      row = allowed_after + (r * after + 1 + q) * after;
      std::fill(row + q + 2, row + after, uint8_t{0});
    }
    if (config_.vis_row == EpalmConfig::VisRow::kCausal) {
      uint8_t* row = allowed_after + r * after * after;
      std::fill(row + 1, row + after, uint8_t{0});
    }
  }
}

}  // namespace permafrost
