#include "core/base/sha256.h"

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

/// FIPS 180-4 examples.
TEST(Sha256, PublishedAnswers) {
  EXPECT_EQ(sha256("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string million(1000000, 'a');
  EXPECT_EQ(sha256(million.data(), million.size()), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesGiveTheSame) {
  const std::string text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  Sha256 hash;
  for (size_t begin = 0; begin < text.size(); begin += 5)
    hash.update(text.data() + begin, std::min<size_t>(5, text.size() - begin));
  hash.update(nullptr, 0);
  Sha256 moved = std::move(hash);
  EXPECT_EQ(moved.finish(), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, IsAsNewAfterItsDigest) {
  Sha256 hash;
  for (const std::string text : {"abc", "", "abc"}) {
    hash.update(text.data(), text.size());
    std::string hex;
    for (const std::byte byte : hash.finish_and_restart()) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned>(byte));
      hex += digits;
    }
    EXPECT_EQ(hex, sha256(text.data(), text.size()));
  }
}

}  // namespace
}  // namespace permafrost::testing
