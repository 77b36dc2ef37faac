#include "launch/bench/bench_linear.h"

#include <algorithm>

#include "core/base/check.h"
#include "launch/bench/onednn.h"

namespace permafrost::bench {

namespace {
struct Layer {
  const char* model;
  const char* name;
  int64_t rows;      // of 16 samples
  int64_t one_rows;  // of one
  int64_t n, k;
};

// ViT-B/16 on 224 x 224: 197 tokens a sample, 196 before the class token. OPT-125M on 32 tokens a sample; its head and
// the tied embedding have one shape.
constexpr Layer kLayers[] = {
    {"vit_b16", "patch_embed", 16 * 196, 196, 768, 768}, {"vit_b16", "qkv", 16 * 197, 197, 2304, 768},
    {"vit_b16", "proj", 16 * 197, 197, 768, 768},        {"vit_b16", "fc1", 16 * 197, 197, 3072, 768},
    {"vit_b16", "fc2", 16 * 197, 197, 768, 3072},        {"opt_125m", "qkv", 16 * 32, 32, 2304, 768},
    {"opt_125m", "out", 16 * 32, 32, 768, 768},          {"opt_125m", "fc1", 16 * 32, 32, 3072, 768},
    {"opt_125m", "fc2", 16 * 32, 32, 768, 3072},         {"opt_125m", "lm_head", 16 * 32, 32, 50272, 768},
};

constexpr LinearPass kPasses[] = {LinearPass::kForward, LinearPass::kBackwardInput, LinearPass::kBackwardWeight};

std::string_view name_of(LinearPass pass) {
  switch (pass) {
    case LinearPass::kForward:
      return "forward";
    case LinearPass::kBackwardInput:
      return "dx";
    case LinearPass::kBackwardWeight:
      return "dw";
  }
  return "?";
}

LinearRow measure(const Problem& problem, ThreadPool& pool, Stopwatch& watch, LinearRow row) {
  Context context;
  context.pool = &pool;
  std::vector<Side> sides{{[&] { problem.run_ours(context); }, false}, {onednn_product(problem, false), true}};
  // Neither factor of dW is a weight that could be kept packed.
  const bool packs = problem.pass != LinearPass::kBackwardWeight;
  if (packs) sides.push_back({onednn_product(problem, true), true});
  const std::vector<double> times = watch.medians(sides);
  row.flops = problem.flops();
  row.ours = times[0];
  row.plain = times[1];
  row.packed = packs ? times[2] : 0;
  return row;
}
}  // namespace

double LinearRow::ratio() const { return (packed > 0 ? std::min(plain, packed) : plain) / ours; }

std::string LinearRow::name() const {
  return concat(dtype == DType::kBF16 ? "bf16 " : "f32 ", model, " ", layer, " ", pass, " x", samples);
}

void bench_linear(ThreadPool& pool, Stopwatch& watch, const std::string& only,
                  const std::function<void(const LinearRow&)>& report) {
  for (const DType dtype : {DType::kBF16, DType::kF32})
    for (const int samples : {16, 1})
      for (const Layer& layer : kLayers)
        for (const LinearPass pass : kPasses) {
          LinearRow row;
          row.model = layer.model;
          row.layer = layer.name;
          row.pass = name_of(pass);
          row.dtype = dtype;
          row.samples = samples;
          row.m = samples == 1 ? layer.one_rows : layer.rows;
          row.n = layer.n;
          row.k = layer.k;
          if (row.name().find(only) == std::string::npos) continue;
          const Problem problem(row.m, row.n, row.k, dtype, pass, pool.threads());
          report(measure(problem, pool, watch, row));
        }
}

}  // namespace permafrost::bench
