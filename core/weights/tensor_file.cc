#include "core/weights/tensor_file.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/base/utf8.h"

namespace permafrost {

namespace {
constexpr std::optional<DType> kListedOnly = std::nullopt;
constexpr StoredDType kStoredDTypes[] = {
    {"F32", 32, DType::kF32},    {"F16", 16, DType::kF16},    {"BF16", 16, DType::kBF16},  {"F64", 64, DType::kF64},
    {"I64", 64, DType::kI64},    {"I32", 32, DType::kI32},    {"U8", 8, DType::kU8},       {"BOOL", 8, kListedOnly},
    {"I8", 8, kListedOnly},      {"I16", 16, kListedOnly},    {"U16", 16, kListedOnly},    {"U32", 32, kListedOnly},
    {"U64", 64, kListedOnly},    {"C64", 64, kListedOnly},    {"F8_E4M3", 8, kListedOnly}, {"F8_E5M2", 8, kListedOnly},
    {"F8_E8M0", 8, kListedOnly}, {"F6_E2M3", 6, kListedOnly}, {"F6_E3M2", 6, kListedOnly}, {"F4", 4, kListedOnly},
};
/// Names go into messages, JSON and safetensors, whose metadata has a name of its own.
void require_name(const std::string& path, const std::string& name) {
  if (printable(name) != name || name.empty() || name == "__metadata__")
    fail(ErrorKind::kWeights, path, ": expected tensor names of UTF-8 text without control characters, other than ",
         "__metadata__; got '", name.substr(0, 200), "'");
}
}  // namespace

const StoredDType* find_stored_dtype(std::string_view name) {
  const auto* known = std::ranges::find(kStoredDTypes, name, &StoredDType::name);
  return known == std::end(kStoredDTypes) ? nullptr : known;
}

std::string_view safetensors_name(DType dtype) {
  for (const StoredDType& known : kStoredDTypes)
    if (known.dtype == dtype) return known.name;
  fail(ErrorKind::kInternal, "safetensors_name: no word for dtype ", to_string(dtype));
}

std::optional<int64_t> stored_bits(const Shape& shape, int bits) {
  if (std::ranges::find(shape.dims(), 0) != shape.dims().end()) return 0;  // whatever the others are
  int64_t total = bits;
  for (const int64_t extent : shape.dims())
    if (__builtin_mul_overflow(total, extent, &total)) return std::nullopt;
  return total;
}

std::optional<int64_t> stored_bytes(const Shape& shape, int bits) {
  const std::optional<int64_t> total = stored_bits(shape, bits);
  return total && *total % 8 == 0 ? std::optional(*total / 8) : std::nullopt;
}

void TensorFile::describe(std::string path, int64_t file_bytes, std::vector<StoredTensor> tensors,
                          std::map<std::string, std::string> metadata) {
  path_ = std::move(path);
  file_bytes_ = file_bytes;
  tensors_ = std::move(tensors);
  metadata_ = std::move(metadata);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    require_name(path_, tensors_[i].name);
    if (!index_.emplace(tensors_[i].name, i).second)
      fail(ErrorKind::kWeights, path_, ": tensor names must differ; got '", tensors_[i].name, "' twice");
  }
}

const StoredTensor* TensorFile::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& TensorFile::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (!tensor) fail(ErrorKind::kWeights, path_, ": expected a tensor '", name, "'; got none among ", tensors_.size());
  return *tensor;
}

void TensorFile::read(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const {
  PERMAFROST_CHECK(
      byte_offset >= 0 && byte_offset <= tensor.bytes && std::cmp_less_equal(out.size(), tensor.bytes - byte_offset),
      "TensorFile::read: range must lie within the ", tensor.bytes, " bytes of '", tensor.name, "'; got ", out.size(),
      " bytes from ", byte_offset);
  if (!out.empty()) read_bytes(tensor, byte_offset, out);
}

void TensorFile::read(std::string_view name, int64_t byte_offset, std::span<std::byte> out) const {
  read(at(name), byte_offset, out);
}

std::vector<std::byte> TensorFile::read_all(std::string_view name) const {
  const StoredTensor& tensor = at(name);
  std::vector<std::byte> bytes(narrow<size_t>(tensor.bytes));
  read(tensor, 0, bytes);
  return bytes;
}

void TensorFile::read_tensor(std::string_view name, const Tensor& out) const {
  const StoredTensor& tensor = at(name);
  if (!tensor.dtype || *tensor.dtype != out.dtype() || tensor.shape != out.shape())
    fail(ErrorKind::kWeights, path_, ": expected '", name, "' as ", out.spec(), "; got ", tensor.shape, " ",
         tensor.dtype_name);
  read(tensor, 0, {static_cast<std::byte*>(out.raw()), narrow<size_t>(out.bytes())});
}

}  // namespace permafrost
