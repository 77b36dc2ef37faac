#include "launch/bench/bench_linear.h"

#include <algorithm>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "core/base/check.h"
#include "core/kernels/linear.h"

namespace permafrost::bench {

namespace {
using dnnl::memory;

struct Layer {
  const char* model;
  const char* name;
  int64_t rows;      // of 16 samples
  int64_t one_rows;  // of one
  int64_t n, k;
};

// ViT-B/16 on 224 x 224: 197 tokens a sample, 196 before the class token. OPT-125M on 32 tokens a sample; its four
// projections of attention have one shape, and so do its head and the tied embedding.
constexpr Layer kLayers[] = {
    {"vit_b16", "patch_embed", 16 * 196, 196, 768, 768}, {"vit_b16", "qkv", 16 * 197, 197, 2304, 768},
    {"vit_b16", "proj", 16 * 197, 197, 768, 768},        {"vit_b16", "fc1", 16 * 197, 197, 3072, 768},
    {"vit_b16", "fc2", 16 * 197, 197, 768, 3072},        {"opt_125m", "q_k_v_out", 16 * 32, 32, 768, 768},
    {"opt_125m", "fc1", 16 * 32, 32, 3072, 768},         {"opt_125m", "fc2", 16 * 32, 32, 768, 3072},
    {"opt_125m", "lm_head", 16 * 32, 32, 50272, 768},
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

memory::data_type type_of(DType dtype) {
  return dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

/// Owns a tensor of uniform random values in [-1, 1): zeros would let the processor clock higher.
struct Matrix {
  Matrix(const char* name, DType dtype, const Shape& shape)
      : buffer(name, TensorSpec{shape, dtype}.bytes()), tensor(buffer.data(), dtype, shape) {
    fill_uniform(tensor);
  }
  Buffer buffer;
  Tensor tensor;
};

struct Problem {
  Problem(int64_t m, int64_t n, int64_t k, DType dtype, LinearPass pass, int threads)
      : m(m),
        n(n),
        k(k),
        dtype(dtype),
        pass(pass),
        x("x", dtype, {m, k}),
        weight("weight", dtype, {n, k}),
        y("y", dtype, {m, n}),
        bias("bias", DType::kF32, {n}),
        dweight("dweight", DType::kF32, {pass == LinearPass::kBackwardWeight ? n : 0, k}),
        workspace("workspace", linear_workspace_bytes(pass, m, n, k, dtype, dtype, threads)) {}

  void run_ours(const Context& context) const {
    const Tensor scratch(workspace.data(), DType::kU8, {workspace.bytes()});
    switch (pass) {
      case LinearPass::kForward:
        return linear_forward(
            context, {.x = x.tensor, .weight = weight.tensor, .bias = bias.tensor, .y = y.tensor, .pre = {}}, scratch);
      case LinearPass::kBackwardInput:
        return linear_backward_input(context, {.dy = y.tensor, .weight = weight.tensor, .dx = x.tensor}, scratch);
      case LinearPass::kBackwardWeight:
        return linear_backward_weight(context, {.x = x.tensor, .dy = y.tensor, .dweight = dweight.tensor, .dbias = {}},
                                      scratch);
    }
  }

  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }

  int64_t m, n, k;
  DType dtype;
  LinearPass pass;
  Matrix x, weight, y, bias, dweight;
  Buffer workspace;
};

/// The same product as one oneDNN matmul. Packed: weights in the layout it likes best, put there outside the timing.
class OneDnn {
 public:
  OneDnn(const Problem& p, bool packed) : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Tag = memory::format_tag;
    const bool forward = p.pass == LinearPass::kForward, dw = p.pass == LinearPass::kBackwardWeight;
    const memory::data_type type = type_of(p.dtype), f32 = memory::data_type::f32;
    const int64_t rows = dw ? p.n : p.m, columns = forward ? p.n : p.k, terms = forward ? p.k : dw ? p.m : p.n;
    const memory::desc a({rows, terms}, type, dw ? Tag::ba : Tag::ab),
        b({terms, columns}, type, forward ? Tag::ba : Tag::ab);
    const memory::desc any({terms, columns}, type, Tag::any), c({rows, columns}, dw ? f32 : type, Tag::ab),
        bias({1, p.n}, f32, Tag::ab);
    const memory::desc& wanted = packed ? any : b;
    const dnnl::matmul::desc desc = forward ? dnnl::matmul::desc(a, wanted, bias, c) : dnnl::matmul::desc(a, wanted, c);
    const dnnl::matmul::primitive_desc primitive(desc, engine_);
    product_ = dnnl::matmul(primitive);
    memory weights(b, engine_, (dw ? p.x : p.weight).tensor.raw());
    if (packed) {
      memory copy(primitive.weights_desc(), engine_);
      dnnl::reorder(weights, copy).execute(stream_, weights, copy);
      stream_.wait();
      weights = copy;
    }
    const Matrix& left = forward ? p.x : p.y;
    const Matrix& result = forward ? p.y : dw ? p.dweight : p.x;
    args_ = {{DNNL_ARG_SRC, memory(a, engine_, left.tensor.raw())},
             {DNNL_ARG_WEIGHTS, weights},
             {DNNL_ARG_DST, memory(c, engine_, result.tensor.raw())}};
    if (forward) args_[DNNL_ARG_BIAS] = memory(bias, engine_, p.bias.tensor.raw());
  }

  void run() {
    product_.execute(stream_, args_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul product_;
  std::unordered_map<int, memory> args_;
};

LinearRow measure(const Problem& problem, ThreadPool& pool, Stopwatch& watch, LinearRow row) {
  Context context;
  context.pool = &pool;
  OneDnn plain(problem, false);
  std::vector<Side> sides{{[&] { problem.run_ours(context); }, false}, {[&] { plain.run(); }, true}};
  // Neither factor of dW is a weight that could be kept packed.
  std::unique_ptr<OneDnn> packed;
  if (problem.pass != LinearPass::kBackwardWeight) {
    packed = std::make_unique<OneDnn>(problem, true);
    sides.push_back({[&] { packed->run(); }, true});
  }
  const std::vector<double> times = watch.medians(sides);
  row.flops = problem.flops();
  row.ours = times[0];
  row.plain = times[1];
  row.packed = packed ? times[2] : 0;
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
