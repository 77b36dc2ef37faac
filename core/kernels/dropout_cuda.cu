#include "core/kernels/dropout_cuda.h"

#include <cmath>

#include "core/base/philox.h"
#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

template <typename T>
struct Drop {
  const T* x;
  const int64_t* address;
  T* out;
  int64_t size;  ///< of a sample
  uint32_t layer, threshold;
  float scale;
  bool add;
  Refuser refuser;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const int64_t sample = i / size, element = i - sample * size, epoch = address[1];
    if (i == 0 && (epoch < 0 || epoch > UINT32_MAX)) refuse(refuser, 0, static_cast<int32_t>(epoch));
    const auto key = random_key(static_cast<uint64_t>(address[0]), RandomPurpose::kDropout, layer);
    Floats<W> values = load<W>(x + i);
#pragma unroll
    for (int j = 0; j < W; j += 4) {
      const auto words =
          philox4x32(random_counter(static_cast<uint32_t>((element + j) / 4), static_cast<uint32_t>(epoch),
                                    static_cast<uint64_t>(address[2 + sample])),
                     key);
#pragma unroll
      for (int word = 0; word < (W < 4 ? W : 4); ++word) {
        const uint32_t draw = words[W < 4 ? static_cast<size_t>(element % 4) : static_cast<size_t>(word)] >> 8;
        values.v[j + word] *= draw >= threshold ? scale : 0.0f;
      }
    }
    store_or_add(values, out + i, add);
  }
};

}  // namespace

void dropout(const Context& context, Tensor x, Tensor address, uint32_t layer, float p, Tensor out, GradMode mode) {
  const int64_t samples = x.dim(0), size = samples == 0 ? 0 : x.elements() / samples;
  // u >= p for the 24-bit draw u = (word >> 8) 2^-24, as integers.
  const auto threshold = static_cast<uint32_t>(std::ceil(static_cast<double>(p) * 0x1p24));
  with_dtype(x.dtype(), [&]<typename T>(T*) {
    for_each(context, x.elements(), aligned(x, out) && size % kWide == 0,
             Drop<T>{x.data<T>(), address.data<int64_t>(), out.data<T>(), size, layer, threshold, 1.0f / (1.0f - p),
                     mode == GradMode::kAdd, refuser(context, Refusal::kEpoch, 0)});
  });
}

}  // namespace permafrost::cuda
