#include "core/kernels/adamw_cpu.h"

#include "core/device/cpu_features.h"
#include "core/kernels/adamw_loops.h"
#include "core/kernels/elementwise.h"

namespace permafrost::cpu {

void adamw_loop_baseline(const AdamwFactors& factors, const AdamwBlock& block) { adamw_any(factors, block); }

void adamw(const Context& context, const AdamwStep& step, Tensor master, Tensor m, Tensor v, Tensor grad,
           Tensor working) {
  constexpr int64_t kBlock = 8192;  // five streams: about 200 KiB
  const AdamwLoop loop = cpu_features().avx512 ? adamw_loop_avx512 : adamw_loop_baseline;
  const AdamwFactors factors = adamw_factors(step);
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

}  // namespace permafrost::cpu
