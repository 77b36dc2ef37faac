// The demo data as HDF5 shards.
#include <optional>

#include "core/base/narrow.h"
#include "data/demo/generate.h"
#include "data/files/make_folder.h"
#include "data/shards/shard_writer.h"

namespace permafrost {

namespace {

/// Cuts a split into shards of kDemoSamplesPerShard and hands each sample to the class below.
class ShardSink : public DemoSink {
 public:
  ShardSink(ShardWriterConfig config, int64_t count) : config_(std::move(config)), left_(count) {
    config_.shards = div_up(count, kDemoSamplesPerShard);
    make_folder(config_.folder, "data demo");
  }

  void add(const DemoSample& sample) final {
    if (!writer_) start();
    write(sample, *writer_);
    --left_;
    if (++in_shard_ == kDemoSamplesPerShard || left_ == 0) {
      writer_->finish();
      writer_.reset();
      ++config_.shard;
    }
  }
  void finish() override {}

 protected:
  virtual void write(const DemoSample& sample, ShardWriter& writer) = 0;
  virtual void begin(ShardWriter&) {}

 private:
  void start() {
    writer_.emplace(config_);
    in_shard_ = 0;
    begin(*writer_);
  }

  ShardWriterConfig config_;
  std::optional<ShardWriter> writer_;
  int64_t left_ = 0, in_shard_ = 0;
};

int64_t add_demo_image(const DemoSample& sample, ShardWriter& writer) {
  const std::string name = std::to_string(sample.id) + ".png";
  return writer.add_image({static_cast<uint64_t>(sample.id), name, sample.png, sample.annotation, sample.labels});
}

/// Images with labels; with their captions too unless the task is kClasses.
class ImageSink : public ShardSink {
 public:
  ImageSink(const ShardWriterConfig& config, int64_t count)
      : ShardSink(config, count), with_caption_(config.task == TextTask::kCaptions) {}

 private:
  void write(const DemoSample& sample, ShardWriter& writer) override {
    Sample stored;
    stored.id = static_cast<uint64_t>(sample.id);
    stored.image = add_demo_image(sample, writer);
    if (with_caption_) stored.caption = sample.text;
    writer.add_sample(stored);
  }

  bool with_caption_;
};

/// The same images, a sample for each question.
class QuestionSink : public ShardSink {
 public:
  using ShardSink::ShardSink;

 private:
  void write(const DemoSample& sample, ShardWriter& writer) override {
    const int64_t image = add_demo_image(sample, writer);
    for (size_t i = 0; i < sample.questions.size(); ++i) {
      const Answer answer{sample.questions[i].answer, 1};
      Sample stored;
      stored.id = static_cast<uint64_t>(sample.id) * kQuestionsPerScene + i;
      stored.image = image;
      stored.question = sample.questions[i].question;
      stored.answers = {&answer, 1};
      writer.add_sample(stored);
    }
  }
};

/// Texts belong to one image of no bytes, which nobody reads.
class TextShardSink : public ShardSink {
 public:
  using ShardSink::ShardSink;

 private:
  void begin(ShardWriter& writer) override { writer.add_image({0, "none", {}, {}, {}}); }
  void write(const DemoSample& sample, ShardWriter& writer) override {
    Sample stored;
    stored.id = static_cast<uint64_t>(sample.id);
    stored.caption = sample.text;
    writer.add_sample(stored);
  }
};

}  // namespace

std::unique_ptr<DemoSink> make_shard_sink(const std::filesystem::path& folder, SceneSplit split, int64_t count,
                                          const std::string& made_from) {
  ShardWriterConfig config;
  config.folder = folder;
  config.packed_from = made_from;
  if (split == SceneSplit::kText) return std::make_unique<TextShardSink>(config, count);
  config.labels_per_image = kSceneLabels;
  if (split == SceneSplit::kPretrain) config.task = TextTask::kClasses;
  return std::make_unique<ImageSink>(config, count);
}

std::unique_ptr<DemoSink> make_question_sink(const std::filesystem::path& folder, int64_t count,
                                             const std::string& made_from) {
  ShardWriterConfig config;
  config.folder = folder;
  config.packed_from = made_from;
  config.task = TextTask::kVqa;
  config.labels_per_image = kSceneLabels;
  return std::make_unique<QuestionSink>(config, count);
}

}  // namespace permafrost
