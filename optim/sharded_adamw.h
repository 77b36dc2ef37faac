#pragma once
#include <span>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/context.h"
#include "optim/parameter_groups.h"
#include "parallel/plan/plan.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// f32 master weights and AdamW moments of one rank's slice of the trainable space, and the update that refreshes the
/// working copies of that slice. Padding between parameters stays zero.
class ShardedAdamw {
 public:
  ShardedAdamw(const Plan& plan, int rank, const AdamwConfig& config);

  int64_t slice_begin() const { return begin_; }
  int64_t slice_end() const { return end_; }
  /// Flat f32 views of the slice, (slice_end - slice_begin).
  Tensor master() const { return view(master_); }
  Tensor first_moment() const { return view(m_); }
  Tensor second_moment() const { return view(v_); }

  /// Rounds the masters into this rank's part of the working copies (after initialisation or loading).
  void refresh_working(const StepMemory& memory) const;

  /// One update. gradient: flat f32 of the slice; grad_scale from clipping; factor from schedule_factor; step from 1.
  /// Writes this rank's part of the working copies.
  void update(const Context& context, const Tensor& gradient, double grad_scale, double factor, int64_t step,
              const StepMemory& memory);

  /// What clipping multiplies gradients with: min(1, clip_norm / (norm + 1e-6)), 1 when clipping is off.
  double clip_scale(double norm) const;
  /// optimizer.lr * factor: what metrics call the learning rate, whatever single groups do.
  double reported_lr(double factor) const { return config_.lr * factor; }

 private:
  struct Piece {  // the part of one parameter that lies in the slice
    int param = 0;
    int64_t slice_offset = 0, elements = 0;
    int64_t working_offset = 0;  // bytes in the working region
    DType working_dtype = DType::kF32;
  };
  Tensor view(const Buffer& buffer) const { return {buffer.data(), DType::kF32, Shape{end_ - begin_}}; }

  AdamwConfig config_;
  std::vector<ParameterSettings> settings_;
  int64_t begin_ = 0, end_ = 0;
  std::vector<Piece> pieces_;
  Buffer master_, m_, v_;
};

}  // namespace permafrost
