#include "core/weights/source.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/weights/atomic_file.h"
#include "core/weights/input_file.h"
#include "core/weights/npz_archive.h"
#include "core/weights/problems.h"
#include "core/weights/safetensors.h"
#include "core/weights/torch_archive.h"

namespace permafrost {

namespace {
namespace fs = std::filesystem;

constexpr int64_t kMaxIndexBytes = 100'000'000;

/// False also where the system does not let us look; opening the file then says why.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// The file inside a Hugging Face style folder that says what the weights are.
std::string find_in_folder(const std::string& folder) {
  const fs::path base(folder);
  for (const auto& [single, index] : {std::pair("model.safetensors", "model.safetensors.index.json"),
                                      std::pair("pytorch_model.bin", "pytorch_model.bin.index.json")}) {
    const bool has_single = is_there(base / single), has_index = is_there(base / index);
    if (has_single && has_index)
      fail(ErrorKind::kWeights, folder, ": expected either ", single, " or ", index, "; got both (name one of them)");
    if (has_single) return (base / single).string();
    if (has_index) return (base / index).string();
  }
  if (is_there(base / "adapter.safetensors")) return (base / "adapter.safetensors").string();
  fail(ErrorKind::kWeights, folder,
       ": expected model.safetensors or pytorch_model.bin, or ….index.json of either, in the "
       "folder; got none of them");
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

std::unique_ptr<TensorFile> open_tensor_file(const std::string& path) {
  using namespace std::string_view_literals;
  const std::string start = start_of_file(InputFile(path, "a file of weights"));
  if (start.starts_with("PK\x03\x04"sv) || start.starts_with("PK\x05\x06"sv)) {
    auto archive = std::make_unique<ZipArchive>(path, "a file of weights");
    if (is_torch_archive(*archive)) return std::make_unique<TorchArchive>(std::move(archive));
    if (is_npz_archive(*archive)) return std::make_unique<NpzArchive>(std::move(archive));
    fail(ErrorKind::kWeights, path,
         ": expected what torch.save or numpy.savez writes; got another zip archive (its first "
         "member of ",
         archive->members().size(), ": '", archive->members().empty() ? "" : archive->members()[0].name, "')");
  }
  // The magic number with which torch.save began until PyTorch 1.6.
  if (start.size() > 2 &&
      std::string_view(start).substr(2).starts_with("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv))
    fail(ErrorKind::kWeights, path,
         ": expected a zip archive of torch.save; got a PyTorch file from before 1.6 (rewrite it "
         "in Python: torch.save(torch.load(FILE, map_location='cpu', weights_only=True), NEW_FILE))");
  return std::make_unique<SafetensorsReader>(path);
}

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
  files_.push_back(open_tensor_file(path));
  for (const StoredTensor& tensor : files_.back()->tensors()) {
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
  files_[tensor.file]->read(tensor.stored, byte_offset, out);
}

}  // namespace permafrost
