#include "data/loader/loader.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/base/check.h"

namespace permafrost {

Loader::Loader(const Dataset& dataset, const TextTable& texts, LoaderConfig config)
    : dataset_(dataset), texts_(texts), config_(std::move(config)), index_(texts, config_.order, config_.buckets) {
  if (config_.threads < 1 || config_.prefetch < 1 || (config_.with_images && config_.transform.size < 1))
    fail(ErrorKind::kConfig, "loader: threads, prefetch and image size must be positive; got ", config_.threads, ", ",
         config_.prefetch, " and ", config_.transform.size);
  ring_.resize(static_cast<size_t>(config_.prefetch) + 1);  // one more: the micro-batch in the consumer's hands
  const auto batch = static_cast<size_t>(config_.order.micro_batch);
  const auto tokens = static_cast<size_t>(index_.max_tokens());
  const auto size = static_cast<size_t>(config_.with_images ? config_.transform.size : 0);
  for (Entry& entry : ring_) {  // everything now: nothing grows while training
    MicroBatch& b = entry.batch;
    b.batch = config_.order.micro_batch;
    b.image_size = static_cast<int64_t>(size);
    b.sample_ids.resize(batch);
    b.weights.resize(batch);
    b.images.resize(batch * 3 * size * size);
    b.input_ids.resize(batch * tokens);
    b.key_lengths.resize(batch);
    b.labels.resize(batch * tokens);
    b.classes.resize(batch * static_cast<size_t>(dataset_.labels_per_image()));
    entry.rows.resize(batch);
  }
  for (int i = 0; i < config_.threads; ++i) threads_.emplace_back([this, i] { work(i); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  may_start_.notify_all();
  for (auto& thread : threads_) thread.join();
}

std::vector<std::span<const float>> Loader::image_memory() const {
  std::vector<std::span<const float>> images;
  for (const Entry& entry : ring_) images.emplace_back(entry.batch.images);
  return images;
}

/// Takes rows in order, one at a time, as long as the ring has room. The first row of a slot sets its header up.
void Loader::work(int thread) {
  PrepareScratch scratch;
  std::unique_lock lock(mutex_);
  while (true) {
    may_start_.wait(lock, [&] {
      return stopping_ || (next_slot_ < config_.slots && next_slot_ < released_ + static_cast<int64_t>(ring_.size()));
    });
    if (stopping_) return;
    Entry& entry = ring_[static_cast<size_t>(next_slot_) % ring_.size()];
    const int64_t row = next_row_;
    if (row == 0) prepare(entry, next_slot_);
    if (++next_row_ == config_.order.micro_batch) {
      next_row_ = 0;
      ++next_slot_;
    }
    lock.unlock();
    std::exception_ptr error;
    try {
      fill_row_seen(thread, entry, row, scratch);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error && row < entry.error_row) {
      entry.error_row = row;
      entry.error = error;
    }
    if (--entry.unfinished == 0) ready_.notify_all();
  }
}

void Loader::fill_row_seen(int thread, Entry& entry, int64_t row, PrepareScratch& scratch) {
  struct Seen {
    LoaderObserver* observer;
    int thread;
    ~Seen() {
      if (observer) observer->end_sample(thread);
    }
  } seen{observer_.load(), thread};
  if (seen.observer) seen.observer->begin_sample(thread, entry.batch.number);
  fill_row(entry, row, scratch);
}

void Loader::prepare(Entry& entry, int64_t slot) {
  entry.slot = slot;
  entry.unfinished = config_.order.micro_batch;
  entry.error = nullptr;
  entry.error_row = INT64_MAX;
  MicroBatch& batch = entry.batch;
  batch.number = kIdleMicroBatch;
  batch.epoch = 0;
  std::fill(entry.rows.begin(), entry.rows.end(), BatchOrder::kPadding);
  try {
    batch.number = config_.micro_batch_of_slot ? config_.micro_batch_of_slot(slot) : slot;
    if (batch.number != kIdleMicroBatch) {
      batch.epoch = index_.epoch_of(batch.number);
      index_.members(batch.number, entry.rows);
    }
  } catch (...) {
    entry.error = std::current_exception();
    entry.error_row = -1;
  }
  batch.tokens = index_.padded_tokens(entry.rows, batch.epoch);
}

/// Tokens from `first_target` on are labels; from INT64_MAX on: none is, and the row has no weight.
void Loader::fill_text(Entry& entry, int64_t row, const TextIds& ids, int64_t first_target) {
  MicroBatch& batch = entry.batch;
  int32_t* input = batch.input_ids.data() + row * batch.tokens;
  int32_t* labels = batch.labels.data() + row * batch.tokens;
  std::fill_n(input, batch.tokens, texts_.pad_id());
  std::fill_n(labels, batch.tokens, kIgnoredLabel);
  std::ranges::copy(ids.rest, std::ranges::copy(ids.prompt, input).out);
  for (int64_t t = first_target; t < ids.size(); ++t) labels[t] = input[t];
  batch.key_lengths[static_cast<size_t>(row)] = static_cast<int32_t>(ids.size());
  batch.weights[static_cast<size_t>(row)] = first_target != INT64_MAX ? 1.0f : 0.0f;
}

void Loader::fill_classes(Entry& entry, int64_t row, std::span<const int32_t> classes) {
  const int64_t count = dataset_.labels_per_image();
  int32_t* to = entry.batch.classes.data() + row * count;
  std::fill_n(to, count, kIgnoredLabel);
  std::ranges::copy(classes, to);
}

/// False when the image cannot be used and samples without one are left out.
bool Loader::fill_image(Entry& entry, int64_t row, const Sample& sample, PrepareScratch& scratch) {
  const int64_t values = 3 * config_.transform.size * config_.transform.size;
  try {
    prepare_image(dataset_, sample.image, config_.decode, config_.transform, config_.seed, entry.batch.epoch, sample.id,
                  scratch, entry.batch.images.data() + row * values);
    return true;
  } catch (const Error& error) {
    if (config_.image_policy == ImagePolicy::kFail || error.kind() != ErrorKind::kData) throw;
    const std::lock_guard lock(mutex_);
    if (skipped_++ == 0) skip_message_ = error.what();
    return false;
  }
}

void Loader::fill_row(Entry& entry, int64_t row, PrepareScratch& scratch) {
  MicroBatch& batch = entry.batch;
  const int64_t member = entry.rows[static_cast<size_t>(row)];
  const int32_t first = texts_.first_id();
  TextIds ids{{&first, 1}, {}};
  batch.sample_ids[static_cast<size_t>(row)] = kPaddingSample;
  bool used = member != BatchOrder::kPadding;
  if (used) {
    const Sample sample = dataset_.sample(texts_.dataset_index(member));
    batch.sample_ids[static_cast<size_t>(row)] = sample.id;
    ids = texts_.ids(member, batch.epoch);
    if (config_.with_images) used = fill_image(entry, row, sample, scratch);
    fill_classes(entry, row, used ? sample.classes : std::span<const int32_t>());
  } else {
    fill_classes(entry, row, {});
  }
  fill_text(entry, row, ids, used ? texts_.first_target(member) : INT64_MAX);
  const int64_t values = 3 * batch.image_size * batch.image_size;
  if (!used) std::fill_n(batch.images.data() + row * values, values, 0.0f);
}

const MicroBatch& Loader::next() {
  std::unique_lock lock(mutex_);
  PERMAFROST_CHECK(delivered_ < config_.slots, "loader: there are ", config_.slots, " slots; got a call for one more");
  released_ = delivered_;
  may_start_.notify_all();
  Entry& entry = ring_[static_cast<size_t>(delivered_) % ring_.size()];
  const auto start = std::chrono::steady_clock::now();
  ready_.wait(lock, [&] { return entry.slot == delivered_ && entry.unfinished == 0; });
  last_wait_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  total_wait_ms_ += last_wait_ms_;
  if (entry.error) std::rethrow_exception(entry.error);
  ++delivered_;
  MicroBatch& batch = entry.batch;
  batch.samples = std::count(batch.weights.begin(), batch.weights.end(), 1.0f);
  const auto labels = batch.labels.begin();
  batch.targets = batch.batch * batch.tokens - std::count(labels, labels + batch.batch * batch.tokens, kIgnoredLabel);
  return batch;
}

int64_t Loader::skipped_images() const {
  const std::lock_guard lock(mutex_);
  return skipped_;
}

std::string Loader::skip_message() const {
  const std::lock_guard lock(mutex_);
  return skip_message_;
}

}  // namespace permafrost
