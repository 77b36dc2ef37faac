#include "core/weights/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/narrow.h"

namespace permafrost {

static_assert(std::endian::native == std::endian::little, "safetensors data is little endian and is used as it is");

namespace {
constexpr int64_t kLengthBytes = 8;

void read_exactly(int fd, const std::string& path, int64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t count = pread(fd, out.data(), out.size(), offset);
    if (count < 0) {
      if (errno == EINTR) continue;
      fail(ErrorKind::kStorage, "cannot read ", path, " at byte ", offset, ": ", std::strerror(errno));
    }
    if (count == 0)
      fail(ErrorKind::kStorage, path, ": ended at byte ", offset, " with ", out.size(),
           " bytes to come; it became shorter while open");
    out = out.subspan(static_cast<size_t>(count));
    offset += count;
  }
}

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

struct OpenedFile {
  FileDescriptor file;
  int64_t bytes = 0;
};

OpenedFile open_regular(const std::string& path) {
  OpenedFile opened{FileDescriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC)), 0};
  if (!opened.file) {
    const int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? ErrorKind::kWeights : ErrorKind::kStorage, path,
         ": expected a safetensors file; cannot open: ", std::strerror(error));
  }
  struct stat info {};
  if (fstat(opened.file.get(), &info) != 0)
    fail(ErrorKind::kStorage, "cannot ask for the size of ", path, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    fail(ErrorKind::kWeights, path, ": expected a safetensors file; got something else (a folder?)");
  opened.bytes = info.st_size;
  return opened;
}

/// The JSON text; nothing is allocated before its length is known to be sane.
std::string read_header(const OpenedFile& opened, const std::string& path) {
  std::array<char, kLengthBytes + 1> start{};  // one byte more: the opening brace
  const auto start_bytes = static_cast<size_t>(std::min<int64_t>(opened.bytes, kLengthBytes + 1));
  read_exactly(opened.file.get(), path, 0, std::as_writable_bytes(std::span(start)).first(start_bytes));
  uint64_t length = 0;
  std::memcpy(&length, start.data(), kLengthBytes);
  const bool whole = opened.bytes >= kLengthBytes + 2;
  const bool sane = whole && length >= 2 && length <= static_cast<uint64_t>(SafetensorsReader::kMaxHeaderBytes) &&
                    std::cmp_less_equal(length, opened.bytes - kLengthBytes);
  if (!sane || start[kLengthBytes] != '{') {
    const std::string_view format = other_format({start.data(), start_bytes});
    if (!format.empty()) fail(ErrorKind::kWeights, path, ": expected a safetensors file; got ", format);
  }
  if (!whole)
    fail(ErrorKind::kWeights, path, ": expected a safetensors file of at least 10 bytes; got ", opened.bytes, " bytes");
  if (!sane)
    fail(ErrorKind::kWeights, path, ": header length must be 2 to ", SafetensorsReader::kMaxHeaderBytes,
         " bytes and within the file; got ", length, " in a file of ", opened.bytes,
         " bytes (truncated, or not safetensors)");
  if (start[kLengthBytes] != '{')
    fail(ErrorKind::kWeights, path, ": header must begin with '{'; got another byte (not safetensors?)");
  std::string text(length, '\0');
  read_exactly(opened.file.get(), path, kLengthBytes, std::as_writable_bytes(std::span(text)));
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

SafetensorsReader::SafetensorsReader(std::string path) : path_(std::move(path)) {
  OpenedFile opened = open_regular(path_);
  const std::string text = read_header(opened, path_);
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(text.size());
  SafetensorsHeader header = parse_safetensors_header(path_, text, data_begin, opened.bytes - data_begin);
  file_ = std::move(opened.file);
  file_bytes_ = opened.bytes;
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const StoredTensor* SafetensorsReader::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& SafetensorsReader::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (!tensor) fail(ErrorKind::kWeights, path_, ": expected a tensor '", name, "'; got none among ", tensors_.size());
  return *tensor;
}

void SafetensorsReader::read(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const {
  PERMAFROST_CHECK(
      byte_offset >= 0 && byte_offset <= tensor.bytes && std::cmp_less_equal(out.size(), tensor.bytes - byte_offset),
      "SafetensorsReader::read: range must lie within the ", tensor.bytes, " bytes of '", tensor.name, "'; got ",
      out.size(), " bytes from ", byte_offset);
  read_exactly(file_.get(), path_, tensor.file_offset + byte_offset, out);
}

void SafetensorsReader::read(std::string_view name, int64_t byte_offset, std::span<std::byte> out) const {
  read(at(name), byte_offset, out);
}

std::vector<std::byte> SafetensorsReader::read_all(std::string_view name) const {
  const StoredTensor& tensor = at(name);
  std::vector<std::byte> bytes(narrow<size_t>(tensor.bytes));
  read(tensor, 0, bytes);
  return bytes;
}

void SafetensorsReader::read_tensor(std::string_view name, const Tensor& out) const {
  const StoredTensor& tensor = at(name);
  if (!tensor.dtype || *tensor.dtype != out.dtype() || tensor.shape != out.shape())
    fail(ErrorKind::kWeights, path_, ": expected '", name, "' as ", out.spec(), "; got ", tensor.shape, " ",
         tensor.dtype_name);
  read(tensor, 0, {static_cast<std::byte*>(out.raw()), narrow<size_t>(out.bytes())});
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
