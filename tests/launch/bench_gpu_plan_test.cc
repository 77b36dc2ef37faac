// The rows of `permafrost bench kernels --device cuda` against the plans of the workloads that they are of: as many
// calls of each kind as a step's program has, of as many elements.
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <ostream>

#include "configs/load.h"
#include "core/base/check.h"
#include "core/graph/ops/head_loss.h"
#include "launch/bench/gpu_rows.h"
#include "models/factory.h"
#include "parallel/plan/plan.h"
#include "tests/support/configs.h"

namespace permafrost {
namespace {

struct PlannedWorkload {
  std::string name, config;
  int64_t batch, words;  ///< of a micro-batch, of a text
  std::vector<std::string> settings = {};
};

void PrintTo(const PlannedWorkload& workload, std::ostream* out) { *out << workload.name; }

std::vector<PlannedWorkload> planned_workloads() {
  // docs/gpu.md has the first two, tests/bench/peers/workloads.py all.
  const std::vector<std::string> window{"model.epalm.start_layer=19", "model.epalm.end_layer=31"};
  std::vector<std::string> small = window, large = window;
  small.push_back("model.epalm.text.size=OPT_2_7B");
  large.insert(large.end(), {"model.epalm.text.size=OPT_6_7B", "model.epalm.vision.size=VIT_L16"});
  return {{"e1-2.7b", "epalm_vitb_opt125m_coco", 16, 49, small},
          {"e1-6.7b", "epalm_vitb_opt125m_coco", 16, 49, large},
          {"e3", "projector_vitl_opt1.3b_coco", 16, 45},
          {"e4", "adaptors_opt125m", 4, 2048, {"model.language_model.text.size=OPT_6_7B"}}};
}

Plan plan_of_workload(const PlannedWorkload& workload) {
  std::vector<std::string> settings = workload.settings;
  settings.push_back(concat("train.micro_batch=", workload.batch));
  settings.push_back(concat("train.global_batch=", workload.batch));
  settings.push_back(concat("data.length_buckets=", workload.words));
  settings.push_back(concat("data.max_text_tokens=", workload.words));
  const config::Config config =
      config::load_config(concat(testing::configs_folder(), "/", workload.config, ".textproto"), settings).config;
  const std::shared_ptr<const Model> model = make_model(config);
  PlanRequest request;
  request.build_graph = [=](int64_t tokens) { return model->build(DType::kBF16, {workload.batch, tokens, false}); };
  request.buckets = {workload.words};
  request.freezing = freeze_rules(config);
  request.frozen_dtype = [](const ParamInfo&) { return DType::kBF16; };
  request.world.device = DeviceKind::kCuda;
  return make_plan(request);
}

/// Calls of a kind in a step, and elements of what all of them make (forward; a gradient counts as its layer does).
struct Calls {
  double count = 0, elements = 0;
};
/// By the first word of the unit and the kind: "vision norm of a sum", "text linear dx".
using CallsByKind = std::map<std::string, Calls>;

bool any_defined(const std::vector<TensorRef>& list) {
  return std::ranges::any_of(list, [](const TensorRef& ref) { return ref.region != Region::kNone; });
}

/// Kinds of rows that a step is a call of. A loss with its head counts as the head's products; their rows are apart.
std::vector<std::string> kinds_of(std::string_view op, const PlanStep& step) {
  const bool forward = step.kind == StepKind::kForward, dx = any_defined(step.dinputs), dw = any_defined(step.dparams);
  if (step.kind != StepKind::kForward && step.kind != StepKind::kBackward) return {};
  if (op == "layer_norm" && forward) return {step.before >= 0 ? "norm of a sum" : "norm"};
  if (op == "layer_norm" && dx) return {step.dinput_modes[0] == GradMode::kAdd ? "norm dx, added" : "norm dx"};
  if (op == "add" && forward) return {"residual sum"};
  if (op.starts_with("attention")) return {forward ? "attention forward" : "attention backward"};
  if (op != "linear" && op != "joined_linear" && op != "head_loss") return {};
  if (forward) return {"linear forward"};
  std::vector<std::string> kinds;
  if (dx) kinds.push_back("linear dx");
  if (dw) kinds.push_back("linear dw");
  return kinds;
}

CallsByKind calls_of(const Plan& plan) {
  CallsByKind calls;
  const Graph& graph = plan.graphs.back();
  for (const PlanStep& step : plan.programs.back().steps) {
    const OpInfo& op = graph.ops()[static_cast<size_t>(step.op)];
    const std::string& unit = plan.units[static_cast<size_t>(step.unit)].name;
    const OpSpecs specs = graph.specs_of(op);
    double elements = static_cast<double>(specs.outputs[0].shape.elements());
    double count = 1;
    if (op.op->kind() == "head_loss") {  // rows and logits: some at a time
      count = elements / static_cast<double>(head_loss_rows(specs.outputs[0].shape.elements()));
      elements *= static_cast<double>(specs.params[0][0]);
    }
    for (const std::string& kind : kinds_of(op.op->kind(), step)) {
      Calls& of_kind = calls[concat(unit.substr(0, unit.find('.')), " ", kind)];
      of_kind.count += count;
      of_kind.elements += elements;
    }
  }
  return calls;
}

/// "960 x 10240 x 2560"
std::vector<double> sizes_of(const std::string& shape) {
  std::vector<double> sizes;
  for (size_t at = 0; at < shape.size();) {
    int64_t size = 0;
    std::from_chars(shape.data() + at, shape.data() + shape.size(), size);
    sizes.push_back(static_cast<double>(size));
    const size_t next = shape.find(" x ", at);
    at = next == std::string::npos ? shape.size() : next + 3;
  }
  return sizes;
}

void add_call(const bench::GpuRow& row, const std::string& kind, size_t sizes, CallsByKind& calls) {
  std::string first = row.part.substr(0, row.part.find(' '));
  if (first == "adaptor") first = "text";  // units of adaptors are parts of the decoder's layers
  Calls& of_kind = calls[concat(first, " ", kind)];
  double elements = row.per_step;
  const std::vector<double> shape = sizes_of(row.shape);
  for (size_t i = 0; i < sizes; ++i) elements *= shape.at(i);
  of_kind.count += row.per_step;
  of_kind.elements += elements;
}

CallsByKind calls_of(const bench::GpuWorkload& workload) {
  CallsByKind calls;
  for (const bench::GpuCase& each : bench::product_cases(workload)) {
    const bool attention = each.row.part.ends_with("attention");
    add_call(each.row, concat(attention ? "attention " : "linear ", each.row.pass), attention ? 4 : 2, calls);
  }
  for (const bench::GpuCase& each : bench::memory_cases(workload))
    for (const std::string kind : {"norm of a sum", "norm", "residual sum"})
      if (each.row.part.ends_with(" " + kind)) {
        const std::vector<double> sizes = sizes_of(each.row.shape);
        const bool added = each.row.bytes == 4 * 2 * sizes.at(0) * sizes.at(1);  // bf16: dy, x, and dx read and written
        add_call(each.row, each.row.pass == "dx" ? kind + (added ? " dx, added" : " dx") : kind, 2, calls);
      }
  return calls;
}

bench::GpuWorkload workload_of(const std::string& name) {
  for (const bench::GpuWorkload& workload : bench::gpu_workloads(false))
    if (workload.name == name) return workload;
  fail(ErrorKind::kInvalidArgument, "workload_of: must be a workload with rows; got ", name);
}

class BenchGpuPlan : public ::testing::TestWithParam<PlannedWorkload> {};

TEST_P(BenchGpuPlan, RowsAreTheCallsOfAStep) {
  const bench::GpuWorkload workload = workload_of(GetParam().name);
  const CallsByKind planned = calls_of(plan_of_workload(GetParam())), listed = calls_of(workload);
  // Decoder layers in front of the visual token have one token less, and are listed with it; so is the sum of the
  // embeddings, which is in front of the prompts too.
  const auto tokens = static_cast<double>(workload.text_tokens);
  for (const auto& [kind, calls] : planned) {
    ASSERT_TRUE(listed.contains(kind)) << kind << ": " << calls.count << " calls in a step, no row";
    EXPECT_EQ(listed.at(kind).count, calls.count) << kind;
    const double share = listed.at(kind).elements / calls.elements;
    EXPECT_GE(share, 1) << kind;
    EXPECT_LE(share, kind.starts_with("text") ? tokens / (tokens - 1) : 1) << kind;
  }
  for (const auto& [kind, calls] : listed) EXPECT_TRUE(planned.contains(kind)) << kind << ": a row, no call in a step";
}

INSTANTIATE_TEST_SUITE_P(All, BenchGpuPlan, ::testing::ValuesIn(planned_workloads()), [](const auto& param) {
  std::string name = param.param.name;
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return name;
});

/// Dropout and a shared connector change nothing in the sums and norms: docs/notes/cuda_backend.md has these numbers.
TEST(BenchGpuPublished, NormsAndSumsAreTheSame) {
  const CallsByKind calls = calls_of(plan_of_workload({"published", "epalm_ptl_vitl_opt6.7b_coco", 2, 64}));
  const CallsByKind listed = calls_of(workload_of("e1-6.7b"));
  std::map<std::string, double> counts;
  for (const char* kind : {"vision norm of a sum", "vision norm", "vision residual sum", "text norm of a sum",
                           "text norm", "text residual sum", "text norm dx, added", "text norm dx"}) {
    ASSERT_TRUE(calls.contains(kind)) << kind;
    ASSERT_TRUE(listed.contains(kind)) << kind;
    EXPECT_EQ(listed.at(kind).count, calls.at(kind).count) << kind;
    counts[kind] = calls.at(kind).count;
  }
  EXPECT_EQ(counts, (std::map<std::string, double>{{"vision norm of a sum", 42},
                                                   {"vision norm", 12},
                                                   {"vision residual sum", 6},
                                                   {"text norm of a sum", 51},
                                                   {"text norm", 14},
                                                   {"text residual sum", 14},
                                                   {"text norm dx, added", 64},
                                                   {"text norm dx", 1}}));
}

/// Logits are f32, some hundred rows of them at a time; their gradient has the compute dtype.
TEST_P(BenchGpuPlan, LossIsOfTheLogitsThatAStepMakes) {
  const bench::GpuWorkload workload = workload_of(GetParam().name);
  const Plan plan = plan_of_workload(GetParam());
  const Graph& graph = plan.graphs.back();
  const auto head = std::ranges::find_if(graph.ops(), [](const OpInfo& op) { return op.op->kind() == "head_loss"; });
  ASSERT_NE(head, graph.ops().end());
  const OpSpecs specs = graph.specs_of(*head);
  const int64_t rows = specs.outputs[0].shape.elements(), vocabulary = specs.params[0][0], chunk = head_loss_rows(rows);
  EXPECT_EQ(rows, workload.predicted);
  const auto elements = static_cast<double>(chunk * vocabulary);
  int seen = 0;
  for (const bench::GpuCase& each : bench::memory_cases(workload)) {
    if (each.row.part != "loss") continue;
    ++seen;
    EXPECT_EQ(each.row.dtype, DType::kF32) << each.row.name();
    EXPECT_EQ(each.row.shape, concat(chunk, " x ", vocabulary)) << each.row.name();
    EXPECT_EQ(each.row.per_step * static_cast<double>(chunk), static_cast<double>(rows)) << each.row.name();
    EXPECT_EQ(each.row.bytes, (each.row.pass == "forward" ? 4 : 4 + 2) * elements) << each.row.name();
  }
  EXPECT_EQ(seen, 2);
}

TEST(BenchGpuRows, ThatNoStepHasAreLeftOut) {
  for (const bool tiny : {false, true})
    for (const bench::GpuWorkload& workload : bench::gpu_workloads(tiny)) {
      for (const auto& cases : {bench::product_cases(workload), bench::memory_cases(workload)})
        for (const bench::GpuCase& each : cases) EXPECT_GT(each.row.per_step, 0) << each.row.name();
      for (const bench::GpuCase& each : bench::memory_cases(workload))
        EXPECT_FALSE(workload.name == "e3" && each.row.part == "vision residual sum") << "every norm takes its own";
    }
}

}  // namespace
}  // namespace permafrost
