#include "core/kernels/scale_cpu.h"

#include "core/base/narrow.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/float_bits.h"

namespace permafrost::cpu {

namespace {

/// Eight sums side by side, then added in order.
template <typename A, typename B>
double dot_run(const A* a, const B* b, int64_t n) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t lane = 0; lane < 8; ++lane)
      lanes[lane] += static_cast<double>(load(a + i + lane)) * static_cast<double>(load(b + i + lane));
  for (int64_t lane = 0; i < n; ++i, ++lane)
    lanes[lane] += static_cast<double>(load(a + i)) * static_cast<double>(load(b + i));
  double sum = 0;
  for (double lane : lanes) sum += lane;
  return sum;
}

double dot_any(const Tensor& a, const Tensor& b, int64_t begin, int64_t end) {
  const auto with = [&](const auto* x) {
    if (b.dtype() == DType::kF32) return dot_run(x, b.data<float>() + begin, end - begin);
    return dot_run(x, b.data<bfloat16>() + begin, end - begin);
  };
  if (a.dtype() == DType::kF32) return with(a.data<float>() + begin);
  return with(a.data<bfloat16>() + begin);
}

}  // namespace

void scale(const Context& context, Tensor x, float factor, Tensor out, GradMode mode) {
  const ElementLoops& loops = element_loops();
  for_ranges(context, x.elements(), kElementBlock, [&](int64_t begin, int64_t end) {
    loops.scale(x.dtype(), factor, at(x, begin), at(out, begin), end - begin, mode);
  });
}

int64_t dot_blocks(int64_t elements) { return div_up(elements, kElementBlock); }

void dot(const Context& context, Tensor a, Tensor b, Tensor result, GradMode mode, double* partial) {
  for_ranges(context, a.elements(), kElementBlock,
             [&](int64_t begin, int64_t end) { partial[begin / kElementBlock] = dot_any(a, b, begin, end); });
  double sum = 0;
  for (int64_t block = 0; block < dot_blocks(a.elements()); ++block) sum += partial[block];
  float* target = result.data<float>();
  *target = static_cast<float>(sum) + (mode == GradMode::kAdd ? *target : 0.0f);
}

}  // namespace permafrost::cpu
