#include <atomic>
#include <thread>

#include "core/device/cuda.h"
#include "parallel/group/nccl/bounded.h"
#include "tests/group/conformance.h"
#include "tests/group/nccl_test_ranks.h"

namespace permafrost::testing {
namespace {

class NcclFailure : public EmulatedNccl {};

TEST_F(NcclFailure, ARankThatNeverComesIsNamedByTheHostGroup) {
  InprocOptions host;
  host.timeout = std::chrono::milliseconds(50);
  EXPECT_TRUE(throws_error(
      [&] {
        run_inproc(
            3,
            [](Group& group) {
              if (group.rank() == 1) return;
              Stream stream(Device::cuda(0));
              NcclOptions options = impatient();
              options.facts = facts_of_rank(group.rank());
              make_nccl_group(group, stream, options);
            },
            host);
      },
      ErrorKind::kTimeout, {"facts about GPUs", "missing rank 1"}));
}

TEST_F(NcclFailure, JoiningHasATimeLimit) {
  nccl_emulation::set({.absent = 2});
  NcclOptions options = impatient();
  options.name = "gathers";
  EXPECT_TRUE(throws_error(
      [&] {
        run_nccl(
            3, [](NcclGroup&, Stream&) { ADD_FAILURE(); }, options);
      },
      ErrorKind::kTimeout,
      {"nccl 'gathers': joining: all ranks must succeed; got failures on rank 0 1 2",
       "all ranks must come within 700 ms", "does not say for whom"}));
}

TEST_F(NcclFailure, ARankThatCannotJoinSpeaksForAll) {
  nccl_emulation::set({.failing = 1});
  std::atomic<int> told = 0;
  EXPECT_TRUE(throws_error(
      [&] {
        run_inproc(3, [&](Group& host) {
          Stream stream(Device::cuda(0));
          NcclOptions options = impatient();
          options.facts = facts_of_rank(host.rank());
          EXPECT_TRUE(throws_error(
              [&] { make_nccl_group(host, stream, options); }, ErrorKind::kPeer,
              {"rank 1: nccl 'nccl': joining must succeed; got unhandled system error (no socket)", "[rank 1/3]"}));
          ++told;
          fail(ErrorKind::kPeer, "over");
        });
      },
      ErrorKind::kPeer, {"over"}));
  EXPECT_EQ(told, 3);
}

TEST_F(NcclFailure, ACallThatOthersDoNotMakeEndsAtTheTimeLimit) {
  std::atomic<bool> over = false;
  run_inproc(2, [&](Group& host) {
    Stream stream(Device::cuda(0));
    NcclOptions options = impatient();
    options.facts = facts_of_rank(host.rank());
    const auto group = make_nccl_group(host, stream, options);
    if (group->rank() == 1) {
      while (!over) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return;
    }
    const OwnedTensor x = make_tensor(DType::kI64, Shape({4}), {1, 2, 3, 4});
    const Event event = group->all_reduce(x, x, ReduceOp::kSum, stream, "gradients");
    EXPECT_FALSE(event.done());
    EXPECT_TRUE(throws_error([&] { event.wait(); }, ErrorKind::kTimeout,
                             {"nccl 'nccl': all_reduce 'gradients': all ranks must come within 700 ms", "[rank 0/2]"}));
    ASSERT_TRUE(group->async_error().has_value());
    for (int i = 0; i < 2; ++i)  // it stays broken, with the same words
      EXPECT_TRUE(throws_error([&] { group->barrier(stream, "later"); }, ErrorKind::kTimeout, {"'gradients'"}));
    stream.synchronize();  // the stream is free
    over = true;
  });
}

TEST_F(NcclFailure, TheClockOfACallStartsWhenTheDeviceIsThere) {
  NcclOptions options = impatient();
  run_nccl(
      2,
      [&](NcclGroup& group, Stream& stream) {
        // Work before it that takes longer than the limit.
        auto* queue = static_cast<cudaStream_t>(cuda::native_stream(*stream.queue()));
        const auto before = cuda_emulation::hold(queue);
        std::thread later([&] {
          std::this_thread::sleep_for(options.timeout * 2);
          cuda_emulation::release(*before);
        });
        const OwnedTensor x = make_tensor(DType::kI32, Shape({1}), {1});
        const Event event = group.all_reduce(x, x, ReduceOp::kSum, stream, "patient");
        event.wait();
        later.join();
        EXPECT_EQ(values_of(x), std::vector<double>{2});
      },
      options);
}

TEST_F(NcclFailure, AnErrorOfTheNetworkBreaksTheGroup) {
  std::atomic<bool> broken = false;
  std::atomic<int> told = 0;
  EXPECT_TRUE(throws_error(
      [&] {
        run_nccl(3, [&](NcclGroup& group, Stream& stream) {
          group.barrier(stream, "all are here").wait();
          if (group.rank() == 0) {
            nccl_emulation::set({.broken = 1});
            broken = true;
          }
          while (!broken) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          const OwnedTensor x = make_tensor(DType::kI64, Shape({1}), {1});
          try {
            group.all_reduce(x, x, ReduceOp::kSum, stream, "sums").wait();
            ADD_FAILURE() << "rank " << group.rank() << " was not told";
          } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::kPeer) << error.what();
            EXPECT_NE(std::string(error.what()).find("remote process exited"), std::string::npos) << error.what();
            ++told;
            throw;
          }
        });
      },
      ErrorKind::kPeer, {"remote process exited"}));
  EXPECT_EQ(told, 3);
}

TEST_F(NcclFailure, CallsThatDifferBreakTheGroup) {
  EXPECT_TRUE(throws_error(
      [] {
        run_nccl(2, [](NcclGroup& group, Stream& stream) {
          const OwnedTensor x = make_tensor(DType::kI64, Shape({4}), {1, 2, 3, 4});
          const Tensor mine = x.view().rows(0, 2 + group.rank());
          group.all_reduce(mine, mine, ReduceOp::kSum, stream, "different").wait();
        });
      },
      ErrorKind::kPeer, {"invalid usage"}));
}

TEST_F(NcclFailure, TheFailingRanksReasonEndsTheWaitsOfTheOthers) {
  std::atomic<int> apart = 0;
  std::atomic<int> told = 0;
  EXPECT_TRUE(throws_error(
      [&] {
        run_nccl(3, [&](NcclGroup& group, Stream& stream) {
          const auto pair = group.split(group.rank() == 2 ? 1 : 0, 0, "pair");
          ++apart;  // a rank that is still in split() when another fails is released there
          for (int i = 0; i < 10'000 && apart < 3; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          if (group.rank() == 0) fail(ErrorKind::kData, "image 7: unreadable");
          Group& mine = group.rank() == 1 ? *pair : group;
          try {
            mine.barrier(stream, "waits").wait();
            ADD_FAILURE() << "rank " << group.rank() << " was not released";
          } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::kData);
            EXPECT_NE(std::string(error.what()).find("rank 0/3 failed: image 7"), std::string::npos);
            ++told;
            throw;
          }
        });
      },
      ErrorKind::kData, {"image 7"}));
  EXPECT_EQ(told, 2);
}

TEST_F(NcclFailure, AbortTellsTheWorld) {
  run_nccl(2, [](NcclGroup& group, Stream& stream) {
    if (group.rank() == 0) group.abort(Error(ErrorKind::kStorage, "disk full"));
    EXPECT_TRUE(
        throws_error([&] { group.barrier(stream, "x").wait(); }, ErrorKind::kStorage, {"rank 0/2 failed: disk full"}));
  });
}

TEST_F(NcclFailure, AnOrderlyEndThatDoesNotComeIsAnAbort) {
  run_nccl(
      2, [](NcclGroup&, Stream&) { nccl_emulation::set({.stuck_finalize = true}); }, impatient());
  EXPECT_EQ(nccl_emulation::communicators(), 0);
}

TEST_F(NcclFailure, AnExceptionAbortsWithoutWaitingForTheOthers) {
  NcclOptions options;
  options.close_timeout = std::chrono::minutes(5);  // an orderly end would wait for rank 1 as long as that
  EXPECT_TRUE(throws_error(
      [&] {
        run_nccl(
            2,
            [](NcclGroup& group, Stream& stream) {
              if (group.rank() == 0) fail(ErrorKind::kNonFinite, "loss: nan");
              group.barrier(stream, "others").wait();
            },
            options);
      },
      ErrorKind::kNonFinite, {"loss: nan"}));
}

TEST(Bounded, DoesNotWaitForWhatHangs) {
  EXPECT_TRUE(run_bounded(std::chrono::seconds(60), [] {}));
  const auto release = std::make_shared<std::atomic<bool>>(false);
  EXPECT_FALSE(run_bounded(std::chrono::milliseconds(20), [release] {
    while (!*release) std::this_thread::yield();
  }));
  *release = true;
}

}  // namespace
}  // namespace permafrost::testing
