#include "data/shards/shard_dataset.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/check.h"
#include "core/base/crc32c.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

bool is_shard(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with("shard-") && name.ends_with(".h5");
}

/// The shards of a folder in the order of their names, or the one that is named.
std::vector<fs::path> shard_files(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path))
    if (is_shard(entry.path())) files.push_back(entry.path());
  std::ranges::sort(files);
  if (files.empty())
    fail(ErrorKind::kData, "shards: a folder with shard-….h5 is expected; got none there [file=", path.string(), "]");
  return files;
}

}  // namespace

std::unique_ptr<const ShardDataset> ShardDataset::open(const ShardDatasetConfig& config) {
  auto dataset = std::unique_ptr<ShardDataset>(new ShardDataset());
  const std::vector<fs::path> files = shard_files(config.path);
  for (const fs::path& file : files) dataset->add_shard(file, config);
  dataset->check_same_dataset();
  if (fs::is_directory(config.path)) {
    const int64_t shards = dataset->shards_.front().index.header.shards;
    for (int64_t i = 0; i < shards; ++i)
      if (!fs::exists(config.path / shard_file_name(i, shards)))
        fail(ErrorKind::kData, "shards: all ", shards, " shards are expected; got none called ",
             shard_file_name(i, shards), " [file=", config.path.string(), "]");
  }
  dataset->order_samples();
  return dataset;
}

void ShardDataset::add_shard(const fs::path& path, const ShardDatasetConfig& config) {
  Shard shard;
  shard.path = path;
  const Hdf5File file = Hdf5File::open(path);
  const ShardHeader header = ShardIndex::read_header(file);
  if (config.task != TextTask::kClasses) {
    if (header.task != config.task)
      fail(ErrorKind::kData, "shards: shards packed for data.task ", to_string(config.task), " are expected; got ",
           to_string(header.task), " [file=", path.string(), "]");
    if (!header.tokenizer_sha256.empty() && header.tokenizer_sha256 != config.tokenizer_sha256)
      fail(ErrorKind::kData, "shards: texts packed with the tokenizer of this run (SHA-256 ", config.tokenizer_sha256,
           ") are expected; got another one's (", header.tokenizer_sha256,
           "); pack the data again [file=", path.string(), "]");
    packed_texts_ = !header.tokenizer_sha256.empty();
  }
  shard.index = ShardIndex::read(file);
  shard.first_pieces = shard.index.first_pieces();
  if (packed_texts_ && config.vocabulary > 0) check_token_ids(shard, config.vocabulary);
  shard.bytes_begin = file.offset_of("images/bytes");
  shard.file = FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!shard.file)
    fail(ErrorKind::kData, "shards: a readable file is expected; got '", std::strerror(errno),
         "' [file=", path.string(), "]");
  shards_.push_back(std::move(shard));
}

/// Checksums tell damage, not mistakes of whoever wrote the shard, and the model would look an id up anywhere.
void ShardDataset::check_token_ids(const Shard& shard, int64_t vocabulary) {
  const auto& ids = shard.index.token_ids;
  const auto wrong = std::ranges::find_if(ids, [&](int32_t id) { return id < 0 || id >= vocabulary; });
  if (wrong == ids.end()) return;
  const auto at = static_cast<uint64_t>(wrong - ids.begin());
  const auto& pieces = shard.index.piece_offsets;
  const auto piece = static_cast<uint64_t>(std::ranges::upper_bound(pieces, at) - pieces.begin()) - 1;
  const auto sample =
      static_cast<size_t>(std::ranges::upper_bound(shard.first_pieces, piece) - shard.first_pieces.begin()) - 1;
  fail(ErrorKind::kData, "shards: token ids below the ", vocabulary, " of the tokenizer are expected; got ", *wrong,
       " in sample ", shard.index.name_of(sample), " [file=", shard.path.string(), "]");
}

void ShardDataset::check_same_dataset() const {
  const ShardHeader& first = shards_.front().index.header;
  for (const Shard& shard : shards_) {
    const ShardHeader& header = shard.index.header;
    const bool same = header.packed_from == first.packed_from && header.shards == first.shards &&
                      header.tokenizer_sha256 == first.tokenizer_sha256 && header.task == first.task &&
                      header.labels_per_image == first.labels_per_image;
    if (!same || shard.index.positions.empty() != shards_.front().index.positions.empty())
      fail(ErrorKind::kData, "shards: shards of one dataset are expected; got ", shard.path.string(),
           ", which was packed from other data than ", shards_.front().path.string());
  }
}

void ShardDataset::order_samples() {
  labels_per_image_ = shards_.front().index.header.labels_per_image;
  uint64_t running = 0;
  for (size_t s = 0; s < shards_.size(); ++s) {
    const ShardIndex& index = shards_[s].index;
    const auto first_image = static_cast<int64_t>(images_.size());
    for (size_t i = 0; i < index.image_ids.size(); ++i)
      images_.push_back({s, static_cast<int64_t>(index.image_offsets[i]),
                         static_cast<int64_t>(index.image_offsets[i + 1] - index.image_offsets[i]), index.image_ids[i],
                         index.image_crc32c[i], index.image_names.at(i), index.annotations.at(i), -1});
    classes_.insert(classes_.end(), index.classes.begin(), index.classes.end());
    for (int64_t i = 0; i < index.samples(); ++i, ++running) {
      const auto at = static_cast<size_t>(i);
      places_.push_back({index.positions.empty() ? running : index.positions[at], s, i,
                         first_image + static_cast<int64_t>(index.sample_images[at])});
    }
  }
  std::ranges::sort(places_, {}, &Place::position);
  const auto twice = std::ranges::adjacent_find(places_, {}, &Place::position);
  if (twice != places_.end())
    fail(ErrorKind::kData, "shards: each place in the dataset once is expected; got ", twice->position,
         " twice [file=", shards_[twice->shard].path.string(), "]");
  for (const Place& place : places_) {
    const ShardIndex& index = shards_[place.shard].index;
    const auto at = static_cast<size_t>(place.sample);
    std::vector<Answer> answers;
    for (uint64_t a = index.first_answers[at]; a < index.first_answers[at + 1]; ++a)
      answers.push_back({index.answers.at(a), index.answer_scores[a]});
    store_.add({index.sample_ids[at],
                place.image,
                index.captions.at(at),
                index.questions.at(at),
                answers,
                {},
                index.names.at(at)},
               " [file=" + shards_[place.shard].path.string() + "]");
    Image& image = images_[static_cast<size_t>(place.image)];
    if (image.first_sample < 0) image.first_sample = store_.size() - 1;
  }
  if (store_.size() == 0)
    fail(ErrorKind::kData, "shards: at least one sample is expected; got none [file=", shards_.front().path.string(),
         "]");
  if (const auto id = store_.repeated_id())
    fail(ErrorKind::kData, "shards: sample ids must be unique; got id ", *id,
         " twice [file=", shards_.front().path.string(), "]");
  store_.finish();
  for (Shard& shard : shards_) {  // the store has them now
    shard.index.captions = shard.index.questions = shard.index.names = shard.index.answers = {};
    shard.index.text_crc32c = {};
  }
}

const ShardDataset::Image& ShardDataset::at(int64_t image) const {
  PERMAFROST_CHECK(image >= 0 && image < images(), "dataset: image must lie in 0..", images() - 1, "; got ", image);
  return images_[static_cast<size_t>(image)];
}

Sample ShardDataset::sample(int64_t index) const {
  Sample sample = store_.sample(index);
  const auto labels = static_cast<size_t>(labels_per_image_);
  sample.classes = std::span(classes_).subspan(static_cast<size_t>(sample.image) * labels, labels);
  return sample;
}

std::string ShardDataset::image_name(int64_t image) const {
  return concat(at(image).name, " in ", shards_[at(image).shard].path.string());
}

void ShardDataset::read_image(int64_t image, std::vector<uint8_t>& bytes) const {
  const Image& from = at(image);
  const Shard& shard = shards_[from.shard];
  const auto refuse = [&](const auto&... got) {
    fail(ErrorKind::kData, "shards: an image whose checksum (crc32c) agrees is expected; got ", got..., " in image ",
         from.id, " (", from.name, ")",
         from.first_sample < 0 ? "" : " of sample " + sample_name(store_.sample(from.first_sample)),
         " [file=", shard.path.string(), "]");
  };
  bytes.resize(static_cast<size_t>(from.bytes));
  int64_t filled = 0;
  while (filled < from.bytes) {
    const ssize_t got = ::pread(shard.file.get(), bytes.data() + filled, static_cast<size_t>(from.bytes - filled),
                                shard.bytes_begin + from.offset + filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse("'", std::strerror(errno), "'");
    if (got == 0) refuse("the end of the file");
    filled += got;
  }
  if (crc32c({reinterpret_cast<const char*>(bytes.data()), bytes.size()}) != from.crc32c) refuse("damaged bytes");
}

std::optional<TextPieces> ShardDataset::packed_text(int64_t index) const {
  if (!packed_texts_) return std::nullopt;
  PERMAFROST_CHECK(index >= 0 && index < size(), "dataset: index must lie in 0..", size() - 1, "; got ", index);
  const Place& place = places_[static_cast<size_t>(index)];
  const Shard& shard = shards_[place.shard];
  const auto at = static_cast<size_t>(place.sample);
  const auto piece = [&](uint64_t number) {
    const auto begin = shard.index.token_ids.begin();
    return std::vector<int32_t>(begin + static_cast<std::ptrdiff_t>(shard.index.piece_offsets[number]),
                                begin + static_cast<std::ptrdiff_t>(shard.index.piece_offsets[number + 1]));
  };
  TextPieces pieces;
  pieces.prompt = piece(shard.first_pieces[at]);
  for (uint64_t p = shard.first_pieces[at] + 1; p < shard.first_pieces[at + 1]; ++p) pieces.rest.push_back(piece(p));
  if (shard.index.header.task == TextTask::kCaptions)
    pieces.scores.push_back(1);
  else
    for (const Answer& answer : store_.sample(index).answers) pieces.scores.push_back(answer.score);
  return pieces;
}

}  // namespace permafrost
