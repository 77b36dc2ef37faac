#include "data/shards/pack.h"

#include <algorithm>
#include <numeric>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "data/shards/shard_writer.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

/// Texts and numbers with their lengths, so that different lists never give the same bytes.
class ListHash {
 public:
  void number(uint64_t value) { hash_.update(&value, sizeof value); }
  void text(std::string_view text) {
    number(text.size());
    hash_.update(text.data(), text.size());
  }
  std::string finish() { return hash_.finish(); }

 private:
  Sha256 hash_;
};

std::string hash_of(const Dataset& dataset, const PackPlan& plan) {
  ListHash hash;
  hash.number(kShardVersion);
  hash.text(to_string(plan.task));
  hash.text(plan.tokenizer ? plan.tokenizer->hash() : "");
  hash.number(static_cast<uint64_t>(dataset.labels_per_image()));
  for (size_t begin : plan.shard_begin) hash.number(begin);
  for (int64_t image : plan.images) {
    hash.number(dataset.image_id(image));
    hash.text(dataset.short_image_name(image));
    hash.number(static_cast<uint64_t>(dataset.image_bytes(image)));
    hash.text(dataset.annotations(image));
  }
  for (int64_t index : plan.samples) {
    const Sample sample = dataset.sample(index);
    hash.number(static_cast<uint64_t>(index));
    hash.number(sample.id);
    hash.number(static_cast<uint64_t>(sample.image));
    for (std::string_view text : {sample.name, sample.caption, sample.question}) hash.text(text);
    hash.number(sample.answers.size());
    for (const Answer& answer : sample.answers) {
      hash.text(answer.text);
      hash.text({reinterpret_cast<const char*>(&answer.score), sizeof answer.score});
    }
    for (int32_t label : sample.classes) hash.number(static_cast<uint64_t>(label));
  }
  return hash.finish();
}

fs::path shard_path(const PackPlan& plan, int64_t shard, const fs::path& folder) {
  return folder / shard_file_name(shard, plan.shards());
}

/// `path` must be a complete shard of the plan. Errors: kConfig when it is one of something else.
void require_of_plan(const PackPlan& plan, const fs::path& path) {
  const ShardHeader header = ShardIndex::read_header(Hdf5File::open(path));
  if (header.packed_from != plan.packed_from)
    fail(ErrorKind::kConfig, "data pack: a folder that is new or was packed from the same data, tokenizer and size of ",
         "shards (SHA-256 ", plan.packed_from, ") is expected; got ", path.string(), ", packed from ",
         header.packed_from.empty() ? "something else" : header.packed_from);
}

}  // namespace

PackPlan plan_pack(const Dataset& dataset, TextTask task, const Tokenizer* tokenizer, int64_t shard_bytes) {
  PERMAFROST_CHECK(shard_bytes >= 1, "pack: at least 1 byte per shard is expected; got ", shard_bytes);
  PackPlan plan;
  plan.task = task;
  plan.tokenizer = task == TextTask::kClasses ? nullptr : tokenizer;
  std::vector<int64_t> image_of(static_cast<size_t>(dataset.size()));
  for (int64_t i = 0; i < dataset.size(); ++i) image_of[static_cast<size_t>(i)] = dataset.sample(i).image;
  plan.samples.resize(image_of.size());
  std::iota(plan.samples.begin(), plan.samples.end(), int64_t{0});
  std::ranges::stable_sort(plan.samples, {}, [&](int64_t i) { return image_of[static_cast<size_t>(i)]; });
  int64_t in_shard = 0;
  for (size_t s = 0; s < plan.samples.size(); ++s) {
    const int64_t image = image_of[static_cast<size_t>(plan.samples[s])];
    if (!plan.images.empty() && plan.images.back() == image) continue;
    const int64_t bytes = dataset.image_bytes(image);
    if (plan.images.empty() || in_shard + bytes > shard_bytes) {
      plan.shard_begin.push_back(plan.images.size());
      in_shard = 0;
    }
    in_shard += bytes;
    plan.image_bytes += bytes;
    plan.images.push_back(image);
    plan.first_sample.push_back(s);
  }
  plan.shard_begin.push_back(plan.images.size());
  plan.first_sample.push_back(plan.samples.size());
  plan.packed_from = hash_of(dataset, plan);
  return plan;
}

void prepare_pack_folder(const PackPlan& plan, const fs::path& folder) {
  if (!fs::exists(folder)) return;
  std::vector<fs::path> left_behind;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".h5") require_of_plan(plan, entry.path());
    if (name.starts_with("shard-") && name.find(".h5.tmp-") != std::string::npos) left_behind.push_back(entry.path());
  }
  std::error_code ignored;
  for (const fs::path& path : left_behind) fs::remove(path, ignored);
}

bool pack_shard(const Dataset& dataset, const PackPlan& plan, int64_t shard, const fs::path& folder) {
  const fs::path path = shard_path(plan, shard, folder);
  if (fs::exists(path)) {
    require_of_plan(plan, path);
    return false;
  }
  ShardWriter writer(
      {folder, plan.task, plan.tokenizer, dataset.labels_per_image(), shard, plan.shards(), plan.packed_from});
  std::vector<uint8_t> bytes;
  const auto at = static_cast<size_t>(shard);
  for (size_t i = plan.shard_begin[at]; i < plan.shard_begin[at + 1]; ++i) {
    const int64_t image = plan.images[i];
    dataset.read_image(image, bytes);
    const std::string name = dataset.short_image_name(image), annotations = dataset.annotations(image);
    const Sample first = dataset.sample(plan.samples[plan.first_sample[i]]);
    const int64_t packed = writer.add_image({dataset.image_id(image), name, bytes, annotations, first.classes});
    for (size_t s = plan.first_sample[i]; s < plan.first_sample[i + 1]; ++s) {
      Sample sample = dataset.sample(plan.samples[s]);
      sample.image = packed;
      writer.add_sample(sample, plan.samples[s]);
    }
  }
  writer.finish();
  return true;
}

}  // namespace permafrost
