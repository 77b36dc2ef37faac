#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace permafrost {

/// One answer that counts as right, with its share of being right.
struct Answer {
  std::string_view text;
  float score = 1;  ///< above 0; VQAv2's soft scores are 0.3, 0.6, 0.9 and 1
};

/// One training example. The views live as long as the dataset.
struct Sample {
  uint64_t id = 0;  ///< never changes: it addresses the random numbers of the sample; distinct within a dataset
  int64_t image = 0;
  std::string_view caption;          ///< empty in VQA
  std::string_view question;         ///< empty in captioning
  std::span<const Answer> answers;   ///< to the question; empty where the file has none
  std::span<const int32_t> classes;  ///< of its image: labels_per_image() of them
  std::string_view name;             ///< the id as the file writes it where that is a text; empty for a number
};

/// The id as the file writes it, for messages and result files.
std::string sample_name(const Sample& sample);

/// Token ids of one sample: what generation starts from, and what may follow it (one per answer; one for a caption).
struct TextPieces {
  std::vector<int32_t> prompt;
  std::vector<std::vector<int32_t>> rest;
  std::vector<float> scores;  ///< of each entry of `rest`, above 0
};

/// One of several datasets joined in a mix: samples [begin, begin + count) of the whole.
struct MixPart {
  int64_t begin = 0, count = 0;
  double weight = 1;
};

/// Images and what is said about them. Immutable once made; every method may be called from several threads.
/// Indices are checked: kInvalidArgument.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual int64_t size() const = 0;
  virtual Sample sample(int64_t index) const = 0;

  virtual int64_t images() const = 0;
  /// The image's number in the dataset it comes from (COCO id), for result files.
  virtual uint64_t image_id(int64_t image) const = 0;
  /// For messages: where the image is.
  virtual std::string image_name(int64_t image) const = 0;
  /// The same without where the dataset lies: equal on all machines.
  virtual std::string short_image_name(int64_t image) const { return image_name(image); }
  /// The encoded image (JPEG or PNG); the capacity of `bytes` is kept. Errors: kData naming the image.
  virtual void read_image(int64_t image, std::vector<uint8_t>& bytes) const = 0;
  /// Bytes that read_image would give. Errors: kData naming the image.
  virtual int64_t image_bytes(int64_t image) const = 0;

  /// Class labels of every image; 0 when there are none.
  virtual int64_t labels_per_image() const { return 0; }
  /// Further facts about an image as JSON, "" when there are none.
  virtual std::string annotations(int64_t) const { return {}; }
  /// Token ids that were made when the dataset was packed; none where texts still have to be encoded.
  virtual std::optional<TextPieces> packed_text(int64_t) const { return std::nullopt; }
  /// The datasets of a mix; empty for one dataset by itself.
  virtual std::vector<MixPart> parts() const { return {}; }
};

}  // namespace permafrost
