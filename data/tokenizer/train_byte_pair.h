#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizer/pre_tokenizer.h"

namespace permafrost {

/// Learns the merges of a byte-level BPE: the most frequent pair of neighbours first, among equals the one that comes
/// first as bytes; so the result depends on the texts' pieces and counts alone. Source: Sennrich et al. 2016 (arXiv
/// 1508.07909), algorithm 1; pieces: GPT-2's (PreTokenizer).
class BytePairTrainer {
 public:
  using Merge = std::pair<std::string, std::string>;

  void add(std::string_view text);
  /// At most so many; fewer when every piece is one token already.
  std::vector<Merge> train(size_t max_merges) const;

 private:
  PreTokenizer pre_tokenizer_;
  std::map<std::string, int64_t, std::less<>> pieces_;  // and how often each came
};

/// Special tokens of OPT in the order of their ids, 0 to 3.
std::vector<std::string> opt_special_tokens();

/// Writes vocab.json and merges.txt in GPT-2's format: the special tokens from id 0, then the 256 bytes, then what each
/// merge makes. Makes the folder if need be. Errors: kStorage naming the path.
void write_byte_pair_files(const std::filesystem::path& folder, const std::vector<std::string>& special_tokens,
                           const std::vector<BytePairTrainer::Merge>& merges);

}  // namespace permafrost
