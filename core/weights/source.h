#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/weights/tensor_file.h"

namespace permafrost {

/// A tensor of a source: what its file says, and which file.
struct SourceTensor {
  StoredTensor stored;
  size_t file = 0;  ///< index into WeightSource::files
};

/// Opens a weight file of any known kind, told by its content: safetensors, a zip archive of torch.save (.bin, .pt,
/// .pth), a numpy .npz. Errors: kWeights and kStorage as in SafetensorsReader, TorchArchive and NpzArchive; old PyTorch
/// files, which are pickles from their first byte, are refused with what to do.
std::unique_ptr<TensorFile> open_tensor_file(const std::string& path);

/// A named set of tensors, wherever it lies: one file (see open_tensor_file); a sharded set, given by its index
/// (`….safetensors.index.json`, `….bin.index.json`); or a folder as the Hugging Face Hub lays it out:
/// model.safetensors, or model.safetensors.index.json and its shards; where there is neither, pytorch_model.bin, or
/// pytorch_model.bin.index.json and its shards; or the folder of a checkpoint of ours, with adapter.safetensors.
/// Opening reads headers only; reading is by slices. Errors: kWeights for files missing or refused, an index that
/// disagrees with its shards (all disagreements at once), a tensor in two shards, a folder without weights; kStorage as
/// in TensorFile.
class WeightSource {
 public:
  static WeightSource open(const std::string& path);

  /// As given to `open`.
  const std::string& path() const { return path_; }
  const std::vector<std::unique_ptr<TensorFile>>& files() const { return files_; }
  /// File by file, each in the order of its data. Addresses stay valid while the source lives, also when it is moved.
  const std::vector<SourceTensor>& tensors() const { return tensors_; }
  std::vector<std::string> names() const;

  /// nullptr when there is no such tensor.
  const SourceTensor* find(std::string_view name) const;
  /// Throws kWeights when there is no such tensor.
  const SourceTensor& at(std::string_view name) const;
  /// Path of the file that holds the tensor.
  const std::string& file_of(const SourceTensor& tensor) const { return files_[tensor.file]->path(); }
  /// Bytes [byte_offset, byte_offset + out.size()) of a tensor of this source.
  void read(const SourceTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const;

 private:
  explicit WeightSource(std::string path) : path_(std::move(path)) {}
  void open_index(const std::string& index_path);
  void add_file(const std::string& path);

  std::string path_;
  std::vector<std::unique_ptr<TensorFile>> files_;
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace permafrost
