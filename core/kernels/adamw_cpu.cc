#include "core/kernels/adamw_cpu.h"

#include <cstring>

#include "core/device/cpu_features.h"
#include "core/kernels/adamw_loops.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/flat_pieces.h"

namespace permafrost::cpu {

void adamw_loop_baseline(const AdamwFactors& factors, const AdamwBlock& block) { adamw_any(factors, block); }

namespace {

void update(const Context& context, const AdamwFactors& factors, const Tensor& master, const Tensor& m, const Tensor& v,
            const Tensor& grad, const Tensor& working) {
  constexpr int64_t kBlock = 8192;  // five streams: about 200 KiB
  const AdamwLoop loop = cpu_features().avx512 ? adamw_loop_avx512 : adamw_loop_baseline;
  for_ranges(context, master.elements(), kBlock, [&](int64_t begin, int64_t end) {
    const AdamwBlock block{master.data<float>() + begin,
                           m.data<float>() + begin,
                           v.data<float>() + begin,
                           grad.data<float>() + begin,
                           working ? at(working, begin) : nullptr,
                           working.dtype(),
                           end - begin};
    loop(factors, block);
  });
}

}  // namespace

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working) {
  update(context, adamw_factors(step), master, m, v, grad, working);
}

void adamw_pieces(const Context& context, const AdamwPieces& args) {
  if (*args.apply.data<int32_t>() == 0) return;
  for (const FlatPiece& piece : pieces_of(args.pieces)) {
    AdamwFactors factors;
    std::memcpy(&factors, args.factors.data<float>() + args.factors.dim(1) * piece.row, sizeof factors);
    factors.grad_scale = *args.clip.data<float>();
    const auto part = [&](const Tensor& slice) { return slice.rows(piece.begin, piece.begin + piece.elements); };
    const Tensor working(args.working.data<uint8_t>() + piece.working_byte, static_cast<DType>(piece.working_dtype),
                         Shape{piece.elements});
    update(context, factors, part(args.master), part(args.m), part(args.v), part(args.grad), working);
  }
}

}  // namespace permafrost::cpu
