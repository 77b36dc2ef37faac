#include "data/tokenizer/tokenizer.h"

#include <array>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/base/sha256.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

BytePairMerger make_merger(const TokenizerParts& parts) {
  std::array<int32_t, 256> byte_ids;
  byte_ids.fill(-1);
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    const std::string& token = parts.tokens[id];
    if (token.size() == 1) byte_ids[static_cast<unsigned char>(token[0])] = narrow<int32_t>(id);
  }
  for (size_t byte = 0; byte < byte_ids.size(); ++byte)
    if (byte_ids[byte] < 0)
      fail(ErrorKind::kData, "tokenizer: the vocabulary must hold all 256 bytes as tokens; got none for byte ", byte);
  return BytePairMerger(byte_ids, parts.merges);
}

std::string hash_of(const TokenizerParts& parts) {
  Sha256 hash;
  const auto number = [&](int64_t value) {
    std::array<unsigned char, 8> bytes;
    for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(static_cast<uint64_t>(value) >> (8 * i));
    hash.update(bytes.data(), bytes.size());
  };
  const auto text = [&](std::string_view value) {
    number(static_cast<int64_t>(value.size()));
    hash.update(value.data(), value.size());
  };
  text(to_string(parts.rules));
  number(static_cast<int64_t>(parts.tokens.size()));
  for (const auto& token : parts.tokens) text(token);
  number(static_cast<int64_t>(parts.merges.size()));
  for (const auto& merge : parts.merges) {
    number(merge.left);
    number(merge.right);
  }
  number(static_cast<int64_t>(parts.specials.size()));
  for (const auto& special : parts.specials) {
    text(special.text);
    number(special.id);
    number((special.strip_left ? 1 : 0) | (special.strip_right ? 2 : 0) | (special.added ? 4 : 0));
  }
  for (const auto* around : {&parts.prefix, &parts.suffix}) {
    number(static_cast<int64_t>(around->size()));
    for (int32_t id : *around) number(id);
  }
  return hash.finish();
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  size_t position = 0;
  while ((position = text.find(from, position)) != std::string::npos) {
    text.replace(position, from.size(), to);
    position += to.size();
  }
}

/// transformers' clean_up_tokenization, in its order.
void clean_up(std::string& text) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kReplacements{{{" .", "."},
                                                                                                {" ?", "?"},
                                                                                                {" !", "!"},
                                                                                                {" ,", ","},
                                                                                                {" ' ", "'"},
                                                                                                {" n't", "n't"},
                                                                                                {" 'm", "'m"},
                                                                                                {" 's", "'s"},
                                                                                                {" 've", "'ve"},
                                                                                                {" 're", "'re"}}};
  for (const auto& [from, to] : kReplacements) replace_all(text, from, to);
}

struct Found {
  size_t position = std::string_view::npos;
  const SpecialToken* token = nullptr;
};

/// Leftmost special token at or after `from`; of several that start there, the longest.
Found find_special(std::string_view text, size_t from, const std::vector<SpecialToken>& specials) {
  Found best;
  for (const auto& special : specials) {
    const size_t position = text.find(special.text, from);
    if (position == std::string_view::npos) continue;
    if (position < best.position || (position == best.position && special.text.size() > best.token->text.size()))
      best = {position, &special};
  }
  return best;
}

}  // namespace

std::string_view to_string(TokenizerRules rules) {
  switch (rules) {
    case TokenizerRules::kGpt2:
      return "gpt2";
    case TokenizerRules::kOpt:
      return "opt";
    case TokenizerRules::kRoberta:
      return "roberta";
  }
  return "unknown";
}

Tokenizer::Tokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), merger_(make_merger(parts_)), hash_(hash_of(parts_)) {
  ids_.reserve(parts_.tokens.size());
  for (size_t id = 0; id < parts_.tokens.size(); ++id)
    if (!parts_.tokens[id].empty()) ids_.emplace(parts_.tokens[id], narrow<int32_t>(id));
}

bool Tokenizer::contains(int32_t id) const {
  return id >= 0 && id < size() && !parts_.tokens[static_cast<size_t>(id)].empty();
}

int32_t Tokenizer::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

void Tokenizer::check_id(int32_t id) const {
  if (!contains(id)) fail(ErrorKind::kData, "tokenizer: ids to decode must be tokens in 0..", size() - 1, "; got ", id);
}

const SpecialToken* Tokenizer::special_with(int32_t id) const {
  for (const auto& special : parts_.specials)
    if (special.id == id) return &special;
  return nullptr;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids = parts_.prefix;
  encode_plain(text, ids);
  ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

void Tokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  BytePairMerger::Scratch scratch;
  const auto encode_piece = [&](std::string_view piece) { merger_.encode(piece, scratch, ids); };
  const SpecialToken* left = nullptr;  // the special token in front of the current stretch of text
  size_t position = 0;
  while (true) {
    const Found found = find_special(text, position, parts_.specials);
    std::string_view stretch = text.substr(position, found.position - position);
    if (left && left->strip_right) stretch = strip_left(stretch);
    if (found.token && found.token->strip_left) stretch = strip_right(stretch);
    pre_tokenizer_.split(stretch, encode_piece);
    if (!found.token) return;
    ids.push_back(found.token->id);
    left = found.token;
    position = found.position + found.token->text.size();
  }
}

std::string Tokenizer::decode_bytes(std::span<const int32_t> ids) const {
  std::string bytes;
  for (int32_t id : ids) {
    check_id(id);
    bytes += parts_.tokens[static_cast<size_t>(id)];
  }
  return bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text, stretch;
  bool first = true;
  const auto join = [&](std::string_view part) {
    if (!first) text += ' ';
    text += part;
    first = false;
  };
  const auto flush = [&] {
    if (!stretch.empty()) join(replace_invalid_utf8(stretch));
    stretch.clear();
  };
  for (int32_t id : ids) {
    check_id(id);
    const SpecialToken* special = special_with(id);
    if (special && skip_special) continue;
    if (special && special->added) {
      flush();
      join(special->text);
    } else {
      stretch += parts_.tokens[static_cast<size_t>(id)];
    }
  }
  flush();
  clean_up(text);
  return text;
}

void check_vocabulary(const Tokenizer& tokenizer, int64_t embedding_rows, std::string_view model) {
  if (tokenizer.size() > embedding_rows)
    fail(ErrorKind::kData, "tokenizer: every id must be below the ", embedding_rows, " embedding rows of ", model,
         "; got a vocabulary of ", tokenizer.size(), " tokens (rules ", to_string(tokenizer.rules()), ")");
}

}  // namespace permafrost
