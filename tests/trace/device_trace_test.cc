// Traces of programs on a GPU, or on its emulation, whose clock passes only while matrices are multiplied.
#include "core/device/stream.h"
#include "tests/trace/trace_fixture.h"

namespace permafrost {
namespace {

class DeviceTrace : public TraceTest {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    TraceTest::SetUp();
  }
  static Overrides on_gpu(Overrides more = {}) {
    for (const char* each :
         {"train.global_batch=2", "train.micro_batch=1", "train.max_steps=3", "parallel.device=CUDA"})
      more.emplace_back(each);
    return on_smaller_model(more);
  }
};

TEST_F(DeviceTrace, TimesOfTheDeviceAreALaneOfTheirOwn) {
  std::vector<double> plain, traced;
  const auto train_with = [&](const TraceOptions& options, std::vector<double>& losses,
                              const std::function<void(const Plan&)>& look) {
    with_trainer(on_gpu(), 1,
                 [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
                   losses = train(options, trainer, config, plan, runtime);
                   look(plan);
                 });
  };
  // Ranges for tools are always on with CUDA.
  train_with(no_trace(), plain, [&](const Plan&) { EXPECT_FALSE(std::filesystem::exists(file())); });
  train_with(options("1:3"), traced, [&](const Plan& plan) {
    const ReadTrace trace(file());
    trace.expect_nested();
    expect_programs(trace, plan, 4);
    const std::vector<ReadSpan>& device = trace.lane("cuda:0 (device time)");
    std::vector<std::string> given;
    for (const ReadSpan& span : trace.lane("compute"))
      if (span.category != "program") given.push_back(span.name);
    EXPECT_EQ(names_of(device), given) << "the device ran what it was given";
    EXPECT_FALSE(trace.has_lane("cuda:0 copies (device time)")) << "nothing is sharded";
    int64_t products = 0, earliest = INT64_MAX;
    for (const ReadSpan& span : device) {
      if (span.args["kind"] == "linear") products += span.end - span.begin;
      earliest = std::min(earliest, span.begin);
    }
    EXPECT_GT(products, 0);
    EXPECT_GE(earliest, trace.lane("steps")[0].begin) << "the origin is in the first step";
  });
  EXPECT_EQ(traced, plain);
}

/// Copied from the host into slots, in a stream of their own.
TEST_F(DeviceTrace, CopiesOfShardedUnitsAreALaneOfTheirOwn) {
  std::vector<double> plain, traced;
  const auto train_with = [&](const TraceOptions& options, std::vector<double>& losses,
                              const std::function<void(const Plan&)>& look) {
    const Overrides sharded{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                            "parallel.frozen_policy=SHARDED", "parallel.tune_products=false"};
    with_trainer(on_gpu(sharded), 1,
                 [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
                   losses = train(options, trainer, config, plan, runtime);
                   look(plan);
                 });
  };
  train_with(no_trace(), plain, [](const Plan&) {});
  train_with(options("1:3"), traced, [&](const Plan& plan) {
    const ReadTrace trace(file());
    trace.expect_nested();
    const std::vector<Gather>& gathers = plan.programs[0].gathers;
    ASSERT_GT(gathers.size(), 2u);
    const std::vector<ReadSpan>& copies = trace.lane("cuda:0 copies (device time)");
    ASSERT_EQ(copies.size(), 4 * gathers.size()) << "of two steps of two micro-batches";
    int64_t before = trace.lane("steps")[0].begin;
    for (size_t i = 0; i < copies.size(); ++i) {
      const auto unit = static_cast<size_t>(gathers[i % gathers.size()].unit);
      EXPECT_EQ(copies[i].name, "gather " + plan.units[unit].name);
      EXPECT_EQ(copies[i].args["unit"], plan.units[unit].name);
      EXPECT_EQ(copies[i].args["bytes"], plan.frozen_units[unit].bytes);
      EXPECT_EQ(copies[i].args["how"], "copy");
      EXPECT_EQ(copies[i].args["micro_batch"], 2 + i / gathers.size()) << "of all, and two came before";
      EXPECT_GE(copies[i].begin, before);
      EXPECT_GE(copies[i].end, copies[i].begin);
      before = copies[i].end;
    }
    EXPECT_FALSE(trace.has_lane("gathers")) << "no thread of the host brings them";
  });
  EXPECT_EQ(traced, plain);
}

TEST_F(DeviceTrace, MarksHaveTimes) {
  Stream stream(Device::cuda(0));
  cuda::Queue& queue = *stream.queue();
  const std::unique_ptr<cuda::Mark, void (*)(cuda::Mark*)> a(cuda::create_timed_mark(queue), cuda::destroy_mark),
      b(cuda::create_timed_mark(queue), cuda::destroy_mark), untimed(cuda::create_mark(queue), cuda::destroy_mark);
  cuda::wait(*b);
  EXPECT_GE(cuda::milliseconds_between(*a, *b), 0);
  cuda::record(*a, queue);
  cuda::wait(*a);
  EXPECT_LE(cuda::milliseconds_between(*a, *b), 0) << "a stands behind b now";
  EXPECT_TRUE(testing::throws_error([&] { cuda::milliseconds_between(*untimed, *b); }, ErrorKind::kInternal,
                                    {"cudaEventElapsedTime"}));
  cuda::push_range("a range");
  cuda::pop_range();
}

TEST_F(DeviceTrace, HasRoomForSoMuchWork) {
  TraceSwitch on;
  on.on = true;
  Trace trace;
  const uint32_t name = trace.name({"work", "forward", nullptr, ""});
  TraceLane& lane = trace.lane("cuda:0", 5, 10, on);
  Stream stream(Device::cuda(0));
  DeviceLane device(*stream.queue(), lane, 2);
  device.begin(name, 0);
  device.end();
  device.collect();
  EXPECT_EQ(lane.spans(), 0u) << "no origin yet";
  const int64_t before = trace_clock();
  device.take_origin();
  for (int i = 0; i < 3; ++i) {  // one more than there is room for
    device.begin(name, i);
    device.end();
  }
  device.end();           // nothing is open
  device.begin(name, 9);  // left open: dropped
  device.collect();
  ASSERT_EQ(lane.spans(), 2u);
  EXPECT_EQ(lane.span(1).number, 1);
  EXPECT_GE(lane.span(0).begin, before);
  EXPECT_GE(lane.span(1).begin, lane.span(0).end.load());
  device.collect();
  EXPECT_EQ(lane.spans(), 2u) << "each once";
  EXPECT_EQ(device.failure(), "");
}

TEST_F(DeviceTrace, AnErrorOfTheDriverEndsMarkedWork) {
  Stream stream(Device::cuda(0));
  MarkedWork work(*stream.queue(), 1);
  const auto pieces = [&] {
    work.begin(7, 3);
    work.end();
    int count = 0;
    work.collect([&](const MarkedWork::Piece& piece) {
      EXPECT_EQ(piece.what, 7u);
      EXPECT_EQ(piece.number, 3);
      ++count;
    });
    return count;
  };
  EXPECT_EQ(pieces(), 1);
  EXPECT_EQ(pieces(), 1) << "marks are used again";
  cuda::begin_capture(*stream.queue());  // what is captured is not done, so nobody can wait for it
  EXPECT_EQ(pieces(), 0);
  EXPECT_NE(work.failure().find("cudaEventSynchronize"), std::string::npos) << work.failure();
  try {
    const cuda::OwnedCapture captured(cuda::end_capture(*stream.queue()));
  } catch (const Error&) {  // that question may have made it invalid
  }
  EXPECT_EQ(pieces(), 0) << "from then on";
}

}  // namespace
}  // namespace permafrost
