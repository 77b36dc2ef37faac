#include "core/weights/safetensors.h"

#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/narrow.h"

namespace permafrost {

static_assert(std::endian::native == std::endian::little, "safetensors data is little endian and is used as it is");

namespace {
constexpr int64_t kLengthBytes = 8;

/// Files that people give by mistake, known by how they begin; empty when it is none of them.
std::string_view other_format(std::string_view start) {
  using namespace std::string_view_literals;
  struct Magic {
    std::string_view bytes, words;
  };
  static constexpr Magic kMagics[] = {
      {"PK\x03\x04"sv, "a zip archive (what torch.save and numpy's .npz write)"sv},
      {"\x80\x02"sv, "a Python pickle (an old PyTorch .bin or .pth)"sv},
      {"\x80\x03"sv, "a Python pickle"sv},
      {"\x80\x04"sv, "a Python pickle"sv},
      {"\x80\x05"sv, "a Python pickle"sv},
      {"\x93NUMPY"sv, "a numpy .npy file"sv},
      {"\x89HDF"sv, "an HDF5 file"sv},
      {"GGUF"sv, "a GGUF file"sv},
      {"\x1f\x8b"sv, "a gzip file"sv},
      {"version "sv, "a Git LFS pointer, not the file itself (fetch it with git lfs pull)"sv},
      {"<!DOCTYP"sv, "an HTML page (a failed download?)"sv},
      {"<html"sv, "an HTML page (a failed download?)"sv},
      {"{"sv, "a JSON text (the index of a sharded model ends in .index.json)"sv},
  };
  for (const Magic& magic : kMagics)
    if (start.starts_with(magic.bytes)) return magic.words;
  return {};
}

/// The JSON text; nothing is allocated before its length is known to be sane.
std::string read_header(const InputFile& file) {
  const std::string& path = file.path();
  std::array<char, kLengthBytes + 1> start{};  // one byte more: the opening brace
  const auto start_bytes = static_cast<size_t>(std::min<int64_t>(file.bytes(), kLengthBytes + 1));
  file.read(0, std::as_writable_bytes(std::span(start)).first(start_bytes));
  uint64_t length = 0;
  std::memcpy(&length, start.data(), kLengthBytes);
  const bool whole = file.bytes() >= kLengthBytes + 2;
  const bool sane = whole && length >= 2 && length <= static_cast<uint64_t>(SafetensorsReader::kMaxHeaderBytes) &&
                    std::cmp_less_equal(length, file.bytes() - kLengthBytes);
  if (!sane || start[kLengthBytes] != '{') {
    const std::string_view format = other_format({start.data(), start_bytes});
    if (!format.empty()) fail(ErrorKind::kWeights, path, ": expected a safetensors file; got ", format);
  }
  if (!whole)
    fail(ErrorKind::kWeights, path, ": expected a safetensors file of at least 10 bytes; got ", file.bytes(), " bytes");
  if (!sane)
    fail(ErrorKind::kWeights, path, ": header length must be 2 to ", SafetensorsReader::kMaxHeaderBytes,
         " bytes and within the file; got ", length, " in a file of ", file.bytes(),
         " bytes (truncated, or not safetensors)");
  if (start[kLengthBytes] != '{')
    fail(ErrorKind::kWeights, path, ": header must begin with '{'; got another byte (not safetensors?)");
  std::string text(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string header_text(const std::vector<TensorDeclaration>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names{"__metadata__"};
  int64_t offset = 0;
  for (const auto& [name, spec] : tensors) {
    PERMAFROST_CHECK(names.insert(name).second, "SafetensorsWriter: tensor names must differ; got '", name, "' twice");
    const auto dims = spec.shape.dims();
    const int64_t end = offset + spec.bytes();
    header[name] = {{"dtype", safetensors_name(spec.dtype)},
                    {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = json_text(header);
  } catch (const Json::exception& error) {
    fail(ErrorKind::kInvalidArgument, "SafetensorsWriter: names and metadata must be UTF-8; got: ", error.what());
  }
  text.resize(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), kLengthBytes)), ' ');
  return text;
}

int64_t sum_bytes(const std::vector<TensorDeclaration>& tensors) {
  int64_t bytes = 0;
  for (const TensorDeclaration& tensor : tensors) bytes += tensor.spec.bytes();
  return bytes;
}
}  // namespace

SafetensorsReader::SafetensorsReader(std::string path) : file_(std::move(path), "a safetensors file") {
  const std::string text = read_header(file_);
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(text.size());
  SafetensorsHeader header = parse_safetensors_header(file_.path(), text, data_begin, file_.bytes() - data_begin);
  describe(file_.path(), file_.bytes(), std::move(header.tensors), std::move(header.metadata));
}

void SafetensorsReader::read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const {
  file_.read(tensor.file_offset + byte_offset, out);
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorDeclaration> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), tensors_(std::move(tensors)), file_(path), data_bytes_(sum_bytes(tensors_)) {
  const std::string text = header_text(tensors_, metadata);
  const uint64_t length = text.size();
  file_.write(&length, sizeof length);
  file_.write(text.data(), text.size());
}

void SafetensorsWriter::write(std::span<const std::byte> data) {
  PERMAFROST_CHECK(std::cmp_less_equal(data.size(), data_bytes_ - written_bytes_), "SafetensorsWriter: ", path_,
                   " takes ", data_bytes_, " bytes of data; got ", data.size(), " more after ", written_bytes_);
  file_.write(data.data(), data.size());
  written_bytes_ += static_cast<int64_t>(data.size());
}

void SafetensorsWriter::write_tensor(std::string_view name, const Tensor& tensor) {
  PERMAFROST_CHECK(next_tensor_ < tensors_.size() && next_tensor_begin_ == written_bytes_, "SafetensorsWriter: ", path_,
                   ": no tensor is due; got '", name, "'");
  const TensorDeclaration& due = tensors_[next_tensor_];
  PERMAFROST_CHECK(due.name == name && due.spec == tensor.spec(), "SafetensorsWriter: ", path_, ": expected '",
                   due.name, "' ", due.spec, "; got '", name, "' ", tensor.spec());
  write({static_cast<const std::byte*>(tensor.raw()), narrow<size_t>(tensor.bytes())});
  next_tensor_begin_ += due.spec.bytes();
  ++next_tensor_;
}

void SafetensorsWriter::finish() {
  PERMAFROST_CHECK(written_bytes_ == data_bytes_, "SafetensorsWriter: ", path_, " takes ", data_bytes_,
                   " bytes of data; got ", written_bytes_);
  file_.commit();
}

int64_t safetensors_file_bytes(const std::vector<TensorDeclaration>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  return kLengthBytes + static_cast<int64_t>(header_text(tensors, metadata).size()) + sum_bytes(tensors);
}

}  // namespace permafrost
