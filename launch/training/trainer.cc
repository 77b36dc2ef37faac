#include "launch/training/trainer.h"

#include <glog/logging.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/base/elapsed.h"
#include "core/base/narrow.h"
#include "core/base/sha256.h"
#include "core/device/bytes.h"
#include "core/kernels/scale.h"
#include "launch/gpu.h"
#include "launch/machine.h"
#include "launch/metrics/pss.h"
#include "launch/training/agreement.h"
#include "launch/training/model_weights.h"
#include "launch/training/run_identity.h"
#include "launch/training/working_copies.h"
#include "models/factory.h"
#include "optim/factory.h"
#include "parallel/reduce/global_norm.h"
#include "parallel/run/same_attention.h"
#include "parallel/run/tune_products.h"

namespace permafrost {

namespace {

TrainableLayout trainable_layout(const Plan& plan) {
  TrainableLayout layout;
  for (const ParamPlan& param : plan.params)
    if (param.trainable) layout.params.push_back({param.name, param.trainable_offset, param.shape.elements()});
  std::ranges::sort(layout.params, {}, &TrainableParam::offset);
  layout.elements = plan.trainable_space;
  return layout;
}

std::vector<int> layout_indices(const Plan& plan, const TrainableLayout& layout) {
  std::vector<int> index(plan.params.size(), -1);
  for (size_t i = 0; i < layout.params.size(); ++i)
    for (size_t p = 0; p < plan.params.size(); ++p)
      if (plan.params[p].trainable && plan.params[p].trainable_offset == layout.params[i].offset)
        index[p] = static_cast<int>(i);
  return index;
}

int64_t trainable_count(const Plan& plan) {
  return std::ranges::count_if(plan.params, [](const ParamPlan& p) { return p.trainable; });
}

uint64_t hash_word(const std::string& hex) { return std::stoull(hex.substr(0, 16), nullptr, 16); }

}  // namespace

Trainer::Trainer(const config::Config& config, Runtime& runtime, const Plan& plan)
    : config_(config),
      runtime_(runtime),
      plan_(plan),
      model_(make_model(config)),
      weighting_(loss_weighting(config.loss())),
      data_(config, model_->vocab(), runtime.pool.threads()),
      memory_(plan, runtime.rank(), &runtime.node, runtime.device(),
              gather_allocator(config.parallel(), plan, runtime)),
      gather_group_(make_gather_group(config.parallel(), plan, runtime, memory_)),
      exchange_(config.parallel(), runtime, std::max(plan.memory.sums, plan.memory.working)),
      executor_(plan, memory_, runtime.program_context(), {.graphs = config.parallel().cuda_graphs()},
                gather_group_.get()),
      optimizer_(plan, runtime.rank(), make_adamw_config(config), runtime.device()),
      schedule_(make_schedule_config(config)),
      shards_(plan.trainable_space, runtime.size()),
      context_(runtime.program_context()),
      sums_memory_(exchange_.allocate("order-free sums", plan.memory.sums)),
      slice_memory_("gradient slice", 4 * shards_.count(runtime.rank()), runtime.device()),
      norm_memory_("norm blocks", 8 * shards_.blocks(), runtime.device()),
      norm_(Buffer::pinned("norm", sizeof(double), runtime.device())),
      clip_("clipping", 2 * sizeof(float), runtime.device()),
      losses_memory_(Buffer::pinned("losses", plan.slots * int64_t{sizeof(double)}, runtime.device())),
      kept_memory_(Buffer::pinned("scale of a step", sizeof(float), runtime.device())),
      kept_on_device_("scale of a step", sizeof(float), runtime.device()),
      exponents_(trainable_count(plan), config.parallel().headroom_bits()),
      loss_scale_(loss_scale_config(config, plan.compute), trainable_count(plan)),
      voter_(runtime.size(), trainable_count(plan), plan.micro_batches),
      device_time_(runtime.stream ? runtime.stream->queue() : nullptr),
      segments_(context_, [this](VotedWork work) { do_work(work); }),
      filler_(model_, config.train().seed(), data_.texts.pad_id(), config.train().micro_batch(), plan.buckets.back()) {
  const TrainableLayout layout = trainable_layout(plan);
  layout_index_ = layout_indices(plan, layout);
  const bool order_free = plan.reduction == Reduction::kOrderFree;
  sums_ = std::make_unique<OrderFreeSums>(layout, shards_, runtime.rank(), plan.micro_batches,
                                          order_free ? SumMode::kOrderFree : SumMode::kPlain,
                                          Tensor(sums_memory_.data(), order_free ? DType::kI64 : DType::kF32,
                                                 Shape{plan.trainable_space}, sums_memory_.device()));
  working_bytes_per_rank_ = working_bytes_per_rank(plan);
  losses_.reserve(static_cast<size_t>(plan.slots));
  first_samples_.reserve(static_cast<size_t>(plan.slots));
  program_runs_.resize(plan.programs.size());

  require_labels("data", data_, *model_);
  use_f32_products(runtime.program_context(), config.precision());
  use_attention(runtime.program_context(), config.parallel());
  load_weights();
  position_.graph_hash = plan.graph_hash();
  position_.frozen_sha256 = frozen_at_start_.sha256;
  position_.identity = run_identity(config, data_.texts);
  position_.max_steps = config.train().max_steps();
  // Settings and plan were compared before; here what was read from files.
  require_same_weights(config, runtime, frozen_at_start_);
  require_same_samples(runtime.world, "data", position_.identity.at("data.samples"));
  // What ranks must agree on: what is computed and on which data; not threads or addresses, which may differ by
  // machine.
  std::string agreed = position_.graph_hash + position_.frozen_sha256 + std::to_string(position_.max_steps);
  for (const auto& [path, value] : position_.identity) agreed += path + value;
  schedule_hash_ = hash_word(sha256(agreed.data(), agreed.size()));
  index_ = std::make_unique<BatchIndex>(data_.texts, loader_config(config, data_).order, plan.buckets);
  loader_ = make_loader(0);
  validation_ = make_program_measure(config, measure_on());
  note_device();
}

/// What of the device's fast ways is not taken, and why.
void Trainer::note_device() {
  if (context_.device.kind == DeviceKind::kCpu) return;
  for (const std::vector<std::string>& notes : {exchange_.notes(), gather_notes(gather_group_.get())})
    notes_.insert(notes_.end(), notes.begin(), notes.end());
  if (const std::string_view why = executor_.why_no_graphs(); !why.empty())
    notes_.push_back(concat("device: kernels are given one by one, not as CUDA graphs: ", why));
  for (size_t bucket = 0; bucket < plan_.programs.size(); ++bucket)
    if (executor_.graphs_between_gathers(bucket)) {
      notes_.push_back(
          "device: a program is several CUDA graphs, not one: between them devices gather sharded weights from each "
          "other");
      break;
    }
}

Trainer::~Trainer() = default;

void Trainer::load_weights() {
  const auto begin = Clock::now();
  HostOptimizer loading(optimizer_, context_);
  notes_ =
      load_model_weights(config_, plan_, memory_.frozen_share(), *loading, runtime_.world, runtime_.node, runtime_.pool)
          .lines;
  runtime_.node.barrier(StreamView::caller(), "frozen weights of the node").wait();
  memory_.frozen.protect();
  memory_.upload_frozen(context_);
  take_loaded(loading);
  setup_.load_weights = ms_since(begin) / 1e3;
  frozen_at_start_ = hash_frozen_now();
  setup_.hash_frozen = ms_since(begin) / 1e3 - setup_.load_weights;
  watch_.emplace(plan_, *loading, runtime_.pool);
}

/// Masters and moments are as loaded; now working copies, too.
void Trainer::take_loaded(HostOptimizer& loaded) {
  loaded.put_back();
  loaded->refresh_working(memory_);
  gather_working_copies(memory_, runtime_.world, working_bytes_per_rank_);
  memory_.upload_working(context_);
}

std::unique_ptr<Loader> Trainer::make_loader(int64_t first_step) const {
  LoaderConfig loader = loader_config(config_, data_);
  const int64_t slots = plan_.slots, micro_batches = plan_.micro_batches, ranks = runtime_.size(),
                rank = runtime_.rank();
  const int64_t steps = config_.train().max_steps() - first_step;
  loader.slots = std::max<int64_t>(0, steps) * slots;
  loader.micro_batch_of_slot = [=](int64_t slot) {
    const int64_t step = first_step + slot / slots, index = (slot % slots) * ranks + rank;
    return index < micro_batches ? step * micro_batches + index : kIdleMicroBatch;
  };
  auto made = std::make_unique<Loader>(*data_.dataset, data_.texts, std::move(loader));
  made->observe(loader_observer_);
  return made;
}

void Trainer::observe(PhaseObserver* phases, LoaderObserver* loader) {
  phases_ = phases;
  loader_observer_ = loader;
  if (loader_) loader_->observe(loader);
}

void Trainer::resume(const std::string& checkpoint) {
  HostOptimizer loading(optimizer_, context_);
  const TrainingPosition loaded = load_checkpoint(checkpoint, plan_, *loading);
  if (loaded.frozen_sha256 != position_.frozen_sha256)
    fail(ErrorKind::kWeights, "resume: frozen weights must be those of the checkpoint (SHA-256 ", loaded.frozen_sha256,
         "); got ", position_.frozen_sha256);
  check_same_run(loaded.identity, position_.identity);  // names fields, so before the hash of what they build
  if (loaded.graph_hash != position_.graph_hash)
    fail(ErrorKind::kWeights, "resume: ", checkpoint,
         " belongs to another graph: the trainable parameters agree, but operations, ",
         "their constants, frozen parameters or compute dtype differ");
  if (loaded.max_steps != position_.max_steps && schedule_.kind == ScheduleKind::kCosine)
    notes_.push_back(concat("resume: train.max_steps was ", loaded.max_steps, " and is ", position_.max_steps,
                            ": from here on the cosine schedule is another one"));
  position_.step = loaded.step;
  position_.skipped_samples = loaded.skipped_samples;
  position_.adapter_sha256 = loaded.adapter_sha256;
  position_.validated_step = loaded.validated_step;
  position_.products = loaded.products;
  products_are_ready_ = false;
  executor_.forget_graphs();  // captured with other algorithms
  resume_best(loaded.best);
  if (!loaded.exponents.empty()) exponents_.restore(loaded.exponents);
  loss_scale_.restore(loaded.loss_scale);
  take_loaded(loading);
  watch_.emplace(plan_, *loading, runtime_.pool);
  forget_ahead();
  loader_.reset();  // before another ring of micro-batches is allocated
  loader_ = make_loader(position_.step);
}

/// What was best by another metric, or on other data, says nothing about what comes.
void Trainer::resume_best(const std::optional<BestSoFar>& stored) {
  position_.best = stored;
  const std::string metric = metric_name(config_.validation().metric());
  if (!validation_ || !stored) return;
  if (stored->metric == metric && stored->measured_on == validation_->measured_on()) return;
  notes_.push_back(concat("resume: ",
                          stored->metric == metric
                              ? std::string("validation looks at other samples, or decodes in another way, than before")
                              : concat("validation.metric was ", stored->metric, " and is ", metric),
                          ": what was best so far is forgotten"));
  position_.best.reset();
}

const TrainingPosition& Trainer::position_now() {
  position_.exponents.clear();
  if (exponents_.known()) position_.exponents.assign(exponents_.agreed().begin(), exponents_.agreed().end());
  position_.loss_scale = loss_scale_.position();
  return position_;
}

/// The sums are idle between steps; the space of their integers holds the gathered slices, if the host can reach it.
Tensor Trainer::host_scratch(Buffer& own) const {
  if (context_.device.kind == DeviceKind::kCuda) own = Buffer("gathered slices", 4 * plan_.trainable_space);
  return {own.bytes() > 0 ? own.data() : sums_memory_.data(), DType::kF32, Shape{plan_.trainable_space}};
}

std::string Trainer::save(const CheckpointStore& store) {
  const PhaseScope seen(phases_, TrainerPhase::kCheckpoint, position_.step);
  position_now();
  Buffer own;
  store.save(plan_, *HostOptimizer(optimizer_, context_), runtime_.world, host_scratch(own), position_);
  return position_.adapter_sha256;
}

void Trainer::save_best(const CheckpointStore& store) {
  const PhaseScope seen(phases_, TrainerPhase::kCheckpoint, position_.step);
  TrainingPosition best = position_now();
  Buffer own;
  store.save_best(plan_, *HostOptimizer(optimizer_, context_), runtime_.world, host_scratch(own), best);
}

FrozenHash Trainer::hash_frozen_now() {
  return hash_frozen(plan_, memory_.frozen_share(), runtime_.world, runtime_.node, runtime_.pool);
}

std::vector<std::string> Trainer::changed_frozen_units() { return changed_since_start(hash_frozen_now()); }

std::vector<std::string> Trainer::changed_since_start(const FrozenHash& now) const {
  std::vector<std::string> changed = changed_units(frozen_at_start_, now);
  for (const size_t unit : memory_.units_that_differ(context_))
    if (std::ranges::find(changed, plan_.units[unit].name) == changed.end()) changed.push_back(plan_.units[unit].name);
  return changed;
}

std::optional<std::string> Trainer::check_changes(const StepMetrics& metrics) {
  if (!watch_ || metrics.lr == 0) return std::nullopt;
  const PhaseScope seen(phases_, TrainerPhase::kFrozenCheck, position_.step);
  const FrozenHash now = hash_frozen_now();
  const StepChanges changes{metrics.step + 1,
                            watch_->parameters(),
                            watch_->unchanged(*HostOptimizer(optimizer_, context_), runtime_.world, runtime_.pool),
                            static_cast<int64_t>(now.units.size()),
                            changed_since_start(now),
                            now.sha256};
  watch_.reset();
  if (!changes.changed_frozen_units.empty()) fail(ErrorKind::kInternal, "train: ", to_line(changes));
  return to_line(changes);
}

std::vector<MemoryPiece> Trainer::memory_pieces() const {
  std::vector<MemoryPiece> pieces;
  const auto add = [&](const char* category, const auto& memory) {
    pieces.push_back({category, memory.data(), memory.bytes()});
  };
  add("frozen", memory_.frozen);
  add("slots", memory_.slots);
  add("inputs", memory_.inputs);
  pieces.push_back({"staging", exchange_.staging().data(), std::ssize(exchange_.staging())});
  add("working", memory_.working);
  if (memory_.device.kind == DeviceKind::kCpu) {  // else the system knows nothing of them
    add("arena", memory_.arena);
    add("state", memory_.state);
    add("sums", sums_memory_);
    add("gradients", slice_memory_);
    for (const Tensor& t : {optimizer_.master(), optimizer_.first_moment(), optimizer_.second_moment()})
      pieces.push_back({"optimizer", static_cast<const std::byte*>(t.raw()), t.bytes()});
  }
  for (const std::span<const float> images : loader_->image_memory())
    pieces.push_back({"inputs", reinterpret_cast<const std::byte*>(images.data()), std::ssize(images) * 4});
  return pieces;
}

MeasureOn Trainer::measure_on() { return {runtime_, plan_, *model_, executor_, filler_}; }

FinalLoss Trainer::measure_loss(bool exchange_images, int64_t samples) {
  forget_ahead();
  prepare_products();
  loader_.reset();  // training is over; its memory serves the micro-batches here
  LoaderConfig loader = loader_config(config_, data_);
  loader.order.shuffle = true;  // neighbours in the file often show the same photograph
  const auto pass = [&](bool exchange) { return measure_sums(measure_on(), data_, loader, samples, exchange); };
  const MeasuredSums sums = pass(false);
  FinalLoss result{sums.nats_per_target(), std::nullopt, sums.samples};
  if (!exchange_images) return result;
  const MeasuredSums exchanged = pass(true);
  result.exchanged = exchanged.nats_per_target();
  result.samples = exchanged.samples;
  return result;
}

void Trainer::validate_by(std::unique_ptr<ValidationMeasure> measure) {
  validation_ = std::move(measure);
  const std::vector<std::string> notes = validation_->notes();
  notes_.insert(notes_.end(), notes.begin(), notes.end());
}

bool Trainer::validation_due() const {
  const int64_t every = config_.validation().every_steps(), step = position_.step;
  return every > 0 && step > 0 && step != position_.validated_step &&
         (step % every == 0 || step == config_.train().max_steps());
}

ValidationMetrics Trainer::validate() {
  prepare_products();
  const auto begin = Clock::now();
  const PhaseScope seen(phases_, TrainerPhase::kValidation, position_.step);
  const config::Validation::Metric metric = config_.validation().metric();
  PERMAFROST_CHECK(validation_, "trainer: ", metric_name(metric), " must be given to validate_by; got nothing");
  const MeasuredValue measured = validation_->measure();
  filled_ahead_ = false;  // other inputs are where they were
  // A validation may have shapes that training has not.
  require_same_attention(runtime_.world, executor_.context());
  if (!std::isfinite(measured.value))
    fail(ErrorKind::kNonFinite, "validation: ", metric_name(metric), " after step ", position_.step,
         " must be finite; got ", measured.value);
  ValidationMetrics metrics;
  metrics.step = position_.step - 1;
  metrics.metric = metric_name(metric);
  metrics.value = measured.value;
  metrics.samples = measured.samples;
  metrics.best = take_value(position_.best, metric, validation_->measured_on(), measured.value, position_.step);
  position_.validated_step = position_.step;
  metrics.best_value = position_.best->value;
  metrics.best_step = position_.best->step;
  metrics.without_better = position_.best->without_better;
  metrics.seconds = ms_since(begin) / 1e3;
  return metrics;
}

bool Trainer::out_of_patience() const {
  const int64_t patience = config_.validation().patience();
  return patience > 0 && position_.best && position_.best->without_better >= patience;
}

}  // namespace permafrost
