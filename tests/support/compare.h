#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/philox.h"
#include "core/device/buffer.h"
#include "core/device/context.h"
#include "core/tensor/tensor.h"

namespace permafrost::testing {

/// Where tensors made from now on live, and what `device_context` gives. CPU at first, or what PERMAFROST_TEST_DEVICE
/// says.
void use_device(Device device);
Device used_device();
/// A context on the device in use: cpu_context(threads), or the one stream of a CUDA device.
Context device_context(int threads = 1);
/// Dtypes of activations that its kernels have: f32 and bf16, on CUDA f16 too.
std::span<const DType> tested_dtypes();
/// Waits for the kernels given to the device in use; throws what they refused. Whoever looks at a tensor through the
/// functions below need not call it.
void finish_kernels();

/// Owns the memory of a test tensor, which the CPU can read wherever it lives. `canary` bytes stand before and after
/// it; `canaries_intact` tells whether a kernel wrote outside its tensor.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  OwnedTensor(DType dtype, const Shape& shape);
  OwnedTensor(const OwnedTensor& other);  // a copy has memory of its own
  OwnedTensor& operator=(const OwnedTensor& other);
  OwnedTensor(OwnedTensor&&) noexcept = default;
  OwnedTensor& operator=(OwnedTensor&&) noexcept = default;
  Tensor view() const { return tensor_; }
  operator Tensor() const { return tensor_; }  // NOLINT: reads as the tensor it owns
  bool canaries_intact() const;

 private:
  Buffer memory_;
  Tensor tensor_;
};

/// Values converted to `dtype` (f32, bf16, f16, f64, i32, i64, u8).
OwnedTensor make_tensor(DType dtype, const Shape& shape, const std::vector<double>& values);
/// Standard normal values times `scale`, rounded to `dtype`.
OwnedTensor random_tensor(DType dtype, const Shape& shape, uint64_t seed, double scale = 1.0);
/// Every byte set to `byte`; for gradients that must be overwritten.
OwnedTensor filled_tensor(DType dtype, const Shape& shape, int byte);
std::vector<double> values_of(const Tensor& tensor);
/// Element by element.
std::vector<double> plus(std::vector<double> a, const std::vector<double>& b);

/// How far a result may be from its reference: |got - want| <= absolute + relative * |want|. NaN never passes.
struct Tolerance {
  double absolute = 0;
  double relative = 0;
};

/// From dtype and the length of the reduction: unit roundoff of the storage dtype for the result, plus fp32
/// accumulation of `reduction` terms whose magnitudes sum to about `magnitude` (absolute part).
Tolerance tolerance_for(DType dtype, int64_t reduction, double magnitude);

/// As many elements as values, then each of them; prints the first bad index, both values and the tolerance. `want` has
/// no shape or dtype to compare: expect those of `got` beside this where they are not given.
::testing::AssertionResult all_close(const Tensor& got, const std::vector<double>& want, Tolerance tolerance);
/// Same bytes.
::testing::AssertionResult same_bits(const Tensor& a, const Tensor& b);

/// Runs `statement` to the end of its kernels, expects Error of `kind` whose message contains every one of `parts`.
::testing::AssertionResult throws_error(const std::function<void()>& statement, ErrorKind kind,
                                        const std::vector<std::string>& parts);

/// A context on a shared pool of `threads` threads.
Context cpu_context(int threads = 1);

/// Path of a committed golden file.
std::string golden_path(const std::string& name);

}  // namespace permafrost::testing
