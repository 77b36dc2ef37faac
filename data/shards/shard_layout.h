#pragma once
// The contents of one shard, as docs/data.md documents them. Writer and reader meet here.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/datasets/dataset.h"
#include "data/datasets/text_format.h"
#include "data/shards/hdf5_file.h"

namespace permafrost {

inline constexpr int64_t kShardVersion = 1;

/// Texts one behind the other: the i-th is [offsets[i], offsets[i + 1]) of `bytes`.
struct TextColumn {
  std::vector<char> bytes;
  std::vector<uint64_t> offsets{0};

  void add(std::string_view text);
  std::string_view at(size_t i) const { return {bytes.data() + offsets[i], offsets[i + 1] - offsets[i]}; }
};

struct ShardHeader {
  TextTask task = TextTask::kCaptions;
  std::string tokenizer_sha256;  ///< that token ids were made with; empty: there are none
  std::string packed_from;       ///< hash of the dataset and of how it was cut, or of what it was generated from
  int64_t labels_per_image = 0;
  int64_t shard = 0, shards = 1;
};

/// Everything but the bytes of the images.
struct ShardIndex {
  ShardHeader header;
  // Images.
  std::vector<uint64_t> image_offsets{0};
  std::vector<uint32_t> image_crc32c;
  std::vector<uint64_t> image_ids;
  TextColumn image_names, annotations;
  std::vector<int32_t> classes;  ///< [images, labels_per_image]
  // Samples.
  std::vector<uint64_t> sample_ids;
  std::vector<uint32_t> sample_images;
  std::vector<uint64_t> positions;  ///< in the dataset that was packed; empty: the order of the shards
  TextColumn names, captions, questions;
  std::vector<uint64_t> first_answers{0};  ///< of each sample, then the end
  TextColumn answers;
  std::vector<float> answer_scores;
  std::vector<int32_t> token_ids;
  std::vector<uint64_t> piece_offsets{0};  ///< of each sample its prompt, then what may follow it
  std::vector<uint32_t> text_crc32c;       ///< of each sample: see text_record

  int64_t images() const { return static_cast<int64_t>(image_ids.size()); }
  int64_t samples() const { return static_cast<int64_t>(sample_ids.size()); }
  /// The id of a sample as its file wrote it, for messages.
  std::string name_of(size_t sample) const;
  /// Pieces of a sample: 1 + captions 1, or VQA one per answer. 0 when there are no token ids.
  int64_t pieces_of(int64_t sample) const;
  /// First piece of each sample, then the end.
  std::vector<uint64_t> first_pieces() const;
  /// What the checksum of a sample is over: id, image, then name, caption, question, answers and token ids with their
  /// lengths.
  std::string text_record(int64_t sample, uint64_t first_piece) const;

  void write(Hdf5File& file) const;
  /// Reads and checks everything. Errors: kData naming file, dataset and, for texts, the sample: another format or
  /// version, a dataset missing or of another size, offsets out of order, checksums that do not agree.
  static ShardIndex read(const Hdf5File& file);
  /// The header alone.
  static ShardHeader read_header(const Hdf5File& file);
};

/// "shard-00003-of-00012.h5"
std::string shard_file_name(int64_t shard, int64_t shards);

}  // namespace permafrost
