#include "data/shards/shard_writer.h"

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/narrow.h"
#include "data/datasets/sample_id.h"

namespace permafrost {

ShardWriter::ShardWriter(ShardWriterConfig config) : config_(std::move(config)) {
  index_.header.task = config_.task;
  if (config_.tokenizer && config_.task != TextTask::kClasses)
    index_.header.tokenizer_sha256 = config_.tokenizer->hash();
  index_.header.packed_from = config_.packed_from;
  index_.header.labels_per_image = config_.labels_per_image;
  index_.header.shard = config_.shard;
  index_.header.shards = config_.shards;
}

int64_t ShardWriter::add_image(const ShardImage& image) {
  PERMAFROST_CHECK(std::ssize(image.classes) == config_.labels_per_image, "shard: ", config_.labels_per_image,
                   " classes per image are expected; got ", image.classes.size());
  image_bytes_.insert(image_bytes_.end(), image.bytes.begin(), image.bytes.end());
  index_.image_offsets.push_back(image_bytes_.size());
  index_.image_crc32c.push_back(crc32c({reinterpret_cast<const char*>(image.bytes.data()), image.bytes.size()}));
  index_.image_ids.push_back(image.id);
  index_.image_names.add(image.name);
  index_.annotations.add(image.annotations);
  index_.classes.insert(index_.classes.end(), image.classes.begin(), image.classes.end());
  return index_.images() - 1;
}

void ShardWriter::add_sample(const Sample& sample, int64_t position) {
  PERMAFROST_CHECK(sample.image >= 0 && sample.image < index_.images(), "shard: an image below ", index_.images(),
                   " is expected; got ", sample.image);
  PERMAFROST_CHECK(sample.id >> kSampleIdBits == 0, "shard: sample ids below 2^", kSampleIdBits, " are expected; got ",
                   sample.id);
  PERMAFROST_CHECK(index_.samples() == 0 || (position >= 0) == !index_.positions.empty(),
                   "shard: positions of all samples or of none are expected; got both");
  for (const Answer& answer : sample.answers)
    PERMAFROST_CHECK(answer.score > 0, "shard: scores above 0 are expected; got ", answer.score);
  index_.sample_ids.push_back(sample.id);
  index_.sample_images.push_back(narrow<uint32_t>(sample.image));
  if (position >= 0) index_.positions.push_back(static_cast<uint64_t>(position));
  index_.names.add(sample.name);
  index_.captions.add(sample.caption);
  index_.questions.add(sample.question);
  for (const Answer& answer : sample.answers) {
    index_.answers.add(answer.text);
    index_.answer_scores.push_back(answer.score);
  }
  index_.first_answers.push_back(index_.answer_scores.size());
  const uint64_t first_piece = index_.piece_offsets.size() - 1;
  if (!index_.header.tokenizer_sha256.empty()) {
    const auto add = [&](const std::vector<int32_t>& ids) {
      index_.token_ids.insert(index_.token_ids.end(), ids.begin(), ids.end());
      index_.piece_offsets.push_back(index_.token_ids.size());
    };
    const TextPieces pieces = text_pieces(*config_.tokenizer, config_.task, sample);
    add(pieces.prompt);
    for (const auto& rest : pieces.rest) add(rest);
  }
  index_.text_crc32c.push_back(crc32c(index_.text_record(index_.samples() - 1, first_piece)));
}

std::filesystem::path ShardWriter::path() const {
  return config_.folder / shard_file_name(config_.shard, config_.shards);
}

void ShardWriter::finish() {
  Hdf5File file = Hdf5File::create(path());
  index_.write(file);
  file.write("images/bytes", std::span<const uint8_t>(image_bytes_));
  std::vector<uint8_t>().swap(image_bytes_);  // the file has them
  file.commit();
}

}  // namespace permafrost
