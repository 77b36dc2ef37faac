#include "launch/metrics/event_file.h"

#include <cstring>

#include "core/base/crc32c.h"
#include "launch/metrics/event.pb.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {
using testing::throws_error;

TEST(Crc32c, HasTheValuesOfItsStandard) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(crc32c("3456789", crc32c("12")), 0xE3069283u);
  const uint32_t crc = crc32c("foo");
  EXPECT_EQ(masked_crc32c("foo"), ((crc >> 15) | (crc << 17)) + 0xA282EAD8u);
}

/// Takes one record off the front, checking its frame bit by bit, as a reader would.
std::string take_record(std::string& bytes) {
  const auto number = [&](size_t at, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes.at(at + i))) << (8 * i);
    return value;
  };
  const uint64_t length = number(0, 8);
  EXPECT_EQ(number(8, 4), masked_crc32c(bytes.substr(0, 8)));
  const std::string data = bytes.substr(12, length);
  EXPECT_EQ(data.size(), length);
  EXPECT_EQ(number(12 + length, 4), masked_crc32c(data));
  bytes.erase(0, 16 + length);
  return data;
}

TEST(EventFile, FramesRecords) {
  std::string bytes = frame_record("abc");
  EXPECT_EQ(bytes.size(), 19u);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\3\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(take_record(bytes), "abc");
  EXPECT_TRUE(bytes.empty());
}

TEST(EventFile, IsReadBackAsWritten) {
  const ScratchFolder folder;
  EventFile file(folder.path(), 1700000000.25);
  EXPECT_EQ(file.path().filename().string().find("events.out.tfevents.1700000000."), 0u);
  file.write(7, 1700000001.5, {{"train/loss", 2.5}, {"train/lr", 1e-3}});
  file.write(8, 1700000002.5, {{"train/loss", 2.25}});
  std::string bytes = read_file(file.path());

  tensorboard::Event event;
  ASSERT_TRUE(event.ParseFromString(take_record(bytes)));
  EXPECT_EQ(event.file_version(), "brain.Event:2");
  EXPECT_EQ(event.wall_time(), 1700000000.25);
  ASSERT_TRUE(event.ParseFromString(take_record(bytes)));
  EXPECT_EQ(event.step(), 7);
  EXPECT_EQ(event.wall_time(), 1700000001.5);
  ASSERT_EQ(event.summary().value_size(), 2);
  EXPECT_EQ(event.summary().value(0).tag(), "train/loss");
  EXPECT_EQ(event.summary().value(0).simple_value(), 2.5f);
  EXPECT_EQ(event.summary().value(1).simple_value(), 1e-3f);
  ASSERT_TRUE(event.ParseFromString(take_record(bytes)));
  EXPECT_EQ(event.step(), 8);
  EXPECT_TRUE(bytes.empty());
}

TEST(EventFile, HasTheBytesOfTheFormat) {
  // Field numbers and types of TensorFlow's own schema, written out by hand: 1 fixed64, 2 varint, 5 { 1 { 1 "a", 2
  // fixed32 } }.
  tensorboard::Event event;
  event.set_wall_time(1.0);
  event.set_step(3);
  auto* value = event.mutable_summary()->add_value();
  value->set_tag("a");
  value->set_simple_value(1.0f);
  EXPECT_EQ(event.SerializeAsString(), std::string("\x09\0\0\0\0\0\0\xF0\x3F"
                                                   "\x10\x03"
                                                   "\x2A\x0A\x0A\x08\x0A\x01"
                                                   "a"
                                                   "\x15\0\0\x80\x3F",
                                                   23));
}

TEST(EventFile, AFolderThatIsNotThereIsNamed) {
  EXPECT_TRUE(throws_error([] { EventFile("/nowhere/at/all", 0); }, ErrorKind::kStorage,
                           {"expected a file that can be written", "/nowhere/at/all"}));
}

}  // namespace
}  // namespace permafrost
