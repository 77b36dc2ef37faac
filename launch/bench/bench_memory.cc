#include "launch/bench/bench_memory.h"

#include <deque>
#include <map>

#include "core/kernels/activation.h"
#include "core/kernels/adamw.h"
#include "core/kernels/cross_entropy.h"
#include "core/kernels/layer_norm.h"
#include "core/kernels/shape_ops.h"

namespace permafrost::bench {

namespace {
/// Tensors of one row, filled.
class Tensors {
 public:
  Tensor make(DType dtype, const Shape& shape) {
    const TensorSpec spec{shape, dtype};
    buffers_.emplace_back("bench tensor", spec.bytes());
    const Tensor tensor(buffers_.back().data(), spec);
    if (dtype == DType::kF32 || dtype == DType::kBF16) fill_uniform(tensor);
    return tensor;
  }

 private:
  std::deque<Buffer> buffers_;
};

class MemoryBench {
 public:
  MemoryBench(ThreadPool& pool, Stopwatch& watch, const std::string& only,
              const std::function<void(const MemoryRow&)>& report)
      : pool_(pool), watch_(watch), only_(only), report_(report) {
    context_.pool = &pool;
  }

  void run() {
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      layer_norm(dtype);
      activations(dtype);
      residual(dtype);
      cross_entropy(dtype);
      adam(dtype);
    }
  }

 private:
  /// Counts the tensors' bytes, each as often as it stands in the list.
  void time(const std::string& kernel, DType dtype, std::initializer_list<Tensor> touched,
            const std::function<void()>& call) {
    MemoryRow row;
    row.kernel = kernel;
    row.dtype = to_string(dtype);
    if ((row.dtype + " " + kernel).find(only_) == std::string::npos) return;
    int64_t bytes = 0;
    for (const Tensor& tensor : touched) bytes += tensor.bytes();
    row.bytes = static_cast<double>(bytes);
    row.seconds = watch_.medians({{call, false}})[0];
    row.cached_copy = copy_bandwidth(pool_, watch_, bytes);
    if (memory_copy_ == 0) memory_copy_ = copy_bandwidth(pool_, watch_, int64_t{1} << 30);
    row.memory_copy = memory_copy_;
    report_(row);
  }

  void layer_norm(DType dtype) {
    const int64_t rows = 16 * 197, width = 768;
    Tensors t;
    const Tensor x = t.make(dtype, {rows, width}), y = t.make(dtype, {rows, width}), dy = t.make(dtype, {rows, width}),
                 gain = t.make(DType::kF32, {width}), bias = t.make(DType::kF32, {width}),
                 mean = t.make(DType::kF32, {rows}), rstd = t.make(DType::kF32, {rows});
    time("layer_norm forward", dtype, {x, y}, [&] { layer_norm_forward(context_, {x, gain, bias, y, mean, rstd}); });
    time("layer_norm dx", dtype, {dy, x, y}, [&] {
      layer_norm_backward(context_, {dy, x, gain, mean, rstd, y, {}, {}}, {});
    });
    const Tensor workspace = t.make(DType::kU8, {layer_norm_workspace_bytes(rows, width, true)});
    time("layer_norm dx and parameters", dtype, {dy, x, y}, [&] {
      layer_norm_backward(context_, {dy, x, gain, mean, rstd, y, gain, bias}, workspace);
    });
  }

  void activations(DType dtype) {
    Tensors t;
    const Shape vit{16 * 197, 3072}, opt{16 * 32, 3072};
    const Tensor x = t.make(dtype, vit), y = t.make(dtype, vit), dy = t.make(dtype, vit);
    const Tensor x2 = t.make(dtype, opt), y2 = t.make(dtype, opt), dy2 = t.make(dtype, opt);
    time("gelu forward", dtype, {x, y}, [&] { activation_forward(context_, Activation::kGelu, x, y); });
    time("gelu backward", dtype, {x, dy, y},
         [&] { activation_backward(context_, Activation::kGelu, x, dy, y, GradMode::kOverwrite); });
    time("relu forward", dtype, {x2, y2}, [&] { activation_forward(context_, Activation::kRelu, x2, y2); });
    time("relu backward", dtype, {x2, dy2, y2},
         [&] { activation_backward(context_, Activation::kRelu, x2, dy2, y2, GradMode::kOverwrite); });
    time("tanh forward", dtype, {x2, y2}, [&] { activation_forward(context_, Activation::kTanh, x2, y2); });
  }

  void residual(DType dtype) {
    Tensors t;
    const Shape shape{16 * 197, 768};
    const Tensor a = t.make(dtype, shape), b = t.make(dtype, shape), out = t.make(dtype, shape);
    time("residual sum", dtype, {a, b, out}, [&] { add_forward(context_, a, b, out); });
  }

  void cross_entropy(DType dtype) {
    Tensors t;
    const int64_t rows = 16 * 32, vocabulary = 50272;
    const Tensor logits = t.make(dtype, {rows, vocabulary}), labels = t.make(DType::kI32, {rows}),
                 loss = t.make(DType::kF32, {rows}), lse = t.make(DType::kF32, {rows}),
                 weight = t.make(DType::kF32, {rows}), dlogits = t.make(dtype, {rows, vocabulary});
    time("cross_entropy forward (softmax)", dtype, {logits},
         [&] { cross_entropy_forward(context_, logits, labels, 0.1f, loss, lse); });
    time("cross_entropy backward (softmax)", dtype, {logits, dlogits},
         [&] { cross_entropy_backward(context_, logits, labels, lse, weight, 0.1f, dlogits); });
  }

  void adam(DType working_dtype) {
    Tensors t;
    const Shape shape{int64_t{4} << 20};
    const Tensor master = t.make(DType::kF32, shape), m = t.make(DType::kF32, shape), v = t.make(DType::kF32, shape),
                 grad = t.make(DType::kF32, shape), working = t.make(working_dtype, shape);
    float* squares = v.data<float>();
    for (int64_t i = 0; i < v.elements(); ++i) squares[i] *= squares[i];
    AdamwStep step;
    step.lr = 1e-4;
    step.weight_decay = 0.01;
    time("adamw", working_dtype, {master, master, m, m, v, v, grad, working},
         [&] { adamw(context_, step, master, m, v, grad, working); });
  }

  ThreadPool& pool_;
  Stopwatch& watch_;
  const std::string& only_;
  const std::function<void(const MemoryRow&)>& report_;
  Context context_;
  double memory_copy_ = 0;
};
}  // namespace

void bench_memory(ThreadPool& pool, Stopwatch& watch, const std::string& only,
                  const std::function<void(const MemoryRow&)>& report) {
  MemoryBench(pool, watch, only, report).run();
}

}  // namespace permafrost::bench
