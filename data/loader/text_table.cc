#include "data/loader/text_table.h"

#include <algorithm>
#include <string>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/device/thread_pool.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {

std::vector<int32_t> caption_ids(const Tokenizer& tokenizer, std::string_view caption) {
  std::string text(strip(caption));
  for (const auto& special : tokenizer.specials()) {
    if (special.id != tokenizer.end_id()) continue;
    for (size_t at = text.find(special.text); at != std::string::npos; at = text.find(special.text, at))
      text.erase(at, special.text.size());
  }
  std::vector<int32_t> ids = tokenizer.prefix();
  tokenizer.encode_plain(text, ids);
  ids.push_back(tokenizer.end_id());
  return ids;
}

TextTable::TextTable(const CaptionDataset& dataset, const Tokenizer& tokenizer, const TextConfig& config)
    : pad_id_(tokenizer.pad_id()),
      first_id_(tokenizer.prefix().empty() ? tokenizer.end_id() : tokenizer.prefix().front()) {
  PERMAFROST_CHECK(config.max_tokens >= 2 && config.threads >= 1,
                   "text_table: max_tokens >= 2 and threads >= 1 are expected; got ", config.max_tokens, " and ",
                   config.threads);
  constexpr int64_t kBlock = 1024;
  const int64_t blocks = div_up(dataset.size(), kBlock);
  struct Block {
    std::vector<int32_t> ids;
    std::vector<size_t> lengths;
  };
  std::vector<Block> encoded(static_cast<size_t>(blocks));
  ThreadPool pool(config.threads);
  pool.run(blocks, [&](int64_t block, int) {
    Block& to = encoded[static_cast<size_t>(block)];
    for (int64_t i = block * kBlock; i < std::min(dataset.size(), (block + 1) * kBlock); ++i) {
      const auto ids = caption_ids(tokenizer, dataset.sample(i).caption);
      to.ids.insert(to.ids.end(), ids.begin(), ids.end());
      to.lengths.push_back(ids.size());
    }
  });
  const auto limit = static_cast<size_t>(config.max_tokens);
  int64_t index = 0, first_long = -1, too_long = 0;
  size_t first_length = 0;
  for (const Block& block : encoded) {
    size_t at = 0;
    for (size_t length : block.lengths) {
      const bool is_long = length > limit;
      if (is_long && too_long++ == 0) first_long = index, first_length = length;
      if (!is_long || config.long_text != LongTextPolicy::kSkip) {
        const auto from = block.ids.begin() + static_cast<std::ptrdiff_t>(at);
        ids_.insert(ids_.end(), from, from + static_cast<std::ptrdiff_t>(std::min(length, limit)));
        begin_.push_back(ids_.size());
        dataset_index_.push_back(index);
        longest_ = std::max(longest_, static_cast<int64_t>(std::min(length, limit)));
      }
      at += length;
      ++index;
    }
  }
  if (too_long > 0 && config.long_text == LongTextPolicy::kFail) {
    const Sample sample = dataset.sample(first_long);
    fail(ErrorKind::kData, "text: at most ", config.max_tokens, " tokens are expected; got ", first_length,
         " in sample ", sample.id, " (\"", sample.caption.substr(0, 80), "\"), and ", too_long, " of ", dataset.size(),
         " texts are over [param=max_text_tokens]");
  }
  (config.long_text == LongTextPolicy::kSkip ? skipped_ : truncated_) = too_long;
  if (dataset_index_.empty())
    fail(ErrorKind::kData, "text: at least one text of at most ", config.max_tokens,
         " tokens is expected; got none among ", dataset.size(), " [param=max_text_tokens]");
}

}  // namespace permafrost
