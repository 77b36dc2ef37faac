#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/metrics/output_file.h"

namespace permafrost {

/// One record of TensorFlow's record format: length, its masked checksum, data, its masked checksum; little endian.
std::string frame_record(std::string_view data);

/// Writes scalars for TensorBoard. Each `write` appends one event and hands it to the operating system.
class EventFile {
 public:
  /// Makes events.out.tfevents.<seconds>.<process> in `folder`, which exists. Errors: kStorage naming the file.
  EventFile(const std::filesystem::path& folder, double wall_time_s);

  /// Names as TensorBoard shows them ("train/loss"). Errors: kStorage.
  void write(int64_t step, double wall_time_s, const std::vector<std::pair<std::string, double>>& scalars);
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  OutputFile file_;
};

/// Seconds since 1970.
double wall_time_s();

}  // namespace permafrost
