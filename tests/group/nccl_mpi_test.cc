// On GPUs, run by mpirun: every rank takes one of this machine and runs every test. Skips with a word where there are
// fewer than ranks.
#include <gtest/gtest.h>

#include <iostream>

#include "core/device/cuda.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"
#include "parallel/group/nccl/nccl_group.h"
#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

NcclGroup* group = nullptr;
MovedBytes moved_by_nccl;

TEST(NcclOnGpus, Collectives) { check_collectives(*group, Others::kTakePart); }
TEST(NcclOnGpus, Streams) { check_streams(*group, Others::kTakePart); }
TEST(NcclOnGpus, PointToPoint) { check_point_to_point(*group); }
TEST(NcclOnGpus, Split) { check_split(*group); }
TEST(NcclOnGpus, ArgumentErrors) { check_argument_errors(*group); }
TEST(NcclOnGpus, MovedBytes) { check_moved_bytes(*group, moved_by_nccl, MovedClosedForm::kFlat); }

TEST(NcclOnGpus, RegisteredMemoryGathersTheSame) {
  constexpr int64_t kElements = int64_t{1} << 20;
  const Device device = used_device();
  const Buffer arena = nccl_memory("arena", kElements * group->size() * 8, device);
  group->register_memory(arena.data(), arena.bytes());
  std::cout << group->describe() << std::endl;
  const Tensor all(arena.data(), DType::kI64, Shape({kElements * group->size()}), device);
  const Tensor part = all.rows(kElements * group->rank(), kElements * (group->rank() + 1));
  Stream stream(device);
  std::vector<int64_t> values(static_cast<size_t>(kElements), group->rank() + 1);
  cuda::copy(*stream.queue(), part.raw(), values.data(), part.bytes());
  group->all_gather(part, all, {}, stream, "registered").wait();
  values.resize(static_cast<size_t>(all.elements()));
  cuda::copy(*stream.queue(), values.data(), all.raw(), all.bytes());
  stream.synchronize();
  int64_t wrong = 0;
  for (int64_t i = 0; i < all.elements(); ++i) wrong += values[static_cast<size_t>(i)] != i / kElements + 1;
  EXPECT_EQ(wrong, 0);
}

std::string why_skipped(Group& world) {
  int64_t gpus = cuda::device_count();
  const Tensor tensor = flat(std::span(&gpus, 1));
  world.all_reduce(tensor, tensor, ReduceOp::kMin, StreamView::caller(), "GPUs").wait();
  if (gpus == 0) return cuda::device_count() == 0 ? cuda::why_unavailable() : "another rank sees no GPU";
  if (gpus < world.size()) return concat(world.size(), " ranks need as many GPUs of one machine; got ", gpus);
  return find_nccl().missing;
}

void run_on_gpus(Group& world) {
  if (const std::string why = why_skipped(world); !why.empty()) {
    std::cout << "skipped: " << why << std::endl;
    return;
  }
  const Device device = Device::cuda(world.rank());
  use_device(device);
  device_context();
  int64_t failed = 0;
  {
    Stream stream(device);
    NcclOptions options;
    options.timeout = std::chrono::seconds(60);
    options.moved = &moved_by_nccl;
    options.copy_engines = true;
    const auto made = make_nccl_group(world, stream, options);
    group = made.get();
    failed = RUN_ALL_TESTS();
    group = nullptr;
  }
  const Tensor tensor = flat(std::span(&failed, 1));
  world.all_reduce(tensor, tensor, ReduceOp::kMax, StreamView::caller(), "test result").wait();
  if (failed != 0) fail(ErrorKind::kInternal, "tests failed on at least one rank");
}

}  // namespace
}  // namespace permafrost::testing

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  permafrost::MpiOptions options;
  options.timeout = std::chrono::seconds(60);
  const auto environment = permafrost::open_mpi(options);
  return permafrost::fail_together(environment->world(), [&] {
    permafrost::testing::run_on_gpus(environment->world());
    environment->close();
  });
}
