#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tensor/tensor.h"

namespace permafrost {

/// A tensor as its file describes it. `dtype_name` is safetensors' word for its dtype ("F32", "BF16", "F8_E4M3", ...),
/// whatever the file's format; `dtype` is empty for those we only list (they can be read as bytes, not as a tensor).
struct StoredTensor {
  std::string name;
  std::string dtype_name;
  std::optional<DType> dtype;
  Shape shape;
  int64_t file_offset = 0;  ///< where its data begins, from the beginning of the file: the order to read tensors in
  int64_t bytes = 0;        ///< as read: elements times size of the dtype
  size_t number = 0;        ///< its place in what the format keeps of it; the format's own business
};

/// The safetensors word for a dtype, e.g. "BF16".
std::string_view safetensors_name(DType dtype);
/// A dtype under safetensors' word for it: bits of an element; `dtype` is empty where we only list.
struct StoredDType {
  std::string_view name;
  int bits = 0;
  std::optional<DType> dtype;
};
/// nullptr for a word that is not safetensors'.
const StoredDType* find_stored_dtype(std::string_view name);

/// One file of named tensors, whatever its format (safetensors, PyTorch archive, numpy archive). Opening reads and
/// checks what describes them, not their data; `read` gives elements in row-major order, little endian, as if the data
/// stood there in one piece. One reader may serve several threads.
/// Errors: kWeights with the file's name for whatever the file says wrongly, a missing file included; kStorage when
/// the system refuses to read.
class TensorFile {
 public:
  virtual ~TensorFile() = default;
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;
  TensorFile(TensorFile&&) = default;

  const std::string& path() const { return path_; }
  int64_t file_bytes() const { return file_bytes_; }
  /// In the order of their data, so that reading one after the other is sequential.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// What the file says besides; empty when there is nothing.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// nullptr when the file has no such tensor.
  const StoredTensor* find(std::string_view name) const;
  /// Throws kWeights when the file has no such tensor.
  const StoredTensor& at(std::string_view name) const;

  /// Bytes [byte_offset, byte_offset + out.size()) of a tensor of this file. Any dtype.
  void read(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const;
  void read(std::string_view name, int64_t byte_offset, std::span<std::byte> out) const;
  std::vector<std::byte> read_all(std::string_view name) const;
  /// Into memory of exactly the stored shape and dtype; kWeights otherwise.
  void read_tensor(std::string_view name, const Tensor& out) const;

 protected:
  TensorFile() = default;
  void describe(std::string path, int64_t file_bytes, std::vector<StoredTensor> tensors,
                std::map<std::string, std::string> metadata);

 private:
  /// The range is within the tensor.
  virtual void read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const = 0;

  std::string path_;
  int64_t file_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

/// Bits of `shape` elements of `bits` each; empty when that overflows.
std::optional<int64_t> stored_bits(const Shape& shape, int bits);
/// The same in bytes; empty also when they are not filled.
std::optional<int64_t> stored_bytes(const Shape& shape, int bits);

}  // namespace permafrost
