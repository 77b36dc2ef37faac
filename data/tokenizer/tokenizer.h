#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/byte_pair.h"
#include "data/tokenizer/pre_tokenizer.h"

namespace permafrost {

/// Which tokens a family puts around a text and which strings it never cuts.
enum class TokenizerRules {
  kGpt2,     ///< nothing added; special `<|endoftext|>`
  kOpt,      ///< `</s>` in front, nothing behind; specials `</s>`, `<pad>`
  kRoberta,  ///< `<s>` in front, `</s>` behind; specials `<s>`, `<pad>`, `</s>`, `<unk>`, `<mask>`
};
std::string_view to_string(TokenizerRules rules);

/// A string that is one token wherever it stands in a text.
struct SpecialToken {
  std::string text;
  int32_t id = 0;
  bool strip_left = false;   ///< swallows white space in front of it
  bool strip_right = false;  ///< and behind it
  bool added = false;        ///< not in the vocabulary file: decoding puts a space between it and its neighbours
};

struct TokenizerConfig {
  /// A folder with vocab.json + merges.txt or with tokenizer.json, or a file in tokenizer.json's format.
  std::filesystem::path path;
  TokenizerRules rules = TokenizerRules::kOpt;
  /// Further special tokens, e.g. `</a>`; one that the vocabulary lacks gets the next free id. As in the published
  /// pipeline (slow tokenizer, plain string) they swallow white space on both sides.
  std::vector<std::string> added_tokens;
  /// Names of the two files in the folder.
  std::string vocabulary_name = "vocab.json", merges_name = "merges.txt";
};

/// What a tokenizer is made of, read from files or made by hand.
struct TokenizerParts {
  TokenizerRules rules = TokenizerRules::kOpt;
  std::vector<std::string> tokens;  ///< bytes of each id; empty where the vocabulary has a hole
  std::vector<BytePairMerger::Merge> merges;
  std::vector<SpecialToken> specials;
  std::vector<int32_t> prefix, suffix;  ///< ids put around every encoded text
  int32_t pad = 0, end = 0;
};

/// Byte-level BPE: any bytes, also invalid UTF-8, are encoded and come back exactly. Immutable; every method may be
/// called from several threads.
/// Sources: GPT-2's encoder.py; transformers 4.33, slow tokenizers (special tokens, clean-up).
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerParts parts);

  /// Errors: kData naming the file: not found, malformed, a merge or byte that the vocabulary lacks, a special token
  /// that the rules need and the vocabulary lacks.
  static Tokenizer load(const TokenizerConfig& config);

  /// Ids with the rules' prefix and suffix.
  std::vector<int32_t> encode(std::string_view text) const;
  /// Appends the ids of a text without prefix and suffix.
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;

  /// The tokens' bytes joined, nothing cleaned, special tokens as their text. Errors: kData for an id without token.
  std::string decode_bytes(std::span<const int32_t> ids) const;
  /// Text for people, as transformers' slow tokenizers write it: added tokens stand between spaces (so what follows
  /// `</a>` starts with a space), ill-formed UTF-8 becomes U+FFFD, spaces before . ? ! , and contractions are removed.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// One more than the largest id: the rows an embedding must at least have.
  int64_t size() const { return static_cast<int64_t>(parts_.tokens.size()); }
  bool contains(int32_t id) const;
  int32_t pad_id() const { return parts_.pad; }
  int32_t end_id() const { return parts_.end; }
  const std::vector<int32_t>& prefix() const { return parts_.prefix; }
  const std::vector<int32_t>& suffix() const { return parts_.suffix; }
  const std::vector<SpecialToken>& specials() const { return parts_.specials; }
  TokenizerRules rules() const { return parts_.rules; }
  /// Id of exactly these bytes as one token, or -1.
  int32_t id_of(std::string_view token) const;
  /// SHA-256 over rules, tokens, merges and special tokens, independent of the file format they came from.
  const std::string& hash() const { return hash_; }

 private:
  const SpecialToken* special_with(int32_t id) const;
  void check_id(int32_t id) const;

  TokenizerParts parts_;
  PreTokenizer pre_tokenizer_;
  BytePairMerger merger_;
  std::unordered_map<std::string_view, int32_t> ids_;  // keys live in parts_.tokens
  std::string hash_;
};

/// Refuses a vocabulary with ids beyond the model's embedding. `model` names the model in the message.
/// Errors: kData with both sizes.
void check_vocabulary(const Tokenizer& tokenizer, int64_t embedding_rows, std::string_view model);

}  // namespace permafrost
