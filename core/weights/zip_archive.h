#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/weights/input_file.h"

namespace permafrost {

/// One file within a zip archive.
struct ZipMember {
  std::string name;
  bool deflated = false;
  uint32_t crc32 = 0;        ///< of the unpacked bytes
  int64_t header_begin = 0;  ///< of its local header, in the archive
  int64_t data_begin = 0;
  int64_t packed_bytes = 0;
  int64_t bytes = 0;  ///< unpacked
};

/// The members of an archive, ordered by where they lie. Reads the central directory (zip64 too) and every local
/// header. Errors: as ZipArchive.
std::vector<ZipMember> read_zip_directory(const InputFile& file);

/// A zip archive (APPNOTE 6.3.3: stored and deflated members, zip64), read by slices; nothing is ever extracted.
/// Opening reads the directory only and refuses: archives cut short, several disks, encrypted members, methods other
/// than stored and deflated, a name twice, sizes and places that contradict the file or each other, members that
/// overlap, and more unpacked bytes than deflate can possibly have packed.
/// A member read from its first to its last byte, in order, is checked against its crc32, in however many slices, also
/// where others are read in between (up to 64 members and readers at a time).
/// Several threads may read; those who share a deflated member wait for each other.
/// Errors: kWeights with the archive's name (and the member's); kStorage when the system refuses to read.
class ZipArchive {
 public:
  /// `expected`: what the file should be, for messages.
  ZipArchive(std::string path, const char* expected);
  ~ZipArchive();
  ZipArchive(const ZipArchive&) = delete;
  ZipArchive& operator=(const ZipArchive&) = delete;

  const std::string& path() const { return file_.path(); }
  int64_t file_bytes() const { return file_.bytes(); }
  const std::vector<ZipMember>& members() const { return members_; }
  /// nullptr when there is none.
  const ZipMember* find(std::string_view name) const;

  /// Unpacked bytes [offset, offset + out.size()) of a member of this archive. A deflated member is unpacked on the
  /// way, from its beginning whenever a slice begins before the end of an earlier one: read in order.
  void read(const ZipMember& member, int64_t offset, std::span<std::byte> out) const;
  /// All of it; kWeights when it has more than `limit` bytes.
  std::string read_whole(const ZipMember& member, int64_t limit) const;

 private:
  class Unpacking;
  /// A stored member of which every byte before `next` has been read.
  struct Checking {
    const ZipMember* member = nullptr;
    int64_t next = 0;
    uint32_t crc = 0;
  };
  void read_stored(const ZipMember& member, int64_t offset, std::span<std::byte> out) const;
  void read_deflated(const ZipMember& member, int64_t offset, std::span<std::byte> out) const;

  InputFile file_;
  std::vector<ZipMember> members_;
  std::unordered_map<std::string, size_t> index_;
  mutable std::mutex mutex_;                                   // of the two below
  mutable std::vector<std::unique_ptr<Unpacking>> unpacking_;  // the last used first; few, each has some 100 KiB
  mutable std::vector<Checking> checking_;                     // what is being read in order, the last first
};

}  // namespace permafrost
