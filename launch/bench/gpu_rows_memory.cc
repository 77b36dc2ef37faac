// What should be as fast as memory: each call's bytes are those that it must read and write once.
#include "core/base/check.h"
#include "core/kernels/activation.h"
#include "core/kernels/adamw.h"
#include "core/kernels/cross_entropy.h"
#include "core/kernels/embedding.h"
#include "core/kernels/layer_norm.h"
#include "core/kernels/order_free.h"
#include "core/kernels/shape_ops.h"
#include "launch/bench/gpu_rows.h"

namespace permafrost::bench {

namespace {

constexpr DType kMemoryType = DType::kBF16;

/// A call on one set of memory.
using Work = std::function<void(const Context&)>;
/// Makes a set; says in `bytes` what its call reads and writes.
using MakeWork = std::function<Work(GpuTensors&)>;

GpuCall in_turns(Stream& stream, double bytes, const MakeWork& make) {
  auto tensors = std::make_shared<GpuTensors>(stream);
  auto sets = std::make_shared<std::vector<Work>>();
  const int64_t wanted = gpu_sets(static_cast<int64_t>(bytes));
  for (int64_t i = 0; i < wanted; ++i) sets->push_back(make(*tensors));
  const Context context = gpu_context(stream);
  return [=](int64_t turn) {
    (void)tensors;
    (*sets)[static_cast<size_t>(turn % wanted)](context);
  };
}

class MemoryCases {
 public:
  explicit MemoryCases(const GpuWorkload& workload) : w_(workload) {}

  std::vector<GpuCase> all() {
    if (w_.vision_layers > 0) vision();
    text();
    head();
    update();
    return std::move(cases_);
  }

 private:
  static double bytes_of(int64_t elements, DType dtype = kMemoryType) {
    return static_cast<double>(elements * size_of(dtype));
  }

  void add(const std::string& part, const std::string& pass, int64_t rows, int64_t columns, double bytes,
           double per_step, const MakeWork& make, DType dtype = kMemoryType) {
    GpuRow row;
    row.workload = w_.name;
    row.part = part;
    row.pass = pass;
    row.freezing = "0N";
    row.dtype = dtype;
    row.shape = concat(rows, " x ", columns);
    row.bytes = bytes;
    row.per_step = per_step;
    cases_.push_back({row, [=](Stream& stream) { return in_turns(stream, bytes, make); }});
  }

  /// of_sums: norms in a step that make the sum of a residual stream first; apart: those behind something else.
  void norm(const std::string& part, int64_t rows, int64_t width, double of_sums, double apart, bool backward) {
    const double one = bytes_of(rows * width);
    enum class Kind { kForward, kOfSum, kBackward };
    const auto make = [=](Kind kind) {
      return [=](GpuTensors& t) -> Work {
        const Shape shape{rows, width};
        const Tensor x = t.make(kMemoryType, shape), y = t.make(kMemoryType, shape),
                     gain = t.make(DType::kF32, {width}), bias = t.make(DType::kF32, {width}),
                     mean = t.make(DType::kF32, {rows}), rstd = t.make(DType::kF32, {rows});
        if (kind == Kind::kForward)
          return [=](const Context& c) { layer_norm_forward(c, {x, gain, bias, y, mean, rstd}); };
        if (kind == Kind::kOfSum) {
          const Tensor a = t.make(kMemoryType, shape), b = t.make(kMemoryType, shape);
          return [=](const Context& c) { layer_norm_forward(c, {x, gain, bias, y, mean, rstd, 1e-5f, a, b}); };
        }
        const Tensor dy = t.make(kMemoryType, shape);
        return [=](const Context& c) { layer_norm_backward(c, {dy, x, gain, mean, rstd, y, {}, {}}, {}); };
      };
    };
    add(part + " norm of a sum", "forward", rows, width, 4 * one, of_sums, make(Kind::kOfSum));
    if (apart > 0) add(part + " norm", "forward", rows, width, 2 * one, apart, make(Kind::kForward));
    if (backward) add(part + " norm", "dx", rows, width, 3 * one, of_sums + apart, make(Kind::kBackward));
  }

  void activation(const std::string& part, Activation kind, int64_t rows, int64_t width, double per_step,
                  bool backward) {
    const double one = bytes_of(rows * width);
    add(part, "forward", rows, width, 2 * one, per_step, [=](GpuTensors& t) -> Work {
      const Tensor x = t.make(kMemoryType, {rows, width}), y = t.make(kMemoryType, {rows, width});
      return [=](const Context& c) { activation_forward(c, kind, x, y); };
    });
    if (!backward) return;
    add(part, "backward", rows, width, 3 * one, per_step, [=](GpuTensors& t) -> Work {
      const Tensor kept = t.make(kMemoryType, {rows, width}), dy = t.make(kMemoryType, {rows, width}),
                   dx = t.make(kMemoryType, {rows, width});
      return [=](const Context& c) { activation_backward(c, kind, kept, dy, dx, GradMode::kOverwrite); };
    });
  }

  void residual(const std::string& part, int64_t rows, int64_t width, double per_step) {
    add(part + " residual sum", "forward", rows, width, 3 * bytes_of(rows * width), per_step,
        [=](GpuTensors& t) -> Work {
          const Shape shape{rows, width};
          const Tensor a = t.make(kMemoryType, shape), b = t.make(kMemoryType, shape), out = t.make(kMemoryType, shape);
          return [=](const Context& c) { add_forward(c, a, b, out); };
        });
  }

  void vision() {
    const auto layers = static_cast<double>(w_.vision_layers);
    const int64_t rows = w_.batch * (w_.patches + 1), width = w_.vision_width;
    norm("vision", rows, width, 2 * layers - 1, 2, false);  // apart: the first, behind positions, and the last
    activation("vision gelu", Activation::kGelu, rows, 4 * width, layers, false);
    residual("vision", rows, width, 1);
  }

  void text() {
    const auto layers = static_cast<double>(w_.layers);
    const auto seeing = static_cast<double>(w_.seeing_layers);
    const int64_t rows = w_.rows(), width = w_.width, vocabulary = w_.vocabulary;
    norm("text", rows, width, 2 * layers + 1 - seeing, seeing, true);
    activation("text relu", Activation::kRelu, rows, w_.hidden, layers, true);
    if (seeing > 0) residual("text", rows, width, seeing);
    add("text embedding", "forward", rows, width, 2 * bytes_of(rows * width), 1, [=](GpuTensors& t) -> Work {
      const Tensor ids = t.indices(rows, vocabulary), table = t.make(kMemoryType, {vocabulary, width}),
                   out = t.make(kMemoryType, {rows, width});
      return [=](const Context& c) { embedding_forward(c, ids, table, out); };
    });
  }

  /// Over all rows at once. Steps take them in chunks, whose logits are never all there; bytes per row are the same.
  void head() {
    constexpr int64_t kMostRows = 2048;
    const int64_t rows = std::min(w_.predicted, kMostRows), vocabulary = w_.vocabulary;
    const double one = bytes_of(rows * vocabulary),
                 per_step = static_cast<double>(w_.predicted) / static_cast<double>(rows);
    const auto make = [=](bool back) {
      return [=](GpuTensors& t) -> Work {
        const Tensor logits = t.make(kMemoryType, {rows, vocabulary}), labels = t.indices(rows, vocabulary),
                     loss = t.make(DType::kF32, {rows}), lse = t.make(DType::kF32, {rows});
        if (!back) return [=](const Context& c) { cross_entropy_forward(c, logits, labels, 0.1f, loss, lse); };
        const Tensor dlogits = t.make(kMemoryType, {rows, vocabulary});  // in place, they would grow from call to call
        return [=](const Context& c) { cross_entropy_backward(c, logits, labels, lse, loss, 0.1f, dlogits); };
      };
    };
    add("loss", "forward", rows, vocabulary, one, per_step, make(false));
    add("loss", "backward", rows, vocabulary, 2 * one, per_step, make(true));
  }

  /// Of everything trained, as one tensor.
  void update() {
    const int64_t count = w_.trained_parameters();
    const auto f32 = static_cast<double>(4 * count), i64 = 2 * f32;
    add(
        "trained adamw", "update", 1, count, 7 * f32 + bytes_of(count), 1,
        [=](GpuTensors& t) -> Work {
          const Tensor master = t.make(DType::kF32, {count}), m = t.make(DType::kF32, {count}),
                       grad = t.make(DType::kF32, {count}), working = t.make(kMemoryType, {count});
          // Squares: none is negative. Zeros are made by asking for another dtype.
          const Tensor zeros = t.make(DType::kI32, {count});
          const Tensor v(zeros.raw(), DType::kF32, {count}, zeros.device());
          AdamwStep step;
          step.lr = 1e-6;
          step.weight_decay = 0.01;
          return [=](const Context& c) { adamw(c, step, master, m, v, grad, working); };
        },
        DType::kF32);
    const OrderFreeScale scale = OrderFreeScale::make(2, 1 << 20);  // room for all repetitions
    add(
        "trained sums", "add", 1, count, f32 + 2 * i64, 1,
        [=](GpuTensors& t) -> Work {
          const Tensor gradient = t.make(DType::kF32, {count}), sums = t.make(DType::kI64, {count}),
                       range = t.make(DType::kI32, {1}), at = t.make(DType::kI32, {2});  // zeros: a valid scale
          return [=](const Context& c) { order_free_add(c, at, gradient, sums, GradMode::kAdd, range); };
        },
        DType::kF32);
    add(
        "trained sums", "value", 1, count, f32 + i64, 1,
        [=](GpuTensors& t) -> Work {
          const Tensor gradient = t.make(DType::kF32, {count}), sums = t.make(DType::kI64, {count});
          return [=](const Context& c) { order_free_value(c, scale, sums, gradient); };
        },
        DType::kF32);
  }

  const GpuWorkload& w_;
  std::vector<GpuCase> cases_;
};

}  // namespace

std::vector<GpuCase> memory_cases(const GpuWorkload& workload) { return MemoryCases(workload).all(); }

}  // namespace permafrost::bench
