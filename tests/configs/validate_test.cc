#include "configs/validate.h"

#include "tests/configs/small_config.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {
using testing::throws_error;

struct Case {
  std::vector<std::string> overrides;
  std::string problem;
};

TEST(Validate, EachBadValueIsNamedWithWhatIsAllowed) {
  const std::vector<Case> cases = {
      {{"train.max_steps=0"}, "train.max_steps: expected 1 and up; got 0"},
      {{"train.micro_batch=0"}, "train.micro_batch: expected 1 to 65536; got 0"},
      {{"train.global_batch=10"}, "train.global_batch: expected a multiple of micro_batch = 4; got 10"},
      {{"train.final_check.samples=-1"}, "train.final_check.samples: expected 0 and up; got -1"},
      {{"train.final_check.exchanged_images=true"},
       "train.final_check.exchanged_images: expected false where final_check.loss is false; got true"},
      {{"model.epalm.vision.image_size=20"}, "model.epalm.vision.image_size: expected a multiple of patch = 8; got 20"},
      {{"model.epalm.vision.heads=5"}, "model.epalm.vision.dim: expected a multiple of heads = 5; got 12"},
      {{"model.epalm.vision.depth=0"}, "model.epalm.vision.depth: expected 1 to 1024; got 0"},
      {{"model.epalm.vision.layer_norm_eps=0"}, "model.epalm.vision.layer_norm_eps: expected 1e-12 to 0.01; got 0"},
      {{"model.epalm.vision.layer_norm_eps=nan"}, "model.epalm.vision.layer_norm_eps: expected 1e-12 to 0.01; got nan"},
      {{"model.epalm.text.heads=3"}, "model.epalm.text.hidden: expected a multiple of heads = 3; got 16"},
      {{"model.epalm.text.dropout=1"}, "model.epalm.text.dropout: expected 0 to below 1; got 1"},
      {{"model.epalm.features=5"}, "model.epalm.features: expected 1 to 4; got 5"},
      {{"model.epalm.start_layer=-1"}, "model.epalm.start_layer: expected 0 to 7; got -1"},
      {{"model.epalm.end_layer=9"}, "model.epalm.end_layer: expected 1 to 8; got 9"},
      {{"model.epalm.start_layer=7"}, "model.epalm.end_layer: expected more than start_layer = 7; got 7"},
      {{"model.epalm.prompt.length=0"}, "model.epalm.prompt.length: expected 1 to 4096; got 0"},
      {{"model.epalm.adapter.kind=NORMAL", "model.epalm.adapter.factor=17"},
       "model.epalm.adapter.factor: expected 1 to 16; got 17"},
      {{"model.epalm.text.max_positions=32"},
       "data.max_text_tokens: expected at most model.epalm.text.max_positions = 32; got 64"},
      {{"quirks.frozen_dropout=true", "model.epalm.text.dropout=0"},
       "quirks.frozen_dropout: expected false where model.epalm.text.dropout is 0; got true"},
      {{"data.max_text_tokens=1"}, "data.max_text_tokens: expected 2 to 1048576; got 1"},
      {{"data.decode_threads=65"}, "data.decode_threads: expected 0 to 64; got 65"},
      {{"data.prefetch=0"}, "data.prefetch: expected 1 to 64; got 0"},
      {{"data.length_buckets=32,16,64"}, "data.length_buckets[1]: expected more than 32 (ascending); got 16"},
      {{"data.length_buckets=16,32"}, "data.length_buckets[1]: expected max_text_tokens = 64 as the last one; got 32"},
      {{"loss.tokens=ANSWER"},
       "loss.tokens: expected ALL where data.task is CAPTIONING (captions have no answer); got ANSWER"},
      {{"data.task=VQA", "data.format=KARPATHY"},
       "data.task: expected CAPTIONING where data.format is KARPATHY; got VQA"},
      {{"data.format=VQAV2"}, "data.task: expected VQA where data.format is VQAV2; got CAPTIONING"},
      {{"data.format=SHARDS"}, "data.shards: expected a folder where format is SHARDS; got none"},
      {{"data.shards=x"}, "data.shards: expected none where format is not SHARDS; got x"},
      {{"data.annotations=x"}, "data.annotations: expected none where format is not VQAV2; got x"},
      {{"data.split=val"}, "data.split: expected none where format is not KARPATHY; got val"},
      {{"data.image_name=x"}, "data.image_name: expected none where format is not VQAV2, VLT5, AOKVQA or GQA; got x"},
      {{"data.train_fraction=0"}, "data.train_fraction: expected above 0 to 1; got 0"},
      {{"data.train_fraction=1.5"}, "data.train_fraction: expected above 0 to 1; got 1.5"},
      {{"data.train_first=-1"}, "data.train_first: expected 0 and up; got -1"},
      {{"data.train_first=2", "data.train_fraction=0.5"},
       "data.train_first: expected 0 where train_fraction is below 1 (one of the two); got 2"},
      {{"data.mix+={weight: 0}"}, "data.mix[0].weight: expected a finite number above 0; got 0"},
      {{"data.mix+={data {mix {weight: 1}}}"}, "data.mix[0].data.mix: expected none inside a mix; got one"},
      {{"data.mix+={data {seed: 3}}"},
       "data.mix[0].data.seed: expected what the fields around data.mix say; got something else"},
      {{"data.mix+={data {format: GQA}}"},
       "data.mix[0].data.task: expected VQA where data.format is GQA; got CAPTIONING"},
      {{"data.mix+={weight: 2}", "data.shuffle=false"},
       "data.shuffle: expected true where data.mix is given (weights need an order); got false"},
      {{"loss.scale=0"}, "loss.scale: expected a finite number above 0; got 0"},
      {{"loss.scale=inf"}, "loss.scale: expected a finite number above 0; got inf"},
      {{"loss.label_smoothing=1"}, "loss.label_smoothing: expected 0 to below 1; got 1"},
      {{"optimizer.lr=0", "schedule.kind=CONSTANT"}, "optimizer.lr: expected a finite number above 0; got 0"},
      {{"optimizer.beta1=1"}, "optimizer.beta1: expected 0 to below 1; got 1"},
      {{"optimizer.beta2=-0.1"}, "optimizer.beta2: expected 0 to below 1; got -0.1"},
      {{"optimizer.eps=0"}, "optimizer.eps: expected a finite number above 0; got 0"},
      {{"optimizer.weight_decay=-1"}, "optimizer.weight_decay: expected a finite number, 0 and up; got -1"},
      {{"optimizer.clip_norm=-1"}, "optimizer.clip_norm: expected a finite number, 0 and up; got -1"},
      {{"optimizer.groups={lr: 1}"}, "optimizer.groups[0].pattern: expected a pattern of parameter names; got none"},
      {{"optimizer.groups={pattern: \"a\" lr: -1}"},
       "optimizer.groups[0].lr: expected a finite number, 0 and up; got -1"},
      {{"optimizer.groups={pattern: \"a\" lr: 1 lr_scale: 2}"},
       "optimizer.groups[0].lr_scale: expected 1 where lr is given too (one of the two); got 2"},
      {{"schedule.warmup_lr=1"}, "schedule.warmup_lr: expected 0 to optimizer.lr = 2e-05; got 1"},
      {{"schedule.min_lr=1"}, "schedule.min_lr: expected 0 to optimizer.lr = 2e-05; got 1"},
      {{"schedule.epochs=0"}, "schedule.epochs: expected 1 to 1048576; got 0"},
      {{"schedule.plateau_steps=0"}, "schedule.plateau_steps: expected 1 to 1073741824; got 0"},
      {{"schedule.warmup_steps=5"},
       "schedule.warmup_steps: expected 0 where kind is PUBLISHED, whose warm-up is plateau_steps long four times; got "
       "5"},
      {{"schedule.kind=COSINE", "schedule.warmup_steps=11"}, "schedule.warmup_steps: expected 0 to 10; got 11"},
      {{"parallel.threads=-1"}, "parallel.threads: expected 0 to 1024; got -1"},
      {{"parallel.headroom_bits=0"}, "parallel.headroom_bits: expected 1 to 24; got 0"},
      {{"parallel.timeout_s=0"}, "parallel.timeout_s: expected 1 to 86400; got 0"},
      {{"parallel.memory_limit_bytes=-1"}, "parallel.memory_limit_bytes: expected 0 and up; got -1"},
      {{"freeze={trainable: true}"}, "freeze[0].pattern: expected a pattern of parameter names; got none"},
      {{"freeze={pattern: \"a\"}"}, "freeze[0].trainable: expected true or false; got none"},
      {{"precision.compute=BF16", "precision.frozen_storage=FILE"},
       "precision.frozen_storage: expected FOLLOW or BF16 where precision.compute is BF16; got FILE"},
      {{"precision.f32_products=TF32"},
       "precision.f32_products: expected FP32 where parallel.device is CPU (TF32 is a mode of GPUs); got TF32"},
      {{"precision.compute=FP16", "precision.frozen_storage=BF16"},
       "precision.frozen_storage: expected FOLLOW where precision.compute is FP16; got BF16"},
      {{"precision.loss_scale.initial=1000"},
       "precision.loss_scale.initial: expected a power of two, 2^-10 to 2^24 = 16777216; got 1000"},
      {{"precision.loss_scale.initial=33554432"}, "precision.loss_scale.initial: expected a power of two"},
      {{"precision.loss_scale.initial=0"}, "precision.loss_scale.initial: expected a power of two"},
      {{"precision.loss_scale.growth_steps=0"}, "precision.loss_scale.growth_steps: expected 1"},
      {{"checkpoint.every_steps=-1"}, "checkpoint.every_steps: expected 0 and up; got -1"},
      {{"checkpoint.keep=0"}, "checkpoint.keep: expected 1 to 1048576; got 0"},
      {{"evaluation.batch=0"}, "evaluation.batch: expected 1 to 4096; got 0"},
      {{"evaluation.samples=-1"}, "evaluation.samples: expected 0 and up; got -1"},
      {{"evaluation.decoding.beams=0"}, "evaluation.decoding.beams: expected 1 to 64; got 0"},
      {{"evaluation.decoding.beams=65"}, "evaluation.decoding.beams: expected 1 to 64; got 65"},
      {{"evaluation.decoding.length_penalty=inf"},
       "evaluation.decoding.length_penalty: expected a finite number; got inf"},
      {{"evaluation.decoding.max_new_tokens=0"}, "evaluation.decoding.max_new_tokens: expected 1 to 1048576; got 0"},
      {{"evaluation.decoding.min_new_tokens=-1"}, "evaluation.decoding.min_new_tokens: expected 0 to 1048576; got -1"},
      {{"evaluation.decoding.min_new_tokens=31"},
       "evaluation.decoding.min_new_tokens: expected at most max_new_tokens = 30; got 31"},
      {{"evaluation.decoding.max_length=0"}, "evaluation.decoding.max_length: expected 1 to 1048576; got 0"},
      {{"logging.every_steps=0"}, "logging.every_steps: expected 1 and up; got 0"},
  };
  for (const Case& bad : cases)
    EXPECT_TRUE(throws_error([&] { small(bad.overrides); }, ErrorKind::kConfig,
                             {"config: small has 1 problem\n  " + bad.problem}));
}

/// Complete small configurations of the models that become backbones.
Resolved classifier(const std::vector<std::string>& overrides = {}) {
  return resolve_config(
      "model { vision_classifier { vision { image_size: 16 patch: 8 dim: 12 depth: 4 heads: 3 mlp_dim: 48 } "
      "labels: 3 classes: 5 } } data { task: CLASSES format: SHARDS shards: \"s\" } train { max_steps: 10 }",
      "small", overrides);
}
Resolved language_model(const std::vector<std::string>& overrides = {}) {
  return resolve_config(
      "model { language_model { text { vocab: 67 layers: 2 hidden: 16 heads: 4 ffn: 24 word_embed_proj_dim: 16 "
      "do_layer_norm_before: true final_layer_norm: true } } } train { max_steps: 10 }",
      "small", overrides);
}

using Make = Resolved (*)(const std::vector<std::string>&);
void expect_problems(Make make, const std::vector<Case>& cases) {
  EXPECT_NO_THROW(make({}));
  for (const Case& bad : cases)
    EXPECT_TRUE(throws_error([&] { make(bad.overrides); }, ErrorKind::kConfig,
                             {"config: small has 1 problem\n  " + bad.problem}));
}

TEST(Validate, VisionClassifier) {
  expect_problems(
      classifier,
      {{{"model.vision_classifier.labels=0"}, "model.vision_classifier.labels: expected 1 to 1024; got 0"},
       {{"model.vision_classifier.classes=1"}, "model.vision_classifier.classes: expected 2 to 1048576; got 1"},
       {{"model.vision_classifier.supervised_blocks=5"},
        "model.vision_classifier.supervised_blocks: expected 1 to 4; got 5"},
       {{"model.vision_classifier.supervised_blocks=0"},
        "model.vision_classifier.supervised_blocks: expected 1 to 4; got 0"},
       {{"model.vision_classifier.vision.heads=5"},
        "model.vision_classifier.vision.dim: expected a multiple of heads = 5; got 12"},
       {{"data.task=CAPTIONING", "evaluation.data.task=CLASSES"},
        "data.task: expected CLASSES where the model is vision_classifier; got CAPTIONING"},
       {{"quirks.frozen_dropout=true"},
        "quirks.frozen_dropout: expected false where the model is vision_classifier; got true"},
       {{"weights.text=a"}, "weights.text: expected none where the model is vision_classifier; got 'a'"},
       {{"validation.every_steps=1", "validation.metric=CIDER"},
        "validation.metric: expected LOSS or CLASS_ACCURACY where the model is vision_classifier; got CIDER"}});
  EXPECT_NO_THROW(classifier({"validation.every_steps=1", "validation.metric=CLASS_ACCURACY"}));
  EXPECT_NO_THROW(classifier({"train.final_check.loss=true", "train.final_check.exchanged_images=true"}));
}

Resolved projector(const std::vector<std::string>& overrides = {}) {
  return resolve_config(
      "model { projector { vision { image_size: 16 patch: 8 dim: 12 depth: 4 heads: 3 mlp_dim: 48 } text { vocab: 67 "
      "layers: 2 hidden: 16 heads: 4 ffn: 24 word_embed_proj_dim: 16 do_layer_norm_before: true final_layer_norm: true "
      "} } } train { max_steps: 10 }",
      "small", overrides);
}

TEST(Validate, Projector) {
  expect_problems(
      projector,
      {{{"model.projector.vision.heads=5"}, "model.projector.vision.dim: expected a multiple of heads = 5; got 12"},
       {{"model.projector.text.heads=3"}, "model.projector.text.hidden: expected a multiple of heads = 3; got 16"},
       {{"model.projector.text.max_positions=67"},
        "data.max_text_tokens: expected at most model.projector.text.max_positions less 4 patches of an image = 63; "
        "got "
        "64"},
       {{"data.task=CLASSES", "data.format=SHARDS", "data.shards=s", "evaluation.data.task=CAPTIONING"},
        "data.task: expected CAPTIONING or VQA where the model is projector; got CLASSES"},
       {{"quirks.frozen_dropout=true"}, "quirks.frozen_dropout: expected false where the model is projector; got true"},
       {{"validation.every_steps=1", "validation.metric=CIDER"},
        "validation.metric: expected LOSS where the model is projector; got CIDER"}});
  EXPECT_NO_THROW(projector({"model.projector.text.max_positions=68", "weights.vision=a", "weights.text=b"}));
  EXPECT_NO_THROW(projector({"train.final_check.loss=true", "train.final_check.exchanged_images=true"}));
}

TEST(Validate, LanguageModel) {
  expect_problems(language_model,
                  {{{"model.language_model.text.heads=3"},
                    "model.language_model.text.hidden: expected a multiple of heads = 3; got 16"},
                   {{"model.language_model.text.max_positions=32"},
                    "data.max_text_tokens: expected at most model.language_model.text.max_positions = 32; got 64"},
                   {{"data.task=CLASSES", "data.format=SHARDS", "data.shards=s", "evaluation.data.task=CAPTIONING"},
                    "data.task: expected CAPTIONING or VQA where the model is language_model; got CLASSES"},
                   {{"train.final_check.loss=true", "train.final_check.exchanged_images=true"},
                    "train.final_check.exchanged_images: expected false where the model is language_model; got true"},
                   {{"weights.vision=a"}, "weights.vision: expected none where the model is language_model; got 'a'"},
                   {{"model.language_model.adapter.kind=NORMAL", "model.language_model.adapter.factor=17"},
                    "model.language_model.adapter.factor: expected 1 to 16; got 17"},
                   {{"quirks.prompt_lr_ignored=true"},
                    "quirks.prompt_lr_ignored: expected false where the model is language_model; got true"},
                   {{"validation.every_steps=1", "validation.metric=BLEU_4"},
                    "validation.metric: expected LOSS where the model is language_model; got BLEU_4"}});
}

TEST(Validate, ValidationMustFitModelAndData) {
  const std::string on = "validation.every_steps=5";
  expect_problems(
      small,
      {{{"validation.every_steps=-1"}, "validation.every_steps: expected 0 and up; got -1"},
       {{on, "validation.patience=-1"}, "validation.patience: expected 0 to 1073741824; got -1"},
       {{on, "validation.samples=-1"}, "validation.samples: expected 0 and up; got -1"},
       {{"validation.patience=2"}, "validation.patience: expected 0 where validation.every_steps is 0; got 2"},
       {{on, "validation.metric=CLASS_ACCURACY"},
        "validation.metric: expected LOSS, EXACT_MATCH, CIDER, BLEU_4 or ROUGE_L where evaluation.data.task is "
        "CAPTIONING; got CLASS_ACCURACY"},
       {{on, "validation.metric=VQA_ACCURACY"},
        "validation.metric: expected LOSS, EXACT_MATCH, CIDER, BLEU_4 or ROUGE_L where evaluation.data.task is "
        "CAPTIONING; got VQA_ACCURACY"},
       {{on, "validation.metric=CIDER", "data.task=VQA", "data.format=GQA"},
        "validation.metric: expected LOSS, EXACT_MATCH or VQA_ACCURACY where evaluation.data.task is VQA; got CIDER"},
       {{on, "evaluation.data.task=CLASSES", "evaluation.data.format=SHARDS", "evaluation.data.shards=s"},
        "evaluation.data.task: expected CAPTIONING or VQA where the model is epalm; got CLASSES"},
       {{on, "loss.label_smoothing=0.1"},
        "validation.metric: expected another than LOSS with loss.label_smoothing (it would be part of it); got LOSS"},
       {{on, "quirks.frozen_dropout=true"},
        "validation.metric: expected another than LOSS with quirks.frozen_dropout (it would be measured under "
        "dropout); got LOSS"},
       {{on, "evaluation.data.max_text_tokens=65"},
        "evaluation.data.max_text_tokens: expected at most data.max_text_tokens = 64 (validation runs the programs "
        "that train); got 65"}});
  for (const char* metric : {"LOSS", "EXACT_MATCH", "VQA_ACCURACY"})
    EXPECT_NO_THROW(small({on, "data.task=VQA", "data.format=GQA", std::string("validation.metric=") + metric}))
        << metric;
  EXPECT_NO_THROW(small({"validation.metric=CLASS_ACCURACY", "loss.label_smoothing=0.1"})) << "nobody validates";
}

TEST(Validate, EverythingIsReportedAtOnce) {
  EXPECT_TRUE(throws_error(
      [] {
        small({"train.micro_batch=0", "optimizer.eps=0", "data.prefetch=0", "loss.kind=MEAN"});
      },
      ErrorKind::kConfig,
      {"small has 4 problems", "train.micro_batch", "optimizer.eps", "data.prefetch",
       "--set loss.kind=MEAN: expected one of SAMPLE_SUM, TOKEN_MEAN; got 'MEAN'"}));
}

TEST(Validate, WhatHasNoDefaultMustBeGiven) {
  EXPECT_TRUE(throws_error([] { resolve_config("model { epalm { } }", "empty"); }, ErrorKind::kConfig,
                           {"model.epalm.vision.patch: expected a value, 1 to 1024; got none",
                            "model.epalm.vision.mlp_dim: expected a value", "model.epalm.text.vocab: expected a value",
                            "model.epalm.text.do_layer_norm_before: expected true or false; got none",
                            "train.max_steps: expected a value, 1 and up; got none"}));
  EXPECT_TRUE(throws_error(
      [] {
        resolve_config("model { epalm { vision { size: VIT_B16 } text { size: OPT_125M } } } train { max_steps: 1 }",
                       "w");
      },
      ErrorKind::kConfig,
      {"w has 2 problems", "model.epalm.start_layer: expected a value, 0 to 11; got none", "model.epalm.end_layer"}));
}

TEST(Validate, ProductsOnGpus) {
  EXPECT_EQ(small().config.precision().f32_products(), F32Products::FP32);
  EXPECT_TRUE(small().config.parallel().tune_products());
  EXPECT_NO_THROW(small({"precision.f32_products=TF32", "parallel.device=CUDA"}));
  EXPECT_NO_THROW(small({"parallel.tune_products=false"})) << "means nothing on CPU";
}

TEST(Validate, ValuesThatNobodyReadsAreNotChecked) {
  EXPECT_NO_THROW(small({"schedule.kind=CONSTANT", "schedule.min_lr=1", "schedule.warmup_lr=1"}));
  EXPECT_NO_THROW(small({"model.epalm.prompt.kind=NONE", "model.epalm.prompt.length=0"}));
}

TEST(Validate, TrainingNeedsDataAndATokenizer) {
  EXPECT_TRUE(throws_error([] { require_data(small().config); }, ErrorKind::kConfig,
                           {"data.root: expected the folder of the dataset; got none", "data.tokenizer.root"}));
  EXPECT_NO_THROW(require_data(small({"data.root=a", "data.tokenizer.root=b"}).config));
  EXPECT_NO_THROW(require_data(small({"data.root=a", "data.tokenizer.tokenizer_json=b"}).config));
  EXPECT_NO_THROW(require_data(classifier({"data.root=a"}).config)) << "class labels need none";
  const auto mixed = [](const std::string& second) {
    require_data(
        small({"data.tokenizer.root=b", "data.mix+={data {root: \"a\"}}", "data.mix+={" + second + "}"}).config);
  };
  EXPECT_TRUE(throws_error([&] { mixed("weight: 2"); }, ErrorKind::kConfig,
                           {"data.mix[1].data.root: expected the folder of the dataset; got none"}));
  EXPECT_NO_THROW(mixed(R"(data {root: "c"})"));
  EXPECT_NO_THROW(mixed(R"(data {format: SHARDS shards: "c"})")) << "a folder of their own";
}

TEST(Validate, EvaluationNeedsItsOwn) {
  EXPECT_TRUE(throws_error([] { require_evaluation_data(small().config); }, ErrorKind::kConfig,
                           {"evaluation.data.root: expected the folder of the dataset; got none",
                            "evaluation.data.tokenizer.root: expected"}));
  const Config own = small({"evaluation.data.root=a", "evaluation.data.tokenizer.root=b"}).config;
  EXPECT_NO_THROW(require_evaluation_data(own));
  EXPECT_THROW(require_data(own), Error);
  EXPECT_NO_THROW(require_evaluation_data(small({"data.root=a", "data.tokenizer.root=b"}).config)) << "inherited";
  EXPECT_TRUE(throws_error([] { require_tokenizer(small({"data.root=a"}).config); }, ErrorKind::kConfig,
                           {"evaluation.data.tokenizer.root: expected"}));
  EXPECT_NO_THROW(require_tokenizer(small({"data.tokenizer.root=b"}).config));
}

}  // namespace
}  // namespace permafrost::config
