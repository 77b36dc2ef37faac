#include "core/weights/block_hash.h"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace permafrost {

void BlockHasher::add(std::string_view name, int64_t first_block, std::span<const std::byte> bytes, BlockHashSum& sum) {
  for (int64_t block = first_block; !bytes.empty(); ++block) {
    const auto part = bytes.first(std::min<size_t>(bytes.size(), kBlockBytes));
    bytes = bytes.subspan(part.size());
    const std::array<uint64_t, 2> place{static_cast<uint64_t>(block), part.size()};
    hash_.update(name.data(), name.size());
    hash_.update("\n", 1);
    hash_.update(place.data(), sizeof place);
    hash_.update(part.data(), part.size());
    const auto lanes = std::bit_cast<BlockHashSum>(hash_.finish_and_restart());
    for (size_t lane = 0; lane < lanes.size(); ++lane) sum[lane] += lanes[lane];
  }
}

std::string to_hex(const BlockHashSum& sum) {
  std::string text;
  for (const uint64_t lane : sum) {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(lane));
    text += digits;
  }
  return text;
}

}  // namespace permafrost
