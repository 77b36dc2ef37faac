#pragma once
#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace permafrost::testing {

/// A member of an archive to be made, and everything that can be said wrongly about it.
struct ZipEntry {
  std::string name, data;
  bool deflate = false;
  uint16_t method = 0xffff;  ///< 0xffff: as `deflate` says
  uint16_t flags = 0;
  int64_t said_bytes = -1;  ///< unpacked, instead of the truth
  int64_t said_packed = -1;
  int64_t said_header = -1;  ///< where the local header is
  uint32_t crc_change = 0;   ///< added to the true crc32
  bool zip64 = false;        ///< sizes and place in 64 bits
};

inline void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xff));
}

inline std::string deflated(const std::string& data) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()) + 16, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

/// The bytes of a zip archive of these members.
inline std::string zip_bytes(const std::vector<ZipEntry>& entries, bool zip64_end = false) {
  std::string out, directory;
  for (const ZipEntry& entry : entries) {
    const std::string packed = entry.deflate ? deflated(entry.data) : entry.data;
    const uint32_t crc =
        static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(entry.data.data()), entry.data.size())) +
        entry.crc_change;
    const uint16_t method = entry.method != 0xffff ? entry.method : entry.deflate ? 8 : 0;
    const uint64_t bytes = entry.said_bytes >= 0 ? static_cast<uint64_t>(entry.said_bytes) : entry.data.size();
    const uint64_t packed_bytes = entry.said_packed >= 0 ? static_cast<uint64_t>(entry.said_packed) : packed.size();
    const uint64_t header = entry.said_header >= 0 ? static_cast<uint64_t>(entry.said_header) : out.size();
    const auto common = [&](std::string& to) {
      put(to, 20, 2), put(to, entry.flags, 2), put(to, method, 2), put(to, 0, 4), put(to, crc, 4);
      put(to, entry.zip64 ? 0xffffffff : packed_bytes, 4), put(to, entry.zip64 ? 0xffffffff : bytes, 4);
      put(to, entry.name.size(), 2);
    };
    put(directory, 0x02014b50, 4), put(directory, 20, 2);
    common(directory);
    put(directory, entry.zip64 ? 28 : 0, 2), put(directory, 0, 2), put(directory, 0, 4), put(directory, 0, 4);
    put(directory, entry.zip64 ? 0xffffffff : header, 4);
    directory += entry.name;
    if (entry.zip64)
      put(directory, 1, 2), put(directory, 24, 2), put(directory, bytes, 8), put(directory, packed_bytes, 8),
          put(directory, header, 8);
    put(out, 0x04034b50, 4);
    common(out);
    put(out, 0, 2);
    out += entry.name + packed;
  }
  const size_t begin = out.size();
  out += directory;
  if (zip64_end) {
    const size_t end = out.size();
    put(out, 0x06064b50, 4), put(out, 44, 8), put(out, 45, 2), put(out, 45, 2), put(out, 0, 8);
    put(out, entries.size(), 8), put(out, entries.size(), 8), put(out, directory.size(), 8), put(out, begin, 8);
    put(out, 0x07064b50, 4), put(out, 0, 4), put(out, end, 8), put(out, 1, 4);
  }
  put(out, 0x06054b50, 4), put(out, 0, 4);
  for (int i = 0; i < 2; ++i) put(out, zip64_end ? 0xffff : entries.size(), 2);
  put(out, zip64_end ? 0xffffffff : directory.size(), 4), put(out, zip64_end ? 0xffffffff : begin, 4), put(out, 0, 2);
  return out;
}

}  // namespace permafrost::testing
