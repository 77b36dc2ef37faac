// The step of a Trainer: micro-batches, the vote, and what follows from it.
#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "core/base/elapsed.h"
#include "core/device/bytes.h"
#include "core/kernels/order_free.h"
#include "core/kernels/scale.h"
#include "launch/training/trainer.h"
#include "launch/training/working_copies.h"
#include "parallel/reduce/global_norm.h"
#include "parallel/run/tune_products.h"

namespace permafrost {

void Trainer::add(int param, const Tensor& gradient) {
  sums_->accumulate(context_, layout_index_[static_cast<size_t>(param)], gradient);
}

LossCounts Trainer::loss_counts(int64_t step) {
  const BatchOrder& order = index_->order();
  const int64_t first = step % order.steps_per_epoch() * order.global_batch;
  LossCounts counts{std::min(order.global_batch, order.samples - first), 0};
  const uint32_t epoch = index_->epoch_of(step * plan_.micro_batches);
  for (int64_t i = 0; i < plan_.micro_batches; ++i) {
    index_->members(step * plan_.micro_batches + i, members_);
    for (int64_t row : members_)
      if (row != BatchOrder::kPadding) counts.tokens += data_.texts.targets(row, epoch);
  }
  return counts;
}

void Trainer::note_left_out(const MicroBatch& batch) {
  if (batch.samples == batch.batch) return;
  index_->members(batch.number, members_);
  for (size_t row = 0; row < members_.size(); ++row) {
    if (members_[row] == BatchOrder::kPadding || batch.weights[row] > 0) continue;
    ++left_out_.samples;
    left_out_.tokens += data_.texts.targets(members_[row], batch.epoch);
  }
  if (left_out_.samples == 0 || said_skipped_) return;
  said_skipped_ = true;
  LOG(WARNING) << "data.image_policy SKIP: samples are left out; the first [rank " << runtime_.rank() << "/"
               << runtime_.size() << "]: " << loader_->skip_message();
}

/// Micro-batches were weighted before anyone knew which images cannot be used. Loss and gradients are linear in that
/// weight, so one factor, the same on all ranks, makes them those of a batch without the samples left out.
void Trainer::leave_out_of_loss(const Vote& vote) {
  kept_scale_ = 1;
  kept_ = {counts_.samples - vote.left_out_samples, counts_.tokens - vote.left_out_tokens};
  if (vote.left_out_samples == 0) return;
  if (kept_.samples == 0)
    fail(ErrorKind::kData, "train: step ", position_.step,
         ": data.image_policy SKIP needs an image that can be used in every step; got none for its ", counts_.samples,
         " samples", loader_->skipped_images() > 0 ? ", one of them: " + loader_->skip_message() : "");
  kept_scale_ = row_weight_ > 0 ? weighting_.row_weight(kept_) / row_weight_ : 1;
}

/// The micro-batch of the next slot: waits for it, unless that was done before.
const MicroBatch& Trainer::next_batch(int64_t slot, StepMetrics& metrics) {
  const PhaseScope seen(phases_, TrainerPhase::kData, slot);
  if (ahead_) return *std::exchange(ahead_, nullptr);
  const MicroBatch& batch = loader_->next();
  metrics.wait_ms += loader_->last_wait_ms();
  return batch;
}

void Trainer::fill_inputs(const MicroBatch& batch, float row_weight) {
  const PhaseScope seen(phases_, TrainerPhase::kInputs, batch.number);
  const auto begin = Clock::now();
  const size_t bucket = plan_.bucket_for(batch.tokens);
  executor_.wait_for_inputs();
  filler_.fill(batch, row_weight, executor_, bucket, loss_scale_.value());
  executor_.upload_inputs(bucket);
  account_.inputs_ms += ms_since(begin);
}

/// While a GPU computes the last micro-batch of a step, the inputs of the next step's first one go over.
void Trainer::look_ahead(StepMetrics& metrics) {
  const int64_t next = position_.step + 1;
  if (context_.device.kind == DeviceKind::kCpu || next >= config_.train().max_steps()) return;
  const MicroBatch& batch = next_batch(0, metrics);
  ahead_ = &batch;
  if (batch.number == kIdleMicroBatch) return;
  fill_inputs(batch, weighting_.row_weight(loss_counts(next)));
  filled_ahead_ = true;
  scale_ahead_ = loss_scale_.value();
}

void Trainer::forget_ahead() {
  ahead_ = nullptr;
  filled_ahead_ = false;
}

void Trainer::run_slot(const MicroBatch& batch, double* loss) {
  const size_t bucket = plan_.bucket_for(batch.tokens);
  const bool filled_before = std::exchange(filled_ahead_, false) && scale_ahead_ == loss_scale_.value();
  if (!filled_before) fill_inputs(batch, row_weight_);
  const PhaseScope seen(phases_, TrainerPhase::kProgram, batch.number);
  const auto filled = Clock::now();
  device_time_.begin();
  executor_.start(bucket, this, loss);
  sums_->end_micro_batch(context_, batch.number % plan_.micro_batches);
  device_time_.end();
  account_.program_ms += ms_since(filled);
  ++program_runs_[bucket];
}

/// On a device nobody waits for single exchanges: one that was given up left its output as it was, and the stream went
/// on. So groups are asked behind every wait, before anything is made of it.
void Trainer::throw_broken_exchange() const {
  if (context_.device.kind == DeviceKind::kCpu) return;
  for (const Group* group : std::array<const Group*, 2>{&*exchange_, gather_group_.get()})
    if (group)
      if (const std::optional<Error> error = group->async_error()) throw *error;
}

/// Of all micro-batches, once they are there.
void Trainer::take_losses() {
  const auto begin = Clock::now();
  sums_->settle(context_);
  throw_broken_exchange();
  account_.program_ms += ms_since(begin);
  const BadGradient& bad = sums_->bad();
  for (size_t i = 0; i < losses_.size(); ++i) {
    losses_[i].loss = reinterpret_cast<const double*>(losses_memory_.data())[i];
    const bool bad_gradient = bad.found() && bad.micro_batch == losses_[i].index;
    if ((std::isfinite(losses_[i].loss) && !bad_gradient) || bad_micro_batch_ >= 0) continue;
    bad_micro_batch_ = losses_[i].index;
    bad_sample_ = first_samples_[i];
  }
}

bool Trainer::attempt(bool stop, StepMetrics& metrics) {
  const auto begin = Clock::now();
  ++account_.attempts;
  PhaseScope seen(phases_, TrainerPhase::kMicroBatches, position_.step);
  const bool known = exponents_.known();
  const bool keeps_gradients = plan_.slots == 1 && context_.device.kind == DeviceKind::kCpu;
  if (known) {
    sums_->begin_step(context_, loss_scale_.limits(exponents_.limits()));
  } else {
    sums_->begin_measuring(context_, keeps_gradients);
  }
  losses_.clear();
  first_samples_.clear();
  left_out_ = {};
  bad_micro_batch_ = bad_sample_ = -1;
  for (int64_t slot = 0; slot < plan_.slots; ++slot) {
    const MicroBatch& batch = next_batch(slot, metrics);
    if (batch.number == kIdleMicroBatch) {
      executor_.only_gather();
      continue;
    }
    note_left_out(batch);
    run_slot(batch, reinterpret_cast<double*>(losses_memory_.data()) + losses_.size());
    losses_.push_back({batch.number % plan_.micro_batches, 0});
    first_samples_.push_back(static_cast<int64_t>(batch.sample_ids[0]));
  }
  look_ahead(metrics);
  take_losses();
  account_.phase(PhaseKind::kMicroBatches) += ms_since(begin);
  seen.end();
  const Vote& result = vote(stop, metrics);
  stop_voted_ = result.stop;
  if (!result.finite) {
    smaller_scale_or_report(result, metrics);
    return false;
  }
  exponents_.learn(result.exponents);
  if (!known && keeps_gradients) sums_->sum_kept(context_, loss_scale_.limits(exponents_.limits()));
  const bool repeat = known ? result.overflow : !keeps_gradients;
  leave_out_of_loss(result);
  metrics.loss = result.loss_sum() * static_cast<double>(kept_scale_);
  return !repeat;
}

const Vote& Trainer::vote(bool stop, StepMetrics& metrics) {
  const PhaseScope seen(phases_, TrainerPhase::kVote, position_.step);
  Ballot ballot;
  ballot.finite = bad_micro_batch_ < 0 && !sums_->bad().found();
  ballot.overflow = sums_->overflow();
  ballot.stop = stop;
  ballot.schedule = schedule_hash_ ^ (static_cast<uint64_t>(position_.step) * 0x9E3779B97F4A7C15u);
  ballot.bad_param = sums_->bad().param;
  ballot.bad_micro_batch = bad_micro_batch_ >= 0 ? bad_micro_batch_ : sums_->bad().micro_batch;
  ballot.bad_sample = bad_sample_;
  ballot.left_out_samples = left_out_.samples;
  ballot.left_out_tokens = left_out_.tokens;
  ballot.exponents = loss_scale_.exponents(sums_->exponents());
  ballot.losses = losses_;
  const auto begin = Clock::now();
  const Vote& result = voter_.cast(runtime_.world, ballot);
  const double ms = ms_since(begin);
  account_.phase(PhaseKind::kVote) += ms;
  metrics.exposed_comm_ms += runtime_.size() > 1 ? ms : 0;
  return result;
}

/// Infinite gradients of activations in f16 are no error while a smaller scale is left: then the step is run again.
void Trainer::smaller_scale_or_report(const Vote& vote, StepMetrics& metrics) {
  const float scale = loss_scale_.value();
  if (!loss_scale_.again(vote)) report_non_finite(vote);
  ++metrics.scale_repeats;
  if (runtime_.first())
    LOG(WARNING) << "train: step " << position_.step << ": a gradient of micro-batch " << vote.bad_micro_batch
                 << " is not finite at loss scale " << scale << ": the step is run again at " << loss_scale_.value();
}

void Trainer::report_non_finite(const Vote& vote) {
  if (vote.bad_rank != runtime_.rank()) {
    // The rank that knows more runs its micro-batch again and speaks; its error ends this wait.
    executor_.only_gather();
    runtime_.world.barrier(StreamView::caller(), "waiting for the report of a non-finite step").wait();
    fail(ErrorKind::kNonFinite, "train: step ", position_.step, ": loss or gradient is not finite on rank ",
         vote.bad_rank);
  }
  LoaderConfig again = loader_config(config_, data_);
  const int64_t number = position_.step * plan_.micro_batches + vote.bad_micro_batch;
  again.slots = 1;
  again.micro_batch_of_slot = [number](int64_t) { return number; };
  Loader loader(*data_.dataset, data_.texts, std::move(again));
  const MicroBatch& batch = loader.next();
  const size_t bucket = plan_.bucket_for(batch.tokens);
  filler_.fill(batch, row_weight_, executor_, bucket, loss_scale_.value());
  std::string where = "found no bad value when run again";
  if (const auto report = executor_.find_non_finite(bucket))
    where =
        concat("first in ", report->value, "[", report->index, "] = ", report->number, " (unit ", report->unit, ")");
  std::string samples;
  for (uint64_t id : batch.sample_ids)
    if (id != kPaddingSample) samples += concat(samples.empty() ? "" : ", ", id);
  fail(ErrorKind::kNonFinite, "train: step ", position_.step, ": loss and gradients must be finite; ", where,
       ", micro-batch ", vote.bad_micro_batch, " with samples ", samples, " [rank ", runtime_.rank(), "/",
       runtime_.size(), "]");
}

/// Before anything is computed, and behind resume, which brings the choices of the run.
void Trainer::prepare_products() {
  if (std::exchange(products_are_ready_, true)) return;
  const auto begin = Clock::now();
  const PreparedProducts prepared = permafrost::prepare_products(
      executor_, plan_, runtime_.world, config_.parallel().tune_products(), position_.products);
  position_.products = prepared.record;
  if (!runtime_.first()) return;
  if (!prepared.note.empty()) LOG(WARNING) << prepared.note;
  if (prepared.tuned > 0) LOG(INFO) << "products: " << prepared.tuned << " tuned in " << ms_since(begin) << " ms";
}

int64_t Trainer::moved_so_far() const {
  return (runtime_.moved ? runtime_.moved->total() : 0) + exchange_.moved_bytes();
}

StepMetrics Trainer::train_step(bool stop) {
  prepare_products();
  const auto begin = Clock::now();
  const PhaseScope seen(phases_, TrainerPhase::kStep, position_.step);
  const int64_t moved_before = moved_so_far();
  StepMetrics metrics;
  account_ = {};
  metrics.step = position_.step;
  const BatchOrder& order = index_->order();
  const int64_t epoch = position_.step / order.steps_per_epoch(), in_epoch = position_.step % order.steps_per_epoch();
  counts_ = loss_counts(position_.step);
  row_weight_ = weighting_.row_weight(counts_);
  executor_.take_gather_ms();  // what a final check left
  executor_.take_gathered_bytes();

  constexpr int kMaxAttempts = 8;  // one measures, one sums; more only if gradients explode from one run to the next
  for (int tries = 1; !attempt(stop, metrics); ++tries) {
    if (tries == kMaxAttempts + metrics.scale_repeats)
      fail(ErrorKind::kInternal, "train: step ", position_.step, " was repeated ", tries, " times");
    forget_ahead();
    loader_.reset();
    loader_ = make_loader(position_.step);
  }
  metrics.exposed_comm_ms += executor_.take_gather_ms();
  const int64_t gathered = executor_.take_gathered_bytes();
  metrics.gathered_bytes += gathered;
  optimizer_phases(metrics);
  metrics.loss_scale = loss_scale_.used() ? static_cast<double>(loss_scale_.value()) : 0;
  loss_scale_.accept();
  metrics.moved_bytes = moved_so_far() - moved_before;
  if (plan_.gather.kind == GatherKind::kCopy) metrics.moved_bytes += gathered;  // copied without any group
  ++position_.step;
  position_.skipped_samples += counts_.samples - kept_.samples;

  const double factor = schedule_factor(schedule_, metrics.step, epoch, in_epoch);
  metrics.lr = optimizer_.reported_lr(factor);
  metrics.step_ms = ms_since(begin);
  account_.samples = kept_.samples;
  account_.tokens = kept_.tokens;
  account_.data_ms = metrics.wait_ms;
  metrics.samples_per_s = static_cast<double>(kept_.samples) * 1e3 / metrics.step_ms;
  metrics.tokens_per_s = static_cast<double>(kept_.tokens) * 1e3 / metrics.step_ms;
  metrics.arena_bytes = plan_.memory.arena;
  return metrics;
}

void Trainer::optimizer_phases(StepMetrics& metrics) {
  const bool on_cuda = context_.device.kind == DeviceKind::kCuda;
  segments_.begin(on_cuda && executor_.why_no_graphs().empty());
  device_time_.begin();
  for (PhaseKind phase : plan_.phases) {
    if (phase == PhaseKind::kMicroBatches || phase == PhaseKind::kVote) continue;  // done by attempt()
    const auto begin = Clock::now();
    const PhaseScope seen(phases_, phase_of(phase), position_.step);
    run_phase(phase, metrics);
    const double ms = ms_since(begin);
    account_.phase(phase) += ms;
    if (runtime_.size() > 1 && phase != PhaseKind::kOptimizer) metrics.exposed_comm_ms += ms;
  }
  device_time_.end();
  if (!on_cuda) return;
  const auto begin = Clock::now();
  finish(context_);
  throw_broken_exchange();
  account_.device_ms = device_time_.take();
  account_.phase(PhaseKind::kOptimizer) += ms_since(begin);
  check_norm(metrics);
}

/// Exchanges, what the host has to say about this step, and which work is to be done between them. A group of one
/// exchanges nothing: then all work is one segment.
void Trainer::run_phase(PhaseKind phase, StepMetrics& metrics) {
  const BatchOrder& order = index_->order();
  switch (phase) {
    case PhaseKind::kMicroBatches:
    case PhaseKind::kVote:
      return;
    case PhaseKind::kReduceGradients:
      sums_->exchange(context_, *exchange_, slice());
      if (sums_->mode() == SumMode::kOrderFree) segments_.add(VotedWork::kConvertSums);
      if (const float factor = kept_scale_ * loss_scale_.inverse(); factor != 1) {
        *reinterpret_cast<float*>(kept_memory_.data()) = factor;
        segments_.add(VotedWork::kScaleSlice);
      }
      metrics.reduced_bytes += moved_bytes(runtime_.rank(), runtime_.size(), plan_.trainable_space, shards_.counts(),
                                           plan_.reduction == Reduction::kOrderFree ? DType::kI64 : DType::kF32);
      return;
    case PhaseKind::kGatherNorms:
      segments_.add(VotedWork::kNormBlocks);
      if (runtime_.size() > 1) segments_.end_segment();
      gather_norm_blocks(context_, *exchange_, shards_, norm_blocks());
      segments_.add(VotedWork::kNorm);
      if (context_.device.kind == DeviceKind::kCpu) check_norm(metrics);
      return;
    case PhaseKind::kOptimizer:
      optimizer_.begin_step(schedule_factor(schedule_, position_.step, position_.step / order.steps_per_epoch(),
                                            position_.step % order.steps_per_epoch()),
                            position_.step + 1);
      segments_.add(VotedWork::kUpdate);
      segments_.end_segment();
      return;
    case PhaseKind::kGatherWorking:
      gather_working(metrics);
      return;
  }
}

/// Gives a stream the same in every step.
void Trainer::do_work(VotedWork work) {
  switch (work) {
    case VotedWork::kConvertSums:
      return sums_->convert(context_, slice());
    case VotedWork::kScaleSlice:
      copy_bytes(context_, kept_on_device_.data(), kept_memory_.data(), kept_memory_.bytes());
      return scale_forward(context_, slice(), {kept_on_device_.data(), DType::kF32, Shape{1}, context_.device},
                           slice());
    case VotedWork::kNormBlocks:
      return own_norm_blocks(context_, runtime_.rank(), shards_, slice(), norm_blocks());
    case VotedWork::kNorm: {
      const GradientNorm result = gradient_norm();
      return norm_of_blocks(context_, norm_blocks(), optimizer_.clip_norm(), result.norm, result.clip, result.apply);
    }
    case VotedWork::kUpdate:
      return optimizer_.update(context_, slice(), gradient_norm(), memory_);
  }
}

/// This rank's, of the summed gradients.
Tensor Trainer::slice() const {
  return {slice_memory_.data(), DType::kF32, Shape{shards_.count(runtime_.rank())}, context_.device};
}

Tensor Trainer::norm_blocks() const {
  return {norm_memory_.data(), DType::kF64, Shape{shards_.blocks()}, context_.device};
}

GradientNorm Trainer::gradient_norm() const {
  const auto one = [&](std::byte* place, DType dtype) { return Tensor(place, dtype, Shape{1}, context_.device); };
  return {one(norm_.data(), DType::kF64), one(clip_.data(), DType::kF32),
          one(clip_.data() + sizeof(float), DType::kI32)};
}

/// Micro-batches were finite, but their sum may not be; the norm is the same on all ranks.
void Trainer::check_norm(StepMetrics& metrics) {
  metrics.grad_norm = *reinterpret_cast<const double*>(norm_.data());
  if (!std::isfinite(metrics.grad_norm))
    fail(ErrorKind::kNonFinite, "train: step ", position_.step,
         ": the norm of the summed gradients must be finite; got ", metrics.grad_norm);
}

void Trainer::gather_working(StepMetrics& metrics) {
  gather_working_copies(memory_.working_copies(), context_, *exchange_, working_bytes_per_rank_);
  metrics.gathered_bytes +=
      moved_bytes(runtime_.rank(), runtime_.size(), memory_.working.bytes(), working_bytes_per_rank_, DType::kU8);
}

}  // namespace permafrost
