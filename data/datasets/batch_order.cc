#include "data/datasets/batch_order.h"

#include <cmath>

#include "core/base/check.h"
#include "core/base/philox.h"

namespace permafrost {

namespace {

double sum_of_weights(const std::vector<MixPart>& parts) {
  double sum = 0;
  for (const MixPart& part : parts) sum += part.weight;
  return sum;
}

/// Shares are rounded down; what is missing goes to the first parts, one each. No allocation: made for every sample.
class Quotas {
 public:
  explicit Quotas(const BatchOrder& order)
      : order_(order), weights_(sum_of_weights(order.parts)), missing_(order.samples) {
    for (const MixPart& part : order.parts) missing_ -= share(part);
  }

  int64_t of(size_t k) const { return share(order_.parts[k]) + (static_cast<int64_t>(k) < missing_ ? 1 : 0); }

 private:
  int64_t share(const MixPart& part) const {
    return static_cast<int64_t>(static_cast<double>(order_.samples) * (part.weight / weights_));
  }

  const BatchOrder& order_;
  double weights_;
  int64_t missing_;
};

/// Every part comes in every epoch: one that never came would be left out without a word.
void check_weights(const BatchOrder& order) {
  const double weights = sum_of_weights(order.parts);
  if (!std::isfinite(weights))
    fail(ErrorKind::kConfig, "batch_order: weights with a finite sum are expected; got ", weights, " [param=data.mix]");
  const Quotas quotas(order);
  for (size_t k = 0; k < order.parts.size(); ++k)
    if (quotas.of(k) < 1)
      fail(ErrorKind::kConfig, "batch_order: every dataset of a mix must come in every epoch; got weight ",
           order.parts[k].weight, " of ", weights, ", which gives mix[", k, "] no sample of an epoch of ",
           order.samples, " [param=data.mix[", k, "].weight]");
}

}  // namespace

void BatchOrder::check() const {
  if (samples < 1) fail(ErrorKind::kData, "batch_order: at least one sample is expected; got ", samples);
  if (micro_batch < 1 || global_batch < 1 || global_batch % micro_batch != 0)
    fail(ErrorKind::kConfig, "batch_order: the global batch must be a positive multiple of the micro-batch; got ",
         global_batch, " and ", micro_batch, " samples");
  int64_t covered = 0;
  for (const MixPart& part : parts) {
    if (part.begin != covered || part.count < 1 || !(part.weight > 0))
      fail(ErrorKind::kConfig,
           "batch_order: the parts of a mix must follow each other, with samples and weights above 0; got ", part.count,
           " from ", part.begin, " with weight ", part.weight);
    covered += part.count;
  }
  if (!parts.empty() && covered != samples)
    fail(ErrorKind::kConfig, "batch_order: the parts of a mix must be all ", samples, " samples; got ", covered);
  if (shuffle) check_weights(*this);
}

int64_t BatchOrder::quota_of(size_t part) const { return Quotas(*this).of(part); }

int64_t BatchOrder::sample_at(uint32_t epoch, int64_t position) const {
  PERMAFROST_CHECK(position >= 0 && position < steps_per_epoch() * global_batch,
                   "batch_order: position must lie in an epoch of ", steps_per_epoch() * global_batch, "; got ",
                   position);
  if (position >= samples) return kPadding;
  if (!shuffle) return position;
  const auto permuted = [](int64_t place, int64_t size, uint64_t key, uint32_t round) {
    return static_cast<int64_t>(permute_index(static_cast<uint64_t>(place), static_cast<uint64_t>(size), key, round));
  };
  int64_t place = permuted(position, samples, seed, epoch);
  if (parts.empty()) return place;
  // The permuted positions are dealt out in runs, one run to a part.
  const Quotas quotas(*this);
  int64_t before = 0;
  for (size_t k = 0; k < parts.size(); ++k) {
    const int64_t quota = quotas.of(k);
    if (place < quota) {
      const int64_t running = static_cast<int64_t>(epoch) * quota + place;
      const auto pass = static_cast<uint32_t>(running / parts[k].count);
      return parts[k].begin + permuted(running % parts[k].count, parts[k].count, seed + k + 1, pass);
    }
    place -= quota;
    before += quota;
  }
  fail(ErrorKind::kInternal, "batch_order: the parts must cover ", samples, " positions; got ", before);
}

}  // namespace permafrost
