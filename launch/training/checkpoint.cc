#include "launch/training/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/weights/safetensors.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "permafrost.checkpoint.1";
constexpr int64_t kChunk = int64_t{4} << 20;

std::string step_name(int64_t step) {
  char text[32];
  std::snprintf(text, sizeof text, "step-%08lld", static_cast<long long>(step));
  return text;
}

[[noreturn]] void storage_error(const std::string& what, const std::string& path, const std::string& reason) {
  fail(ErrorKind::kStorage, "checkpoint: ", what, " ", path, ": ", reason);
}

std::string file_sha256(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorKind::kWeights, "checkpoint: cannot read ", path);
  Sha256 hash;
  std::vector<char> chunk(static_cast<size_t>(kChunk));
  while (file) {
    file.read(chunk.data(), kChunk);
    hash.update(chunk.data(), static_cast<size_t>(file.gcount()));
  }
  return hash.finish();
}

std::vector<TensorDeclaration> declarations(const Plan& plan, const std::vector<std::string>& prefixes) {
  std::vector<TensorDeclaration> list;
  for (const std::string& prefix : prefixes)
    for (const ParamPlan& param : plan.params)
      if (param.trainable) list.push_back({prefix + param.name, {param.shape, DType::kF32}});
  return list;
}

/// The whole flat space of `slice`s on every rank.
void gather(const Plan& plan, Group& group, const Tensor& slice, const Tensor& scratch) {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < group.size(); ++rank) {
    const auto [begin, end] = plan.slice(rank);
    counts.push_back(end - begin);
  }
  group.all_gather(slice, scratch, counts, StreamView::caller(), "checkpoint").wait();
}

Tensor param_part(const Tensor& flat, const ParamPlan& param) {
  return flat.rows(param.trainable_offset, param.trainable_offset + param.shape.elements());
}

void write_params(SafetensorsWriter& writer, const Plan& plan, const Tensor& flat, const std::string& prefix) {
  for (const ParamPlan& param : plan.params)
    if (param.trainable) writer.write_tensor(prefix + param.name, param_part(flat, param).reshaped(param.shape));
}

/// What stands in the file must be what is in memory, to the bit.
void compare_with_memory(const SafetensorsReader& reader, const Plan& plan, const Tensor& flat,
                         const std::string& prefix) {
  std::vector<std::byte> stored(static_cast<size_t>(kChunk));
  for (const ParamPlan& param : plan.params) {
    if (!param.trainable) continue;
    const Tensor memory = param_part(flat, param);
    for (int64_t at = 0; at < memory.bytes(); at += kChunk) {
      const auto bytes = static_cast<size_t>(std::min(kChunk, memory.bytes() - at));
      reader.read(prefix + param.name, at, std::span(stored).first(bytes));
      if (std::memcmp(stored.data(), static_cast<const std::byte*>(memory.raw()) + at, bytes) != 0)
        storage_error("the bytes read back differ from memory in", reader.path(), "[param=" + param.name + "]");
    }
  }
}

std::string position_json(const Plan& plan, const TrainingPosition& position, const std::string& optimizer_sha256) {
  OrderedJson j;
  j["format"] = kFormat;
  j["step"] = position.step;
  j["graph_hash"] = position.graph_hash;
  j["skipped_samples"] = position.skipped_samples;
  j["max_steps"] = position.max_steps;
  j["frozen_sha256"] = position.frozen_sha256;
  j["adapter_sha256"] = position.adapter_sha256;
  j["optimizer_sha256"] = optimizer_sha256;
  if (!position.products.empty()) j["products_sha256"] = sha256(position.products.data(), position.products.size());
  j["exponents"] = position.exponents;
  if (position.loss_scale)
    j["loss_scale"] = {{"exponent", position.loss_scale->exponent},
                       {"accepted_steps", position.loss_scale->accepted_steps}};
  j["validated_step"] = position.validated_step;
  if (position.best)
    j["best"] = {{"metric", position.best->metric},
                 {"value", position.best->value},
                 {"step", position.best->step},
                 {"without_better", position.best->without_better},
                 {"measured_on", position.best->measured_on}};
  j["run"] = position.identity;
  for (const ParamPlan& param : plan.params)
    if (param.trainable)
      j["parameters"].push_back(
          {{"name", param.name},
           {"shape", std::vector<int64_t>(param.shape.dims().begin(), param.shape.dims().end())}});
  return json_text(j, 1) + "\n";
}

std::vector<fs::path> complete_checkpoints(const std::string& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.size() == 13 && name.starts_with("step-") &&
                      std::ranges::all_of(name.substr(5), [](char c) { return c >= '0' && c <= '9'; });
    if (ours && fs::exists(entry.path() / "position.json", ignored)) found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace

void CheckpointStore::write_folder(const std::string& temporary, const Plan& plan, const ShardedAdamw& optimizer,
                                   Group& group, const Tensor& scratch, TrainingPosition& position) const {
  const bool writes = group.rank() == 0;
  const std::string adapter = temporary + "/adapter.safetensors", moments = temporary + "/optimizer.safetensors";
  gather(plan, group, optimizer.master(), scratch);
  if (writes) {
    SafetensorsWriter writer(adapter, declarations(plan, {""}),
                             {{"format", "permafrost.adapter.1"}, {"step", std::to_string(position.step)}});
    write_params(writer, plan, scratch, "");
    writer.finish();
    compare_with_memory(SafetensorsReader(adapter), plan, scratch, "");
  }
  std::optional<SafetensorsWriter> writer;
  if (writes) writer.emplace(moments, declarations(plan, {"m.", "v."}));
  gather(plan, group, optimizer.first_moment(), scratch);
  if (writes) write_params(*writer, plan, scratch, "m.");
  gather(plan, group, optimizer.second_moment(), scratch);
  if (writes) {
    write_params(*writer, plan, scratch, "v.");
    writer->finish();
    compare_with_memory(SafetensorsReader(moments), plan, scratch, "v.");
  }
  gather(plan, group, optimizer.first_moment(), scratch);  // once more, now that the file can be read back
  if (!writes) return;
  compare_with_memory(SafetensorsReader(moments), plan, scratch, "m.");
  position.adapter_sha256 = file_sha256(adapter);
  if (!position.products.empty()) write_file_atomically(temporary + "/products.json", position.products);
  write_file_atomically(temporary + "/position.json", position_json(plan, position, file_sha256(moments)));
}

void CheckpointStore::save(const Plan& plan, const ShardedAdamw& optimizer, Group& group, const Tensor& scratch,
                           TrainingPosition& position) const {
  save_as(path_of(position.step), plan, optimizer, group, scratch, position);
  if (group.rank() == 0) remove_old();
  group.barrier(StreamView::caller(), "checkpoint written").wait();
}

void CheckpointStore::save_best(const Plan& plan, const ShardedAdamw& optimizer, Group& group, const Tensor& scratch,
                                TrainingPosition& position) const {
  save_as(path_of_best(), plan, optimizer, group, scratch, position);
  group.barrier(StreamView::caller(), "best checkpoint written").wait();
}

void CheckpointStore::save_as(const std::string& final_path, const Plan& plan, const ShardedAdamw& optimizer,
                              Group& group, const Tensor& scratch, TrainingPosition& position) const {
  const std::string temporary = final_path + ".tmp";
  std::error_code error;
  if (group.rank() == 0) {
    fs::remove_all(temporary, error);  // of a run that was stopped while it wrote
    if (!fs::create_directories(temporary, error) && error)
      storage_error("cannot make folder", temporary, error.message());
    // Before anything is written: a full disk must not cost the time of a checkpoint.
    require_free_space(temporary, safetensors_file_bytes(declarations(plan, {"", "m.", "v."})));
  }
  try {
    write_folder(temporary, plan, optimizer, group, scratch, position);
  } catch (...) {
    if (group.rank() == 0) fs::remove_all(temporary, error);
    throw;
  }
  if (group.rank() != 0) return;
  // Exchanged, so that there is a complete folder under the name at any time; what was there is then `temporary`.
  const bool exchanged = renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) == 0;
  fs::remove_all(exchanged ? temporary : final_path, error);
  if (!exchanged) fs::rename(temporary, final_path, error);
  if (error) storage_error("cannot rename folder to", final_path, error.message());
  sync_directory(folder_);
}

void CheckpointStore::remove_old() const {
  std::vector<fs::path> found = complete_checkpoints(folder_);
  std::error_code ignored;
  for (size_t i = 0; i + static_cast<size_t>(keep_) < found.size(); ++i) fs::remove_all(found[i], ignored);
}

std::string CheckpointStore::path_of(int64_t step) const { return folder_ + "/" + step_name(step); }

std::optional<std::string> CheckpointStore::latest() const {
  const std::vector<fs::path> found = complete_checkpoints(folder_);
  if (found.empty()) return std::nullopt;
  return found.back().string();
}

namespace {

/// Fills this rank's part of `flat` (a slice of the trainable space) from tensors named prefix + parameter.
void read_slice(const SafetensorsReader& reader, const Plan& plan, const ShardedAdamw& optimizer, const Tensor& flat,
                const std::string& prefix) {
  for (const ParamPlan& param : plan.params) {
    if (!param.trainable) continue;
    const int64_t from = std::max(optimizer.slice_begin(), param.trainable_offset);
    const int64_t to = std::min(optimizer.slice_end(), param.trainable_offset + param.shape.elements());
    if (from >= to) continue;
    const Tensor part = flat.rows(from - optimizer.slice_begin(), to - optimizer.slice_begin());
    reader.read(prefix + param.name, 4 * (from - param.trainable_offset),
                {static_cast<std::byte*>(part.raw()), static_cast<size_t>(part.bytes())});
  }
}

/// The first trainable parameter in which the checkpoint and the plan differ, in words; "" when all agree.
std::string first_difference(const Json& stored, const Plan& plan) {
  size_t i = 0;
  for (const ParamPlan& param : plan.params) {
    if (!param.trainable) continue;
    if (i >= stored.size()) return concat("the plan also trains ", param.name, " ", param.shape);
    const std::string name = stored[i]["name"];
    const std::vector<int64_t> dims = stored[i]["shape"];
    if (name != param.name || !(Shape(dims) == param.shape))
      return concat("trainable ", i, " is ", param.name, " ", param.shape, " in the plan and ", name, " ", Shape(dims),
                    " in the checkpoint");
    ++i;
  }
  if (i < stored.size()) return concat("the checkpoint also trains ", std::string(stored[i]["name"]));
  return "";
}

std::optional<BestSoFar> best_of(const Json& position) {
  const auto found = position.find("best");
  if (found == position.end()) return std::nullopt;
  return BestSoFar{found->at("metric"), found->at("value"), found->at("step"), found->at("without_better"),
                   found->value("measured_on", "")};
}

}  // namespace

std::string adapter_file(const std::string& path) {
  const bool is_checkpoint = fs::exists(fs::path(path) / "position.json");
  return is_checkpoint ? (fs::path(path) / "adapter.safetensors").string() : path;
}

std::optional<int64_t> CheckpointStore::step_of_best() const {
  const std::string path = path_of_best() + "/position.json";
  std::ifstream file(path);
  if (!file) return std::nullopt;
  try {
    return parse_json(file).at("step").get<int64_t>();
  } catch (const Json::exception& error) {
    fail(ErrorKind::kWeights, "checkpoint: ", path, " is damaged: ", error.what());
  }
}

namespace {

/// Throws unless the file is the one that was written.
void require_file(const std::string& path, const std::string& expected) {
  if (const std::string got = file_sha256(path); got != expected)
    fail(ErrorKind::kWeights, "resume: ", path, " is damaged: expected SHA-256 ", expected, "; got ", got);
}

/// products.json of the folder, "" where its hash is.
std::string read_products(const std::string& folder, const std::string& expected) {
  if (expected.empty()) return "";
  const std::string path = folder + "/products.json";
  require_file(path, expected);
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TrainingPosition load_checkpoint(const std::string& folder, const Plan& plan, ShardedAdamw& optimizer) {
  const std::string path = folder + "/position.json";
  std::ifstream file(path);
  if (!file) fail(ErrorKind::kWeights, "resume: cannot read ", path);
  TrainingPosition position;
  std::string optimizer_sha256, products_sha256;
  Json j;
  try {
    j = parse_json(file);
    if (j.at("format") != kFormat)
      fail(ErrorKind::kWeights, "resume: ", path, " must have format ", kFormat, "; got ", json_text(j.at("format")));
    position.step = j.at("step");
    position.exponents = j.at("exponents").get<std::vector<int32_t>>();
    position.graph_hash = j.at("graph_hash");
    position.skipped_samples = j.at("skipped_samples");
    position.max_steps = j.at("max_steps");
    position.validated_step = j.value("validated_step", int64_t{0});
    position.best = best_of(j);
    if (const auto scale = j.find("loss_scale"); scale != j.end())
      position.loss_scale = {scale->at("exponent"), scale->at("accepted_steps")};
    position.identity = j.at("run").get<std::map<std::string, std::string>>();
    optimizer_sha256 = j.at("optimizer_sha256");
    products_sha256 = j.value("products_sha256", "");
    position.frozen_sha256 = j.at("frozen_sha256");
    position.adapter_sha256 = j.at("adapter_sha256");
    if (const std::string difference = first_difference(j.at("parameters"), plan); !difference.empty())
      fail(ErrorKind::kWeights, "resume: ", folder, " belongs to another graph: ", difference);
  } catch (const Json::exception& error) {
    fail(ErrorKind::kWeights, "resume: ", path, " is damaged: ", error.what());
  }
  const std::string adapter = folder + "/adapter.safetensors", moments = folder + "/optimizer.safetensors";
  require_file(adapter, position.adapter_sha256);
  require_file(moments, optimizer_sha256);
  position.products = read_products(folder, products_sha256);
  read_slice(SafetensorsReader(adapter), plan, optimizer, optimizer.master(), "");
  const SafetensorsReader reader(moments);
  read_slice(reader, plan, optimizer, optimizer.first_moment(), "m.");
  read_slice(reader, plan, optimizer, optimizer.second_moment(), "v.");
  return position;
}

}  // namespace permafrost
