#include "core/weights/zip_archive.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

namespace {

constexpr size_t kUnpackings = 2;  // a tensor and the one it is compared with
constexpr size_t kCheckings = 64;  // some threads, each of which compares tensors
constexpr size_t kSkipBytes = size_t{1} << 16;

uint32_t crc_of(uint32_t crc, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

[[noreturn]] void wrong_crc(const std::string& path, const ZipMember& member, uint32_t crc) {
  fail(ErrorKind::kWeights, path, ": expected crc32 ", member.crc32, " of '", member.name, "'; got ", crc,
       " (damaged file)");
}

}  // namespace

/// A deflated member, unpacked up to `position`.
class ZipArchive::Unpacking {
 public:
  Unpacking(const InputFile& file, const ZipMember& member) : file_(file), member_(member) {
    if (inflateInit2(&stream_, -MAX_WBITS) != Z_OK)  // without a header of zlib's own
      fail(ErrorKind::kInternal, file_.path(), ": zlib cannot begin");
  }
  ~Unpacking() { inflateEnd(&stream_); }
  Unpacking(const Unpacking&) = delete;
  Unpacking& operator=(const Unpacking&) = delete;

  const ZipMember& member() const { return member_; }
  int64_t position() const { return position_; }

  void next(std::span<std::byte> out) {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    size_t left = out.size();
    while (left > 0) {
      stream_.avail_out = narrow<uInt>(std::min<size_t>(left, size_t{1} << 30));
      const uInt before = stream_.avail_out;
      const int status = inflate_some();
      left -= before - stream_.avail_out;
      if (status == Z_STREAM_END && left > 0) short_by(static_cast<int64_t>(left));
    }
    position_ += static_cast<int64_t>(out.size());
    crc_ = crc_of(crc_, out);
    if (position_ == member_.bytes) require_end();
  }

 private:
  int inflate_some() {
    if (stream_.avail_in == 0 && packed_read_ < member_.packed_bytes) {
      const auto bytes = static_cast<size_t>(
          std::min<int64_t>(static_cast<int64_t>(input_.size()), member_.packed_bytes - packed_read_));
      file_.read(member_.data_begin + packed_read_, std::span(input_).first(bytes));
      packed_read_ += static_cast<int64_t>(bytes);
      stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
      stream_.avail_in = static_cast<uInt>(bytes);
    }
    const int status = inflate(&stream_, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END)
      fail(ErrorKind::kWeights, file_.path(), ": expected deflated data in '", member_.name, "'; got ",
           stream_.msg ? stream_.msg : "an end too early", " near byte ", position_, " (damaged file)");
    return status;
  }

  [[noreturn]] void short_by(int64_t bytes) const {
    fail(ErrorKind::kWeights, file_.path(), ": expected ", member_.bytes, " bytes in '", member_.name, "'; got ", bytes,
         " less than asked for (damaged file)");
  }

  /// Whoever packed more than the directory says does not get it unpacked.
  void require_end() {
    std::array<Bytef, 1> beyond{};
    stream_.next_out = beyond.data();
    int status = Z_OK;
    do {
      stream_.avail_out = 1;
      status = inflate_some();
      if (stream_.avail_out == 0)
        fail(ErrorKind::kWeights, file_.path(), ": expected ", member_.bytes, " bytes in '", member_.name,
             "'; got more (a zip bomb?)");
    } while (status != Z_STREAM_END);
    if (crc_ != member_.crc32) wrong_crc(file_.path(), member_, crc_);
  }

  const InputFile& file_;
  const ZipMember& member_;
  z_stream stream_{};
  std::array<std::byte, size_t{1} << 16> input_;
  int64_t packed_read_ = 0, position_ = 0;
  uint32_t crc_ = 0;
};

ZipArchive::ZipArchive(std::string path, const char* expected)
    : file_(std::move(path), expected), members_(read_zip_directory(file_)) {
  for (size_t i = 0; i < members_.size(); ++i)
    if (!index_.emplace(members_[i].name, i).second)
      fail(ErrorKind::kWeights, file_.path(), ": expected every member once; got '", members_[i].name, "' twice");
}

ZipArchive::~ZipArchive() = default;

const ZipMember* ZipArchive::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &members_[found->second];
}

void ZipArchive::read(const ZipMember& member, int64_t offset, std::span<std::byte> out) const {
  PERMAFROST_CHECK(offset >= 0 && offset <= member.bytes && std::cmp_less_equal(out.size(), member.bytes - offset),
                   "ZipArchive::read: range must lie within the ", member.bytes, " bytes of '", member.name, "'; got ",
                   out.size(), " bytes from ", offset);
  member.deflated ? read_deflated(member, offset, out) : read_stored(member, offset, out);
}

std::string ZipArchive::read_whole(const ZipMember& member, int64_t limit) const {
  if (member.bytes > limit)
    fail(ErrorKind::kWeights, path(), ": expected at most ", limit, " bytes in '", member.name, "'; got ",
         member.bytes);
  std::string text(static_cast<size_t>(member.bytes), '\0');
  read(member, 0, std::as_writable_bytes(std::span(text)));
  return text;
}

void ZipArchive::read_stored(const ZipMember& member, int64_t offset, std::span<std::byte> out) const {
  file_.read(member.data_begin + offset, out);
  Checking checking{&member, 0, 0};
  if (offset > 0) {
    // Whoever goes on with what is being checked takes it along meanwhile; so threads do not wait for each other.
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(
        checking_, [&](const Checking& other) { return other.member == &member && other.next == offset; });
    if (found == checking_.end()) return;
    checking = *found;
    checking_.erase(found);
  }
  checking.crc = crc_of(checking.crc, out);
  checking.next += static_cast<int64_t>(out.size());
  if (checking.next == member.bytes) {
    if (checking.crc != member.crc32) wrong_crc(path(), member, checking.crc);
    return;
  }
  const std::lock_guard lock(mutex_);
  checking_.insert(checking_.begin(), checking);
  if (checking_.size() > kCheckings) checking_.pop_back();
}

void ZipArchive::read_deflated(const ZipMember& member, int64_t offset, std::span<std::byte> out) const {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find_if(unpacking_, [&](const auto& unpacking) {
    return &unpacking->member() == &member && unpacking->position() <= offset;
  });
  std::unique_ptr<Unpacking> unpacking;
  if (found != unpacking_.end()) {
    unpacking = std::move(*found);
    unpacking_.erase(found);
  } else {
    unpacking = std::make_unique<Unpacking>(file_, member);
  }
  if (unpacking->position() < offset) {
    std::vector<std::byte> skipped(kSkipBytes);
    while (unpacking->position() < offset)
      unpacking->next(std::span(skipped).first(
          static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(kSkipBytes), offset - unpacking->position()))));
  }
  unpacking->next(out);
  unpacking_.insert(unpacking_.begin(), std::move(unpacking));
  if (unpacking_.size() > kUnpackings) unpacking_.pop_back();
}

}  // namespace permafrost
