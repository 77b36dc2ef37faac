#include "data/tokenizer/train_byte_pair.h"

#include <algorithm>
#include <array>

#include "core/base/json.h"
#include "core/weights/atomic_file.h"
#include "data/files/make_folder.h"
#include "data/tokenizer/unicode.h"

namespace permafrost {

namespace {

struct TrainedPiece {
  std::vector<std::string> symbols;
  int64_t count = 0;
};

std::map<BytePairTrainer::Merge, int64_t> count_pairs(const std::vector<TrainedPiece>& pieces) {
  std::map<BytePairTrainer::Merge, int64_t> counts;
  for (const TrainedPiece& piece : pieces)
    for (size_t i = 0; i + 1 < piece.symbols.size(); ++i)
      counts[{piece.symbols[i], piece.symbols[i + 1]}] += piece.count;
  return counts;
}

/// From left to right, without overlaps.
void merge_pair(const BytePairTrainer::Merge& pair, std::vector<std::string>& symbols) {
  std::vector<std::string> merged;
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (i + 1 < symbols.size() && symbols[i] == pair.first && symbols[i + 1] == pair.second) {
      merged.push_back(pair.first + pair.second);
      ++i;
    } else {
      merged.push_back(symbols[i]);
    }
  }
  symbols = std::move(merged);
}

/// The character of each byte, in UTF-8.
std::array<std::string, 256> characters_of_bytes() {
  const auto code_points = gpt2_characters();
  std::array<std::string, 256> characters;
  for (size_t byte = 0; byte < 256; ++byte) append_utf8(characters[byte], code_points[byte]);
  return characters;
}

}  // namespace

void BytePairTrainer::add(std::string_view text) {
  pre_tokenizer_.split(text, [this](std::string_view piece) {
    const auto found = pieces_.find(piece);
    if (found != pieces_.end())
      ++found->second;
    else
      pieces_.emplace(piece, 1);
  });
}

std::vector<BytePairTrainer::Merge> BytePairTrainer::train(size_t max_merges) const {
  std::vector<TrainedPiece> pieces;
  for (const auto& [text, count] : pieces_) {
    TrainedPiece piece{{}, count};
    for (char byte : text) piece.symbols.emplace_back(1, byte);
    pieces.push_back(std::move(piece));
  }
  std::vector<Merge> merges;
  while (merges.size() < max_merges) {
    const auto counts = count_pairs(pieces);
    if (counts.empty()) break;
    // max_element takes the first of equals, and the map is in the order of the bytes.
    const Merge best = std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; })->first;
    for (TrainedPiece& piece : pieces) merge_pair(best, piece.symbols);
    merges.push_back(best);
  }
  return merges;
}

std::vector<std::string> opt_special_tokens() { return {"<s>", "<pad>", "</s>", "<unk>"}; }

void write_byte_pair_files(const std::filesystem::path& folder, const std::vector<std::string>& special_tokens,
                           const std::vector<BytePairTrainer::Merge>& merges) {
  make_folder(folder, "tokenizer");
  const auto characters = characters_of_bytes();
  const auto written = [&](std::string_view bytes) {
    std::string text;
    for (char byte : bytes) text += characters[static_cast<unsigned char>(byte)];
    return text;
  };
  OrderedJson vocabulary;
  int id = 0;
  for (const std::string& token : special_tokens) vocabulary[token] = id++;
  for (const std::string& character : characters) vocabulary[character] = id++;
  std::string lines = "#version: 0.2\n";
  for (const auto& [left, right] : merges) {
    const std::string token = written(left + right);
    if (!vocabulary.contains(token)) vocabulary[token] = id++;  // two merges may make the same
    lines += written(left) + " " + written(right) + "\n";
  }
  write_file_atomically((folder / "vocab.json").string(), json_text(vocabulary, 1) + "\n");
  write_file_atomically((folder / "merges.txt").string(), lines);
}

}  // namespace permafrost
