#include "launch/evaluation/generator.h"

#include <algorithm>
#include <cstring>

#include "launch/gpu.h"
#include "launch/training/agreement.h"
#include "launch/training/device_group.h"
#include "launch/training/model_weights.h"
#include "launch/training/working_copies.h"
#include "parallel/run/same_attention.h"

namespace permafrost {

namespace {

InputTensors inputs_of(const Executor& executor, size_t bucket) {
  return [&executor, bucket](std::string_view name) { return executor.value(bucket, name); };
}

}  // namespace

Generator::Generator(const config::Config& config, Runtime& runtime, const GenerationSetup& setup, const Plan& plan)
    : runtime_(runtime),
      setup_(setup),
      plan_(plan),
      memory_(plan, runtime.rank(), &runtime.node, runtime.device(),
              gather_allocator(config.parallel(), plan, runtime)),
      gather_group_(make_gather_group(config.parallel(), plan, runtime, memory_)),
      executor_(plan, memory_, runtime.program_context(), {.graphs = config.parallel().cuda_graphs()},
                gather_group_.get()) {
  load(config);
}

Generator::Generator(const config::Config& config, Runtime& runtime, const GenerationSetup& setup, const Plan& plan,
                     const StepMemory& lender, const Plan& lender_plan)
    : runtime_(runtime),
      setup_(setup),
      plan_(plan),
      memory_(plan, lender, lender_plan, &runtime.node, gather_allocator(config.parallel(), plan, runtime)),
      gather_group_(make_gather_group(config.parallel(), plan, runtime, memory_)),
      executor_(plan, memory_, runtime.program_context(), {.graphs = config.parallel().cuda_graphs()},
                gather_group_.get()) {}

void Generator::load(const config::Config& config) {
  use_f32_products(executor_.context(), config.precision());
  use_attention(executor_.context(), config.parallel());
  AdamwConfig none;
  ShardedAdamw masters(plan_, runtime_.rank(), none);
  notes_ =
      load_model_weights(config, plan_, memory_.frozen_share(), masters, runtime_.world, runtime_.node, runtime_.pool)
          .lines;
  runtime_.node.barrier(StreamView::caller(), "frozen weights of the node").wait();
  memory_.frozen.protect();
  memory_.upload_frozen(runtime_.program_context());
  if (runtime_.size() > 1)
    require_same_weights(config, runtime_,
                         hash_frozen(plan_, memory_.frozen_share(), runtime_.world, runtime_.node, runtime_.pool));
  masters.refresh_working(memory_);
  gather_working_copies(memory_, runtime_.world, working_bytes_per_rank(plan_));
  memory_.upload_working(runtime_.program_context());
}

int64_t Generator::image_floats() const {
  return setup_.model.vision.channels * setup_.model.vision.image_size * setup_.model.vision.image_size;
}

/// Whether ranks must run the same programs at the same time.
bool Generator::together() const { return plan_.gather.kind == GatherKind::kCollective && plan_.memory.slots > 0; }

bool Generator::anyone(bool here) {
  if (!together()) return here;
  int64_t mine = here ? 1 : 0, all = 0;
  runtime_.world
      .all_reduce(flat(std::span(&mine, 1)), flat(std::span(&all, 1)), ReduceOp::kMax, StreamView::caller(),
                  "texts in the making")
      .wait();
  return all > 0;
}

std::span<const float> Generator::logits(size_t bucket) const {
  const Tensor logits = executor_.value(bucket, "logits");
  return {logits.data<float>(), static_cast<size_t>(logits.elements())};
}

/// What runs once per batch, and the program of the first token. texts: null on a rank without a batch.
void Generator::begin(const DecodingTexts* texts, std::span<const float> images) {
  if (texts) {
    const Tensor pixels = executor_.value(0, "images");
    std::memset(pixels.raw(), 0, static_cast<size_t>(pixels.bytes()));
    std::ranges::copy(images, pixels.data<float>());
    setup_.cached ? texts->fill_prefill(inputs_of(executor_, 0)) : texts->fill_see(inputs_of(executor_, 0));
    executor_.run(0, nullptr);
  } else {
    executor_.only_gather(0);
  }
  if (setup_.cached) return;
  if (texts) {
    texts->fill_whole(inputs_of(executor_, 1));
    executor_.run(1, nullptr);
  } else {
    executor_.only_gather(1);
  }
}

std::vector<FoundText> Generator::generate(std::span<const std::vector<int32_t>> prompts,
                                           std::span<const float> images) {
  const EpalmDecodingShape& shape = setup_.shape;
  PERMAFROST_CHECK(std::ssize(prompts) <= shape.batch && std::ssize(images) == std::ssize(prompts) * image_floats(),
                   "generate: at most ", shape.batch, " prompts and ", image_floats(),
                   " floats for the image of each expected; got ", prompts.size(), " and ", images.size());
  if (prompts.empty()) {
    if (!together()) return {};
    begin(nullptr, {});
    while (anyone(false)) executor_.only_gather(1);
    return {};
  }
  std::vector<std::vector<int32_t>> rows(prompts.begin(), prompts.end());
  rows.resize(static_cast<size_t>(shape.batch), {setup_.search.end_id});  // places that are not taken
  DecodingTexts texts(setup_.model, shape, setup_.padding, setup_.search.pad_id, std::move(rows));
  std::vector<SearchPrompt> lengths;
  for (int64_t b = 0; b < shape.batch; ++b) {
    lengths.push_back(setup_.prompt(texts.prompt_length(b)));
    if (b >= std::ssize(prompts)) lengths.back().max_new_tokens = 0;
  }
  TextSearch search(setup_.search, lengths, setup_.model.text.vocab);
  begin(&texts, images);
  if (!search.done()) search.advance(logits(setup_.cached ? 0 : 1));
  while (anyone(!search.done())) {
    if (search.done()) {
      executor_.only_gather(1);
      continue;
    }
    texts.advance(search.parents(), search.tokens());
    setup_.cached ? texts.fill_step(inputs_of(executor_, 1)) : texts.fill_whole(inputs_of(executor_, 1));
    executor_.run(1, nullptr);
    search.advance(logits(1));
  }
  std::vector<FoundText> found = search.results();
  found.resize(prompts.size());
  return found;
}

void Generator::require_same_attention() const {
  permafrost::require_same_attention(runtime_.world, executor_.context());
}

}  // namespace permafrost
