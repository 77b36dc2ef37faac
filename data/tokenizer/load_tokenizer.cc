// Reading vocab.json + merges.txt and tokenizer.json.
#include <array>
#include <optional>
#include <unordered_map>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/narrow.h"
#include "data/files/json_file.h"
#include "data/files/read_file.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 24;  // far above any real vocabulary: a wild id must not eat memory

/// Index: code point; value: the byte that is written so, or -1.
std::array<int, 512> bytes_of_characters() {
  const auto characters = gpt2_characters();
  std::array<int, 512> table;
  table.fill(-1);
  for (size_t byte = 0; byte < characters.size(); ++byte) table[characters[byte]] = static_cast<int>(byte);
  return table;
}

/// The bytes a vocabulary string stands for; empty if it has a character outside the table.
std::optional<std::string> to_bytes(std::string_view token) {
  static const auto table = bytes_of_characters();
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const Utf8Step step = next_utf8(token, i);
    if (!step.valid || step.code_point >= table.size() || table[step.code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(static_cast<unsigned char>(table[step.code_point]));
    i += step.bytes;
  }
  return bytes;
}

struct Source {
  std::filesystem::path vocabulary_file, merges_file;
  Json vocabulary;                  // {token: id}
  std::vector<std::string> merges;  // "left right"
  Json added;                       // tokenizer.json's added_tokens, or null
};

std::vector<std::string> read_merges(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  std::vector<std::string> lines;
  for (size_t start = 0; start < text.size();) {
    size_t end = text.find('\n', start);
    if (end == std::string::npos) end = text.size();
    std::string line = text.substr(start, end - start);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const bool version = start == 0 && line.starts_with("#version");
    if (!line.empty() && !version) lines.push_back(std::move(line));
    start = end + 1;
  }
  return lines;
}

Source read_tokenizer_json(const std::filesystem::path& path) {
  Json root = parse_json_file(path);
  const auto refuse = [&](std::string_view expected) {
    fail(ErrorKind::kData, "tokenizer: ", expected, "; got another structure [file=", path.string(), "]");
  };
  if (!root.is_object() || !root.contains("model") || !root["model"].is_object())
    refuse("an object with 'model' is expected");
  Json& model = root["model"];
  if (model.value("type", Json("BPE")) != Json("BPE")) refuse("model.type must be \"BPE\"");
  if (!model.contains("vocab") || !model.contains("merges") || !model["merges"].is_array())
    refuse("model.vocab and model.merges are expected");
  if (json_text(root.value("pre_tokenizer", Json())).find("ByteLevel") == std::string::npos)
    refuse("a ByteLevel pre_tokenizer is expected");
  Source source{path, path, std::move(model["vocab"]), {}, root.value("added_tokens", Json())};
  for (const Json& merge : model["merges"]) {
    if (merge.is_string()) {
      source.merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      source.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    } else {
      refuse("each merge must be \"a b\" or [\"a\", \"b\"]");
    }
  }
  return source;
}

Source read_source(const TokenizerConfig& config) {
  namespace fs = std::filesystem;
  const fs::path& path = config.path;
  const fs::path vocabulary = path / config.vocabulary_name, merges = path / config.merges_name;
  if (!fs::exists(path))
    fail(ErrorKind::kData, "tokenizer: a folder or tokenizer.json is expected; got no such path [file=", path.string(),
         "]");
  if (!fs::is_directory(path)) return read_tokenizer_json(path);
  if (fs::exists(vocabulary)) {
    if (!fs::exists(merges))
      fail(ErrorKind::kData, "tokenizer: ", config.merges_name, " is expected beside ", config.vocabulary_name,
           "; got none [file=", merges.string(), "]");
    return {vocabulary, merges, parse_json_file(vocabulary), read_merges(merges), Json()};
  }
  if (fs::exists(path / "tokenizer.json")) return read_tokenizer_json(path / "tokenizer.json");
  fail(ErrorKind::kData, "tokenizer: ", config.vocabulary_name, " with ", config.merges_name,
       ", or tokenizer.json, is expected; got neither [file=", path.string(), "]");
}

/// Fills tokens; returns ids by the string as written in the file, which is how merges name them.
std::unordered_map<std::string, int32_t> add_vocabulary(const Source& source, TokenizerParts& parts) {
  const std::string file = source.vocabulary_file.string();
  if (!source.vocabulary.is_object() || source.vocabulary.empty())
    fail(ErrorKind::kData, "tokenizer: the vocabulary must be an object {token: id}; got ",
         source.vocabulary.type_name(), " of size ", source.vocabulary.size(), " [file=", file, "]");
  std::unordered_map<std::string, int32_t> ids;
  for (const auto& [token, value] : source.vocabulary.items()) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() >= kMaxTokens)
      fail(ErrorKind::kData, "tokenizer: ids must be integers in 0..", kMaxTokens - 1, "; got ", json_text(value),
           " for '", token, "' [file=", file, "]");
    const auto id = value.get<size_t>();
    if (id >= parts.tokens.size()) parts.tokens.resize(id + 1);
    if (token.empty() || !parts.tokens[id].empty())
      fail(ErrorKind::kData, "tokenizer: tokens must be non-empty and ids unique; got id ", id, " for '", token,
           "' [file=", file, "]");
    parts.tokens[id] = to_bytes(token).value_or(token);
    ids.emplace(token, static_cast<int32_t>(id));
  }
  return ids;
}

void add_merges(const Source& source, const std::unordered_map<std::string, int32_t>& ids, TokenizerParts& parts) {
  for (const std::string& line : source.merges) {
    const size_t space = line.find(' ');
    const auto refuse = [&](std::string_view got) {
      fail(ErrorKind::kData, "tokenizer: each merge must be two tokens of the vocabulary that join to a third; got '",
           line, "' ", got, " [file=", source.merges_file.string(), "]");
    };
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
      refuse("without exactly one space");
    const auto id_of = [&](const std::string& token) {
      const auto found = ids.find(token);
      if (found == ids.end()) refuse("but no token '" + token + "'");
      return found->second;
    };
    const std::string left = line.substr(0, space), right = line.substr(space + 1);
    const int32_t left_id = id_of(left), right_id = id_of(right);
    parts.merges.push_back({left_id, right_id, id_of(left + right)});
  }
}

void add_special(TokenizerParts& parts, SpecialToken special) {
  for (auto& known : parts.specials)
    if (known.text == special.text) {
      known = std::move(special);
      return;
    }
  parts.specials.push_back(std::move(special));
}

/// tokenizer.json's own list: ids are given, white space rules too.
void add_listed_specials(const Source& source, const std::unordered_map<std::string, int32_t>& ids,
                         TokenizerParts& parts) {
  for (const Json& entry : source.added) {
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string() || !entry.contains("id") ||
        !entry["id"].is_number_integer() || entry["id"].get<int64_t>() < 0 || entry["id"].get<int64_t>() >= kMaxTokens)
      fail(ErrorKind::kData, "tokenizer: added_tokens must hold objects with 'id' and 'content'; got ",
           json_text(entry), " [file=", source.vocabulary_file.string(), "]");
    SpecialToken special{entry["content"].get<std::string>(), entry["id"].get<int32_t>(), entry.value("lstrip", false),
                         entry.value("rstrip", false), false};
    special.added = !ids.contains(special.text);
    const auto id = static_cast<size_t>(special.id);
    if (special.text.empty() || (!special.added && ids.at(special.text) != special.id))
      fail(ErrorKind::kData, "tokenizer: an added token must have text and its vocabulary id; got ", json_text(entry),
           " [file=", source.vocabulary_file.string(), "]");
    if (id >= parts.tokens.size()) parts.tokens.resize(id + 1);
    parts.tokens[id] = special.text;
    add_special(parts, std::move(special));
  }
}

/// Id of a token that the rules need.
int32_t required(const TokenizerParts& parts, const Source& source, std::string_view token) {
  for (size_t id = 0; id < parts.tokens.size(); ++id)
    if (parts.tokens[id] == token) return static_cast<int32_t>(id);
  fail(ErrorKind::kData, "tokenizer: rules ", to_string(parts.rules), " need the token '", token,
       "'; got a vocabulary of ", parts.tokens.size(), " tokens without it [file=", source.vocabulary_file.string(),
       "]");
}

void apply_rules(const Source& source, TokenizerParts& parts) {
  const auto special = [&](std::string_view text, bool strip_left = false) {
    const int32_t id = required(parts, source, text);
    add_special(parts, {std::string(text), id, strip_left, false, false});
    return id;
  };
  switch (parts.rules) {
    case TokenizerRules::kGpt2:
      parts.pad = parts.end = special("<|endoftext|>");
      break;
    case TokenizerRules::kOpt:
      parts.end = special("</s>");
      parts.pad = special("<pad>");
      parts.prefix = {parts.end};
      break;
    case TokenizerRules::kRoberta:
      parts.prefix = {special("<s>")};
      parts.pad = special("<pad>");
      parts.end = special("</s>");
      special("<unk>");
      special("<mask>", true);
      parts.suffix = {parts.end};
      break;
  }
}

void add_configured(const TokenizerConfig& config, TokenizerParts& parts) {
  for (const std::string& text : config.added_tokens) {
    if (text.empty()) fail(ErrorKind::kData, "tokenizer: added tokens must have text; got an empty string");
    int32_t id = -1;
    bool added = false;
    for (size_t i = 0; i < parts.tokens.size() && id < 0; ++i)
      if (parts.tokens[i] == text) id = static_cast<int32_t>(i);
    if (id < 0) {
      id = narrow<int32_t>(parts.tokens.size());
      parts.tokens.push_back(text);
      added = true;
    }
    add_special(parts, {text, id, true, true, added});
  }
}

}  // namespace

Tokenizer Tokenizer::load(const TokenizerConfig& config) {
  const Source source = read_source(config);
  TokenizerParts parts;
  parts.rules = config.rules;
  const auto ids = add_vocabulary(source, parts);
  add_merges(source, ids, parts);
  apply_rules(source, parts);
  add_listed_specials(source, ids, parts);
  add_configured(config, parts);
  try {
    return Tokenizer(std::move(parts));
  } catch (const Error& error) {
    fail(error.kind(), error.what(), " [file=", source.vocabulary_file.string(), "]");
  }
}

}  // namespace permafrost
