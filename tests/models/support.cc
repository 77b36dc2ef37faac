#include "tests/models/support.h"

#include <algorithm>
#include <cstring>

#include "models/epalm/inputs.h"
#include "models/weight_names.h"

namespace permafrost::testing {

EpalmConfig small_epalm() {
  EpalmConfig c;
  c.vision = {8, 3, 4, 12, 3, 3, 20, 1e-6f};
  c.text.vocab = 23;
  c.text.layers = 5;
  c.text.hidden = 12;
  c.text.word_embed_proj_dim = 8;
  c.text.heads = 3;
  c.text.ffn = 18;
  c.text.max_positions = 16;
  c.features = 2;
  c.start = 2;
  c.end = 4;
  c.prompt_length = 2;
  c.adaptor = AdaptorConfig{AdaptorKind::kScaledParallel, 3, true};
  return c;
}

PathLength operator+(PathLength a, PathLength b) { return {a.terms + b.terms, a.roundings + b.roundings}; }
PathLength operator*(int64_t times, PathLength a) { return {times * a.terms, times * a.roundings}; }

PathLength block_path(int64_t width, int64_t heads, int64_t hidden, int64_t keys) {
  return {2 * width + 3 * width + width / heads + keys + hidden, 10};
}

PathLength vit_path(const VitConfig& c) {
  const PathLength ends{c.channels * c.patch * c.patch + c.dim, 3};
  return c.depth * block_path(c.dim, c.heads, c.mlp_dim, c.tokens()) + ends;
}

PathLength opt_path(const OptConfig& c, int64_t tokens) {
  const PathLength ends{c.word_embed_proj_dim + 2 * c.hidden, 4};
  return c.layers * block_path(c.hidden, c.heads, c.ffn, tokens) + ends;
}

PathLength gradient_path(PathLength forward, int64_t rows) { return 2 * forward + PathLength{rows, 2}; }

Tolerance model_tolerance(DType dtype, PathLength path, const std::vector<double>& want) {
  double largest = 0;
  for (double w : want) largest = std::max(largest, std::abs(w));
  const double walk = dtype == DType::kF32 ? std::sqrt(static_cast<double>(path.terms)) * 0x1p-24
                                           : std::sqrt(2.0 * static_cast<double>(path.roundings)) *
                                                 (dtype == DType::kF16 ? 0x1p-12 : 0x1p-9);
  return {6 * walk * largest, 0};
}

void GradientDistance::add(const Tensor& got, const std::vector<double>& want, double scale) {
  const std::vector<double> values = values_of(got);
  PERMAFROST_CHECK(values.size() == want.size(), "GradientDistance: ", want.size(), " values expected; got ",
                   got.spec());
  for (size_t i = 0; i < want.size(); ++i) {
    const double off = values[i] / scale - want[i];
    difference_ += off * off;
    size_ += want[i] * want[i];
  }
}

int64_t switched_units(const GraphRunner& a, const GraphRunner& b) {
  int64_t switched = 0;
  for (const ValueInfo& info : a.graph().values()) {
    const Tensor x = a.value(info.name), y = b.value(info.name);
    if (info.role != ValueRole::kComputed || !x.defined() || !y.defined()) continue;
    const std::vector<double> in_a = values_of(x), in_b = values_of(y);
    for (size_t i = 0; i < in_a.size(); ++i) switched += (in_a[i] == 0) != (in_b[i] == 0);
  }
  return switched;
}

double distance_bound(DType compute, PathLength backward, int64_t switched) {
  const DType as = compute == DType::kF16 && switched > 0 ? DType::kBF16 : compute;
  return model_tolerance(as, backward, {1.0}).absolute;
}

namespace {

class DotLossOp final : public Op {
 public:
  std::string_view kind() const override { return "dot_loss"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec>, std::span<const Shape>) const override {
    return {{{1}, DType::kF64}};
  }
  BackwardUse backward_use(const Needs&) const override {
    BackwardUse use;
    use.inputs = ~BitMask{0};  // the cotangents are inputs as well
    return use;
  }
  void forward(const Context&, const ForwardArgs& args) const override {
    double sum = 0;
    const size_t n = args.inputs.size() / 2;
    for (size_t i = 0; i < n; ++i) {
      const auto x = values_of(args.inputs[i]), c = values_of(args.inputs[n + i]);
      for (size_t e = 0; e < x.size(); ++e) sum += x[e] * c[e];
    }
    *args.outputs[0].data<double>() = sum;
  }
  void backward(const Context&, const BackwardArgs& args) const override {
    const size_t n = args.inputs.size() / 2;
    for (size_t i = 0; i < n; ++i) {
      const Tensor dx = args.dinputs[i];
      if (!dx.defined()) continue;
      for (int64_t e = 0; e < dx.elements(); ++e) {
        const float c = args.inputs[n + i].data<float>()[e];
        dx.data<float>()[e] = args.dinput_modes[i] == GradMode::kAdd ? dx.data<float>()[e] + c : c;
      }
    }
  }
};

}  // namespace

Value dot_loss(Graph& graph, const std::vector<Value>& x, const std::vector<Value>& c) {
  std::vector<Value> inputs = x;
  inputs.insert(inputs.end(), c.begin(), c.end());
  const Value loss = graph.apply(std::make_unique<DotLossOp>(), inputs);
  graph.set_loss(loss);
  return loss;
}

VitConfig vit_config_of(const Golden& g) {
  const auto whole = [&](const char* key) { return static_cast<int64_t>(g.number(key)); };
  return {whole("img_size"), whole("in_chans"), whole("patch_size"), whole("dim"),
          whole("depth"),    whole("heads"),    whole("mlp_dim"),    static_cast<float>(g.number("eps"))};
}

OptConfig opt_config_of(const Golden& g) {
  const auto whole = [&](const char* key) { return static_cast<int64_t>(g.number(key)); };
  OptConfig c;
  c.vocab = whole("vocab_size");
  c.layers = whole("num_hidden_layers");
  c.hidden = whole("hidden_size");
  c.heads = whole("num_attention_heads");
  c.ffn = whole("ffn_dim");
  c.word_embed_proj_dim = whole("word_embed_proj_dim");
  c.norm_before = c.final_norm = g.text("do_layer_norm_before") == "true";
  c.max_positions = whole("max_position_embeddings");
  return c;
}

void load_params(const GraphRunner& runner, const std::string& prefix, const Golden& weights) {
  for (const ParamInfo& info : runner.graph().params()) {
    if (!info.name.starts_with(prefix)) continue;
    const std::string stored = info.name.substr(prefix.size());
    if (!weights.has(stored)) continue;
    PERMAFROST_CHECK(weights.shape(stored) == info.shape, "load_params: ", info.name, " must be ", info.shape, "; got ",
                     weights.shape(stored));
    const OwnedTensor converted = make_tensor(runner.param(info.name).dtype(), info.shape, weights.values(stored));
    std::memcpy(runner.param(info.name).raw(), converted.view().raw(), static_cast<size_t>(converted.view().bytes()));
  }
}

std::vector<int32_t> lengths_in(const Golden& golden) {
  const Shape shape = golden.shape("attention_mask");
  std::vector<int64_t> mask;
  for (double m : golden.values("attention_mask")) mask.push_back(static_cast<int64_t>(m));
  return lengths_of_mask(mask, shape[0], shape[1]);
}

AdaptorConfig adaptor_config_of(const Golden& golden) {
  AdaptorConfig c;
  const std::string kind = golden.text("adapter_type");
  c.kind = kind == "normal"     ? AdaptorKind::kNormal
           : kind == "parallel" ? AdaptorKind::kParallel
                                : AdaptorKind::kScaledParallel;
  c.factor = static_cast<int64_t>(golden.number("adapter_factor"));
  c.layer_norm = golden.text("adapter_layer_norm") == "true";
  c.location = golden.text("adapter_location") == "mlp" ? AdaptorLocation::kMlp : AdaptorLocation::kAttention;
  return c;
}

TextBatch texts_in(const Golden& golden) {
  TextBatch text;
  const Shape shape = golden.shape("input_ids");
  text.batch = shape[0];
  text.tokens = shape[1];
  for (double id : golden.values("input_ids")) text.ids.push_back(static_cast<int32_t>(id));
  text.lengths = lengths_in(golden);
  label_all(text);
  return text;
}

namespace {

/// The batch of a golden file as a run would give it to a model; keeps what it refers to.
struct GoldenBatch {
  std::vector<float> images;
  ModelBatch batch;

  explicit GoldenBatch(const Golden& golden) {
    if (golden.has("images"))
      for (double value : golden.values("images")) images.push_back(static_cast<float>(value));
    batch.images = images;
    batch.text = texts_in(golden);
    batch.pad_id = kOptPadId;
    batch.row_weight = LossWeighting{LossWeighting::Kind::kTokenMean, 1}.row_weight(count_loss(batch.text));
  }
  GoldenBatch(const GoldenBatch&) = delete;
  GoldenBatch& operator=(const GoldenBatch&) = delete;
};

std::string stored_gradient(const TextGolden& want, const std::string& param) {
  return "grad:" + param.substr(want.prefix.size());
}

/// Numbers as large as what the error of a gradient is measured by: those of the gradient, but for sums that cancel.
std::vector<double> gradient_scale(const TextGolden& want, const GraphRunner& runner, const std::string& param) {
  const auto gradient = [&](const std::string& name) { return want.golden.values(stored_gradient(want, name)); };
  // The gradient of a bias of keys: see opt_golden_test.cc.
  if (param.ends_with("k_proj.bias")) return gradient(param.substr(0, param.size() - 4) + "weight");
  if (!param.ends_with("adapter_scale")) return gradient(param);
  // Of y + s (W h + b) it is (sum of W dW + sum of b db) / s: errors of dW and db come in with W and b, in quadrature.
  const std::string linear = param.substr(0, param.size() - 6);  // …adapter
  const std::string last = runner.graph().find_param(linear + ".3.weight") < 0 ? ".2." : ".3.";
  double squares = 0;
  for (const char* part : {"weight", "bias"}) {
    double largest = 0, norm = 0;
    for (double g : gradient(linear + last + part)) largest = std::max(largest, std::abs(g));
    for (double w : values_of(runner.param(linear + last + part))) norm += w * w;
    squares += norm * largest * largest;
  }
  return {std::sqrt(squares) / std::abs(values_of(runner.param(param))[0])};
}

void expect_text_gradients(const TextGolden& want, const GraphRunner& runner, PathLength backward) {
  const std::vector<bool> trainable = resolve_freezing(runner.graph(), want.model.freezing());
  for (size_t p = 0; p < trainable.size(); ++p) {
    if (!trainable[p]) continue;
    const std::string& param = runner.graph().params()[p].name;
    const auto gradient = want.golden.values(stored_gradient(want, param));
    const Tolerance tolerance = model_tolerance(DType::kF32, backward, gradient_scale(want, runner, param));
    EXPECT_TRUE(all_close(runner.gradient(param), gradient, tolerance)) << param;
  }
}

void expect_text_values(const TextGolden& want, const GraphRunner& runner, DType dtype,
                        const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto values = want.golden.values(name);
    EXPECT_EQ(runner.value(name).shape(), want.golden.shape(name)) << name;
    EXPECT_TRUE(all_close(runner.value(name), values, model_tolerance(dtype, want.path, values))) << name;
  }
}

}  // namespace

void expect_text_golden(const TextGolden& want) {
  const GoldenBatch on(want.golden);
  const int64_t batch = on.batch.text.batch, tokens = on.batch.text.tokens;
  for (const ModelShape& shape :
       {ModelShape{batch, tokens, false}, ModelShape{batch, tokens, true}, ModelShape{batch, tokens + 3, false}}) {
    const Graph graph = want.model.build(DType::kF32, shape);
    GraphRunner runner(graph, resolve_freezing(graph, want.model.freezing()));
    want.load(runner);
    want.model.fill(on.batch, [&](std::string_view name) { return runner.value(std::string(name)); });
    const double loss = runner.run(), want_loss = want.golden.values("loss")[0];
    EXPECT_NEAR(loss, want_loss, model_tolerance(DType::kF32, want.path, {want_loss}).absolute) << shape.tokens;
    if (shape.all_values) {
      std::vector<std::string> names;
      for (const ValueInfo& value : graph.values())
        if (want.golden.has(value.name) && value.name != "loss" && value.spec.dtype == DType::kF32)
          names.push_back(value.name);
      EXPECT_GE(names.size(), 1u);
      expect_text_values(want, runner, DType::kF32, names);
    } else {
      EXPECT_EQ(runner.value("row_loss").shape(), Shape({batch * (shape.tokens - 1)})) << "rows of the text alone";
    }
    expect_text_gradients(
        want, runner,
        gradient_path(want.path, want.golden.shape("logits").elements() / want.golden.shape("logits")[2]));
  }
}

namespace {
void expect_text_golden_in(const TextGolden& want, DType compute) {
  SCOPED_TRACE(to_string(compute));
  const GoldenBatch on(want.golden);
  const Graph graph = want.model.build(compute, {on.batch.text.batch, on.batch.text.tokens, true});
  const std::vector<bool> trainable = resolve_freezing(graph, want.model.freezing());
  GraphRunner::Options options;
  options.matrices = compute;
  GraphRunner runner(graph, trainable, options);
  want.load(runner);
  want.model.fill(on.batch, [&](std::string_view name) { return runner.value(std::string(name)); });
  runner.set_loss_scale(scale_for(compute));
  const double loss = runner.run(), want_loss = want.golden.values("loss")[0];
  EXPECT_NEAR(loss, want_loss, model_tolerance(compute, want.path, {want_loss}).absolute);
  expect_text_values(want, runner, compute, {"logits"});
  GradientDistance distance;
  for (size_t p = 0; p < trainable.size(); ++p)
    if (const std::string& param = graph.params()[p].name; trainable[p])
      distance.add(runner.gradient(param), want.golden.values(stored_gradient(want, param)), scale_for(compute));
  EXPECT_LE(distance.relative(), model_tolerance(compute, gradient_path(want.path, 0), {1.0}).absolute);
}
}  // namespace

void expect_text_golden_narrow(const TextGolden& want) {
  for (const DType compute : narrow_dtypes()) expect_text_golden_in(want, compute);
}

void expect_trains_what_is_in(const std::string& file, const Model& model) {
  const Graph graph = model.build(DType::kF32, {2, 5, false});
  const std::vector<bool> trainable = resolve_freezing(graph, model.freezing());
  const PartWeights part = adapter_weights(graph, trainable);
  const WeightSource source = WeightSource::open(golden_path(file));
  EXPECT_EQ(match_parameters(part.required, source, part.rules).matches.size(), source.tensors().size());
  EXPECT_EQ(std::ranges::count(trainable, true), std::ssize(source.tensors()));
}

}  // namespace permafrost::testing
