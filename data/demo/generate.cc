#include "data/demo/generate.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/narrow.h"
#include "core/base/sha256.h"
#include "core/weights/atomic_file.h"
#include "data/demo/notes.h"
#include "data/files/make_folder.h"
#include "data/files/read_file.h"
#include "data/images/encode.h"
#include "data/tokenizer/train_byte_pair.h"

namespace permafrost {

namespace {

namespace fs = std::filesystem;

constexpr uint32_t kQuestionLayer = 2, kTextLayer = 3;  // of a sample's random numbers; scene.cc has 0 and 1
constexpr int64_t kSamplesInMemory = 4096;              // made in threads, then stored in order
constexpr int64_t kSamplesPerBlock = 32;                // of one thread at a time
constexpr size_t kMaxMerges = 1024;                     // more than all words have letters
constexpr const char* kDescriptionName = "dataset.json";
constexpr const char* kUnfinishedName = "dataset.unfinished";  // there from the first change to the last

OrderedJson names_of(const auto& table, const auto& name) {
  OrderedJson names = OrderedJson::array();
  for (const auto& entry : table) names.push_back(name(entry));
  return names;
}

/// What decides every byte of images and texts.
OrderedJson parameters_of(const DemoOptions& options) {
  OrderedJson counts;
  for (SceneSplit split : kSceneSplits) counts[std::string(to_string(split))] = count_of(options, split);
  return {{"version", kDemoVersion},
          {"seed", options.seed},
          {"counts", counts},
          {"questions", options.questions},
          {"format", options.format == DemoFormat::kShards ? "shards" : "coco"}};
}

OrderedJson describe(const DemoOptions& options, const OrderedJson& files) {
  OrderedJson heads = OrderedJson::array();
  for (const SceneLabelHead& head : scene_label_heads())
    heads.push_back({{"name", head.name}, {"classes", head.classes}});
  const auto same = [](std::string_view name) { return name; };
  return {{"generator", "permafrost data demo"},
          {"parameters", parameters_of(options)},
          {"image_size", kSceneSize},
          {"shapes", names_of(kSceneShapes, same)},
          {"colors", names_of(kSceneColors, [](const SceneColor& color) { return color.name; })},
          {"relations", names_of(kRelationNames, same)},
          {"labels", heads},
          {"held_out", concat("first byte of SHA-256(caption) < ", kHeldOutBelow)},
          {"files", files}};
}

void remove_old(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail(ErrorKind::kStorage, "data demo: cannot remove ", path.string(), ": ", error.message());
}

std::string questions_name(SceneSplit split) { return std::string(to_string(split)) + "_questions"; }

/// The folders in which a run writes, whatever its options.
std::vector<std::string> own_names() {
  std::vector<std::string> names = {"tokenizer", "annotations"};
  for (SceneSplit split : kSceneSplits)
    names.insert(names.end(), {std::string(to_string(split)), questions_name(split)});
  return names;
}

/// Names below our folders and sizes, in order of the names.
OrderedJson list_files(const fs::path& folder) {
  std::vector<std::pair<std::string, uintmax_t>> found;
  for (const std::string& name : own_names()) {
    if (!fs::is_directory(folder / name)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(folder / name))
      if (entry.is_regular_file())
        found.emplace_back(fs::relative(entry.path(), folder).generic_string(), entry.file_size());
  }
  std::ranges::sort(found);
  OrderedJson files;
  for (const auto& [name, bytes] : found) files[name] = bytes;
  return files;
}

/// True when the folder is complete; throws when it holds another dataset.
bool is_complete(const fs::path& folder, const DemoOptions& options) {
  const fs::path path = folder / kDescriptionName;
  if (!fs::exists(path)) return false;
  const Json found = try_parse_json(read_text_file(path));
  const Json wanted = parse_json(json_text(parameters_of(options)));
  if (!found.is_object() || !found.contains("parameters") || found["parameters"] != wanted)
    fail(ErrorKind::kConfig, "data demo: a folder without a dataset, or with that of ", json_text(wanted),
         ", is expected; got ",
         found.is_object() && found.contains("parameters") ? json_text(found["parameters"])
                                                           : "no dataset of this program",
         " [file=", path.string(), "]");
  if (!found.contains("files") || !found["files"].is_object()) return false;
  for (const auto& [name, bytes] : found["files"].items()) {
    std::error_code error;
    const uintmax_t size = fs::file_size(folder / name, error);
    if (error || Json(size) != bytes) return false;
  }
  return true;
}

/// Throws when something that would be removed or overwritten was not written by a run of this program.
void require_own(const fs::path& folder) {
  if (fs::exists(folder / kDescriptionName) || fs::exists(folder / kUnfinishedName)) return;
  for (const std::string& name : own_names())
    if (fs::exists(fs::symlink_status(folder / name)))
      fail(ErrorKind::kConfig,
           "data demo: a folder that is new, or that an earlier run wrote, is expected; got one with '", name,
           "' of something else [file=", (folder / name).string(), "]");
}

class AnnotationFile {
 public:
  explicit AnnotationFile(const fs::path& path) : file_(path.string()) {}
  void add(const DemoSample& sample) {
    const std::string line = sample.annotation + "\n";
    file_.write(line.data(), line.size());
  }
  void finish() { file_.commit(); }

 private:
  AtomicFile file_;
};

/// One or two: what the samples of a split are written to.
std::vector<std::unique_ptr<DemoSink>> make_sinks(const fs::path& folder, const DemoOptions& options,
                                                  SceneSplit split) {
  std::vector<std::unique_ptr<DemoSink>> sinks;
  const fs::path to = folder / to_string(split);
  if (options.format == DemoFormat::kCoco) {
    sinks.push_back(make_coco_sink(to, split));
    return sinks;
  }
  const std::string parameters = json_text(parameters_of(options)),
                    made_from = sha256(parameters.data(), parameters.size());
  const int64_t count = count_of(options, split);
  sinks.push_back(make_shard_sink(to, split, count, made_from));
  if (options.questions && split != SceneSplit::kPretrain && split != SceneSplit::kText)
    sinks.push_back(make_question_sink(folder / questions_name(split), count, made_from));
  return sinks;
}

void write_split(const fs::path& folder, const DemoOptions& options, SceneSplit split, ThreadPool& pool) {
  const int64_t count = count_of(options, split);
  const fs::path annotations_path = folder / "annotations" / (std::string(to_string(split)) + ".jsonl");
  for (const fs::path& old : {folder / to_string(split), folder / questions_name(split), annotations_path})
    remove_old(old);  // what an interrupted run left
  if (count == 0) return;
  const auto sinks = make_sinks(folder, options, split);
  std::unique_ptr<AnnotationFile> annotations;
  if (split != SceneSplit::kText) annotations = std::make_unique<AnnotationFile>(annotations_path);
  std::vector<DemoSample> samples(static_cast<size_t>(std::min(count, kSamplesInMemory)));
  std::vector<DrawnScene> drawn(static_cast<size_t>(pool.threads()));
  for (int64_t first = 0; first < count; first += kSamplesInMemory) {
    const int64_t here = std::min(kSamplesInMemory, count - first);
    pool.run(div_up(here, kSamplesPerBlock), [&](int64_t block, int thread) {
      for (int64_t i = block * kSamplesPerBlock; i < std::min(here, (block + 1) * kSamplesPerBlock); ++i)
        samples[static_cast<size_t>(i)] =
            make_demo_sample(options.seed, split, first + i, drawn[static_cast<size_t>(thread)]);
    });
    for (int64_t i = 0; i < here; ++i) {
      const DemoSample& sample = samples[static_cast<size_t>(i)];
      for (const auto& sink : sinks) sink->add(sample);
      if (annotations) annotations->add(sample);
    }
  }
  for (const auto& sink : sinks) sink->finish();
  if (annotations) annotations->finish();
}

}  // namespace

int64_t count_of(const DemoOptions& options, SceneSplit split) {
  switch (split) {
    case SceneSplit::kPretrain:
      return options.pretrain;
    case SceneSplit::kText:
      return options.text;
    case SceneSplit::kTrain:
      return options.train;
    case SceneSplit::kVal:
      return options.val;
    case SceneSplit::kTest:
      return options.test;
  }
  return 0;
}

DemoSample make_demo_sample(uint64_t seed, SceneSplit split, int64_t index, DrawnScene& drawn) {
  const Scene scene = sample_scene(seed, split, index);
  DemoSample sample;
  sample.id = scene.id;
  const auto random_of = [&](uint32_t layer) {
    return Random(seed, RandomPurpose::kSynthetic, static_cast<uint32_t>(split), static_cast<uint64_t>(index), layer);
  };
  if (split == SceneSplit::kText) {
    Random random = random_of(kTextLayer);
    sample.text = text_of(scene, random);
    return sample;
  }
  draw_scene(scene, drawn);
  Random random = random_of(kQuestionLayer);
  sample.png = encode_png(drawn.image.view(), PngEffort::kFast);
  sample.text = caption_of(scene.content);
  sample.questions = choose_questions(scene.content, random);
  sample.labels = labels_of(scene);
  sample.annotation = annotation_of(scene, drawn, sample.questions);
  return sample;
}

void write_demo_tokenizer(const fs::path& folder) {
  BytePairTrainer trainer;
  for_each_caption([&](const std::string& caption) { trainer.add(caption); });
  for_each_question_and_answer([&](const SceneQuestion& entry) {
    trainer.add(entry.question + "?");  // as it stands before an answer
    trainer.add(entry.question);
    trainer.add(entry.answer);
    trainer.add(" " + entry.answer);
  });
  for_each_note([&](const std::string& note) { trainer.add(note); });
  write_byte_pair_files(folder, opt_special_tokens(), trainer.train(kMaxMerges));
}

DemoOutcome generate_demo(const fs::path& folder, const DemoOptions& options, ThreadPool& pool) {
  for (SceneSplit split : kSceneSplits)
    if (count_of(options, split) < 0 || count_of(options, split) > kMaxSamplesPerSplit)
      fail(ErrorKind::kConfig, "data demo: 0 to ", kMaxSamplesPerSplit, " samples are expected; got ",
           count_of(options, split), " [param=", to_string(split), "]");
  if (options.questions && options.format != DemoFormat::kShards)
    fail(ErrorKind::kConfig, "data demo: questions in shards are expected; got another format [param=questions]");
  if (is_complete(folder, options)) return DemoOutcome::kWasComplete;
  require_own(folder);
  make_folder(folder, "data demo");
  write_file_atomically((folder / kUnfinishedName).string(), "");
  remove_old(folder / kDescriptionName);  // from here on the folder is incomplete
  make_folder(folder / "annotations", "data demo");
  write_demo_tokenizer(folder / "tokenizer");
  for (SceneSplit split : kSceneSplits) write_split(folder, options, split, pool);
  write_file_atomically((folder / kDescriptionName).string(),
                        json_text(describe(options, list_files(folder)), 1) + "\n");
  remove_old(folder / kUnfinishedName);
  return DemoOutcome::kWritten;
}

}  // namespace permafrost
