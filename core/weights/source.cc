#include "core/weights/source.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/weights/problems.h"

namespace permafrost {

namespace {
namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 100'000'000;

/// False also where the system does not let us look; opening the file then says why.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// The file inside a Hugging Face style folder that says what the weights are.
std::string find_in_folder(const std::string& folder) {
  const fs::path base(folder);
  const bool single = is_there(base / kSingleFile), index = is_there(base / kIndexFile);
  if (single && index)
    fail(ErrorKind::kWeights, folder, ": expected either ", kSingleFile, " or ", kIndexFile,
         "; got both (name one of them)");
  if (single) return (base / kSingleFile).string();
  if (index) return (base / kIndexFile).string();
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (is_there(base / pickle))
      fail(ErrorKind::kWeights, folder, ": expected ", kSingleFile, " or ", kIndexFile, "; got ", pickle,
           " only, a PyTorch pickle; `permafrost weights import`, which will convert it, is not in this build: save "
           "the model as safetensors");
  fail(ErrorKind::kWeights, folder, ": expected ", kSingleFile, " or ", kIndexFile, " in the folder; got neither");
}

std::string read_index_text(const std::string& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) fail(ErrorKind::kWeights, path, ": expected the index of sharded weights; cannot open: ", error.message());
  if (std::cmp_greater(bytes, kMaxIndexBytes))
    fail(ErrorKind::kWeights, path, ": an index must have at most ", kMaxIndexBytes, " bytes; got ", bytes);
  std::ifstream in(path, std::ios::binary);
  std::string text(bytes, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(bytes)))
    fail(ErrorKind::kStorage, "cannot read ", path, ": ", std::strerror(errno));
  return text;
}

/// tensor name -> shard file name.
std::map<std::string, std::string> parse_index(const std::string& path) {
  Json index;
  try {
    index = parse_json(read_index_text(path));
  } catch (const Json::exception& error) {
    fail(ErrorKind::kWeights, path, ": an index must be JSON; got: ", error.what());
  }
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object() ||
      index["weight_map"].empty())
    fail(ErrorKind::kWeights, path, ": an index must have an object weight_map with at least one tensor; got none");
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    if (!shard.is_string() || fs::path(shard.get<std::string>()).filename() != shard.get<std::string>())
      fail(ErrorKind::kWeights, path, ": weight_map must give files of the same folder; got ", json_text(shard),
           " for '", name, "'");
    shards.emplace(name, shard.get<std::string>());
  }
  return shards;
}
}  // namespace

WeightSource WeightSource::open(const std::string& path) {
  WeightSource source(path);
  std::error_code ignored;
  const std::string file = fs::is_directory(path, ignored) ? find_in_folder(path) : path;
  if (file.ends_with(".index.json")) {
    source.open_index(file);
  } else {
    source.add_file(file);
  }
  return source;
}

void WeightSource::add_file(const std::string& path) {
  files_.emplace_back(path);
  for (const StoredTensor& tensor : files_.back().tensors()) {
    const auto [place, fresh] = index_.emplace(tensor.name, tensors_.size());
    if (!fresh)
      fail(ErrorKind::kWeights, path_, ": a tensor must be in one file; got '", tensor.name, "' in ",
           file_of(tensors_[place->second]), " and in ", path);
    tensors_.push_back({tensor, files_.size() - 1});
  }
}

void WeightSource::open_index(const std::string& index_path) {
  const auto shard_of = parse_index(index_path);
  const fs::path folder(directory_of(index_path));
  std::map<std::string, int64_t> expected;  // shard -> tensors
  for (const auto& [name, shard] : shard_of) ++expected[shard];
  ProblemList problems;
  for (const auto& [shard, count] : expected) {
    const fs::path path = folder / shard;
    if (is_there(path)) {
      add_file(path.string());
    } else {
      problems.add("shard ", shard, " with ", count, " tensors is missing in ", folder.string());
    }
  }
  for (const auto& [name, shard] : shard_of) {
    const SourceTensor* tensor = find(name);
    if (tensor ? fs::path(file_of(*tensor)).filename() == shard : !is_there(folder / shard)) continue;
    problems.add("'", name, "' must be in ", shard, "; got it in ", tensor ? file_of(*tensor) : "no shard");
  }
  for (const SourceTensor& tensor : tensors_)
    if (!shard_of.contains(tensor.stored.name))
      problems.add("'", tensor.stored.name, "' of ", file_of(tensor), " is not in the index");
  problems.throw_if_any(index_path + ": index and shards must agree");
}

std::vector<std::string> WeightSource::names() const {
  std::vector<std::string> result;
  for (const SourceTensor& tensor : tensors_) result.push_back(tensor.stored.name);
  return result;
}

const SourceTensor* WeightSource::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const SourceTensor& WeightSource::at(std::string_view name) const {
  const SourceTensor* tensor = find(name);
  if (!tensor) fail(ErrorKind::kWeights, path_, ": expected a tensor '", name, "'; got none among ", tensors_.size());
  return *tensor;
}

void WeightSource::read(const SourceTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const {
  files_[tensor.file].read(tensor.stored, byte_offset, out);
}

}  // namespace permafrost
