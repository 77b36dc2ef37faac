#pragma once
#include <cstdint>
#include <string_view>

namespace permafrost {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of `data` behind bytes whose checksum is `before`.
/// Source: RFC 3720, appendix B.4.
uint32_t crc32c(std::string_view data, uint32_t before = 0);

/// The checksum of TensorFlow's record files: rotated and shifted, so that a checksum over data that contains checksums
/// stays a good one. Source: tensorflow/core/lib/hash/crc32c.h.
uint32_t masked_crc32c(std::string_view data);

}  // namespace permafrost
