// eP-ALM against our fp64 composition of timm and transformers, which agrees with the released code
// (tests/goldens/README.md): every variant, mask, loss and window.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/epalm/inputs.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

struct Variant {
  Golden golden, vision, text;
  EpalmConfig config;

  explicit Variant(const std::string& file)
      : golden("epalm_" + file + ".safetensors"),
        vision(golden.text("vision") + "_weights.safetensors"),
        text(golden.text("text") + "_weights.safetensors") {
    config.vision = vit_config_of(vision);
    config.text = opt_config_of(text);
  }
  int64_t whole(const std::string& key) const { return static_cast<int64_t>(golden.number(key)); }
  bool flag(const std::string& key) const { return golden.text(key) == "true"; }
  std::vector<double> ids() const { return golden.values("input_ids"); }
};

Variant load_variant(const std::string& name) {
  Variant v(name);
  EpalmConfig& c = v.config;
  c.shared_connector = v.flag("shared_connector");
  c.features = v.whole("features");
  c.start = v.whole("start");
  c.end = v.whole("end");
  c.prompt_length = v.whole("prompt_len");
  c.prompt = c.prompt_length == 0   ? EpalmConfig::Prompt::kNone
             : v.flag("prompt_mlp") ? EpalmConfig::Prompt::kMlp
                                    : EpalmConfig::Prompt::kTable;
  if (name.starts_with("ada")) c.adaptor = adaptor_config_of(v.golden);
  return v;
}

void set_mode(EpalmConfig& config, const std::string& mode) {
  config.vis_row = mode == "causal" ? EpalmConfig::VisRow::kCausal : EpalmConfig::VisRow::kPublished;
  config.padding = mode == "open_clean" ? EpalmConfig::Padding::kClean : EpalmConfig::Padding::kPublished;
}

TextBatch text_of(const Golden& golden, bool answers, int32_t answer_id) {
  TextBatch batch = texts_in(golden);
  if (answers) label_answers(batch, answer_id);
  return batch;
}

EpalmTextInputs text_inputs(const GraphRunner& runner) {
  EpalmTextInputs in;
  in.input_ids = runner.input("input_ids");
  in.position_ids = runner.input("position_ids");
  in.lengths_before = runner.input("lengths_before");
  in.lengths_after = runner.input("lengths_after");
  in.open_lengths = runner.value("open_lengths");
  in.labels = runner.input("labels");
  in.row_weight = runner.input("row_weight");
  return in;
}

constexpr int32_t kPad = 1;

/// Loss of one micro-batch that is the whole global batch.
double run_loss(GraphRunner& runner, const EpalmConfig& config, const TextBatch& batch,
                const LossWeighting& weighting) {
  fill_epalm_inputs(config, batch, kPad, weighting.row_weight(count_loss(batch)), text_inputs(runner));
  return runner.run();
}

void load_backbones(const GraphRunner& runner, const Variant& v) {
  load_params(runner, "vision.", v.vision);
  load_params(runner, "text.", v.text);
  runner.set_input("images", v.golden.values("images"));
}

PathLength epalm_path(const EpalmConfig& c, int64_t tokens) {
  const PathLength connector{c.vision.dim, 1}, prompt{2 * c.text.word_embed_proj_dim, 3};
  PathLength adaptors;
  if (c.adaptor) adaptors = c.text.layers * PathLength{2 * c.text.hidden, 4};
  return vit_path(c.vision) + opt_path(c.text, c.slots() + tokens) + connector + prompt + adaptors;
}

class EpalmGolden : public ::testing::TestWithParam<std::string> {};

const std::vector<std::string> kModes{"open_published", "open_clean", "causal"};
struct Scheme {
  std::string name;
  LossWeighting weighting;
  bool answers;
};
const std::vector<Scheme> kSchemes{{"sample_sum.all", {LossWeighting::Kind::kSampleSum, 0.1}, false},
                                   {"sample_sum.answer", {LossWeighting::Kind::kSampleSum, 0.1}, true},
                                   {"token_mean.all", {LossWeighting::Kind::kTokenMean, 0.1}, false},
                                   {"token_mean.answer", {LossWeighting::Kind::kTokenMean, 0.1}, true}};

void expect_value(const GraphRunner& runner, const Golden& golden, const std::string& name, const std::string& stored,
                  DType dtype, PathLength path) {
  const Tensor got = runner.value(name);
  ASSERT_TRUE(got.defined()) << name;
  EXPECT_EQ(got.shape(), golden.shape(stored)) << name;
  const auto want = golden.values(stored);
  EXPECT_TRUE(all_close(got, want, model_tolerance(dtype, path, want))) << stored;
}

void expect_losses_and_gradients(GraphRunner& runner, const Variant& v, const std::string& mode, DType dtype,
                                 PathLength path, int64_t switched = 0) {
  for (const Scheme& scheme : kSchemes) {
    const std::string at = mode + "/" + scheme.name + "/";
    if (!v.golden.has(at + "loss")) continue;
    const TextBatch batch = text_of(v.golden, scheme.answers, static_cast<int32_t>(v.whole("answer_id")));
    const std::vector<double> labels(batch.labels.begin(), batch.labels.end());
    EXPECT_EQ(labels, v.golden.values(scheme.answers ? "labels_answer" : "labels"));
    const double loss = run_loss(runner, v.config, batch, scheme.weighting), want = v.golden.values(at + "loss")[0];
    EXPECT_NEAR(loss, want, model_tolerance(dtype, path, {want}).absolute) << at;
    const PathLength backward =
        gradient_path(path, dtype == DType::kF32 ? batch.batch * (v.config.slots() + batch.tokens) : 0);
    int64_t compared = 0;
    GradientDistance distance;
    for (const ParamInfo& info : runner.graph().params()) {
      if (!v.golden.has(at + "grad:" + info.name)) continue;
      const auto gradient = v.golden.values(at + "grad:" + info.name);
      distance.add(runner.gradient(info.name), gradient, scale_for(dtype));
      ++compared;
      if (dtype != DType::kF32) continue;
      EXPECT_TRUE(all_close(runner.gradient(info.name), gradient, model_tolerance(dtype, backward, gradient)))
          << at << info.name;
    }
    EXPECT_GT(compared, 0);
    EXPECT_LE(distance.relative(), distance_bound(dtype, backward, switched)) << at << ": switched " << switched;
  }
}

TEST_P(EpalmGolden, EverythingInEveryMode) {
  Variant v = load_variant(GetParam());
  const Golden adapter("epalm_" + GetParam() + "_adapter.safetensors");
  const Shape shape = v.golden.shape("input_ids");
  for (const std::string& mode : kModes) {
    if (!v.golden.has(mode + "/logits")) continue;
    set_mode(v.config, mode);
    const Graph graph = build_epalm(v.config, DType::kF32, {shape[0], shape[1], true});
    GraphRunner runner(graph, resolve_freezing(graph, epalm_freezing(v.config)));
    load_backbones(runner, v);
    load_params(runner, "", adapter);
    const PathLength path = epalm_path(v.config, shape[1]);
    run_loss(runner, v.config, text_of(v.golden, false, 0), {});

    for (int64_t j = 0; j < v.config.features; ++j) {
      expect_value(runner, v.golden, concat("features.", j), concat("features.", j), DType::kF32, path);
      expect_value(runner, v.golden, concat("connected.", j), concat("connected.", j), DType::kF32, path);
    }
    if (v.golden.has("prompt.out")) expect_value(runner, v.golden, "prompt.out", "prompt.out", DType::kF32, path);
    if (v.golden.has("text.embed.out"))
      expect_value(runner, v.golden, "text.embed.out", "text.embed.out", DType::kF32, path);
    for (int64_t i = 0; i < v.config.text.layers; ++i) {
      const std::string name = concat("text.layers.", i, ".out");
      if (v.golden.has(mode + "/" + name)) expect_value(runner, v.golden, name, mode + "/" + name, DType::kF32, path);
    }
    expect_value(runner, v.golden, "logits", mode + "/logits", DType::kF32, path);
    expect_losses_and_gradients(runner, v, mode, DType::kF32, path);
    // Every trained parameter of the file is one of ours, and the other way round.
    int64_t trained = 0;
    for (const ParamInfo& info : graph.params()) trained += adapter.has(info.name);
    EXPECT_EQ(trained, std::ranges::count(resolve_freezing(graph, epalm_freezing(v.config)), true));
  }
}

/// The graph that trains computes only the rows that predict something, and only the class token of the last block.
TEST_P(EpalmGolden, TrainingShapeInALongerBucket) {
  Variant v = load_variant(GetParam());
  const Golden adapter("epalm_" + GetParam() + "_adapter.safetensors");
  const Shape shape = v.golden.shape("input_ids");
  for (const std::string& mode : kModes) {
    if (!v.golden.has(mode + "/logits")) continue;
    set_mode(v.config, mode);
    for (const int64_t bucket : {shape[1], shape[1] + 5}) {
      const Graph graph = build_epalm(v.config, DType::kF32, {shape[0], bucket, false});
      GraphRunner::Options options;
      options.keep_values = false;
      options.threads = 2;
      GraphRunner runner(graph, resolve_freezing(graph, epalm_freezing(v.config)), options);
      load_backbones(runner, v);
      load_params(runner, "", adapter);
      expect_losses_and_gradients(runner, v, mode, DType::kF32, epalm_path(v.config, bucket));
    }
  }
}

TEST_P(EpalmGolden, NarrowDtypesAreCloseWithinTheirRoundings) {
  Variant v = load_variant(GetParam());
  const Golden adapter("epalm_" + GetParam() + "_adapter.safetensors");
  const Shape shape = v.golden.shape("input_ids");
  const Graph exact_graph = build_epalm(v.config, DType::kF32, {shape[0], shape[1], true});
  GraphRunner exact(exact_graph, resolve_freezing(exact_graph, epalm_freezing(v.config)));
  load_backbones(exact, v);
  load_params(exact, "", adapter);
  run_loss(exact, v.config, text_of(v.golden, false, 0), {});
  for (const DType compute : narrow_dtypes()) {
    SCOPED_TRACE(to_string(compute));
    const Graph graph = build_epalm(v.config, compute, {shape[0], shape[1], true});
    GraphRunner::Options options;
    options.matrices = compute;
    GraphRunner runner(graph, resolve_freezing(graph, epalm_freezing(v.config)), options);
    load_backbones(runner, v);
    load_params(runner, "", adapter);
    const PathLength path = epalm_path(v.config, shape[1]);
    runner.set_loss_scale(scale_for(compute));
    run_loss(runner, v.config, text_of(v.golden, false, 0), {});
    expect_value(runner, v.golden, "logits", "open_published/logits", compute, path);
    expect_losses_and_gradients(runner, v, "open_published", compute, path, switched_units(runner, exact));
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, EpalmGolden,
                         ::testing::Values("lin_shared", "lin", "pt", "main", "post", "ada_mlp_normal",
                                           "ada_mlp_normal_ln", "ada_mlp_parallel", "ada_mlp_scaled_parallel",
                                           "ada_attn_normal", "ada_attn_parallel", "ada_attn_scaled_parallel",
                                           "ada_post_attn_normal", "ada_post_mlp_normal"));

TEST(EpalmWindows, AllOfThem) {
  Variant v("windows");
  const Shape shape = v.golden.shape("input_ids");
  v.config.prompt = EpalmConfig::Prompt::kNone;
  for (const std::string& name : v.golden.cases()) {
    v.config.start = v.whole(name + ".start");
    v.config.end = v.whole(name + ".end");
    v.config.features = v.whole(name + ".features");
    const Graph graph = build_epalm(v.config, DType::kF32, {shape[0], shape[1], true});
    GraphRunner runner(graph, resolve_freezing(graph, epalm_freezing(v.config)));
    load_backbones(runner, v);
    for (const ParamInfo& info : graph.params())
      if (info.name.starts_with("connector.")) runner.set_param(info.name, v.golden.values(name + "." + info.name));
    const PathLength path = epalm_path(v.config, shape[1]);
    const double loss = run_loss(runner, v.config, text_of(v.golden, false, 0), {}),
                 want = v.golden.values(name + ".loss")[0];
    EXPECT_NEAR(loss, want, model_tolerance(DType::kF32, path, {want}).absolute) << name;
    expect_value(runner, v.golden, "logits", name + ".logits", DType::kF32, path);
    for (const ParamInfo& info : graph.params()) {
      if (!info.name.starts_with("connector.")) continue;
      const auto gradient = v.golden.values(name + ".grad:" + info.name);
      const Tensor got = runner.gradient(info.name);
      if (!got.defined()) {  // a feature that is never used has no gradient at all
        EXPECT_TRUE(std::ranges::all_of(gradient, [](double g) { return g == 0; })) << name << ' ' << info.name;
        continue;
      }
      const PathLength backward = gradient_path(path, shape.elements());
      EXPECT_TRUE(all_close(got, gradient, model_tolerance(DType::kF32, backward, gradient)))
          << name << ' ' << info.name;
    }
  }
}

TEST(EpalmPadding, CleanLossesDoNotMoveWithTheNeighbours) {
  Variant v = load_variant("main");
  const Golden adapter("epalm_main_adapter.safetensors");
  const TextBatch whole = text_of(v.golden, false, 0);
  const auto loss_of_last = [&](const std::string& mode, int64_t tokens) {
    set_mode(v.config, mode);
    TextBatch one;
    one.batch = 1;
    one.tokens = tokens;
    const auto begin = whole.ids.begin() + 2 * whole.tokens;
    one.ids.assign(begin, begin + tokens);
    one.lengths = {whole.lengths[2]};
    label_all(one);
    const Graph graph = build_epalm(v.config, DType::kF32, {1, whole.tokens, false});
    GraphRunner runner(graph, resolve_freezing(graph, epalm_freezing(v.config)));
    load_params(runner, "vision.", v.vision);
    load_params(runner, "text.", v.text);
    load_params(runner, "", adapter);
    const auto images = v.golden.values("images");
    const auto size = images.size() / 3;
    runner.set_input("images",
                     std::vector<double>(images.begin() + static_cast<std::ptrdiff_t>(2 * size), images.end()));
    return run_loss(runner, v.config, one, {});
  };
  const int64_t own = whole.lengths[2];
  ASSERT_LT(own, whole.tokens);
  EXPECT_EQ(loss_of_last("open_clean", own), loss_of_last("open_clean", whole.tokens));
  EXPECT_EQ(loss_of_last("causal", own), loss_of_last("causal", whole.tokens));
  // Published: padding of the micro-batch counts, that of a longer bucket does not.
  EXPECT_NE(loss_of_last("open_published", own), loss_of_last("open_published", whole.tokens));
  EXPECT_EQ(loss_of_last("open_published", own), loss_of_last("open_clean", own));
}

}  // namespace
}  // namespace permafrost
