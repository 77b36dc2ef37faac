// Queries, keys and values of OPT are one product: where a plan puts their weights, and that it computes the same.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/device/bytes.h"
#include "models/language_model.h"
#include "parallel/plan/compute_copies.h"
#include "parallel/run/executor.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr int64_t kBatchOfTexts = 2, kTokensOfTexts = 6;

OptConfig sized_opt(int64_t hidden) {
  OptConfig c;
  c.vocab = 29;
  c.layers = 2;
  c.hidden = c.word_embed_proj_dim = hidden;
  c.heads = 4;
  c.ffn = 2 * hidden;
  c.max_positions = 12;
  return c;
}

PlanRequest opt_request(const OptConfig& config, const std::vector<FreezeRule>& freezing, DType compute) {
  PlanRequest request;
  const LanguageModel model(LanguageModelConfig{config});
  request.build_graph = [=](int64_t tokens) { return model.build(compute, {kBatchOfTexts, tokens, false}); };
  request.buckets = {kTokensOfTexts};
  request.freezing = freezing;
  request.allow_all_frozen = true;
  request.frozen_dtype = [=](const ParamInfo&) { return compute; };
  return request;
}

/// Whether weights, and biases, of the products of q, k and v lie together: -1 if that differs between steps.
struct Together {
  int weights = 0, biases = 0;
  int steps = 0;
  friend bool operator==(const Together&, const Together&) = default;
};

Together together_in(const Plan& plan) {
  Together result;
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket)
    for (const PlanStep& step : plan.programs[bucket].steps) {
      if (step.kind != StepKind::kForward) continue;
      if (plan.graphs[bucket].ops()[static_cast<size_t>(step.op)].op->kind() != "joined_linear") continue;
      const BitMask adjoining = adjoining_params(plan.graphs[bucket], step);
      const int weights = (adjoining & 0b000110) == 0b000110, biases = (adjoining & 0b110000) == 0b110000;
      result.weights = result.steps == 0 || result.weights == weights ? weights : -1;
      result.biases = result.steps == 0 || result.biases == biases ? biases : -1;
      ++result.steps;
    }
  return result;
}

const std::vector<FreezeRule> kNothing = {}, kPositions = {{"*embed_positions.weight", true}},
                              kEverything = {{"*", true}}, kQueries = {{"*q_proj*", true}};

TEST(OptPlan, PutsQueriesKeysAndValuesOfPublishedSizesTogether) {
  for (const OptSize size : {OptSize::k125M, OptSize::k350M, OptSize::k1_3B, OptSize::k2_7B, OptSize::k6_7B})
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      const OptConfig config = OptConfig::of(size);
      const Together whole{1, 1, static_cast<int>(config.layers)};
      for (const auto& freezing : {kNothing, kPositions, kEverything}) {
        const Plan plan = make_plan(opt_request(config, freezing, compute));
        EXPECT_EQ(together_in(plan), whole) << config.hidden;
      }
    }
}

TEST(OptPlan, PutsThemTogetherForAnyRanksAndPolicy) {
  for (const int ranks : {1, 4})
    for (const PolicyChoice policy : {PolicyChoice::kResident, PolicyChoice::kSharded})
      for (const GatherChoice gather : {GatherChoice::kInline, GatherChoice::kPrefetch}) {
        PlanRequest request = opt_request(sized_opt(64), kPositions, DType::kBF16);
        request.world.ranks = ranks;
        request.frozen_policy = policy;
        request.gather = gather;
        EXPECT_EQ(together_in(make_plan(request)), (Together{1, 1, 2})) << ranks;
        request.freezing = kQueries;
        EXPECT_EQ(together_in(make_plan(request)), (Together{0, 0, 2})) << ranks << ", queries alone are trainable";
      }
}

TEST(OptPlan, PutsNothingBetweenThatTheAlignmentDoesNotAskFor) {
  // 12 x 12 of bf16 are 288 bytes of 320; 12 x 12 of f32 576, whole steps of 64. Biases of 48 bytes are apart.
  EXPECT_EQ(together_in(make_plan(opt_request(sized_opt(12), kPositions, DType::kBF16))), (Together{0, 0, 2}));
  EXPECT_EQ(together_in(make_plan(opt_request(sized_opt(12), kPositions, DType::kF32))), (Together{1, 0, 2}));
}

TEST(OptPlan, CopiesOfFrozenBiasesOnAGpuLieTogetherToo) {
  for (const OptSize size : {OptSize::k125M, OptSize::k350M, OptSize::k1_3B, OptSize::k2_7B, OptSize::k6_7B}) {
    PlanRequest request = opt_request(OptConfig::of(size), kPositions, DType::kBF16);
    request.world.device = DeviceKind::kCuda;
    const Plan plan = make_plan(request);
    const ComputeCopies copies(plan);
    int joined = 0;
    for (const PlanStep& step : plan.programs[0].steps) {
      if (step.kind != StepKind::kForward) continue;
      if (plan.graphs[0].ops()[static_cast<size_t>(step.op)].op->kind() != "joined_linear") continue;
      for (size_t i = 4; i < 6; ++i) {
        const auto *before = copies.find(plan, 0, step, i - 1), *copy = copies.find(plan, 0, step, i);
        ASSERT_TRUE(before && copy);
        EXPECT_EQ(copy->offset, before->offset + copy->from.spec.shape.elements() * size_of(copy->dtype));
      }
      for (size_t i = 0; i < 3; ++i) EXPECT_EQ(copies.find(plan, 0, step, i), nullptr) << "a weight";
      ++joined;
    }
    EXPECT_EQ(joined, OptConfig::of(size).layers);
  }
}

class CopiesOfGradients final : public GradientSink {
 public:
  explicit CopiesOfGradients(const Plan& plan) : plan_(plan) {}
  void add(int param, const Tensor& gradient) override {
    OwnedTensor& copy = gradients[plan_.params[static_cast<size_t>(param)].name];
    copy = OwnedTensor(gradient.dtype(), gradient.shape());
    copy_bytes(device_context(), copy.view().raw(), gradient.raw(), gradient.bytes());
    finish(device_context());
  }
  std::map<std::string, OwnedTensor> gradients;

 private:
  const Plan& plan_;
};

std::vector<double> values_for(size_t index, const ParamInfo& info) {
  return values_of(random_tensor(DType::kF32, info.shape, 100 + index, 0.3));
}

TextBatch two_texts() {
  const std::vector<int64_t> mask{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  TextBatch text;
  text.batch = kBatchOfTexts;
  text.tokens = kTokensOfTexts;
  for (int32_t i = 0; i < 12; ++i) text.ids.push_back(mask[static_cast<size_t>(i)] ? 3 + 7 * i % 23 : kOptPadId);
  text.lengths = lengths_of_mask(mask, kBatchOfTexts, kTokensOfTexts);
  label_all(text);
  return text;
}

void fill_texts(const LanguageModel& model, const InputTensors& inputs) {
  ModelBatch batch;
  batch.text = two_texts();
  batch.pad_id = kOptPadId;
  batch.row_weight = LossWeighting{LossWeighting::Kind::kTokenMean, 1}.row_weight(count_loss(batch.text));
  model.fill(batch, inputs);
}

/// All gradients of a run in the memory of a plan.
std::map<std::string, OwnedTensor> gradients_in_plan(const LanguageModel& model, const Plan& plan) {
  const StepMemory memory(plan, 0, nullptr, used_device());
  for (size_t p = 0; p < plan.params.size(); ++p) {
    const Tensor to = memory.host_param(plan.params[p]);
    const OwnedTensor from = make_tensor(to.dtype(), to.shape(), values_for(p, plan.graphs[0].params()[p]));
    std::memcpy(to.raw(), from.view().raw(), static_cast<size_t>(to.bytes()));
  }
  memory.upload_frozen(device_context());
  memory.upload_working(device_context());
  Executor executor(plan, memory, device_context(), ExecutorOptions{.poison_released = true});
  fill_texts(model, [&](std::string_view name) { return executor.value(0, name); });
  CopiesOfGradients sink(plan);
  EXPECT_TRUE(std::isfinite(executor.run(0, &sink)));
  return std::move(sink.gradients);
}

/// The same with every parameter in a place of its own, or all in a row.
std::map<std::string, OwnedTensor> gradients_in_runner(const LanguageModel& model, const Plan& plan, bool in_a_row) {
  const Graph& graph = plan.graphs[0];
  std::vector<bool> trainable;
  for (const ParamPlan& param : plan.params) trainable.push_back(param.trainable);
  GraphRunner::Options options;
  options.matrices = plan.compute;
  options.params_together = in_a_row;
  GraphRunner runner(graph, trainable, options);
  for (size_t p = 0; p < graph.params().size(); ++p)
    runner.set_param(graph.params()[p].name, values_for(p, graph.params()[p]));
  fill_texts(model, [&](std::string_view name) { return runner.input(std::string(name)); });
  EXPECT_TRUE(std::isfinite(runner.run()));
  std::map<std::string, OwnedTensor> gradients;
  for (const ParamPlan& param : plan.params)
    if (param.trainable) {
      const Tensor gradient = runner.gradient(param.name);
      const OwnedTensor copy(gradient.dtype(), gradient.shape());
      std::memcpy(copy.view().raw(), gradient.raw(), static_cast<size_t>(gradient.bytes()));
      gradients[param.name] = copy;
    }
  return gradients;
}

bool all_same(const std::map<std::string, OwnedTensor>& a, const std::map<std::string, OwnedTensor>& b) {
  if (a.size() != b.size()) return false;
  return std::ranges::all_of(a, [&](const auto& entry) {
    const auto found = b.find(entry.first);
    return found != b.end() && same_bits(entry.second, found->second);
  });
}

TEST(OptPlan, ComputesOneProductWhereWeightsLieTogetherAndThreeElsewhere) {
  const OptConfig config = sized_opt(64);
  const LanguageModel model(LanguageModelConfig{config});
  const PathLength backward = gradient_path(opt_path(config, kTokensOfTexts), 2 * kTokensOfTexts);
  for (const DType compute : {DType::kF32, DType::kBF16})
    for (const auto& [freezing, one_product] : {std::pair{kPositions, true}, {kEverything, true}, {kQueries, false}}) {
      SCOPED_TRACE(concat(to_string(compute), " ", freezing[0].pattern));
      PlanRequest request = opt_request(config, freezing, compute);
      request.world.device = used_device().kind;
      const Plan plan = make_plan(request);
      request.frozen_policy = PolicyChoice::kSharded;
      request.gather = GatherChoice::kCopy;
      const auto got = gradients_in_plan(model, plan), in_slots = gradients_in_plan(model, make_plan(request));
      const auto joined = gradients_in_runner(model, plan, true), apart = gradients_in_runner(model, plan, false);
      ASSERT_FALSE(got.empty());
      EXPECT_TRUE(all_same(got, in_slots)) << "sharded";
      EXPECT_TRUE(all_same(got, one_product ? joined : apart));
      EXPECT_FALSE(all_same(joined, apart)) << "sums of other lengths";
      GradientDistance distance;
      for (const auto& [name, gradient] : joined) distance.add(gradient, values_of(apart.at(name)));
      EXPECT_LE(distance.relative(), model_tolerance(compute, backward, {1.0}).absolute);
    }
}

}  // namespace
}  // namespace permafrost
