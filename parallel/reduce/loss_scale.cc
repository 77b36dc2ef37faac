#include "parallel/reduce/loss_scale.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/kernels/order_free.h"

namespace permafrost {

LossScale::LossScale(std::optional<LossScaleConfig> config, int64_t params)
    : config_(config), limits_(static_cast<size_t>(params)), exponents_(static_cast<size_t>(params)) {
  if (!config_) return;
  if (config_->initial < kSmallest || config_->initial > kLargest)
    fail(ErrorKind::kConfig, "loss_scale: the initial scale must be 2^", kSmallest, "..2^", kLargest, "; got 2^",
         config_->initial);
  if (config_->growth_steps < 1)
    fail(ErrorKind::kConfig, "loss_scale: growth_steps must be 1 and up; got ", config_->growth_steps);
  position_.exponent = config_->initial;
}

float LossScale::value() const { return std::ldexp(1.0f, position_.exponent); }
float LossScale::inverse() const { return std::ldexp(1.0f, -position_.exponent); }

namespace {

void shift(std::span<const int32_t> from, int32_t by, std::vector<int32_t>& to) {
  PERMAFROST_CHECK(from.size() == to.size(), "loss_scale: one exponent per parameter (", to.size(), ") is needed; got ",
                   from.size());
  std::ranges::transform(from, to.begin(), [by](int32_t e) { return e == kZeroExponent ? e : e + by; });
}

}  // namespace

std::span<const int32_t> LossScale::limits(std::span<const int32_t> unscaled) {
  shift(unscaled, position_.exponent, limits_);
  return limits_;
}

std::span<const int32_t> LossScale::exponents(std::span<const int32_t> scaled) {
  shift(scaled, -position_.exponent, exponents_);
  return exponents_;
}

bool LossScale::again(const Vote& vote) {
  const bool losses_finite = std::ranges::all_of(vote.losses, [](double loss) { return std::isfinite(loss); });
  if (!used() || vote.finite || !losses_finite || position_.exponent == kSmallest) return false;
  position_ = {position_.exponent - 1, 0};
  return true;
}

void LossScale::accept() {
  if (!used() || position_.exponent == kLargest) return;
  if (++position_.accepted_steps == config_->growth_steps) position_ = {position_.exponent + 1, 0};
}

std::optional<LossScale::Position> LossScale::position() const {
  return used() ? std::optional(position_) : std::nullopt;
}

void LossScale::restore(const std::optional<Position>& position) {
  if (!used()) return;
  if (!position) fail(ErrorKind::kWeights, "resume: a checkpoint of f16 compute must have its loss scale; got none");
  if (position->exponent < kSmallest || position->exponent > kLargest || position->accepted_steps < 0 ||
      position->accepted_steps >= config_->growth_steps)
    fail(ErrorKind::kWeights, "resume: the loss scale must be 2^", kSmallest, "..2^", kLargest, ", 0..",
         config_->growth_steps - 1, " steps old; got 2^", position->exponent, ", ", position->accepted_steps,
         " steps old");
  position_ = *position;
}

}  // namespace permafrost
