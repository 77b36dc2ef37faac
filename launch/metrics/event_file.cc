#include "launch/metrics/event_file.h"

#include <unistd.h>

#include <chrono>

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "launch/metrics/event.pb.h"

namespace permafrost {

namespace {

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xFF);
  return bytes;
}

}  // namespace

std::string frame_record(std::string_view data) {
  const std::string length = little_endian<uint64_t>(data.size());
  return length + little_endian(masked_crc32c(length)) + std::string(data) + little_endian(masked_crc32c(data));
}

EventFile::EventFile(const std::filesystem::path& folder, double wall_time)
    : file_(folder / concat("events.out.tfevents.", static_cast<int64_t>(wall_time), ".", ::getpid())) {
  tensorboard::Event event;
  event.set_wall_time(wall_time);
  event.set_file_version("brain.Event:2");
  file_.append(frame_record(event.SerializeAsString()));
}

void EventFile::write(int64_t step, double wall_time, const std::vector<std::pair<std::string, double>>& scalars) {
  tensorboard::Event event;
  event.set_wall_time(wall_time);
  event.set_step(step);
  for (const auto& [tag, value] : scalars) {
    tensorboard::Summary::Value* entry = event.mutable_summary()->add_value();
    entry->set_tag(tag);
    entry->set_simple_value(static_cast<float>(value));
  }
  file_.append(frame_record(event.SerializeAsString()));
}

double wall_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace permafrost
