#include "launch/training/memory_use.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "launch/training/plan_setup.h"

namespace permafrost {
namespace {

/// Pages that nobody has touched yet.
class Pages {
 public:
  explicit Pages(int64_t count) : bytes_(count * page()) {
    data_ = mmap(nullptr, static_cast<size_t>(bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(data_, static_cast<size_t>(bytes_), MADV_NOHUGEPAGE);
  }
  ~Pages() { munmap(data_, static_cast<size_t>(bytes_)); }
  static int64_t page() { return sysconf(_SC_PAGE_SIZE); }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  int64_t bytes() const { return bytes_; }
  void touch(int64_t page_number) const { data()[page_number * page()] = std::byte{1}; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

TEST(MemoryUse, CountsThePagesThatWereTouched) {
  const Pages pages(16);
  EXPECT_EQ(resident_bytes(pages.data(), pages.bytes()), 0);
  pages.touch(0);
  pages.touch(7);
  pages.touch(8);
  EXPECT_EQ(resident_bytes(pages.data(), pages.bytes()), 3 * Pages::page());
  EXPECT_EQ(resident_bytes(pages.data() + 8 * Pages::page(), 8 * Pages::page()), Pages::page());
  EXPECT_EQ(resident_bytes(pages.data() + 7 * Pages::page() + 100, Pages::page()), 2 * Pages::page()) << "two in part";
  EXPECT_EQ(resident_bytes(nullptr, 0), 0);
}

TEST(MemoryUse, SetsEachCategoryBesideItsForecastAndCallsTheRestProcess) {
  Plan plan;
  plan.world.ranks = 2;
  plan.memory.arena = 100;
  plan.memory.frozen = 50;
  const Pages arena(4), more(4), frozen(4);
  for (int64_t i = 0; i < 4; ++i) frozen.touch(i);
  arena.touch(1);
  more.touch(0);
  more.touch(3);
  const int64_t page = Pages::page();
  const std::vector<MemoryUse> uses = memory_use(plan,
                                                 {{"arena", arena.data(), arena.bytes()},
                                                  {"arena", more.data(), more.bytes()},
                                                  {"frozen", frozen.data(), frozen.bytes()}},
                                                 100 * page);
  const auto of = [&](const std::string& category) { return *std::ranges::find(uses, category, &MemoryUse::category); };
  EXPECT_EQ(of("arena").used, 3 * page) << "both pieces";
  EXPECT_EQ(of("arena").forecast, 100);
  EXPECT_EQ(of("frozen").used, 2 * page) << "the share of one of two ranks";
  EXPECT_EQ(of("frozen").forecast, 50);
  EXPECT_EQ(of("slots").used, 0);
  EXPECT_EQ(uses.back().category, "process");
  EXPECT_EQ(uses.back().forecast, kProcessConstantBytes);
  EXPECT_EQ(uses.back().used, 95 * page);
}

TEST(MemoryUse, OnAGpuTheHostHasOtherCategories) {
  Plan plan;
  plan.world.device = DeviceKind::kCuda;
  plan.memory.arena = 100;  // on the device
  plan.memory.frozen = 50;
  plan.host_memory.inputs = 70;
  plan.host_memory.staging = 80;
  const Pages staging(2);
  staging.touch(1);
  const std::vector<MemoryUse> uses =
      memory_use(plan, {{"staging", staging.data(), staging.bytes()}}, 10 * Pages::page());
  std::string categories;
  for (const MemoryUse& use : uses) categories += use.category + " ";
  EXPECT_EQ(categories, "frozen working inputs staging process ");
  EXPECT_EQ(uses[2].forecast, 70);
  EXPECT_EQ(uses[3].forecast, 80);
  EXPECT_EQ(uses[3].used, Pages::page());
  EXPECT_EQ(uses.back().used, 9 * Pages::page());
  EXPECT_EQ(uses.back().forecast, int64_t{608} << 20) << "with the driver's and CUDA's libraries";
}

TEST(MemoryUse, ThePeakIsThatSinceTheLastReset) {
  if (peak_memory_bytes() == 0) GTEST_SKIP() << "this kernel does not tell the peak";
  constexpr int64_t kMany = 64 << 20;
  {
    const Pages pages(kMany / Pages::page());
    std::memset(pages.data(), 1, static_cast<size_t>(kMany));
  }
  const int64_t with = peak_memory_bytes();
  reset_peak_memory();
  EXPECT_LT(peak_memory_bytes(), with - kMany / 2);
}

}  // namespace
}  // namespace permafrost
