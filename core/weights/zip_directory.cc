#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/weights/zip_archive.h"

namespace permafrost {

namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50, kEndSignature = 0x06054b50,
                   kEnd64Signature = 0x06064b50, kLocatorSignature = 0x07064b50;
constexpr int64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr int64_t kMaxComment = 65535;
constexpr int64_t kMaxDirectoryBytes = 100'000'000;
constexpr int64_t kMaxMembers = 1'000'000;
/// What deflate packs at best is a little less than this to one; every block needs some bytes besides.
constexpr int64_t kMaxRatio = 1033, kMaxRatioSlack = 1 << 16;

template <typename T>
T number_at(std::string_view bytes, int64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

struct Directory {
  int64_t begin = 0, bytes = 0, members = 0;
};

/// What the central directory says of a member; offsets and sizes as unsigned numbers, not yet believed.
struct Entry {
  std::string name;
  uint16_t flags = 0, method = 0;
  uint32_t crc32 = 0;
  uint64_t packed = 0, unpacked = 0, header = 0;
};

class DirectoryReader {
 public:
  explicit DirectoryReader(const InputFile& file) : file_(file) {}

  std::vector<ZipMember> read() {
    const Directory directory = find_directory();
    const std::string text = text_at(directory.begin, directory.bytes);
    std::vector<ZipMember> members;
    int64_t at = 0;
    for (int64_t i = 0; i < directory.members; ++i) members.push_back(checked(next_entry(text, at), directory.begin));
    if (at != directory.bytes)
      refuse("its directory must end with the last of ", directory.members, " members; got ", directory.bytes - at,
             " bytes more");
    std::ranges::sort(members, {}, &ZipMember::header_begin);
    require_apart(members);
    return members;
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(const Args&... args) const {
    fail(ErrorKind::kWeights, file_.path(), ": expected a sound zip archive; got a broken one: ", args...);
  }

  std::string text_at(int64_t offset, int64_t bytes) const {
    std::string text(static_cast<size_t>(bytes), '\0');
    file_.read(offset, std::as_writable_bytes(std::span(text)));
    return text;
  }

  /// Checks that [begin, begin + bytes) lies before `end`.
  int64_t within(uint64_t begin, uint64_t bytes, int64_t end, const char* what) const {
    const auto limit = static_cast<uint64_t>(end);
    if (begin > limit || bytes > limit - begin)
      refuse(what, " must lie before byte ", end, "; got ", bytes, " bytes from ", begin);
    return static_cast<int64_t>(begin);
  }

  Directory find_directory() const {
    const int64_t tail = std::min(file_.bytes(), kEndBytes + kMaxComment), tail_begin = file_.bytes() - tail;
    const std::string text = text_at(tail_begin, tail);
    for (int64_t at = tail - kEndBytes; at >= 0; --at)
      if (number_at<uint32_t>(text, at) == kEndSignature && number_at<uint16_t>(text, at + 20) == tail - at - kEndBytes)
        return end_record(std::string_view(text).substr(static_cast<size_t>(at)), tail_begin + at);
    fail(ErrorKind::kWeights, file_.path(), ": expected a whole zip archive; got one without its end (", file_.bytes(),
         " bytes; truncated?)");
  }

  Directory end_record(std::string_view record, int64_t place) const {
    const auto disk = number_at<uint16_t>(record, 4);  // all ones: see the zip64 record
    if (disk != 0 && disk != 0xffff) refuse("it must be on one disk; got a part of several");
    uint64_t members = number_at<uint16_t>(record, 10), bytes = number_at<uint32_t>(record, 12),
             begin = number_at<uint32_t>(record, 16);
    int64_t end = place;
    if (place >= kLocatorBytes) {
      const std::string locator = text_at(place - kLocatorBytes, kLocatorBytes);
      if (number_at<uint32_t>(locator, 0) == kLocatorSignature) {
        end = within(number_at<uint64_t>(locator, 8), kEnd64Bytes, place - kLocatorBytes, "the zip64 end record");
        const std::string wide = text_at(end, kEnd64Bytes);
        if (number_at<uint32_t>(wide, 0) != kEnd64Signature) refuse("its zip64 end record is not where it should be");
        members = number_at<uint64_t>(wide, 32);
        bytes = number_at<uint64_t>(wide, 40);
        begin = number_at<uint64_t>(wide, 48);
      }
    }
    if (bytes > static_cast<uint64_t>(kMaxDirectoryBytes) || members > static_cast<uint64_t>(kMaxMembers))
      refuse("its directory must have at most ", kMaxMembers, " members in ", kMaxDirectoryBytes, " bytes; got ",
             members, " in ", bytes);
    within(begin, bytes, end, "the directory");
    return {static_cast<int64_t>(begin), static_cast<int64_t>(bytes), static_cast<int64_t>(members)};
  }

  Entry next_entry(std::string_view text, int64_t& at) const {
    const auto size = static_cast<int64_t>(text.size());
    if (size - at < kCentralBytes || number_at<uint32_t>(text, at) != kCentralSignature)
      refuse("entry at byte ", at, " of its directory is none");
    const int64_t name = number_at<uint16_t>(text, at + 28), extra = number_at<uint16_t>(text, at + 30),
                  comment = number_at<uint16_t>(text, at + 32), rest = at + kCentralBytes;
    if (name + extra + comment > size - rest) refuse("entry at byte ", at, " of its directory leaves it");
    Entry entry;
    entry.name = text.substr(static_cast<size_t>(rest), static_cast<size_t>(name));
    entry.flags = number_at<uint16_t>(text, at + 8);
    entry.method = number_at<uint16_t>(text, at + 10);
    entry.crc32 = number_at<uint32_t>(text, at + 16);
    entry.packed = number_at<uint32_t>(text, at + 20);
    entry.unpacked = number_at<uint32_t>(text, at + 24);
    entry.header = number_at<uint32_t>(text, at + 42);
    widen(entry, text.substr(static_cast<size_t>(rest + name), static_cast<size_t>(extra)));
    at = rest + name + extra + comment;
    return entry;
  }

  /// Numbers of 64 bits stand in extra field 1, in this order, only for those that are all ones otherwise.
  void widen(Entry& entry, std::string_view extra) const {
    constexpr uint32_t kSeeExtra = 0xffffffff;
    std::string_view wide = wide_numbers(extra);
    for (uint64_t* value : {&entry.unpacked, &entry.packed, &entry.header}) {
      if (*value != kSeeExtra) continue;
      if (wide.size() < 8) refuse("'", entry.name, "' has no 64-bit size or place where it needs one");
      *value = number_at<uint64_t>(wide, 0);
      wide.remove_prefix(8);
    }
  }

  static std::string_view wide_numbers(std::string_view extra) {
    while (extra.size() >= 4) {
      const size_t bytes = number_at<uint16_t>(extra, 2);
      if (bytes > extra.size() - 4) break;
      if (number_at<uint16_t>(extra, 0) == 1) return extra.substr(4, bytes);
      extra.remove_prefix(4 + bytes);
    }
    return {};
  }

  ZipMember checked(const Entry& entry, int64_t directory_begin) const {
    const std::string who = concat("'", entry.name, "'");
    if ((entry.flags & 0x2041u) != 0)
      fail(ErrorKind::kWeights, file_.path(), ": expected members in the clear; got ", who, " encrypted");
    if (entry.method != 0 && entry.method != 8)
      fail(ErrorKind::kWeights, file_.path(), ": expected members stored or deflated; got ", who, " by method ",
           entry.method);
    ZipMember member;
    member.name = entry.name;
    member.deflated = entry.method == 8;
    member.crc32 = entry.crc32;
    member.header_begin = within(entry.header, kLocalBytes, directory_begin, who.c_str());
    const std::string local = text_at(member.header_begin, kLocalBytes);
    if (number_at<uint32_t>(local, 0) != kLocalSignature) refuse("the header of ", who, " is not where it should be");
    const int64_t name = number_at<uint16_t>(local, 26), extra = number_at<uint16_t>(local, 28);
    const int64_t data = member.header_begin + kLocalBytes + name + extra;
    within(static_cast<uint64_t>(data), entry.packed, directory_begin, who.c_str());
    if (text_at(member.header_begin + kLocalBytes, name) != entry.name || number_at<uint16_t>(local, 8) != entry.method)
      refuse("the header of ", who, " says something else than the directory");
    member.data_begin = data;
    member.packed_bytes = static_cast<int64_t>(entry.packed);
    if (member.deflated ? entry.unpacked > entry.packed * kMaxRatio + kMaxRatioSlack : entry.unpacked != entry.packed)
      refuse(who, " cannot have ", entry.unpacked, " bytes in ", entry.packed,
             member.deflated ? " deflated ones (a zip bomb?)" : " stored ones");
    member.bytes = static_cast<int64_t>(entry.unpacked);
    return member;
  }

  void require_apart(const std::vector<ZipMember>& members) const {
    for (size_t i = 1; i < members.size(); ++i)
      if (members[i].header_begin < members[i - 1].data_begin + members[i - 1].packed_bytes)
        refuse("'", members[i - 1].name, "' and '", members[i].name, "' overlap");
  }

  const InputFile& file_;
};

}  // namespace

std::vector<ZipMember> read_zip_directory(const InputFile& file) { return DirectoryReader(file).read(); }

}  // namespace permafrost
