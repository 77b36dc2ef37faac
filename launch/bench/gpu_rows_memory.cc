// What should be as fast as memory: each call's bytes are those that it must read and write once.
#include "core/base/check.h"
#include "core/graph/ops/head_loss.h"
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
    if (per_step == 0) return;
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

  /// In a step.
  struct Norms {
    int64_t of_sums = 0, apart = 0;  ///< that make the sum of a residual stream first; behind something else
    int64_t backward = 0;
    GradMode dx = GradMode::kAdd;  ///< to what the residual stream has for its gradient already
  };

  void norm(const std::string& part, int64_t rows, int64_t width, const Norms& per_step) {
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
        LayerNormBackward call{
            .dy = dy, .x = x, .gain = gain, .mean = mean, .rstd = rstd, .dx = y, .dgain = {}, .dbias = {}};
        call.dx_mode = per_step.dx;
        return [=](const Context& c) { layer_norm_backward(c, call, {}); };
      };
    };
    const auto of = [](int64_t times) { return static_cast<double>(times); };
    add(part + " norm of a sum", "forward", rows, width, 4 * one, of(per_step.of_sums), make(Kind::kOfSum));
    add(part + " norm", "forward", rows, width, 2 * one, of(per_step.apart), make(Kind::kForward));
    add(part + " norm", "dx", rows, width, (per_step.dx == GradMode::kAdd ? 4 : 3) * one, of(per_step.backward),
        make(Kind::kBackward));
  }

  void activation(const std::string& part, Activation kind, int64_t rows, int64_t width, int64_t forward,
                  int64_t backward) {
    const double one = bytes_of(rows * width);
    add(part, "forward", rows, width, 2 * one, static_cast<double>(forward), [=](GpuTensors& t) -> Work {
      const Tensor x = t.make(kMemoryType, {rows, width}), y = t.make(kMemoryType, {rows, width});
      return [=](const Context& c) { activation_forward(c, kind, x, y); };
    });
    add(part, "backward", rows, width, 3 * one, static_cast<double>(backward), [=](GpuTensors& t) -> Work {
      const Tensor kept = t.make(kMemoryType, {rows, width}), dy = t.make(kMemoryType, {rows, width}),
                   dx = t.make(kMemoryType, {rows, width});
      return [=](const Context& c) { activation_backward(c, kind, kept, dy, dx, GradMode::kOverwrite); };
    });
  }

  /// Sums that no norm makes on its way.
  void residual(const std::string& part, int64_t rows, int64_t width, int64_t per_step) {
    add(part + " residual sum", "forward", rows, width, 3 * bytes_of(rows * width), static_cast<double>(per_step),
        [=](GpuTensors& t) -> Work {
          const Shape shape{rows, width};
          const Tensor a = t.make(kMemoryType, shape), b = t.make(kMemoryType, shape), out = t.make(kMemoryType, shape);
          return [=](const Context& c) { add_forward(c, a, b, out); };
        });
  }

  void vision() {
    const int64_t rows = w_.batch * (w_.patches + 1), width = w_.vision_width, layers = w_.vision_layers,
                  token = w_.token_blocks();
    // The first norm is behind positions, not a sum. Of blocks whose class token is taken, that is what stands behind
    // their last sum: so the next block's first norm is apart, and of the last one there is none but of taken tokens.
    const int64_t parted = w_.class_tokens - token;
    norm("vision", rows, width, {2 * layers - parted - 2 * token, 1 + parted});
    norm("vision token", w_.batch, width, {token, w_.class_tokens});
    activation("vision gelu", Activation::kGelu, rows, 4 * width, layers - token, 0);
    activation("vision token gelu", Activation::kGelu, w_.batch, 4 * width, token, 0);
    residual("vision", rows, width, parted);
    residual("vision token", w_.batch, width, token);
  }

  void text() {
    const int64_t rows = w_.rows(), width = w_.width, vocabulary = w_.vocabulary, parted = w_.parted_layers;
    norm("text", rows, width, {2 * w_.layers - parted, parted, 2 * w_.backward_layers});
    // Of the rows that are predicted, which are taken out first.
    norm("text final", w_.predicted, width, {0, 1, 1, GradMode::kOverwrite});
    activation("text relu", Activation::kRelu, rows, w_.hidden, w_.layers, w_.backward_layers);
    residual("text", rows, width, parted + w_.adaptor_sums + 1);  // the last one is in front of the final norm's rows
    add("text embedding", "forward", rows, width, 2 * bytes_of(rows * width), 1, [=](GpuTensors& t) -> Work {
      const Tensor ids = t.indices(rows, vocabulary), table = t.make(kMemoryType, {vocabulary, width}),
                   out = t.make(kMemoryType, {rows, width});
      return [=](const Context& c) { embedding_forward(c, ids, table, out); };
    });
  }

  /// Of as many rows as have their logits at a time, in f32; the gradient has the compute dtype. The last time may have
  /// fewer rows, and counts as a part of a call.
  void head() {
    const int64_t rows = head_loss_rows(w_.predicted), vocabulary = w_.vocabulary;
    const double logits_bytes = bytes_of(rows * vocabulary, DType::kF32), gradient_bytes = bytes_of(rows * vocabulary),
                 per_step = static_cast<double>(w_.predicted) / static_cast<double>(rows);
    const auto make = [=](bool back) {
      return [=](GpuTensors& t) -> Work {
        const Tensor logits = t.make(DType::kF32, {rows, vocabulary}), labels = t.indices(rows, vocabulary),
                     loss = t.make(DType::kF32, {rows}), lse = t.make(DType::kF32, {rows});
        if (!back) return [=](const Context& c) { cross_entropy_forward(c, logits, labels, 0.1f, loss, lse); };
        const Tensor dlogits = t.make(kMemoryType, {rows, vocabulary});
        return [=](const Context& c) { cross_entropy_backward(c, logits, labels, lse, loss, 0.1f, dlogits); };
      };
    };
    add("loss", "forward", rows, vocabulary, logits_bytes, per_step, make(false), DType::kF32);
    add("loss", "backward", rows, vocabulary, logits_bytes + gradient_bytes, per_step, make(true), DType::kF32);
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
