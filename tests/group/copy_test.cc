#include "parallel/group/copy.h"

#include <gtest/gtest.h>

#include <vector>

namespace permafrost {
namespace {

TEST(CopyPastCaches, CopiesEveryByteAndNoOther) {
  constexpr int64_t kMiB = int64_t{1} << 20, kMargin = 64;
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{63}, kMiB - 1, kMiB, kMiB + 1, kMiB + 63, 3 * kMiB + 17})
    for (const int64_t target_at : {int64_t{0}, int64_t{1}, int64_t{63}})
      for (const int64_t source_at : {int64_t{0}, int64_t{5}}) {
        std::vector<std::byte> source(static_cast<size_t>(bytes + source_at)), target;
        for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 7 + i / 251);
        target.assign(static_cast<size_t>(bytes + target_at + kMargin), std::byte{0xEE});
        copy_past_caches(target.data() + target_at, source.data() + source_at, bytes);
        EXPECT_TRUE(
            std::equal(target.begin() + target_at, target.begin() + target_at + bytes, source.begin() + source_at))
            << bytes << " bytes from " << source_at << " to " << target_at;
        for (int64_t i = 0; i < target_at; ++i) ASSERT_EQ(target[static_cast<size_t>(i)], std::byte{0xEE});
        for (int64_t i = 0; i < kMargin; ++i)
          ASSERT_EQ(target[static_cast<size_t>(target_at + bytes + i)], std::byte{0xEE});
      }
}

}  // namespace
}  // namespace permafrost
