// Counts above 2^31 on real memory: 2.2e9 bytes. In a program of its own, because it needs gigabytes.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "core/base/check.h"
#include "core/device/buffer.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"

namespace permafrost {
namespace {

constexpr int64_t kBytes = 2'200'000'000;
constexpr int64_t kPeriod = int64_t{61} << 20;  // whole pages, and no part of 2^30 or 2^31, where pieces begin

uint8_t pattern(int64_t i) { return static_cast<uint8_t>((i % kPeriod * 2654435761) >> 18); }

/// What rank 0 sends: one period, mapped over and over, because clearing new pages is most of the time of this test.
std::span<uint8_t> repeated_pattern() {
  const int file = memfd_create("pattern", MFD_CLOEXEC);
  PERMAFROST_CHECK(file >= 0 && ftruncate(file, kPeriod) == 0, "memfd_create failed");
  constexpr int64_t kMapped = (kBytes + kPeriod - 1) / kPeriod * kPeriod;
  void* place = mmap(nullptr, kMapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  PERMAFROST_CHECK(place != MAP_FAILED, "mmap failed");
  auto* data = static_cast<uint8_t*>(place);
  for (int64_t at = 0; at < kMapped; at += kPeriod) {
    void* given = mmap(data + at, kPeriod, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    PERMAFROST_CHECK(given != MAP_FAILED, "mmap failed");
  }
  close(file);
  for (int64_t i = 0; i < kPeriod; ++i) data[i] = pattern(i);
  return {data, static_cast<size_t>(kBytes)};
}

void broadcast_large(Group& world) {
  if (world.rank() == 0) {
    world.broadcast(flat(repeated_pattern()), 0, StreamView::caller(), "2.2e9 bytes");
    return;
  }
  Buffer memory("large test tensor", kBytes);
  const std::span<uint8_t> data(reinterpret_cast<uint8_t*>(memory.data()), static_cast<size_t>(kBytes));
  world.broadcast(flat(data), 0, StreamView::caller(), "2.2e9 bytes");
  const auto check = [&](int64_t i) {
    if (data[static_cast<size_t>(i)] != pattern(i)) fail(ErrorKind::kInternal, "byte ", i, " is wrong");
  };
  for (int64_t i = 0; i < kBytes; i += 4095) check(i);
  for (const int64_t i : {int64_t{0}, int64_t{1} << 30, (int64_t{1} << 31) - 1, int64_t{1} << 31, kBytes - 1}) check(i);
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
