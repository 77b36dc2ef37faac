// Forecasts of time against numbers worked out by hand.
#include "parallel/plan/step_forecast.h"

#include <gtest/gtest.h>

#include "core/base/json.h"
#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/embedding.h"
#include "core/graph/ops/joined_linear.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/shape_ops.h"
#include "parallel/plan/step_traffic.h"
#include "tests/support/compare.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using testing::throws_error;

/// Four rows: x (4, 8) -> a: W (16, 8) -> b: W (8, 16) -> loss. f32 all over.
Graph two_products(int64_t) {
  Graph g(DType::kF32);
  const Value x = g.input("x", {{4, 8}, DType::kF32});
  const Value labels = g.input("labels", {{4}, DType::kI32});
  const Value row_weight = g.input("row_weight", {{4}, DType::kF32});
  Value h, logits;
  {
    const auto unit = g.unit("a");
    h = linear(g, x, g.param("a.weight", {16, 8}, Initializer::normal(1)),
               g.param("a.bias", {16}, Initializer::zeros()));
  }
  {
    const auto unit = g.unit("b");
    logits = linear(g, h, g.param("b.weight", {8, 16}, Initializer::normal(1)));
  }
  const auto unit = g.unit("loss");
  g.set_loss(cross_entropy(g, logits, labels, row_weight, 0).loss);
  return g;
}

PlanRequest product_request(const std::string& trained) {
  PlanRequest r;
  r.build_graph = two_products;
  r.buckets = {1};
  r.freezing = {{trained, true}};
  r.world.device = DeviceKind::kCuda;
  return r;
}

constexpr double kInstant = 1e30;

/// Everything takes no time, but for what the test sets.
ForecastOptions instant() {
  ForecastOptions options;
  options.rates.peak_flops = options.rates.product_flops = options.rates.memory_bytes = kInstant;
  options.rates.node_link_bytes = options.rates.host_link_bytes = options.rates.network_bytes = kInstant;
  options.launch_seconds = options.collective_seconds = 0;
  return options;
}

// A product of 4 rows is 2 * 4 * 8 * 16 = 1024 FLOPs, forward as well as each gradient.
TEST(StepForecast, ProductsOfFrozenAndTrainableUnits) {
  ForecastOptions options = instant();
  options.rates.product_flops = 2;
  const StepForecast last = forecast_step(make_plan(product_request("b.*")), options);
  EXPECT_EQ(last.units[0].flops, 1024) << "a prefix: forward alone";
  EXPECT_EQ(last.units[0].product_seconds, 512);
  EXPECT_EQ(last.units[1].flops, 2048) << "forward and dW; nothing upstream needs dX";
  EXPECT_EQ(last.trainable_flops, 2048);
  // The loss: 20 for each of 32 logits, forward and backward.
  EXPECT_EQ(last.frozen_flops, 1024 + 2 * 640);
  EXPECT_NEAR(last.step_seconds, (1024 + 2048 + 1280) / 2.0, 1e-9);
  EXPECT_EQ(last.bound, Bound::kMatmul);

  const StepForecast first = forecast_step(make_plan(product_request("a.*")), options);
  EXPECT_EQ(first.units[0].flops, 2048) << "forward and dW";
  EXPECT_EQ(first.units[1].flops, 2048) << "forward and dX: 4N";
  EXPECT_EQ(first.trainable_flops, 2048);
  EXPECT_EQ(first.frozen_flops, 2048 + 2 * 640);
}

/// Four rows: x (4, 8) -> first: W (8, 8) -> q, k, v side by side: W (8, 8) each -> loss. f32 all over.
Graph joined_products(int64_t) {
  Graph g(DType::kF32);
  const Value x = g.input("x", {{4, 8}, DType::kF32});
  const Value labels = g.input("labels", {{4}, DType::kI32});
  const Value row_weight = g.input("row_weight", {{4}, DType::kF32});
  const auto weight = [&](const char* name) { return g.param(name, {8, 8}, Initializer::normal(1)); };
  const auto bias = [&](const char* name) { return g.param(name, {8}, Initializer::zeros()); };
  const auto unit = g.unit("unit");
  const Value h = linear(g, x, weight("first"));
  const Value qkv =
      joined_linear(g, h, {weight("q"), weight("k"), weight("v")}, {bias("q.bias"), bias("k.bias"), bias("v.bias")});
  g.set_loss(cross_entropy(g, qkv, labels, row_weight, 0).loss);
  return g;
}

// A product of 4 rows is 2 * 4 * 8 * 8 = 512 FLOPs; the loss 20 for each of 96 logits, forward and backward.
TEST(StepForecast, WeightsThatShareAProductCountByThemselves) {
  PlanRequest r = product_request("q");
  r.build_graph = joined_products;
  const double loss = 2 * 1920;
  const StepForecast alone = forecast_step(make_plan(r), instant());
  EXPECT_EQ(alone.trainable_flops, 2 * 512) << "its part of forward, and dW";
  EXPECT_EQ(alone.frozen_flops, 512 + 2 * 512 + loss) << "the layer in front, k and v";
  r.freezing = {{"q", true}, {"first", true}};
  const StepForecast upstream = forecast_step(make_plan(r), instant());
  EXPECT_EQ(upstream.trainable_flops, 2 * 512 + 3 * 512) << "the layer in front, and of q forward, dX and dW";
  EXPECT_EQ(upstream.frozen_flops, 2 * 512 + 2 * 512 + loss) << "forward and dX of k and v";
  r.freezing = {{"q.bias", true}};
  const StepForecast bias = forecast_step(make_plan(r), instant());
  EXPECT_EQ(bias.trainable_flops, 0) << "a bias has no part of a product";
  EXPECT_EQ(bias.frozen_flops, 4 * 512 + loss);
  r.freezing = {{"*", true}};
  const StepForecast whole = forecast_step(make_plan(r), instant());
  EXPECT_EQ(whole.trainable_flops, 2 * 512 + 9 * 512);
  EXPECT_EQ(whole.frozen_flops, loss);
}

// A norm makes the sum in front of it, of 160 elements: at the end of a block in another unit.
TEST(StepForecast, ASumThatANormMakesCountsByItsOwnParametersInTheUnitOfTheNorm) {
  PlanRequest r = product_request("norm.*");
  r.build_graph = [](int64_t) { return testing::toy_transformer({}); };
  const Plan plan = make_plan(r);
  int sums = 0;
  for (const PlanStep& step : plan.programs[0].steps) {
    if (step.before < 0) continue;
    ++sums;
    const bool trained = step.unit == 4;
    const StepWork work = step_work(plan, 0, step);
    EXPECT_EQ(work.trainable_flops, trained ? 8 * 160 : 0);
    EXPECT_EQ(work.frozen_flops, trained ? 160 : 9 * 160);
  }
  EXPECT_EQ(sums, 6);
  const StepForecast forecast = forecast_step(plan, instant());
  ASSERT_EQ(plan.units.size(), forecast.units.size());
  for (size_t u = 0; u < plan.units.size(); ++u)
    EXPECT_EQ(plan.units[u].flops_forward + plan.units[u].flops_backward, forecast.units[u].flops)
        << plan.units[u].name;
  EXPECT_EQ(plan.units[2].flops_forward - plan.units[1].flops_forward, 160) << "blocks.1 makes the sum of blocks.0";
}

TEST(StepForecast, MemoryOfEveryStep) {
  ForecastOptions options = instant();
  options.rates.memory_bytes = 1;
  const StepForecast f = forecast_step(make_plan(product_request("b.*")), options);
  // x 128, W 512, bias 64, h 256.
  EXPECT_EQ(f.units[0].memory_seconds, 128 + 512 + 64 + 256);
  // Forward: h 256, W 512, logits 128. dW: h 256, dlogits 128, dW 512. Its sum: 512 read, 128 integers of 8 read and
  // written.
  EXPECT_EQ(f.units[1].memory_seconds, (256 + 512 + 128) + (256 + 128 + 512) + (512 + 2 * 1024));
  // Sums of 128 elements cleared and read, the slice written and read as f32, 28 bytes each for AdamW, the f32 copy.
  EXPECT_EQ(f.optimizer_seconds, 8 * (128 + 128) + 8 * 128 + 28 * 128 + 4 * 128);
  EXPECT_EQ(f.bound, Bound::kMemory);
  EXPECT_EQ(f.units[0].bound, Bound::kMemory);

  const StepForecast first = forecast_step(make_plan(product_request("a.*")), options);
  // dX: W 512, dlogits 128, dh 256; no weight gradient and nothing saved.
  EXPECT_EQ(first.units[1].memory_seconds, (256 + 512 + 128) + (512 + 128 + 256));
}

TEST(StepForecast, AStepTakesTheLongerOfItsTwo) {
  ForecastOptions options = instant();
  options.rates.product_flops = 1;
  options.rates.memory_bytes = 1;
  const StepForecast f = forecast_step(make_plan(product_request("b.*")), options);
  EXPECT_EQ(f.units[0].busy_seconds, 1024) << "960 bytes";
  EXPECT_EQ(f.units[1].busy_seconds, 1024 + 1024 + 2560) << "its two products, and a sum without any";
}

TEST(StepForecast, AnEmbeddingReadsRowsAndPassedGradientsCostNothing) {
  testing::ToyConfig toy;
  toy.vocab = 5000;
  PlanRequest r = product_request("blocks.0.*");
  r.build_graph = [toy](int64_t) { return testing::toy_transformer(toy); };
  const Plan plan = make_plan(r);
  bool embedding = false, passed = false, added = false;
  for (const PlanStep& step : plan.programs[0].steps) {
    const OpInfo& op = plan.graphs[0].ops()[static_cast<size_t>(step.op)];
    const int64_t bytes = step_work(plan, 0, step).bytes;
    if (op.op->kind() == "embedding" && step.kind == StepKind::kForward) {
      embedding = true;
      EXPECT_EQ(bytes, 4 * 10 + 2 * 4 * 10 * 16) << "ten ids, ten rows read and written";
    }
    if (op.op->kind() == "layer_norm" && step.kind == StepKind::kBackward && step.dparams[0].region == Region::kNone &&
        step.dinput_modes[0] == GradMode::kAdd) {
      added = true;
      EXPECT_EQ(bytes, 640 + 64 + 2 * 40 + 640 + 2 * 640) << "x, gain, statistics, dy, and dx read and written";
    }
    if (op.op->kind() == "add" && step.kind == StepKind::kBackward) {
      const auto elsewhere = [&](const TensorRef& ref) {
        return ref.region != Region::kNone && ref.offset != step.doutputs[0].offset;
      };
      if (std::ranges::none_of(step.dinputs, elsewhere)) {
        passed = true;
        EXPECT_EQ(bytes, 0);
      }
    }
  }
  EXPECT_TRUE(embedding);
  EXPECT_TRUE(added) << "norms of frozen blocks add to the gradient of the residual stream";
  EXPECT_TRUE(passed) << "a residual stream shares its gradient";
}

TEST(StepForecast, AHostThatLaunchesSlowlySetsThePace) {
  ForecastOptions options = instant();
  options.launch_seconds = 3;
  PlanRequest r = product_request("b.*");
  r.micro_batches = 4;
  const Plan plan = make_plan(r);
  const auto steps = static_cast<double>(plan.programs[0].steps.size());
  const StepForecast f = forecast_step(plan, options);
  EXPECT_NEAR(f.programs_seconds, 4 * 3 * steps, 1e-9);
  EXPECT_NEAR(f.all.launch_seconds, 4 * 3 * steps, 1e-9);
  EXPECT_EQ(f.bound, Bound::kLaunch);
  // A device that is busy longer than the launches hides them, all but the first.
  options.rates.product_flops = 1;
  const StepForecast busy = forecast_step(plan, options);
  EXPECT_GT(busy.programs_seconds, busy.all.busy_seconds);
  EXPECT_LT(busy.programs_seconds, busy.all.busy_seconds + busy.all.launch_seconds);
  EXPECT_EQ(busy.bound, Bound::kMatmul);
}

// The frozen matrices of a and b are 512 bytes each; at one byte per second they come in 512 s. At two FLOPs per second
// a product takes 512 s.
TEST(StepForecast, GathersOneUnitAheadAreHiddenBehindAProduct) {
  ForecastOptions options = instant();
  options.rates.product_flops = 2;
  options.rates.host_link_bytes = 1;
  PlanRequest r = product_request("a.bias");
  r.frozen_policy = PolicyChoice::kSharded;
  Plan plan = make_plan(r);
  const StepForecast ahead = forecast_step(plan, options);
  plan.gather.prefetch = false;
  const StepForecast late = forecast_step(plan, options);
  EXPECT_EQ(ahead.units[0].gather_seconds, 512) << "the bias is trained";
  EXPECT_EQ(ahead.units[1].gather_seconds, 512) << "once: it stays in its slot for the backward pass";
  EXPECT_NEAR(late.programs_seconds, late.all.busy_seconds + 1024, 1e-6);
  EXPECT_NEAR(ahead.programs_seconds, ahead.all.busy_seconds + 512, 1e-6) << "the first has nothing to hide behind";
  // Where a gather takes longer than everything else it is the bound.
  options.rates.product_flops = 1000;
  const StepForecast slow = forecast_step(make_plan(r), options);
  EXPECT_EQ(slow.bound, Bound::kGather);
  EXPECT_EQ(slow.units[0].bound, Bound::kGather);
}

TEST(StepForecast, ExchangesInClosedForm) {
  ForecastOptions options = instant();
  options.collective_seconds = 0.25;
  World world;
  EXPECT_EQ(exchange_seconds(world, options, 1000), 0) << "alone";
  // Within a node all but the own part comes over its links.
  options.rates.node_link_bytes = 10;
  world.ranks = 8;
  EXPECT_NEAR(exchange_seconds(world, options, 800), 0.25 + 800 * 7.0 / 8 / 10, 1e-12);
  // Two nodes of four: half of it comes over four networks; of the rest three quarters over links.
  world.nodes = 2;
  options.rates.network_bytes = 1;
  EXPECT_NEAR(exchange_seconds(world, options, 800), 0.25 + 400 / 4.0, 1e-9) << "the network is slower";
  options.rates.network_bytes = 1000;
  EXPECT_NEAR(exchange_seconds(world, options, 800), 0.25 + 800 * 3.0 / 4 / 10, 1e-9) << "the links are slower";
  // More ranks on a node have more network between them.
  options.rates.network_bytes = 1;
  options.rates.node_link_bytes = kInstant;
  const double four = exchange_seconds(world, options, 800);
  world.ranks = 16;
  EXPECT_NEAR(exchange_seconds(world, options, 800) - 0.25, (four - 0.25) / 2, 1e-9);
  // One rank on each node has no links to use.
  world.ranks = world.nodes = 4;
  options.rates.node_link_bytes = 1e-30;
  EXPECT_NEAR(exchange_seconds(world, options, 800), 0.25 + 600, 1e-9);
  // Over the host all bytes pass its link as well.
  options.collectives = Collectives::kHost;
  options.rates.host_link_bytes = 8;
  EXPECT_NEAR(exchange_seconds(world, options, 800), 0.25 + 600 + 100, 1e-9);
}

TEST(StepForecast, MoreRanksShareMicroBatchesGathersAndTheOptimizer) {
  ForecastOptions options = instant();
  options.rates.product_flops = options.rates.memory_bytes = options.rates.host_link_bytes = 1;
  const auto plan_for = [](int ranks) {
    PlanRequest r = product_request("*");
    r.build_graph = [](int64_t tokens) {
      return testing::toy_transformer({2, tokens, 64, 4, 256, 333, 3, DType::kBF16, Activation::kRelu});
    };
    r.buckets = {4};
    r.freezing = {{"blocks.0.*", true}};
    r.frozen_policy = PolicyChoice::kSharded;
    r.micro_batches = 8;
    r.world.ranks = ranks;
    return make_plan(r);
  };
  const Plan alone_plan = plan_for(1), four_plan = plan_for(4);
  const StepForecast alone = forecast_step(alone_plan, options), four = forecast_step(four_plan, options);
  EXPECT_GT(alone.all.gather_seconds, 0);
  EXPECT_NEAR(four.all.gather_seconds, alone.all.gather_seconds / 4, 1e-6 * alone.all.gather_seconds);
  EXPECT_NEAR(four.all.busy_seconds, alone.all.busy_seconds / 4, 1e-6 * alone.all.busy_seconds);
  EXPECT_LT(four.optimizer_seconds, alone.optimizer_seconds);
  // All sums are cleared; the rest goes with the slice (bf16 matrices and f32 vectors, so the copy is shared by bytes).
  const auto space = static_cast<double>(four_plan.trainable_space);
  const auto [begin, end] = four_plan.slice(0);
  const auto slice = static_cast<double>(end - begin);
  EXPECT_NEAR(four.optimizer_seconds - 8 * space, (alone.optimizer_seconds - 8 * space) * slice / space, 1e-3);
}

TEST(StepForecast, SpeedAndUtilisationFollowFromTheStep) {
  ForecastOptions options = instant();
  options.rates.product_flops = 10;
  options.rates.peak_flops = 40;
  options.samples_per_micro_batch = 4;
  options.tokens_per_micro_batch = 20;
  PlanRequest r = product_request("b.*");
  r.micro_batches = 3;
  const StepForecast f = forecast_step(make_plan(r), options);
  EXPECT_NEAR(f.step_seconds, 3 * (1024 + 2048 + 1280) / 10.0, 1e-9);
  EXPECT_NEAR(f.samples_per_s * f.step_seconds, 12, 1e-9);
  EXPECT_NEAR(f.tokens_per_s * f.step_seconds, 60, 1e-9);
  EXPECT_NEAR(f.utilisation, 0.25, 1e-9);
}

TEST(StepForecast, RefusesPlansOfAnotherKind) {
  PlanRequest r = product_request("b.*");
  r.world.device = DeviceKind::kCpu;
  EXPECT_TRUE(throws_error([&] { forecast_step(make_plan(r), instant()); }, ErrorKind::kInvalidArgument,
                           {"a plan for training on CUDA was expected", "for CPU"}));
}

TEST(StepForecast, TextAndJsonSayPredicted) {
  const Plan plan = make_plan(product_request("b.*"));
  ForecastOptions options;
  options.rates = rates_of(device_spec("h200"), Products::kF32);
  const StepForecast forecast = forecast_step(plan, options);
  const std::string table = forecast_table(plan, options, forecast);
  for (const char* part : {"predicted, per rank and step (1 micro-batch of 1 sample):", "all units", " ms predicted = ",
                           "samples/s predicted", "predicted for NVIDIA H200 SXM, not measured: f32 products ",
                           "(0.85 of a ceiling that is 0.76 of the data sheet, as measured on one card)"})
    EXPECT_NE(table.find(part), std::string::npos) << part << '\n' << table;
  options.rates = rates_of(device_spec("a100"), Products::kF32);
  EXPECT_NE(forecast_table(plan, options, forecast)
                .find("(0.85 of a ceiling that is 0.66 of the data sheet, assumed); memory "),
            std::string::npos);
  const Json j = parse_json(forecast_json(plan, options, forecast));
  EXPECT_EQ(j["predicted"]["bound"], std::string(to_string(forecast.bound)));
  EXPECT_EQ(j["predicted"]["step_seconds"], forecast.step_seconds);
  EXPECT_EQ(j["predicted_units"].size(), 3u);
  EXPECT_EQ(j["hash"], plan.hash()) << "the keys of the plan are there too";
}

// ---- Data sheets.

TEST(DeviceSpecs, KnowsItsDevicesAndNamesThemWhenAskedForAnother) {
  EXPECT_EQ(device_spec("h200").memory_bytes, 141'000'000'000);
  EXPECT_EQ(device_spec("h100").memory_bytes_per_s, 3.35e12);
  EXPECT_EQ(device_spec("a100").bf16_flops, 312e12);
  EXPECT_TRUE(throws_error([] { device_spec("b300"); }, ErrorKind::kConfig, {"(h200, h100, a100)", "got 'b300'"}));
}

TEST(DeviceSpecs, RatesAreFractionsOfTheSheetOrOfWhatWasMeasured) {
  const DeviceSpec& spec = device_spec("h200");
  const Rates sheet = rates_of(spec, Products::kBF16);
  EXPECT_NEAR(sheet.product_flops, 0.85 * 0.79 * 989.4e12, 1);
  EXPECT_NEAR(sheet.memory_bytes, 0.85 * 0.88 * 4.8e12, 1);
  EXPECT_FALSE(sheet.products_measured || sheet.memory_measured);
  EXPECT_NEAR(sheet.product_flops, 0.85 * 781e12, 0.01 * sheet.product_flops) << "what a card reached";
  EXPECT_NEAR(sheet.memory_bytes, 0.85 * 4.228e12, 0.01 * sheet.memory_bytes);
  EXPECT_TRUE(sheet.ceilings_known);
  const Rates tf32 = rates_of(spec, Products::kTf32), f32 = rates_of(spec, Products::kF32);
  EXPECT_EQ(tf32.peak_flops, 494.7e12);
  EXPECT_EQ(f32.peak_flops, 67e12);
  EXPECT_NEAR(tf32.product_flops, 0.85 * 418e12, 0.01 * tf32.product_flops);
  EXPECT_NEAR(f32.product_flops, 0.85 * 51e12, 0.01 * f32.product_flops);
  const Rates h100 = rates_of(device_spec("h100"), Products::kBF16),
              a100 = rates_of(device_spec("a100"), Products::kBF16);
  EXPECT_FALSE(h100.ceilings_known || a100.ceilings_known);
  EXPECT_EQ(h100.product_flops, sheet.product_flops) << "its processors are an H200's";
  EXPECT_NEAR(h100.memory_bytes, 0.85 * 0.88 * 3.35e12, 1);
  EXPECT_NEAR(a100.product_flops, 0.85 * 0.66 * 312e12, 1);
  EXPECT_NEAR(a100.memory_bytes, 0.85 * 0.90 * 2.039e12, 1);
  const Rates measured = rates_of(spec, Products::kBF16, {.matmul_flops = 700e12, .copy_bytes_per_s = 4.2e12});
  EXPECT_NEAR(measured.product_flops, 0.85 * 700e12, 1);
  EXPECT_NEAR(measured.memory_bytes, 0.85 * 4.2e12, 1);
  EXPECT_EQ(measured.peak_flops, 989.4e12) << "utilisation stays relative to the sheet";
  EXPECT_TRUE(measured.products_measured && measured.memory_measured);
}

}  // namespace
}  // namespace permafrost
