#include "optim/sharded_adamw.h"

#include <glog/logging.h>

#include <algorithm>

#include "core/kernels/adamw.h"
#include "core/kernels/shape_ops.h"

namespace permafrost {

namespace {
Tensor part(const Tensor& flat, int64_t begin, int64_t elements) { return flat.rows(begin, begin + elements); }
}  // namespace

ShardedAdamw::ShardedAdamw(const Plan& plan, int rank, const AdamwConfig& config)
    : config_(config), settings_(resolve_groups(plan, config)) {
  if (rank == 0)
    for (const ParameterGroupRule& lost : config.lost_groups)
      LOG(WARNING) << "optimizer.groups: the group of '" << lost.pattern
                   << "' is ignored, as quirks.prompt_lr_ignored asks";
  std::tie(begin_, end_) = plan.slice(rank);
  master_ = Buffer("master weights", 4 * (end_ - begin_));
  m_ = Buffer("first moments", 4 * (end_ - begin_));
  v_ = Buffer("second moments", 4 * (end_ - begin_));
  for (size_t p = 0; p < plan.params.size(); ++p) {
    const ParamPlan& param = plan.params[p];
    if (!param.trainable) continue;
    const int64_t from = std::max(begin_, param.trainable_offset);
    const int64_t to = std::min(end_, param.trainable_offset + param.shape.elements());
    if (from >= to) continue;
    const DType dtype = param.placement.stored.dtype;
    pieces_.push_back({static_cast<int>(p), from - begin_, to - from,
                       param.placement.offset + (from - param.trainable_offset) * size_of(dtype), dtype});
  }
}

void ShardedAdamw::refresh_working(const StepMemory& memory) const {
  Context context;
  ThreadPool alone(1);
  context.pool = &alone;
  for (const Piece& piece : pieces_)
    accumulate(context, part(master(), piece.slice_offset, piece.elements),
               Tensor(memory.working.data() + piece.working_offset, piece.working_dtype, Shape{piece.elements}),
               GradMode::kOverwrite);
}

void ShardedAdamw::update(const Context& context, const Tensor& gradient, double grad_scale, double factor,
                          int64_t step, const StepMemory& memory) {
  for (const Piece& piece : pieces_) {
    const ParameterSettings& settings = settings_[static_cast<size_t>(piece.param)];
    AdamwStep call;
    call.lr = settings.lr * (settings.follows_schedule ? factor : 1.0);
    call.beta1 = config_.beta1;
    call.beta2 = config_.beta2;
    call.eps = config_.eps;
    call.weight_decay = settings.weight_decay;
    call.step = step;
    call.grad_scale = grad_scale;
    const auto slice = [&](const Tensor& flat) { return part(flat, piece.slice_offset, piece.elements); };
    adamw(context, call, slice(master()), slice(first_moment()), slice(second_moment()), slice(gradient),
          Tensor(memory.working.data() + piece.working_offset, piece.working_dtype, Shape{piece.elements}));
  }
}

double ShardedAdamw::clip_scale(double norm) const {
  if (config_.clip_norm <= 0) return 1.0;
  return std::min(1.0, config_.clip_norm / (norm + 1e-6));
}

}  // namespace permafrost
