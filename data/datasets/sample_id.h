#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace permafrost {

/// Ids of samples lie below this, so that datasets that are mixed can be told apart in the bits above.
inline constexpr int kSampleIdBits = 56;

/// An id as it stands in a file and the number it is addressed by.
struct WrittenId {
  uint64_t number = 0;
  std::string name;  ///< empty where the id is that number
};

/// Decimal numbers without leading zeros stand for themselves; any other text for 56 bits of its SHA-256.
WrittenId sample_id(std::string_view written);

/// Number of an image that a file names by text: the digits at its end ("COCO_val2014_000000000042": 42), or 56 bits of
/// its SHA-256 where it has none.
uint64_t image_number(std::string_view written);

/// Puts an image id into a file name: one of %s (the id as written), %d, %012d or another width. Errors: kConfig for
/// another number of placeholders, kData for an id that is no number where %d wants one, and for ids that would lead
/// out of the folder.
std::string image_file_name(std::string_view pattern, std::string_view id);

}  // namespace permafrost
