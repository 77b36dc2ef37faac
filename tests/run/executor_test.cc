#include "parallel/run/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/device/bytes.h"
#include "tests/support/compare.h"
#include "tests/support/count_allocations.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using testing::ToyConfig;

/// Keeps a copy of every gradient.
class KeepGradients final : public GradientSink {
 public:
  void add(int param, const Tensor& gradient) override {
    gradients[param].resize(static_cast<size_t>(gradient.bytes()));
    copy_bytes(testing::device_context(), gradients[param].data(), gradient.raw(), gradient.bytes());
    finish(testing::device_context());
  }
  std::map<int, std::vector<std::byte>> gradients;
};

struct Session {
  Plan plan;
  StepMemory memory;
  Executor executor;

  static PlanRequest request(const std::vector<FreezeRule>& freezing, const ProgramOptions& options,
                             const ToyConfig& config, int threads, PolicyChoice policy = PolicyChoice::kAuto) {
    PlanRequest r;
    r.world.threads = threads;
    r.world.device = testing::used_device().kind;
    r.build_graph = [config](int64_t tokens) {
      ToyConfig c = config;
      c.tokens = tokens;
      return testing::toy_transformer(c);
    };
    r.buckets = {config.tokens, config.tokens + 3};
    r.freezing = freezing;
    r.frozen_dtype = [config](const ParamInfo&) { return config.compute; };
    r.options = options;
    r.frozen_policy = policy;
    return r;
  }

  Session(const std::vector<FreezeRule>& freezing, const ProgramOptions& options = {}, const ToyConfig& config = {},
          int threads = 1, const ExecutorOptions& executor_options = {}, PolicyChoice policy = PolicyChoice::kAuto)
      : plan(make_plan(request(freezing, options, config, threads, policy))),
        memory(plan, 0, nullptr, testing::used_device()),
        executor(plan, memory, testing::device_context(threads), executor_options) {
    for (const ParamPlan& param : plan.params) {
      const Tensor t = memory.host_param(param);
      fill(param.initializer, 7, param.name, t.dtype(), 0,
           {static_cast<std::byte*>(t.raw()), static_cast<size_t>(t.bytes())});
    }
    upload();
  }
  /// What was written into parameters, to where programs read them.
  void upload() const {
    memory.upload_frozen(testing::device_context());
    memory.upload_working(testing::device_context());
  }

  void set_inputs(size_t bucket) const {
    const Tensor ids = executor.value(bucket, "ids"), labels = executor.value(bucket, "labels");
    for (int64_t i = 0; i < ids.elements(); ++i) {
      ids.data<int32_t>()[i] = static_cast<int32_t>((3 * i + 1) % 11);
      labels.data<int32_t>()[i] = i % 4 == 3 ? -100 : static_cast<int32_t>((5 * i + 2) % 11);
      executor.value(bucket, "row_weight").data<float>()[i] = 0.125f;
    }
  }

  std::pair<double, std::map<int, std::vector<std::byte>>> run(size_t bucket = 0) {
    set_inputs(bucket);
    KeepGradients sink;
    const double loss = executor.run(bucket, &sink);
    return {loss, sink.gradients};
  }
};

const std::vector<FreezeRule> kAll = {{"*", true}};
const std::vector<FreezeRule> kSome = {{"blocks.1.*", true}, {"embed.weight", true}};

ToyConfig bf16() {
  ToyConfig config;
  config.compute = DType::kBF16;
  return config;
}

ProgramOptions keep_values() {
  ProgramOptions options;
  options.keep_all_values = true;
  return options;
}

TEST(Executor, MemoryReuseChangesNoBit) {
  for (const auto& freezing : {kAll, kSome})
    for (const ToyConfig& config : {ToyConfig{}, bf16()}) {
      ProgramOptions apart;
      apart.reuse_memory = false;
      Session with(freezing, {}, config), without(freezing, apart, config);
      EXPECT_EQ(with.run(), without.run());
      EXPECT_EQ(with.run(1), without.run(1));
    }
}

TEST(Executor, PoisoningReleasedBuffersChangesNoBit) {
  for (const auto& freezing : {kAll, kSome})
    for (const ToyConfig& config : {ToyConfig{}, bf16()}) {
      Session plain(freezing, {}, config), poisoned(freezing, {}, config, 1, {.poison_released = true});
      const auto expected = plain.run();
      EXPECT_EQ(expected, poisoned.run());
      EXPECT_TRUE(std::isfinite(expected.first));
    }
}

TEST(Executor, ForwardGivesTheLossOfARunAndLeavesLogitsReadable) {
  for (const ToyConfig& config : {ToyConfig{}, bf16()})
    for (const bool poison : {false, true}) {
      Session s(kAll, {}, config, 1, {.poison_released = poison}), kept(kAll, keep_values(), config);
      const auto expected = s.run();
      const auto with_values = kept.run();
      EXPECT_EQ(s.executor.forward(0), expected.first);
      if (!poison) {
        const Tensor logits = s.executor.value(0, "head.logits"), want = kept.executor.value(0, "head.logits");
        ASSERT_TRUE(logits.defined() && want.defined());
        EXPECT_EQ(std::memcmp(logits.raw(), want.raw(), static_cast<size_t>(want.bytes())), 0);
      }
      EXPECT_EQ(s.run(), expected) << "what forward leaves behind changes nothing";
      EXPECT_EQ(with_values.first, expected.first);
    }
}

TEST(Executor, ThreadsChangeNoBit) {
  for (const ToyConfig& config : {ToyConfig{}, bf16()}) {
    Session one(kAll, {}, config, 1), two(kAll, {}, config, 2), three(kAll, {}, config, 3);
    const auto expected = one.run();
    EXPECT_EQ(expected, two.run());
    EXPECT_EQ(expected, three.run());
  }
}

/// Biases of units in slots are converted in every program, those of units that stay are kept converted beside them.
TEST(Executor, FrozenBiasesKeptInTheComputeDtypeChangeNoBit) {
  if (testing::used_device().kind == DeviceKind::kCpu) GTEST_SKIP() << "only programs on a GPU have them";
  for (const DType compute : {DType::kBF16, DType::kF16}) {
    ToyConfig config;
    config.compute = compute;
    Session kept(kSome, {}, config), converted(kSome, {}, config, 1, {}, PolicyChoice::kSharded);
    ASSERT_EQ(ComputeCopies(kept.plan).all().size(), 8u);
    ASSERT_TRUE(ComputeCopies(converted.plan).all().empty());
    for (const size_t bucket : {0, 1, 0}) {
      const auto expected = converted.run(bucket);
      EXPECT_EQ(kept.run(bucket), expected);
      EXPECT_TRUE(std::isfinite(expected.first));
      EXPECT_EQ(expected.second.size(), 13u) << "a block's twelve parameters, and the embedding";
    }
    // And the copies are what is read: made before the first program, they do not see what is written afterwards.
    const auto before = kept.run();
    for (const ParamPlan& param : kept.plan.params)
      if (!param.trainable && param.name.ends_with("fc2.bias")) {
        const Tensor bias = kept.memory.host_param(param);
        std::fill_n(bias.data<float>(), bias.elements(), 0.5f);
      }
    kept.upload();
    EXPECT_EQ(kept.run(), before);
  }
}

TEST(Executor, FreezingChangesNoGradientThatIsLeft) {
  for (const ToyConfig& config : {ToyConfig{}, bf16()}) {
    Session all(kAll, {}, config);
    const auto [loss, gradients] = all.run();
    for (const char* pattern :
         {"embed.weight", "blocks.0.*", "blocks.1.fc2.bias", "blocks.2.norm1.*", "norm.*", "*.weight"}) {
      Session some({{pattern, true}}, {}, config);
      const auto [loss_some, gradients_some] = some.run();
      EXPECT_EQ(loss, loss_some) << pattern;
      EXPECT_FALSE(gradients_some.empty());
      for (const auto& [param, bytes] : gradients_some)
        EXPECT_EQ(bytes, gradients.at(param)) << all.plan.params[static_cast<size_t>(param)].name;
    }
  }
}

TEST(Executor, GradientsAreThoseOfFiniteDifferences) {
  ToyConfig smooth;  // differences across a kink of relu say nothing
  smooth.even_blocks = Activation::kTanh;
  Session s(kAll, {}, smooth);
  const auto [loss, gradients] = s.run();
  for (size_t p = 0; p < s.plan.params.size(); ++p) {
    const Tensor weight = s.memory.host_param(s.plan.params[p]);
    const auto* gradient = reinterpret_cast<const float*>(gradients.at(static_cast<int>(p)).data());
    const int64_t i = weight.elements() / 2;
    const float original = weight.data<float>()[i];
    const double h = 0.01;
    const auto loss_with = [&](float value) {
      weight.data<float>()[i] = value;
      s.upload();
      return s.run().first;
    };
    const double up = loss_with(static_cast<float>(original + h)), down = loss_with(static_cast<float>(original - h));
    weight.data<float>()[i] = original;
    // Central differences: error h^2 / 6 f''' (third derivatives here are of order one) and loss rounding / h.
    EXPECT_NEAR(gradient[i], (up - down) / (2 * h), 5e-4) << s.plan.params[p].name;
  }
}

TEST(Executor, AllocatesNothingWhileRunning) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  for (int threads : {1, 2}) {
    Session s(kAll, {}, bf16(), threads);
    s.set_inputs(0);
    s.executor.run(0, nullptr);
    testing::begin_counting_allocations();
    for (int i = 0; i < 5; ++i) s.executor.run(0, nullptr);
    const testing::AllocationCount count = testing::end_counting_allocations();
    EXPECT_EQ(count.calls, 0) << count.bytes << " bytes, largest " << count.largest;
  }
}

/// Which bytes of the arena a run writes: those that change under either of two patterns.
std::vector<bool> touched_bytes(Session& s, size_t bucket) {
  std::vector<bool> touched(static_cast<size_t>(s.memory.arena.bytes()), false);
  for (const std::byte pattern : {std::byte{0xC3}, std::byte{0x3C}}) {
    std::memset(s.memory.arena.data(), static_cast<int>(pattern), touched.size());
    s.run(bucket);
    for (size_t i = 0; i < touched.size(); ++i)
      if (s.memory.arena.data()[i] != pattern) touched[i] = true;
  }
  return touched;
}

/// Bytes of each planned buffer that tensors occupy; the rest is padding up to the alignment.
std::vector<int64_t> tensor_bytes(const Program& program) {
  std::vector<int64_t> bytes(program.buffers.size(), 0);
  for (const PlanStep& step : program.steps) {
    for (const auto* refs : {&step.outputs, &step.saved, &step.dinputs, &step.dparams})
      for (const TensorRef& ref : *refs)
        if (ref.region == Region::kArena) bytes[static_cast<size_t>(ref.buffer)] = ref.spec.bytes();
    if (step.before >= 0) bytes[static_cast<size_t>(step.inputs[0].buffer)] = step.inputs[0].spec.bytes();
    if (step.workspace.region == Region::kArena)
      bytes[static_cast<size_t>(step.workspace.buffer)] = step.workspace.spec.bytes();
  }
  return bytes;
}

TEST(Executor, TouchesEveryByteOfEveryBufferThatWasForecastAndNoOther) {
  for (const auto& freezing : {kAll, kSome})
    for (const ToyConfig& config : {ToyConfig{}, bf16()}) {
      ProgramOptions apart;
      apart.reuse_memory = false;  // every buffer has an address of its own
      Session s(freezing, apart, config);
      const Program& program = s.plan.programs[1];
      const std::vector<bool> touched = touched_bytes(s, 1);
      const std::vector<int64_t> tensors = tensor_bytes(program);
      std::map<BufferKind, int> kinds;
      for (size_t b = 0; b < program.buffers.size(); ++b) {
        const PlannedBuffer& buffer = program.buffers[b];
        const auto begin = touched.begin() + buffer.offset;
        const int64_t count = std::count(begin, begin + tensors[b], true);
        // A workspace is sized for the largest of the calls that share it and by thread: used, but not to the last
        // byte.
        if (buffer.kind == BufferKind::kWorkspace)
          EXPECT_GT(count, 0) << buffer.name;
        else
          EXPECT_EQ(count, tensors[b]) << buffer.name << ' ' << to_string(config.compute);
        EXPECT_EQ(std::count(begin + tensors[b], begin + buffer.bytes, true), 0) << "padding of " << buffer.name;
        EXPECT_GT(tensors[b], 0) << buffer.name << " is planned, but nobody writes it";
        ++kinds[buffer.kind];
      }
      EXPECT_EQ(kinds.size(), 5u);  // activations, saved, gradients, those of parameters, workspaces
      EXPECT_EQ(std::count(touched.begin() + program.arena_bytes, touched.end(), true), 0);
    }
}

TEST(Executor, TouchesExactlyTheArenaThatWasForecast) {
  for (const auto& freezing : {kAll, kSome})
    for (const ToyConfig& config : {ToyConfig{}, bf16()}) {
      Session s(freezing, {}, config);
      const Program& program = s.plan.programs[1];
      const std::vector<bool> touched = touched_bytes(s, 1);
      const std::vector<int64_t> tensors = tensor_bytes(program);
      std::vector<bool> surely(touched.size(), false), planned(touched.size(), false);
      for (size_t b = 0; b < program.buffers.size(); ++b) {
        const PlannedBuffer& buffer = program.buffers[b];
        auto& bytes = buffer.kind == BufferKind::kWorkspace ? planned : surely;
        std::fill_n(bytes.begin() + buffer.offset, tensors[b], true);
      }
      for (size_t i = 0; i < touched.size(); ++i)
        if (touched[i] ? !(surely[i] || planned[i]) : surely[i]) {
          ADD_FAILURE() << "byte " << i
                        << (touched[i] ? " is touched, but not planned" : " is planned, but not touched");
          break;
        }
    }
}

TEST(Executor, FindsTheFirstValueThatIsNotFinite) {
  Session s(kAll);
  s.set_inputs(0);
  EXPECT_FALSE(s.executor.find_non_finite(0).has_value());
  s.memory.host_param(s.plan.params[static_cast<size_t>(s.plan.graphs[0].find_param("blocks.1.fc1.weight"))])
      .data<float>()[3] = INFINITY;
  s.upload();
  const auto report = s.executor.find_non_finite(0);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->value, "blocks.1.fc1.weight");
  EXPECT_EQ(report->unit, "blocks.1");
  EXPECT_EQ(report->index, 3);
}

TEST(Executor, FindsASumThatOverflowsOnTheWayToTheNextUnitsNorm) {
  Session s(kAll);
  s.set_inputs(0);
  for (const char* name : {"blocks.0.proj.bias", "blocks.0.fc2.bias"})  // each of them is finite, and their sum is not
    s.memory.host_param(s.plan.params[static_cast<size_t>(s.plan.graphs[0].find_param(name))]).data<float>()[5] = 2e38f;
  s.upload();
  const auto report = s.executor.find_non_finite(0);
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->value, "blocks.0.out");
  EXPECT_EQ(report->unit, "blocks.0");
  EXPECT_EQ(report->index, 5);
  EXPECT_TRUE(std::isinf(report->number));
}

TEST(Executor, KeepsNamedValuesAndGradientsForProbing) {
  ProgramOptions options;
  options.keep_all_values = options.keep_gradients = true;
  Session s(kAll, options);
  const auto [loss, none] = s.run();
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(*s.executor.value(0, "head.loss").data<double>(), loss);
  Session apart(kAll, [&] {
    ProgramOptions o = options;
    o.reuse_memory = false;
    return o;
  }());
  apart.run();
  for (const char* name : {"embed.out", "blocks.0.out", "blocks.2.out"}) {
    EXPECT_TRUE(testing::same_bits(s.executor.value(0, name), apart.executor.value(0, name))) << name;
    EXPECT_TRUE(testing::same_bits(s.executor.value_gradient(0, name), apart.executor.value_gradient(0, name))) << name;
  }
  EXPECT_TRUE(s.executor.param_gradient(0, "blocks.0.qkv.weight").defined());
  EXPECT_FALSE(s.executor.value(0, "no such value").defined());
}

/// Notes what it is told: +step begins, -step ends.
class NoteSteps final : public ExecutorObserver {
 public:
  void begin_program(size_t bucket) override { programs.push_back(bucket); }
  void begin_gather(size_t /*step*/) override { ++gathers; }
  void begin_step(size_t step) override { notes.push_back(static_cast<int>(step) + 1); }
  void end_step(size_t step) override { notes.push_back(-static_cast<int>(step) - 1); }
  std::vector<size_t> programs;
  std::vector<int> notes;
  int gathers = 0;
};

TEST(Executor, ShowsEveryStepToAnObserver) {
  Session s(kAll);
  NoteSteps observer;
  s.executor.observe(&observer);
  const double seen = s.run(1).first;
  EXPECT_EQ(observer.programs, std::vector<size_t>{1});
  EXPECT_EQ(observer.gathers, 0);  // nothing is sharded
  std::vector<int> expected;
  for (int step = 1; step <= std::ssize(s.plan.programs[1].steps); ++step) {
    expected.push_back(step);
    expected.push_back(-step);
  }
  EXPECT_EQ(observer.notes, expected);
  s.executor.observe(nullptr);
  EXPECT_EQ(s.run(1).first, seen);
  EXPECT_EQ(observer.notes.size(), expected.size());
}

}  // namespace
}  // namespace permafrost
