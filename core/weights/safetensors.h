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
#include "core/weights/atomic_file.h"

namespace permafrost {

/// A tensor as a safetensors header describes it. `dtype_name` is the format's word ("F32", "BF16", "F8_E4M3", ...);
/// `dtype` is empty for those we only list (they can be read as bytes, not as a tensor).
struct StoredTensor {
  std::string name;
  std::string dtype_name;
  std::optional<DType> dtype;
  Shape shape;
  int64_t file_offset = 0;  ///< of the first byte, from the beginning of the file
  int64_t bytes = 0;
};

/// The safetensors word for a dtype, e.g. "BF16".
std::string_view safetensors_name(DType dtype);

/// One .safetensors file: 8 bytes of header length (little endian), a JSON header, the data.
/// Opening reads and checks the header only: its length (at most 100 MB and the file), no key twice, known dtypes,
/// shapes that give the bytes of the offsets, offsets that cover the data without gap or overlap, no byte behind them.
/// `read` uses pread, so one reader may serve several threads.
/// Errors: kWeights with the file's name for whatever the file says wrongly, a missing file included; kStorage when
/// the system refuses to read. A file of another known format is called by its name.
/// Source: https://github.com/huggingface/safetensors (format description).
class SafetensorsReader {
 public:
  static constexpr int64_t kMaxHeaderBytes = 100'000'000;

  explicit SafetensorsReader(std::string path);

  const std::string& path() const { return path_; }
  int64_t file_bytes() const { return file_bytes_; }
  /// In the order of their data, so that reading one after the other is sequential.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// `__metadata__`, empty when there is none.
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

 private:
  std::string path_;
  FileDescriptor file_;
  int64_t file_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
};

/// What SafetensorsReader found in a header; `data_offset` is where the data begins, tensors are in data order.
struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Checks and reads the JSON of a header. `data_begin` and `data_bytes`: where the data stands in the file.
/// Errors: kWeights, message beginning with `path`.
SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view json, int64_t data_begin,
                                           int64_t data_bytes);

/// A tensor to be written.
struct TensorDeclaration {
  std::string name;
  TensorSpec spec;
};

/// Writes a .safetensors file front to back: everything is declared first, then the data comes in that order, in
/// pieces of any size. The file appears under its name at `finish` (see AtomicFile). The same declarations, metadata
/// and data give the same bytes. Declare wide dtypes first if every tensor shall be aligned to its element.
/// Errors: kInvalidArgument for a name twice, too much or too little data; kStorage from writing.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<TensorDeclaration> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  /// Data of the declared tensors, one after the other.
  void write(std::span<const std::byte> data);
  /// All of the next declared tensor, which must be `name` of this dtype and shape.
  void write_tensor(std::string_view name, const Tensor& tensor);
  /// fsync and rename; every declared byte must have come.
  void finish();

 private:
  std::string path_;
  std::vector<TensorDeclaration> tensors_;
  AtomicFile file_;
  int64_t data_bytes_ = 0;
  int64_t written_bytes_ = 0;
  size_t next_tensor_ = 0;  // of write_tensor
  int64_t next_tensor_begin_ = 0;
};

/// Bytes of the file that SafetensorsWriter would make.
int64_t safetensors_file_bytes(const std::vector<TensorDeclaration>& tensors,
                               const std::map<std::string, std::string>& metadata = {});

}  // namespace permafrost
