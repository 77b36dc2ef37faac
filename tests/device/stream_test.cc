#include "core/device/stream.h"

#include <atomic>
#include <chrono>

#include "core/base/check.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(Event, DefaultIsComplete) {
  const Event event;
  EXPECT_TRUE(event.done());
  event.wait();
}

TEST(Stream, RunsTasksInOrderOnItsOwnThread) {
  std::vector<int> order;  // written by the stream's thread only until the last event
  std::thread::id worker;
  Stream stream(Device::cpu());
  EXPECT_EQ(stream.device(), Device::cpu());
  Event last;
  for (int i = 0; i < 1000; ++i)
    last = stream.submit([&, i] {
      order.push_back(i);
      worker = std::this_thread::get_id();
    });
  last.wait();
  EXPECT_TRUE(last.done());
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_NE(worker, std::this_thread::get_id());
}

TEST(Stream, EventIsNotDoneBeforeItsTask) {
  Stream stream(Device::cpu());
  std::atomic<bool> go{false};
  const Event event = stream.submit([&] { go.wait(false); });
  const Event behind = stream.submit([] {});
  EXPECT_FALSE(event.done());
  EXPECT_FALSE(behind.done());
  const Event copy = event;
  go = true;
  go.notify_one();
  behind.wait();
  EXPECT_TRUE(copy.done());
}

TEST(Stream, ErrorsWaitInTheirEvents) {
  Stream stream(Device::cpu());
  const Event bad = stream.submit([] { fail(ErrorKind::kPeer, "gather: rank 3 is gone"); });
  const Event good = stream.submit([] {});
  good.wait();  // a failed task does not stop the queue
  EXPECT_TRUE(bad.done());
  for (int i = 0; i < 2; ++i)  // every wait tells
    EXPECT_TRUE(throws_error([&] { bad.wait(); }, ErrorKind::kPeer, {"rank 3 is gone"}));
}

TEST(Stream, EventsCanBeWaitedForByManyThreads) {
  Stream stream(Device::cpu());
  std::atomic<bool> go{false};
  std::atomic<int> woken{0};
  const Event event = stream.submit([&] { go.wait(false); });
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i)
    waiters.emplace_back([&, event] {
      event.wait();
      ++woken;
    });
  go = true;
  go.notify_one();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(woken, 4);
}

TEST(Stream, FinishesItsWorkBeforeItGoes) {
  int done = 0;
  Event last;
  {
    Stream stream(Device::cpu());
    for (int i = 0; i < 100; ++i) last = stream.submit([&] { ++done; });
  }
  EXPECT_EQ(done, 100);
  EXPECT_TRUE(last.done());  // events outlive their stream
}

TEST(Stream, TaskIsGoneWhenItsEventIsDone) {
  Stream stream(Device::cpu());
  const auto held = std::make_shared<int>(1);
  for (int i = 0; i < 200; ++i) {
    stream.submit([held] {}).wait();
    ASSERT_EQ(held.use_count(), 1);
  }
}

TEST(Stream, SynchronizeWaitsForWhatWasSubmitted) {
  Stream stream(Device::cpu());
  std::atomic<int> ran = 0;
  for (int i = 0; i < 10; ++i) stream.submit([&] { ++ran; });
  stream.synchronize();
  EXPECT_EQ(ran, 10);
}

TEST(StreamView, CallerRunsAtOnceAndThrowsAtOnce) {
  const StreamView view = StreamView::caller();
  std::thread::id where;
  const Event event = view.submit([&] { where = std::this_thread::get_id(); });
  EXPECT_EQ(where, std::this_thread::get_id());
  EXPECT_TRUE(event.done());
  EXPECT_TRUE(
      throws_error([&] { view.submit([] { fail(ErrorKind::kData, "broken"); }); }, ErrorKind::kData, {"broken"}));
}

TEST(StreamView, ForwardsToItsStream) {
  Stream stream(Device::cpu());
  const StreamView view = stream;
  std::thread::id where;
  view.submit([&] { where = std::this_thread::get_id(); }).wait();
  EXPECT_NE(where, std::this_thread::get_id());
  const Event bad = view.submit([] { fail(ErrorKind::kData, "broken"); });
  EXPECT_TRUE(throws_error([&] { bad.wait(); }, ErrorKind::kData, {"broken"}));
}

static_assert(!std::is_constructible_v<StreamView, std::nullptr_t>);

}  // namespace
}  // namespace permafrost::testing
