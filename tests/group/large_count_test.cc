// Counts above 2^31 on real memory: 2.2e9 bytes. In a program of its own, because it needs gigabytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "core/base/check.h"
#include "core/device/buffer.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {
namespace {

constexpr int64_t kBytes = 2'200'000'000;

uint8_t pattern(int64_t i) { return static_cast<uint8_t>((i * 2654435761) >> 13); }

void broadcast_large(Group& world) {
  Buffer memory("large test tensor", kBytes);
  const std::span<uint8_t> data(reinterpret_cast<uint8_t*>(memory.data()), static_cast<size_t>(kBytes));
  const auto probes = {int64_t{0}, int64_t{1} << 30, (int64_t{1} << 31) - 1, int64_t{1} << 31, kBytes - 1};
  if (world.rank() == 0)
    for (int64_t i = 0; i < kBytes; i += i % 4096 == 0 ? 1 : 4095) data[static_cast<size_t>(i)] = pattern(i);
  if (world.rank() == 0)
    for (const int64_t i : probes) data[static_cast<size_t>(i)] = pattern(i);
  world.broadcast(flat(data), 0, StreamView::caller(), "2.2e9 bytes");
  for (int64_t i = 0; i < kBytes; i += 4096)
    if (data[static_cast<size_t>(i)] != pattern(i)) fail(ErrorKind::kInternal, "byte ", i, " is wrong");
  for (const int64_t i : probes)
    if (data[static_cast<size_t>(i)] != pattern(i)) fail(ErrorKind::kInternal, "byte ", i, " is wrong");
}

}  // namespace
}  // namespace permafrost

int main() {
  permafrost::MpiOptions options;
  options.timeout = std::chrono::seconds(100);
  const auto environment = permafrost::open_mpi(options);
  return permafrost::fail_together(environment->world(), [&] {
    permafrost::broadcast_large(environment->world());
    environment->close();
  });
}
