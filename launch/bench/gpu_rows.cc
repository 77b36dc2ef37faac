#include "launch/bench/gpu_rows.h"

#include <cmath>

#include "core/base/check.h"
#include "core/graph/ops/head_loss.h"
#include "core/kernels/attention.h"
#include "core/kernels/linear.h"

namespace permafrost::bench {

std::string GpuRow::name() const { return concat(workload, " ", part, " ", pass); }

int64_t GpuWorkload::trained_parameters() const {
  int64_t sum = 0;
  for (const Trained& layer : trained) sum += layer.count * (layer.out * layer.in + layer.out);
  return sum;
}

namespace {

struct TextSize {
  int64_t layers, width, heads, hidden;
};
struct VisionSize {
  int64_t layers, width, heads;
};
constexpr TextSize kOpt1_3b{24, 2048, 32, 8192}, kOpt2_7b{32, 2560, 32, 10240}, kOpt6_7b{32, 4096, 32, 16384},
    kTinyText{2, 64, 4, 128};
constexpr VisionSize kVitB{12, 768, 12}, kVitL{24, 1024, 16}, kTinyVision{2, 48, 4};

GpuWorkload sized(std::string name, const TextSize& text, const VisionSize* vision) {
  GpuWorkload w;
  w.name = std::move(name);
  w.batch = 16;
  w.layers = w.backward_layers = text.layers;
  w.width = text.width;
  w.heads = text.heads;
  w.hidden = text.hidden;
  w.vocabulary = 50272;
  if (!vision) return w;
  w.vision_layers = vision->layers;
  w.vision_width = vision->width;
  w.vision_heads = vision->heads;
  w.patches = 196;
  return w;
}

/// E1: a class token of each of six last encoder layers, ten prompt vectors, 49 tokens of text; 60 in all. Twelve
/// layers get a visual token in front of the prompts.
GpuWorkload epalm(std::string name, const TextSize& text, const VisionSize& vision, bool tiny) {
  GpuWorkload w = sized(std::move(name), text, &vision);
  const int64_t prompts = tiny ? 2 : 10, words = tiny ? 5 : 49;
  if (tiny) w.batch = 2, w.patches = 4, w.vocabulary = 96;
  w.text_tokens = 1 + prompts + words;
  w.parted_layers = 1 + (tiny ? 1 : 12);
  w.class_tokens = tiny ? 1 : 6;
  w.predicted = w.batch * (words - 1);
  w.trained = {{"connector", w.class_tokens, w.batch, text.width, vision.width, 0},
               {"prompt", 2, prompts, text.width, text.width, 2}};
  return w;
}

/// E3: all patches through one linear layer, in front of 45 tokens of text.
GpuWorkload projector(const TextSize& text, const VisionSize& vision, bool tiny) {
  GpuWorkload w = sized("e3", text, &vision);
  const int64_t words = tiny ? 5 : 45;
  if (tiny) w.batch = 2, w.patches = 4, w.vocabulary = 96;
  w.text_tokens = w.patches + words;
  w.predicted = w.batch * (words - 1);
  w.trained = {{"projector", 1, w.batch * w.patches, text.width, vision.width, 0}};
  return w;
}

/// E4: a bottleneck of a quarter of the width in every layer of the decoder. In front of the first one nothing is
/// trained.
GpuWorkload adaptors(const TextSize& text, bool tiny) {
  GpuWorkload w = sized("e4", text, nullptr);
  w.batch = tiny ? 1 : 4;
  w.text_tokens = tiny ? 24 : 2048;
  if (tiny) w.vocabulary = 96;
  w.predicted = w.batch * (w.text_tokens - 1);
  w.backward_layers = text.layers - 1;
  w.adaptor_sums = text.layers;
  w.trained = {{"adaptor down", text.layers, w.rows(), text.width / 4, text.width, text.layers - 1},
               {"adaptor up", text.layers, w.rows(), text.width, text.width / 4, text.layers}};
  return w;
}

constexpr DType kProductType = DType::kBF16;

enum class LinearKind : uint8_t {
  kFrozen,   ///< its bias is at hand in the dtype of products
  kTrained,  ///< its bias is f32
  kHead,     ///< no bias; y, the logits, is f32, and its gradient is not
};

/// One pass of a linear layer on several sets of memory.
GpuCall linear_call(Stream& stream, LinearKind kind, LinearPass pass, int64_t m, int64_t n, int64_t k) {
  struct Set {
    LinearForward forward;
    LinearBackwardInput input;
    LinearBackwardWeight weight;
  };
  auto tensors = std::make_shared<GpuTensors>(stream);
  auto sets = std::make_shared<std::vector<Set>>();
  const int64_t wanted = gpu_sets(size_of(kProductType) * (m * k + n * k + m * n));
  const Tensor workspace = tensors->make(
      DType::kU8, {linear_workspace_bytes(pass, m, n, k, kProductType, kProductType, 1, DeviceKind::kCuda)});
  for (int64_t i = 0; i < wanted; ++i) {
    const Tensor x = tensors->make(kProductType, {m, k}), y = tensors->make(kProductType, {m, n});
    Set set;
    if (pass == LinearPass::kBackwardWeight) {
      set.weight = {
          .x = x, .dy = y, .dweight = tensors->make(DType::kF32, {n, k}), .dbias = tensors->make(DType::kF32, {n})};
    } else {
      const Tensor weight = tensors->make(kProductType, {n, k});
      set.forward = {.x = x, .weight = weight, .bias = {}, .y = y, .pre = {}};
      if (kind == LinearKind::kHead)
        set.forward.y = pass == LinearPass::kForward ? tensors->make(DType::kF32, {m, n}) : y;
      else
        set.forward.bias = tensors->make(kind == LinearKind::kFrozen ? kProductType : DType::kF32, {n});
      set.input = {.dy = y, .weight = weight, .dx = x};
    }
    sets->push_back(set);
  }
  const Context context = gpu_context(stream);
  const auto of_pass = [=](const Set& set, const auto& forward, const auto& input, const auto& weight) {
    if (pass == LinearPass::kForward) forward(set.forward);
    if (pass == LinearPass::kBackwardInput) input(set.input);
    if (pass == LinearPass::kBackwardWeight) weight(set.weight);
  };
  const auto tune = [&](const auto& args) { tune_linear(context, args, workspace); };
  of_pass(sets->front(), tune, tune, tune);
  return [=](int64_t turn) {
    (void)tensors;
    of_pass((*sets)[static_cast<size_t>(turn % wanted)],
            [&](const LinearForward& args) { linear_forward(context, args, workspace); },
            [&](const LinearBackwardInput& args) { linear_backward_input(context, args, workspace); },
            [&](const LinearBackwardWeight& args) { linear_backward_weight(context, args, workspace); });
  };
}

class Products {
 public:
  explicit Products(const GpuWorkload& workload) : w_(workload) {}

  std::vector<GpuCase> all() {
    if (w_.vision_layers > 0) vision();
    text();
    for (const GpuWorkload::Trained& layer : w_.trained)
      linear(layer.name, "6N", layer.rows, layer.out, layer.in,
             {of(layer.count), of(layer.input_gradients), of(layer.count)}, LinearKind::kTrained);
    return std::move(cases_);
  }

 private:
  /// In a step.
  struct Passes {
    double forward = 0, dx = 0, dw = 0;
  };
  static double of(int64_t times) { return static_cast<double>(times); }

  void add(GpuRow row, double per_step, std::function<GpuCall(Stream&)> make) {
    if (per_step == 0) return;
    row.workload = w_.name;
    row.per_step = per_step;
    cases_.push_back({std::move(row), std::move(make)});
  }

  void linear(const std::string& part, const std::string& freezing, int64_t m, int64_t n, int64_t k,
              const Passes& per_step, LinearKind kind = LinearKind::kFrozen) {
    const auto pass = [&](LinearPass which, const char* name, double times) {
      GpuRow row;
      row.part = part;
      row.pass = name;
      row.freezing = freezing;
      row.dtype = kProductType;
      row.shape = concat(m, " x ", n, " x ", k);
      row.flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
      add(row, times, [=](Stream& stream) { return linear_call(stream, kind, which, m, n, k); });
    };
    pass(LinearPass::kForward, "forward", per_step.forward);
    pass(LinearPass::kBackwardInput, "dx", per_step.dx);
    pass(LinearPass::kBackwardWeight, "dw", per_step.dw);
  }

  void vision() {
    const int64_t rows = w_.batch * (w_.patches + 1), width = w_.vision_width, layers = w_.vision_layers;
    const auto behind_attention = [&](const std::string& part, int64_t m, int64_t times) {
      linear(part + " proj", "2N", m, width, width, {of(times)});
      linear(part + " fc1", "2N", m, 4 * width, width, {of(times)});
      linear(part + " fc2", "2N", m, width, 4 * width, {of(times)});
    };
    linear("vision patches", "2N", w_.batch * w_.patches, width, width == 48 ? 48 : 768, {1});
    linear("vision qkv", "2N", rows, 3 * width, width, {of(layers)});
    behind_attention("vision", rows, layers - w_.token_blocks());
    behind_attention("vision token", w_.batch, w_.token_blocks());
    attention("vision attention", w_.patches + 1, w_.vision_heads, width, MaskKind::kNone, layers, 0);
  }

  void text() {
    const Passes layers{of(w_.layers), of(w_.backward_layers)};
    linear("text qkv", "4N", w_.rows(), 3 * w_.width, w_.width, layers);
    linear("text out", "4N", w_.rows(), w_.width, w_.width, layers);
    linear("text fc1", "4N", w_.rows(), w_.hidden, w_.width, layers);
    linear("text fc2", "4N", w_.rows(), w_.width, w_.hidden, layers);
    const int64_t rows = head_loss_rows(w_.predicted);  // at a time
    const double times = of(w_.predicted) / of(rows);
    linear("text lm_head", "4N", rows, w_.vocabulary, w_.width, {times, times}, LinearKind::kHead);
    attention("text attention", w_.text_tokens, w_.heads, w_.width, MaskKind::kCausal, w_.layers, w_.backward_layers);
  }

  /// Products of scores and of values: two forward; backward five, one of which computes the scores again. A causal
  /// mask leaves half of them.
  void attention(const std::string& part, int64_t tokens, int64_t heads, int64_t width, MaskKind mask, int64_t forward,
                 int64_t backward) {
    const double one = 2.0 * static_cast<double>(w_.batch) * static_cast<double>(width) * static_cast<double>(tokens) *
                       static_cast<double>(tokens) * (mask == MaskKind::kCausal ? 0.5 : 1.0);
    const int64_t batch = w_.batch, size = width / heads;
    for (const bool back : {false, true}) {
      GpuRow row;
      row.part = part;
      row.pass = back ? "backward" : "forward";
      row.freezing = "0N";
      row.dtype = kProductType;
      row.shape = concat(batch, " x ", tokens, " x ", heads, " x ", size);
      row.flops = back ? 5 * one : 2 * one;
      add(row, of(back ? backward : forward),
          [=](Stream& stream) { return attention_call(stream, back, batch, tokens, heads, size, mask); });
    }
  }

  /// q, k or v of a fused (B, T, 3, H, D), as the models' products leave them.
  static Tensor attention_part(const Tensor& fused, int64_t index) {
    const Shape& all = fused.shape();
    const Shape shape{all[0], all[1], all[3], all[4]};
    return {static_cast<std::byte*>(fused.raw()) + index * all[3] * all[4] * size_of(fused.dtype()), fused.dtype(),
            shape, fused.device()};
  }

  static GpuCall attention_call(Stream& stream, bool backward, int64_t batch, int64_t tokens, int64_t heads,
                                int64_t size, MaskKind mask) {
    auto t = std::make_shared<GpuTensors>(stream);
    const Shape shape{batch, tokens, heads, size};
    const auto fused = [&] { return t->make(kProductType, {batch, tokens, 3, heads, size}); };
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)));
    const Tensor qkv = fused(), out = t->make(kProductType, shape), lse = t->make(DType::kF32, {batch, heads, tokens});
    const auto room = [&](bool back) {
      return t->make(DType::kU8, {attention_workspace_bytes(back, batch, tokens, tokens, heads, size, kProductType, 1,
                                                            DeviceKind::kCuda)});
    };
    AttentionForward forward;
    forward.q = attention_part(qkv, 0), forward.k = attention_part(qkv, 1), forward.v = attention_part(qkv, 2);
    forward.out = out, forward.lse = lse;
    forward.stride_q = forward.stride_k = forward.stride_v = 3 * heads * size;
    forward.scale = scale;
    forward.mask.kind = mask;
    const Tensor workspace = room(false);
    const Context context = gpu_context(stream);
    if (!backward) {
      return [=](int64_t) {
        (void)t;
        attention_forward(context, forward, workspace);
      };
    }
    attention_forward(context, forward, workspace);  // out and lse are those of qkv
    AttentionBackward back;
    back.q = forward.q, back.k = forward.k, back.v = forward.v, back.out = out, back.lse = lse;
    back.stride_q = back.stride_k = back.stride_v = forward.stride_q;
    const Tensor dqkv = fused();
    back.dout = t->make(kProductType, shape);
    back.dq = attention_part(dqkv, 0), back.dk = attention_part(dqkv, 1), back.dv = attention_part(dqkv, 2);
    back.scale = scale;
    back.mask.kind = mask;
    const Tensor back_workspace = room(true);
    return [=](int64_t) {
      (void)t;
      attention_backward(context, back, back_workspace);
    };
  }

  const GpuWorkload& w_;
  std::vector<GpuCase> cases_;
};

}  // namespace

std::vector<GpuWorkload> gpu_workloads(bool tiny) {
  const auto text = [&](const TextSize& size) { return tiny ? kTinyText : size; };
  const auto vision = [&](const VisionSize& size) { return tiny ? kTinyVision : size; };
  return {epalm("e1-2.7b", text(kOpt2_7b), vision(kVitB), tiny), epalm("e1-6.7b", text(kOpt6_7b), vision(kVitL), tiny),
          projector(text(kOpt1_3b), vision(kVitL), tiny), adaptors(text(kOpt6_7b), tiny)};
}

std::vector<GpuCase> product_cases(const GpuWorkload& workload) { return Products(workload).all(); }

}  // namespace permafrost::bench
