#include "core/weights/torch_writer.h"

#include <zlib.h>

#include <bit>
#include <set>

#include "core/base/check.h"
#include "core/weights/torch_pickle.h"

namespace permafrost {

namespace {

constexpr int64_t kAlignment = 64;  // of the data in the file, as torch.save has it
constexpr int64_t kLocalHeaderBytes = 30, kDescriptorBytes = 16, kDirectoryEntryBytes = 46, kEndRecordBytes = 22;
constexpr int64_t kMaxBytes = 0xfffffffe;
constexpr size_t kMostMembers = 0xffff;
const std::string kFolder = "archive/", kByteOrder = "little", kVersion = "3\n";

/// Little-endian numbers one after the other.
class Record {
 public:
  Record& add(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_.push_back(static_cast<char>(value >> (8 * i) & 0xffu));
    return *this;
  }
  Record& add(const std::string& text) {
    text_ += text;
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// The fields that local header and directory share: version needed, flags (sizes come behind the data; names are
/// UTF-8), stored, no time.
void add_common(Record& record, uint32_t crc32, int64_t bytes, size_t name) {
  record.add(0, 2).add(0x0808, 2).add(0, 2).add(0, 4).add(crc32, 4);
  record.add(static_cast<uint64_t>(bytes), 4).add(static_cast<uint64_t>(bytes), 4).add(name, 2);
}

/// Where a member's data begins: its local header ends with a field that fills up to there.
int64_t data_begin(int64_t header_begin, size_t name) {
  const int64_t least = header_begin + kLocalHeaderBytes + static_cast<int64_t>(name) + 4;
  return (least + kAlignment - 1) / kAlignment * kAlignment;
}

/// Of the whole file.
class FileSize {
 public:
  void add_member(const std::string& name, int64_t bytes) {
    const size_t length = kFolder.size() + name.size();
    end_ = data_begin(end_, length) + bytes + kDescriptorBytes;
    directory_ += kDirectoryEntryBytes + static_cast<int64_t>(length);
  }
  int64_t bytes() const { return end_ + directory_ + kEndRecordBytes; }

 private:
  int64_t end_ = 0, directory_ = 0;
};

}  // namespace

TorchWriter::TorchWriter(const std::string& path, std::vector<TensorDeclaration> tensors, const Json& others)
    : path_(path), tensors_(std::move(tensors)), file_(path) {
  std::set<std::string_view> names;
  FileSize size;
  const std::string pickle = torch_pickle(tensors_, others);
  size.add_member("data.pkl", std::ssize(pickle));
  size.add_member("byteorder", std::ssize(kByteOrder));
  for (size_t i = 0; i < tensors_.size(); ++i) {
    PERMAFROST_CHECK(names.insert(tensors_[i].name).second, "TorchWriter: tensor names must differ; got '",
                     tensors_[i].name, "' twice");
    size.add_member(concat("data/", i), tensors_[i].spec.bytes());
  }
  size.add_member("version", std::ssize(kVersion));
  if (size.bytes() > kMaxBytes || tensors_.size() + 3 >= kMostMembers)
    fail(ErrorKind::kWeights, path, ": expected a PyTorch file of less than 4 GiB and ", kMostMembers, " members; got ",
         size.bytes(), " bytes in ", tensors_.size() + 3, " (safetensors have no such limit)");
  file_bytes_ = size.bytes();
  write_member("data.pkl", pickle);
  write_member("byteorder", kByteOrder);
  if (!tensors_.empty()) begin_member("data/0");
  end_full_tensors();
}

void TorchWriter::begin_member(const std::string& name) {
  Written member{kFolder + name, 0, 0, file_.written_bytes()};
  const auto padding = static_cast<size_t>(data_begin(member.header_begin, member.name.size()) - member.header_begin -
                                           kLocalHeaderBytes - std::ssize(member.name) - 4);
  Record header;
  header.add(0x04034b50, 4);
  add_common(header, 0, 0, member.name.size());
  header.add(padding + 4, 2).add(member.name).add("FB").add(padding, 2).add(std::string(padding, 'Z'));
  file_.write(header.text().data(), header.text().size());
  members_.push_back(std::move(member));
}

void TorchWriter::add_bytes(std::span<const std::byte> data) {
  Written& member = members_.back();
  file_.write(data.data(), data.size());
  member.crc32 = static_cast<uint32_t>(crc32_z(member.crc32, reinterpret_cast<const Bytef*>(data.data()), data.size()));
  member.bytes += static_cast<int64_t>(data.size());
}

void TorchWriter::end_member() {
  const Written& member = members_.back();
  Record record;
  record.add(0x08074b50, 4).add(member.crc32, 4);
  record.add(static_cast<uint64_t>(member.bytes), 4).add(static_cast<uint64_t>(member.bytes), 4);
  file_.write(record.text().data(), record.text().size());
}

void TorchWriter::write_member(const std::string& name, const std::string& data) {
  begin_member(name);
  add_bytes(std::as_bytes(std::span(data)));
  end_member();
}

/// Ends the member of every tensor whose data is complete, and begins the next one's.
void TorchWriter::end_full_tensors() {
  while (next_tensor_ < tensors_.size() && members_.back().bytes == tensors_[next_tensor_].spec.bytes()) {
    end_member();
    if (++next_tensor_ < tensors_.size()) begin_member(concat("data/", next_tensor_));
  }
}

void TorchWriter::write(std::span<const std::byte> data) {
  while (!data.empty()) {
    PERMAFROST_CHECK(next_tensor_ < tensors_.size(), "TorchWriter: ", path_, ": all ", tensors_.size(),
                     " tensors are written; got ", data.size(), " bytes more");
    const int64_t due = tensors_[next_tensor_].spec.bytes() - members_.back().bytes;
    const auto part = data.first(std::min(data.size(), static_cast<size_t>(due)));
    add_bytes(part);
    data = data.subspan(part.size());
    end_full_tensors();
  }
}

void TorchWriter::finish() {
  PERMAFROST_CHECK(next_tensor_ == tensors_.size(), "TorchWriter: ", path_, " takes ", tensors_.size(),
                   " tensors; got ", next_tensor_);
  write_member("version", kVersion);
  const int64_t begin = file_.written_bytes();
  for (const Written& member : members_) {
    Record entry;
    entry.add(0x02014b50, 4).add(0, 2);
    add_common(entry, member.crc32, member.bytes, member.name.size());
    entry.add(0, 8).add(0, 4).add(static_cast<uint64_t>(member.header_begin), 4).add(member.name);
    file_.write(entry.text().data(), entry.text().size());
  }
  const int64_t bytes = file_.written_bytes() - begin;
  Record end;
  end.add(0x06054b50, 4).add(0, 4).add(members_.size(), 2).add(members_.size(), 2);
  end.add(static_cast<uint64_t>(bytes), 4).add(static_cast<uint64_t>(begin), 4).add(0, 2);
  file_.write(end.text().data(), end.text().size());
  PERMAFROST_CHECK(file_.written_bytes() == file_bytes_, "TorchWriter: ", path_, " must have ", file_bytes_,
                   " bytes; got ", file_.written_bytes());
  file_.commit();
}

}  // namespace permafrost
