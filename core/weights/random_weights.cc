#include "core/weights/random_weights.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/narrow.h"
#include "core/weights/convert.h"
#include "core/weights/safetensors.h"

namespace permafrost {

namespace {
namespace fs = std::filesystem;

constexpr int64_t kPieceBytesOfThread = int64_t{4} << 20;

struct Shard {
  std::string file_name;
  std::vector<const RandomParameter*> parameters;
  std::vector<TensorDeclaration> declarations;
  int64_t data_bytes = 0;
};

/// In the order given; a shard is closed when the next tensor would exceed the limit.
std::vector<Shard> cut_into_shards(const std::vector<RandomParameter>& parameters,
                                   const RandomWeightsOptions& options) {
  std::vector<Shard> shards(1);
  for (const RandomParameter& parameter : parameters) {
    const TensorSpec spec{parameter.shape, options.dtype};
    if (!shards.back().parameters.empty() && shards.back().data_bytes + spec.bytes() > options.max_shard_bytes)
      shards.emplace_back();
    Shard& shard = shards.back();
    shard.parameters.push_back(&parameter);
    shard.declarations.push_back({parameter.name, spec});
    shard.data_bytes += spec.bytes();
  }
  if (shards.size() == 1) {
    shards[0].file_name = "model.safetensors";
    return shards;
  }
  PERMAFROST_CHECK(shards.size() <= 99999, "write_random: at most 99999 shards; got ", shards.size(),
                   " (raise max_shard_bytes)");
  const auto five_digits = [](size_t n) { return std::to_string(100000 + n).substr(1); };
  for (size_t i = 0; i < shards.size(); ++i)
    shards[i].file_name = concat("model-", five_digits(i + 1), "-of-", five_digits(shards.size()), ".safetensors");
  return shards;
}

std::string index_text(const std::vector<Shard>& shards) {
  int64_t total = 0;
  Json weight_map = Json::object();
  for (const Shard& shard : shards) {
    total += shard.data_bytes;
    for (const RandomParameter* parameter : shard.parameters) weight_map[parameter->name] = shard.file_name;
  }
  const Json index{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return json_text(index, 2) + "\n";
}

void prepare_folder(const std::string& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) fail(ErrorKind::kStorage, "cannot make folder ", directory, ": ", error.message());
  const fs::directory_iterator entries(directory, error);
  if (error) fail(ErrorKind::kStorage, "cannot list folder ", directory, ": ", error.message());
  for (const auto& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))
      fail(ErrorKind::kStorage, "write_random: expected a folder without weights; got ", name, " in ", directory);
  }
}

void write_shard(const std::string& path, const Shard& shard, const RandomWeightsOptions& options,
                 const std::map<std::string, std::string>& metadata, ThreadPool& pool) {
  SafetensorsWriter writer(path, shard.declarations, metadata);
  const int64_t most = kPieceBytesOfThread * pool.threads();
  std::vector<std::byte> piece(narrow<size_t>(most));
  for (const RandomParameter* parameter : shard.parameters) {
    const int64_t bytes = TensorSpec{parameter->shape, options.dtype}.bytes();
    for (int64_t begin = 0; begin < bytes; begin += most) {
      const auto part = std::span(piece).first(narrow<size_t>(std::min(most, bytes - begin)));
      fill(parameter->initializer, options.seed, parameter->name, options.dtype, begin / size_of(options.dtype), part,
           pool);
      writer.write(part);
    }
  }
  writer.finish();
}

void check_arguments(const std::vector<RandomParameter>& parameters, const RandomWeightsOptions& options) {
  PERMAFROST_CHECK(can_convert(DType::kF32, options.dtype), "write_random: dtype must be f32, bf16 or f16; got ",
                   to_string(options.dtype));
  PERMAFROST_CHECK(options.max_shard_bytes > 0, "write_random: max_shard_bytes must be positive; got ",
                   options.max_shard_bytes);
  std::set<std::string_view> names;  // the writer sees one shard only
  for (const RandomParameter& parameter : parameters)
    PERMAFROST_CHECK(names.insert(parameter.name).second, "write_random: names must differ; got '", parameter.name,
                     "' twice");
}
}  // namespace

WrittenWeights write_random(const std::vector<RandomParameter>& parameters, const std::string& directory,
                            const RandomWeightsOptions& options) {
  check_arguments(parameters, options);
  const std::vector<Shard> shards = cut_into_shards(parameters, options);
  const std::map<std::string, std::string> metadata{
      {"format", "pt"}, {"permafrost.origin", "random"}, {"permafrost.seed", std::to_string(options.seed)}};
  const std::string index = shards.size() > 1 ? index_text(shards) : "";
  WrittenWeights written;
  written.bytes = static_cast<int64_t>(index.size());
  for (const Shard& shard : shards) written.bytes += safetensors_file_bytes(shard.declarations, metadata);
  prepare_folder(directory);
  require_free_space(directory, written.bytes);
  ThreadPool pool(options.threads);
  try {
    for (const Shard& shard : shards) {
      const std::string path = (fs::path(directory) / shard.file_name).string();
      write_shard(path, shard, options, metadata, pool);
      written.files.push_back(path);
    }
    if (!index.empty()) {
      written.files.push_back((fs::path(directory) / "model.safetensors.index.json").string());
      write_file_atomically(written.files.back(), index);
    }
  } catch (...) {
    std::error_code ignored;
    for (const std::string& path : written.files) fs::remove(path, ignored);
    throw;
  }
  return written;
}

}  // namespace permafrost
