#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/device/thread_pool.h"
#include "data/demo/annotation.h"

namespace permafrost {

/// Raised whenever the same options would give other images or texts.
inline constexpr int kDemoVersion = 2;

enum class DemoFormat : uint8_t {
  kShards,  ///< HDF5 shards, as `permafrost data pack` writes them
  kCoco,    ///< images/ and captions.json per split, for programs that read COCO
};

struct DemoOptions {
  uint64_t seed = 42;
  /// Samples of each split, 0 to kMaxSamplesPerSplit; 0 leaves it out.
  int64_t pretrain = 40000, text = 40000, train = 20000, val = 500, test = 1000;
  DemoFormat format = DemoFormat::kShards;
  /// Writes train, val and test a second time, as train_questions and so on, with their questions instead of captions.
  /// With kShards only.
  bool questions = false;
};
int64_t count_of(const DemoOptions& options, SceneSplit split);

/// One sample of a split as it is stored. Those of `text` have neither image nor labels nor questions.
struct DemoSample {
  int64_t id = 0;
  std::vector<uint8_t> png;
  std::string text;        ///< the caption; in `text` whatever the language model is to read
  std::string annotation;  ///< one line of JSON
  std::vector<SceneQuestion> questions;
  std::array<int32_t, kSceneLabels> labels{};
};

/// A pure function of (seed, split, index). `drawn` is working memory.
DemoSample make_demo_sample(uint64_t seed, SceneSplit split, int64_t index, DrawnScene& drawn);

/// Where the samples of one split go, in order.
class DemoSink {
 public:
  virtual ~DemoSink() = default;
  virtual void add(const DemoSample& sample) = 0;
  virtual void finish() = 0;
};
/// Writes `folder`/images/ID.png and captions.json; for `text` only texts.jsonl, a text as a JSON string in each line.
/// Errors: kStorage.
std::unique_ptr<DemoSink> make_coco_sink(const std::filesystem::path& folder, SceneSplit split);
/// Writes shards of kDemoSamplesPerShard. Images have labels and annotations; captions too, but in `pretrain`. `text`
/// has captions of one image without bytes. `made_from` tells shards of other options apart. Errors: kStorage.
std::unique_ptr<DemoSink> make_shard_sink(const std::filesystem::path& folder, SceneSplit split, int64_t count,
                                          const std::string& made_from);
/// The same with a sample per question, whose id is kQuestionsPerScene * the image's + its number.
std::unique_ptr<DemoSink> make_question_sink(const std::filesystem::path& folder, int64_t count,
                                             const std::string& made_from);
inline constexpr int64_t kDemoSamplesPerShard = 20000;

/// Merges that make a token of every word of every caption, note, question and answer, with and without a space before
/// it as it occurs. Independent of seed and counts.
void write_demo_tokenizer(const std::filesystem::path& folder);

enum class DemoOutcome : uint8_t { kWritten, kWasComplete };

/// Writes tokenizer/, one folder per split, annotations/SPLIT.jsonl (annotation_of, one image a line) and at last
/// dataset.json, which says what is there; it is what makes the folder complete. A folder that is complete with the
/// same options is left alone; what an interrupted run left (dataset.unfinished says so) is written anew. Same options,
/// same pixels and texts, on any number of threads. Errors: kConfig for counts out of range, for a folder that is
/// complete with other options, and for one in which something else has one of these names; kStorage.
DemoOutcome generate_demo(const std::filesystem::path& folder, const DemoOptions& options, ThreadPool& pool);

}  // namespace permafrost
