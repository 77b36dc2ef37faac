#include "optim/sharded_adamw.h"

#include <glog/logging.h>

#include <algorithm>

#include "core/device/bytes.h"
#include "core/kernels/adamw.h"
#include "core/kernels/adamw_factors.h"
#include "core/kernels/shape_ops.h"

namespace permafrost {

ShardedAdamw::ShardedAdamw(const Plan& plan, int rank, const AdamwConfig& config, Device device)
    : config_(config), settings_(resolve_groups(plan, config)) {
  if (rank == 0)
    for (const ParameterGroupRule& lost : config.lost_groups)
      LOG(WARNING) << "optimizer.groups: the group of '" << lost.pattern
                   << "' is ignored, as quirks.prompt_lr_ignored asks";
  std::tie(begin_, end_) = plan.slice(rank);
  for (size_t p = 0; p < plan.params.size(); ++p) {
    const ParamPlan& param = plan.params[p];
    if (!param.trainable) continue;
    const int64_t from = std::max(begin_, param.trainable_offset);
    const int64_t to = std::min(end_, param.trainable_offset + param.shape.elements());
    if (from >= to) continue;
    const DType dtype = param.placement.stored.dtype;
    pieces_.push_back({static_cast<int>(p),
                       {.begin = from - begin_,
                        .elements = to - from,
                        .row = std::ssize(pieces_),
                        .working_byte = param.placement.offset + (from - param.trainable_offset) * size_of(dtype),
                        .working_dtype = static_cast<int64_t>(dtype)}});
  }
  allocate(device);
}

void ShardedAdamw::allocate(Device device) {
  master_ = Buffer("master weights", 4 * (end_ - begin_), device);
  m_ = Buffer("first moments", 4 * (end_ - begin_), device);
  v_ = Buffer("second moments", 4 * (end_ - begin_), device);
  std::vector<FlatPiece> pieces;
  for (const Piece& piece : pieces_) append_pieces(pieces, piece.part, device);
  table_ = PieceTable(pieces, device);
  const int64_t bytes = std::ssize(pieces_) * int64_t{sizeof(AdamwFactors)};
  factors_ = Buffer::pinned("factors of a step", bytes, device);
  if (device.kind == DeviceKind::kCuda) device_factors_ = Buffer("factors of a step", bytes, device);
}

ShardedAdamw ShardedAdamw::host_copy(const Context& context) const {
  ShardedAdamw copy;
  copy.config_ = config_;
  copy.settings_ = settings_;
  copy.begin_ = begin_;
  copy.end_ = end_;
  copy.pieces_ = pieces_;
  copy.allocate(Device::cpu());
  const std::pair<const Buffer&, const Buffer&> all[] = {{copy.master_, master_}, {copy.m_, m_}, {copy.v_, v_}};
  for (const auto& [to, from] : all) copy_bytes(context, to.data(), from.data(), from.bytes());
  finish(context);
  return copy;
}

void ShardedAdamw::take(const Context& context, const ShardedAdamw& other) {
  PERMAFROST_CHECK(begin_ == other.begin_ && end_ == other.end_, "optimizer: slice must be [", begin_, ", ", end_,
                   "); got [", other.begin_, ", ", other.end_, ")");
  const std::pair<const Buffer&, const Buffer&> all[] = {{master_, other.master_}, {m_, other.m_}, {v_, other.v_}};
  for (const auto& [to, from] : all) copy_bytes(context, to.data(), from.data(), from.bytes());
  finish(context);
}

void ShardedAdamw::refresh_working(const StepMemory& memory) const {
  Context context;
  ThreadPool alone(1);
  context.pool = &alone;
  for (const auto& [param, part] : pieces_)
    accumulate(
        context, master().rows(part.begin, part.begin + part.elements),
        Tensor(memory.working.data() + part.working_byte, static_cast<DType>(part.working_dtype), Shape{part.elements}),
        GradMode::kOverwrite);
}

void ShardedAdamw::begin_step(double factor, int64_t step) {
  auto* factors = reinterpret_cast<AdamwFactors*>(factors_.data());
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const ParameterSettings& settings = settings_[static_cast<size_t>(pieces_[i].param)];
    AdamwStep call;
    call.lr = settings.lr * (settings.follows_schedule ? factor : 1.0);
    call.beta1 = config_.beta1;
    call.beta2 = config_.beta2;
    call.eps = config_.eps;
    call.weight_decay = settings.weight_decay;
    call.step = step;
    check_adamw_step(call);
    factors[i] = adamw_factors(call);
  }
}

Tensor ShardedAdamw::factors_of_step(const Context& context) const {
  const bool on_cuda = device_factors_.bytes() > 0;
  if (on_cuda) copy_bytes(context, device_factors_.data(), factors_.data(), factors_.bytes());
  constexpr int64_t kFactors = sizeof(AdamwFactors) / sizeof(float);
  return {on_cuda ? device_factors_.data() : factors_.data(), DType::kF32, Shape{std::ssize(pieces_), kFactors},
          master_.device()};
}

void ShardedAdamw::update(const Context& context, const Tensor& gradient, const GradientNorm& norm,
                          const StepMemory& memory) {
  adamw_pieces(context, {.pieces = table_.view(),
                         .factors = factors_of_step(context),
                         .clip = norm.clip,
                         .apply = norm.apply,
                         .master = master(),
                         .m = first_moment(),
                         .v = second_moment(),
                         .grad = gradient,
                         .working = memory.working_copies()});
}

HostOptimizer::HostOptimizer(ShardedAdamw& optimizer, const Context& context)
    : optimizer_(optimizer), context_(context) {
  if (context.device.kind == DeviceKind::kCuda) copy_ = optimizer.host_copy(context);
}

void HostOptimizer::put_back() {
  if (copy_) optimizer_.take(context_, *copy_);
}

}  // namespace permafrost
