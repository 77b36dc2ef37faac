#include "core/kernels/dropout_cpu.h"

#include <algorithm>
#include <cmath>

#include "core/base/narrow.h"
#include "core/base/philox.h"
#include "core/device/cpu_features.h"
#include "core/kernels/dropout_loops.h"
#include "core/kernels/elementwise.h"

namespace permafrost::cpu {

namespace {

void draw_baseline(const DropoutFactors& factors, uint32_t first_block, int64_t n, float* out) {
  auto counter = factors.counter;
  for (int64_t i = 0; i < n; i += 4) {
    counter[0] = first_block + static_cast<uint32_t>(i / 4);
    const auto words = philox4x32(counter, factors.key);
    for (int64_t word = 0; word < 4; ++word)
      out[i + word] = (words[static_cast<size_t>(word)] >> 8) >= factors.threshold ? factors.scale : 0.0f;
  }
}

}  // namespace

const DropoutLoops kDropoutLoopsBaseline{draw_baseline, apply_any};

void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode) {
  static_assert(kDropoutPiece % 64 == 0 && kElementBlock % kDropoutPiece == 0);
  const DropoutLoops& loops = cpu_features().avx512 ? kDropoutLoopsAvx512 : kDropoutLoopsBaseline;
  const int64_t samples = x.dim(0), size = samples == 0 ? 0 : x.elements() / samples;
  const int64_t* words = address.data<int64_t>();
  const uint64_t seed = static_cast<uint64_t>(words[0]);
  const uint32_t epoch = narrow<uint32_t>(words[1]);
  // u >= p for the 24-bit draw u = (word >> 8) 2^-24, as integers.
  const auto threshold = static_cast<uint32_t>(std::ceil(static_cast<double>(p) * 0x1p24));
  const float scale = 1.0f / (1.0f - p);
  const int64_t blocks_per_sample = div_up(size, kElementBlock);
  context.pool->run(samples * blocks_per_sample, [&](int64_t block, int) {
    const int64_t sample = block / blocks_per_sample, begin = block % blocks_per_sample * kElementBlock;
    const int64_t end = std::min(size, begin + kElementBlock);
    const Random stream(seed, RandomPurpose::kDropout, epoch, static_cast<uint64_t>(words[2 + sample]), layer);
    const DropoutFactors factors{stream.counter(), stream.key(), threshold, scale};
    alignas(64) float piece[kDropoutPiece];
    for (int64_t i = begin; i < end; i += kDropoutPiece) {
      const int64_t n = std::min(kDropoutPiece, end - i);
      loops.draw(factors, static_cast<uint32_t>(i / 4), n, piece);
      loops.apply(x.dtype(), at(x, sample * size + i), piece, at(out, sample * size + i), n, mode);
    }
  });
}

}  // namespace permafrost::cpu
