// Generation with kept keys and values gives what recomputing the whole text gives, in every setting.
#include <gtest/gtest.h>

#include <cstring>

#include "core/weights/initializer.h"
#include "models/decoding/search.h"
#include "models/epalm/decoding.h"
#include "models/epalm/decoding_inputs.h"
#include "models/epalm/inputs.h"
#include "parallel/plan/check.h"
#include "parallel/plan/check_gathers.h"
#include "parallel/run/executor.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;
using Prompts = std::vector<std::vector<int32_t>>;

constexpr int32_t kPadOfText = 1;

/// Larger than published: what goes wrong shall show in the tokens.
void fill_weights(const Plan& plan, const StepMemory& memory) {
  for (const ParamPlan& param : plan.params) {
    const Tensor tensor = memory.param(param);
    Initializer initializer = param.initializer;
    if (param.name.find("prompt_module") == std::string::npos && param.shape.rank() > 1)
      initializer = Initializer::normal(0.4f);
    fill(initializer, 7, param.name, tensor.dtype(), 0,
         {static_cast<std::byte*>(tensor.raw()), static_cast<size_t>(tensor.bytes())});
  }
}

/// One number per sample, from which its pixels are drawn.
void draw_images(const std::vector<uint64_t>& images, const Tensor& pixels) {
  const int64_t each = pixels.elements() / std::ssize(images);
  for (size_t b = 0; b < images.size(); ++b) {
    const OwnedTensor drawn = random_tensor(DType::kF32, {each}, images[b]);
    std::memcpy(pixels.data<float>() + static_cast<int64_t>(b) * each, drawn.view().raw(),
                static_cast<size_t>(each) * 4);
  }
}

/// Plan, memory and weights of a pair of programs.
class Decoder {
 public:
  Decoder(const EpalmConfig& config, DType compute, const EpalmDecodingShape& shape, bool cached)
      : config_(config), shape_(shape), cached_(cached) {
    PlanRequest request;
    request.build_graph = [&, compute](int64_t number) {
      const bool first = number == 1;
      return build_epalm_decoding(config_, compute, shape_,
                                  cached ? (first ? EpalmProgram::kPrefill : EpalmProgram::kStep)
                                         : (first ? EpalmProgram::kSee : EpalmProgram::kWhole));
    };
    request.buckets = {1, 2};
    request.freezing = epalm_freezing(config_);
    request.lockstep = true;
    request.world.threads = 2;
    request.options.forward_only = true;
    plan_ = make_plan(request);
    memory_ = std::make_unique<StepMemory>(plan_);
    std::memset(memory_->state.data(), 0xff, static_cast<size_t>(memory_->state.bytes()));  // NaN
    fill_weights(plan_, *memory_);
    executor_ = std::make_unique<Executor>(plan_, *memory_, cpu_context(2), ExecutorOptions{.poison_released = true});
  }

  const Plan& plan() const { return plan_; }

  struct Result {
    std::vector<FoundText> texts;
    std::vector<std::vector<float>> logits;  // of each step
  };

  /// images: one number per sample, from which its pixels are drawn.
  Result run(const std::vector<uint64_t>& images, const Prompts& prompts, DecodingPadding padding, int64_t max_new,
             double length_penalty = 1, int64_t max_length = 1000) {
    DecodingTexts texts(config_, shape_, padding, kPadOfText, prompts);
    SearchConfig search_config;
    search_config.beams = shape_.beams;
    search_config.length_penalty = length_penalty;
    std::vector<SearchPrompt> lengths;
    for (int64_t b = 0; b < shape_.batch; ++b)
      lengths.push_back({texts.prompt_length(b), std::min(max_new, max_length - texts.prompt_length(b))});
    Result result;
    result.texts =
        search_texts(search_config, lengths, config_.text.vocab,
                     [&](std::span<const int32_t> parents, std::span<const int32_t> tokens) -> std::span<const float> {
                       const size_t bucket = step(images, texts, parents, tokens);
                       const Tensor logits = executor_->value(bucket, "logits");
                       result.logits.emplace_back(logits.data<float>(), logits.data<float>() + logits.elements());
                       return result.logits.back();
                     });
    return result;
  }

 private:
  size_t step(const std::vector<uint64_t>& images, DecodingTexts& texts, std::span<const int32_t> parents,
              std::span<const int32_t> tokens) {
    const auto inputs = [&](size_t bucket) {
      return [this, bucket](std::string_view name) { return executor_->value(bucket, name); };
    };
    if (parents.empty()) {
      draw_images(images, executor_->value(0, "images"));
      cached_ ? texts.fill_prefill(inputs(0)) : texts.fill_see(inputs(0));
      executor_->run(0, nullptr);
      if (cached_) return 0;
    } else {
      texts.advance(parents, tokens);
    }
    cached_ ? texts.fill_step(inputs(1)) : texts.fill_whole(inputs(1));
    executor_->run(1, nullptr);
    return 1;
  }

  const EpalmConfig& config_;
  const EpalmDecodingShape& shape_;
  bool cached_;
  Plan plan_;
  std::unique_ptr<StepMemory> memory_;
  std::unique_ptr<Executor> executor_;
};

struct Setting {
  std::string name;
  EpalmConfig config;
};

std::vector<Setting> settings() {
  std::vector<Setting> all;
  EpalmConfig base = small_epalm();  // layers 5, window 2 to 4: one layer behind it; projections, prompts, adapters
  base.text.max_positions = 32;
  base.text.vocab = 37;
  all.push_back({"one layer behind", base});
  EpalmConfig c = base;
  c.end = 5;
  all.push_back({"window to the end", c});
  c = base;
  c.end = 3;
  c.vis_row = EpalmConfig::VisRow::kCausal;
  all.push_back({"causal row, two layers behind", c});
  c = base;
  c.text.norm_before = c.text.final_norm = false;
  all.push_back({"post-norm", c});
  c = base;
  c.prompt = EpalmConfig::Prompt::kNone;
  c.adaptor.reset();
  c.text.word_embed_proj_dim = c.text.hidden;
  c.shared_connector = true;
  all.push_back({"no prompt, adapter, projections", c});
  c = base;
  c.prompt = EpalmConfig::Prompt::kTable;
  c.adaptor = AdaptorConfig{AdaptorKind::kNormal, 2, false};
  c.adaptor->location = AdaptorLocation::kAttention;
  c.start = 3;  // one layer wide
  c.padding = EpalmConfig::Padding::kClean;
  all.push_back({"table, adapter on attention, clean padding of the row", c});
  c = base;
  c.start = 0;
  c.padding = EpalmConfig::Padding::kClean;
  all.push_back({"from the first layer", c});
  return all;
}

const Prompts kPrompts{{2}, {2, 9, 14, 6}, {2, 5, 8}};
const std::vector<uint64_t> kImages{11, 12, 13};
constexpr int64_t kNew = 7;

/// Logits of rows that are still searched, step by step.
void expect_same(const Decoder::Result& kept, const Decoder::Result& whole, const EpalmDecodingShape& shape,
                 const EpalmConfig& config, DType compute) {
  ASSERT_EQ(kept.texts.size(), whole.texts.size());
  for (size_t s = 0; s < kept.texts.size(); ++s) {
    EXPECT_EQ(kept.texts[s].tokens, whole.texts[s].tokens) << "sample " << s;
    EXPECT_EQ(kept.texts[s].ended, whole.texts[s].ended);
  }
  ASSERT_EQ(kept.logits.size(), whole.logits.size());
  const PathLength path = vit_path(config.vision) + opt_path(config.text, config.slots() + shape.tokens);
  for (size_t step = 1; step < kept.logits.size(); ++step) {
    // Both are within the model's bound of the truth.
    const std::vector<double> want(whole.logits[step].begin(), whole.logits[step].end());
    Tolerance tolerance = model_tolerance(compute, path, want);
    tolerance.absolute *= 2;
    const OwnedTensor got =
        make_tensor(DType::kF32, {std::ssize(want)}, {kept.logits[step].begin(), kept.logits[step].end()});
    EXPECT_TRUE(all_close(got, want, tolerance)) << "step " << step;
  }
}

TEST(EpalmDecoding, KeptKeysGiveTheTokensOfRecomputation) {
  for (const Setting& setting : settings())
    for (const DType compute : {DType::kF32, DType::kBF16})
      for (const int64_t beams : {1, 3})
        for (const DecodingPadding padding : {DecodingPadding::kClean, DecodingPadding::kPublished}) {
          SCOPED_TRACE(concat(setting.name, ", ", to_string(compute), ", ", beams, " beams, ",
                              padding == DecodingPadding::kClean ? "clean" : "published"));
          const EpalmDecodingShape shape{3, beams, 4, 4 + kNew - 1};
          Decoder kept(setting.config, compute, shape, true), whole(setting.config, compute, shape, false);
          const auto got = kept.run(kImages, kPrompts, padding, kNew, 0.7);
          const auto want = whole.run(kImages, kPrompts, padding, kNew, 0.7);
          expect_same(got, want, shape, setting.config, compute);
        }
}

/// Logits behind each text, by the graph that trains. Texts of one length.
std::vector<float> logits_of_training(const EpalmConfig& config, const std::vector<uint64_t>& images,
                                      const Prompts& texts) {
  const auto batch = std::ssize(texts), tokens = std::ssize(texts[0]);
  PlanRequest request;
  request.build_graph = [&](int64_t t) { return build_epalm(config, DType::kF32, {batch, t, true}); };
  request.buckets = {tokens};
  request.freezing = epalm_freezing(config);
  request.world.threads = 2;
  request.options.forward_only = request.options.keep_all_values = true;
  const Plan plan = make_plan(request);
  const StepMemory memory(plan);
  fill_weights(plan, memory);
  Executor executor(plan, memory, cpu_context(2));
  const auto input = [&](const char* name) { return executor.value(0, name); };
  draw_images(images, input("images"));
  fill_epalm_inputs(config, TextBatch::of(texts, batch, kPadOfText), kPadOfText, 1.0f,
                    {input("input_ids"), input("position_ids"), input("lengths_before"), input("lengths_after"),
                     input("open_lengths"), input("labels"), input("row_weight")});
  executor.run(0, nullptr);
  const Tensor logits = executor.value(0, "logits");
  std::vector<float> last;
  for (int64_t b = 0; b < batch; ++b) {
    const float* row = logits.data<float>() + ((b + 1) * (config.slots() + tokens) - 1) * config.text.vocab;
    last.insert(last.end(), row, row + config.text.vocab);
  }
  return last;
}

/// What anchors both ways of generating: texts of one length, no padding, every step of greedy search.
TEST(EpalmDecoding, EveryStepHasTheLogitsOfTheGraphThatTrains) {
  const Prompts prompts{{2, 9, 14}, {2, 5, 8}, {2, 3, 3}};
  for (const Setting& setting : settings())
    for (const bool cached : {true, false}) {
      SCOPED_TRACE(concat(setting.name, cached ? ", cached" : ", recomputed"));
      const EpalmDecodingShape shape{3, 1, 3, 8};
      Decoder decoder(setting.config, DType::kF32, shape, cached);
      const auto got = decoder.run(kImages, prompts, DecodingPadding::kClean, 6);
      size_t steps = got.logits.size();
      for (const FoundText& text : got.texts) steps = std::min(steps, text.tokens.size() + 1);
      ASSERT_GE(steps, 2u);
      for (size_t step = 0; step < steps; ++step) {
        Prompts texts = prompts;
        for (size_t s = 0; s < texts.size(); ++s)
          texts[s].insert(texts[s].end(), got.texts[s].tokens.begin(),
                          got.texts[s].tokens.begin() + static_cast<std::ptrdiff_t>(step));
        const std::vector<float> trained = logits_of_training(setting.config, kImages, texts);
        const std::vector<double> want(trained.begin(), trained.end());
        const PathLength path =
            vit_path(setting.config.vision) + opt_path(setting.config.text, setting.config.slots() + 8);
        Tolerance tolerance = model_tolerance(DType::kF32, path, want);
        tolerance.absolute *= 2;
        EXPECT_TRUE(
            all_close(make_tensor(DType::kF32, {std::ssize(want)}, {got.logits[step].begin(), got.logits[step].end()}),
                      want, tolerance))
            << "step " << step;
      }
    }
}

TEST(EpalmDecoding, PlansPassTheChecks) {
  for (const Setting& setting : settings())
    for (const bool cached : {true, false}) {
      const EpalmDecodingShape shape{2, 2, 3, 6};
      const Decoder decoder(setting.config, DType::kF32, shape, cached);
      ProgramOptions options;
      options.forward_only = true;
      options.workers = 2;
      for (size_t b = 0; b < 2; ++b) {
        const auto problems =
            check_program(decoder.plan().graphs[b], decoder.plan().needs[b], decoder.plan().programs[b], options);
        EXPECT_TRUE(problems.empty()) << setting.name << ": " << problems.front();
      }
      EXPECT_GT(decoder.plan().memory.state, 0);
      EXPECT_EQ(decoder.plan().memory.optimizer + decoder.plan().memory.sums + decoder.plan().memory.gradients, 0);
      EXPECT_EQ(decoder.plan().programs[0].state_bytes, decoder.plan().programs[1].state_bytes);
    }
}

TEST(EpalmDecoding, ASampleDoesNotDependOnItsBatch) {
  for (const Setting& setting : settings())
    for (const DType compute : {DType::kF32, DType::kBF16})
      for (const bool cached : {true, false}) {
        SCOPED_TRACE(concat(setting.name, ", ", to_string(compute), cached ? ", cached" : ""));
        const EpalmDecodingShape shape{3, 2, 4, 4 + kNew - 1};
        Decoder decoder(setting.config, compute, shape, cached);
        const auto together = decoder.run(kImages, kPrompts, DecodingPadding::kClean, kNew).texts;
        const auto order =
            decoder.run({13, 11, 12}, {kPrompts[2], kPrompts[0], kPrompts[1]}, DecodingPadding::kClean, kNew).texts;
        const auto alone = decoder.run({12, 5, 5}, {kPrompts[1], {2}, {2}}, DecodingPadding::kClean, kNew).texts;
        for (size_t s = 0; s < 3; ++s) {
          EXPECT_EQ(together[s].tokens, order[(s + 1) % 3].tokens);
          EXPECT_EQ(together[s].score, order[(s + 1) % 3].score);  // the same bits
        }
        EXPECT_EQ(together[1].tokens, alone[0].tokens);
        EXPECT_EQ(together[1].score, alone[0].score);
      }
}

/// With a length of the whole text, short prompts go on when long ones have no room left.
TEST(EpalmDecoding, TextsThatAreDoneEarlierDisturbNobody) {
  const Setting setting = settings()[0];
  const EpalmDecodingShape shape{3, 2, 4, 5};
  for (const bool cached : {true, false}) {
    Decoder decoder(setting.config, DType::kF32, shape, cached);
    const auto together = decoder.run(kImages, kPrompts, DecodingPadding::kClean, 30, 1, 6).texts;
    const auto alone = decoder.run({11, 11, 11}, {{2}, {2}, {2}}, DecodingPadding::kClean, 30, 1, 6).texts;
    EXPECT_EQ(together[0].tokens, alone[0].tokens);
    EXPECT_EQ(together[0].score, alone[0].score);
    EXPECT_LE(together[1].tokens.size(), 2u);
    EXPECT_GT(together[0].tokens.size(), 2u);
  }
}

TEST(EpalmDecoding, PublishedPaddingDependsOnTheBatchAndCountsAsLength) {
  const Setting setting = settings()[0];
  const EpalmDecodingShape shape{2, 2, 4, 10};
  Decoder decoder(setting.config, DType::kF32, shape, true);
  const auto padded = decoder.run({11, 12}, {{2}, {2, 9, 14, 6}}, DecodingPadding::kPublished, kNew);
  const auto alone = decoder.run({11, 12}, {{2}, {2}}, DecodingPadding::kPublished, kNew);
  EXPECT_NE(padded.logits[0], alone.logits[0]);
  DecodingTexts texts(setting.config, shape, DecodingPadding::kPublished, kPadOfText, {{2}, {2, 9, 14, 6}});
  EXPECT_EQ(texts.prompt_length(0), 4);
  DecodingTexts clean(setting.config, shape, DecodingPadding::kClean, kPadOfText, {{2}, {2, 9, 14, 6}});
  EXPECT_EQ(clean.prompt_length(0), 1);
}

TEST(EpalmDecoding, TwoLayersBehindTheWindowHaveNoExactCache) {
  EpalmConfig config = small_epalm();
  config.end = 3;
  EXPECT_EQ(epalm_cache(config), EpalmCache::kNone);
  config.end = 4;
  EXPECT_EQ(epalm_cache(config), EpalmCache::kRefreshed);
  config.end = 5;
  EXPECT_EQ(epalm_cache(config), EpalmCache::kConstant);
  config.end = 3;
  config.vis_row = EpalmConfig::VisRow::kCausal;
  EXPECT_EQ(epalm_cache(config), EpalmCache::kConstant);
  config.vis_row = EpalmConfig::VisRow::kPublished;
  for (const EpalmProgram program : {EpalmProgram::kPrefill, EpalmProgram::kStep})
    EXPECT_TRUE(throws_error(
        [&] {
          build_epalm_decoding(config, DType::kF32, {1, 1, 1, 3}, program);
        },
        ErrorKind::kConfig, {"at most one text layer follows the window", "got 2 layers"}));
}

TEST(EpalmDecoding, RefusesTextsThatDoNotFit) {
  const EpalmConfig config = small_epalm();
  EXPECT_TRUE(throws_error(
      [&] {
        build_epalm_decoding(config, DType::kF32, {1, 1, 4, 17}, EpalmProgram::kPrefill);
      },
      ErrorKind::kConfig, {"must fit the text model's 16 positions", "got 17 (4 of the prompt)"}));
  const EpalmDecodingShape shape{2, 1, 2, 3};
  EXPECT_TRUE(throws_error([&] { DecodingTexts(config, shape, DecodingPadding::kClean, kPadOfText, {{2}}); },
                           ErrorKind::kInvalidArgument, {"one prompt per sample expected (2); got 1"}));
  EXPECT_TRUE(throws_error(
      [&] {
        DecodingTexts(config, shape, DecodingPadding::kClean, kPadOfText, {{2}, {2, 3, 4}});
      },
      ErrorKind::kInvalidArgument, {"1 to 2 tokens; got 3 in sample 1"}));
  DecodingTexts texts(config, shape, DecodingPadding::kClean, kPadOfText, {{2}, {2, 3}});
  const std::vector<int32_t> parents{0, 1}, crossed{1, 0}, tokens{4, 4};
  EXPECT_TRUE(throws_error([&] { texts.advance(crossed, tokens); }, ErrorKind::kInvalidArgument,
                           {"one of its own sample; got 1 for row 0"}));
  texts.advance(parents, tokens);
  texts.advance(parents, tokens);
  EXPECT_TRUE(throws_error([&] { texts.advance(parents, tokens); }, ErrorKind::kInvalidArgument, {"got one more"}));
}

}  // namespace
}  // namespace permafrost
