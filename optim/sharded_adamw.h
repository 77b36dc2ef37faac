#pragma once
#include <optional>
#include <span>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/context.h"
#include "core/kernels/flat_pieces.h"
#include "optim/parameter_groups.h"
#include "parallel/plan/plan.h"
#include "parallel/reduce/global_norm.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// f32 master weights and AdamW moments of one rank's slice of the trainable space, and the update that refreshes the
/// working copies of that slice. Padding between parameters stays zero.
class ShardedAdamw {
 public:
  /// device: where they live, and where updates run.
  ShardedAdamw(const Plan& plan, int rank, const AdamwConfig& config, Device device = Device::cpu());

  int64_t slice_begin() const { return begin_; }
  int64_t slice_end() const { return end_; }
  /// Flat f32 views of the slice, (slice_end - slice_begin), on the device.
  Tensor master() const { return view(master_); }
  Tensor first_moment() const { return view(m_); }
  Tensor second_moment() const { return view(v_); }

  /// The same slice in host memory, with what this one has now: for whatever reads, loads or stores it. Waits.
  ShardedAdamw host_copy(const Context& context) const;
  /// Takes over what `other`, of the same slice, has. Waits.
  void take(const Context& context, const ShardedAdamw& other);

  /// Rounds the masters into this rank's part of the host's working copies (after initialisation or loading). Of an
  /// optimizer in host memory.
  void refresh_working(const StepMemory& memory) const;

  /// What the next update needs to know of its step: factor: of schedule_factor; step from 1. Written by the host where
  /// `update` takes it from, so the update before must be finished.
  void begin_step(double factor, int64_t step);
  /// One update with the gradient of the slice, flat f32; norm: of all gradients, which clips this one and keeps a step
  /// from being taken whose gradient is not finite. Writes this rank's part of the working copies that programs read.
  /// On CUDA it does not wait, and gives the stream the same work in every step, so that it can be captured.
  void update(const Context& context, const Tensor& gradient, const GradientNorm& norm, const StepMemory& memory);

  /// Largest L2 norm of all gradients together; 0 = no clipping.
  double clip_norm() const { return config_.clip_norm; }
  /// optimizer.lr * factor: what metrics call the learning rate, whatever single groups do.
  double reported_lr(double factor) const { return config_.lr * factor; }

 private:
  struct Piece {  // the part of one parameter that lies in the slice
    int param = 0;
    FlatPiece part;  // its row is its place in pieces_
  };
  ShardedAdamw() = default;
  void allocate(Device device);
  Tensor view(const Buffer& buffer) const {
    return {buffer.data(), DType::kF32, Shape{end_ - begin_}, buffer.device()};
  }
  /// Of each piece's parameter, where the kernel reads them.
  Tensor factors_of_step(const Context& context) const;

  AdamwConfig config_;
  std::vector<ParameterSettings> settings_;
  int64_t begin_ = 0, end_ = 0;
  std::vector<Piece> pieces_;
  PieceTable table_;
  Buffer master_, m_, v_;
  Buffer factors_;         // the host's, AdamwFactors per piece
  Buffer device_factors_;  // on CUDA: their copy
};

/// An optimizer for whom masters and moments must lie in host memory: it itself on CPU, on CUDA a copy of now.
class HostOptimizer {
 public:
  HostOptimizer(ShardedAdamw& optimizer, const Context& context);
  ShardedAdamw& operator*() { return copy_ ? *copy_ : optimizer_; }
  ShardedAdamw* operator->() { return &**this; }
  /// What was changed here is what the optimizer has.
  void put_back();

 private:
  ShardedAdamw& optimizer_;
  Context context_;
  std::optional<ShardedAdamw> copy_;
};

}  // namespace permafrost
