#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"
#include "core/weights/atomic_file.h"
#include "core/weights/input_file.h"
#include "core/weights/tensor_file.h"

namespace permafrost {

/// One .safetensors file: 8 bytes of header length (little endian), a JSON header, the data.
/// Opening reads and checks the header only: its length (at most 100 MB and the file), no key twice, known dtypes,
/// shapes that give the bytes of the offsets, offsets that cover the data without gap or overlap, no byte behind them.
/// `metadata` is `__metadata__`.
/// Errors: kWeights with the file's name for whatever the file says wrongly, a missing file included; kStorage when
/// the system refuses to read. A file of another known format is called by its name.
/// Source: https://github.com/huggingface/safetensors (format description).
class SafetensorsReader : public TensorFile {
 public:
  static constexpr int64_t kMaxHeaderBytes = 100'000'000;

  explicit SafetensorsReader(std::string path);

 private:
  void read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const override;

  InputFile file_;
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
