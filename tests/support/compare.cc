#include "tests/support/compare.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "core/device/cuda.h"

namespace permafrost::testing {

namespace {
constexpr int64_t kCanaryBytes = 64;
constexpr std::byte kCanary{0xA5};

Device device_in_use = Device::cpu();

/// The one stream of a CUDA device; null on CPU.
Stream* stream_in_use() {
  static std::map<int, std::unique_ptr<Stream>> streams;
  static std::mutex mutex;  // ranks of a test may be threads
  if (device_in_use.kind == DeviceKind::kCpu) return nullptr;
  const std::lock_guard lock(mutex);
  auto& stream = streams[device_in_use.index];
  if (!stream) {
    stream = std::make_unique<Stream>(device_in_use);
    cuda::use_cudnn(*stream->queue(),
                    cuda::CudnnUse::kNever);  // the project's own kernels are tested; a test of cuDNN allows it
  }
  return stream.get();
}

template <typename T>
void store(const Tensor& t, const std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_arithmetic_v<T>) {
      t.data<T>()[i] = static_cast<T>(values[i]);
    } else {
      t.data<T>()[i] = T(static_cast<float>(values[i]));
    }
  }
}

template <typename T>
std::vector<double> load(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_arithmetic_v<T>) {
      values[i] = static_cast<double>(t.data<T>()[i]);
    } else {
      values[i] = static_cast<double>(static_cast<float>(t.data<T>()[i]));
    }
  }
  return values;
}
}  // namespace

void use_device(Device device) {
  finish_kernels();
  device_in_use = device;
}

Device used_device() { return device_in_use; }

Context device_context(int threads) {
  Stream* stream = stream_in_use();
  return stream ? Context{.device = device_in_use, .pool = nullptr, .stream = *stream} : cpu_context(threads);
}

void finish_kernels() {
  if (Stream* stream = stream_in_use()) stream->synchronize();
}

OwnedTensor::OwnedTensor(DType dtype, const Shape& shape) {
  const TensorSpec spec{shape, dtype};
  memory_ = Buffer::pinned("test tensor", 2 * kCanaryBytes + spec.bytes(), device_in_use);
  std::memset(memory_.data(), static_cast<int>(kCanary), kCanaryBytes);
  std::memset(memory_.data() + kCanaryBytes + spec.bytes(), static_cast<int>(kCanary), kCanaryBytes);
  tensor_ = Tensor(memory_.data() + kCanaryBytes, spec, device_in_use);
}

OwnedTensor::OwnedTensor(const OwnedTensor& other) {
  if (!other.tensor_.defined()) return;
  finish_kernels();
  memory_ = Buffer::pinned("test tensor", other.memory_.bytes(), other.memory_.device());
  std::memcpy(memory_.data(), other.memory_.data(), static_cast<size_t>(memory_.bytes()));
  tensor_ = Tensor(memory_.data() + kCanaryBytes, other.tensor_.spec(), other.tensor_.device());
}

OwnedTensor& OwnedTensor::operator=(const OwnedTensor& other) { return *this = OwnedTensor(other); }

bool OwnedTensor::canaries_intact() const {
  finish_kernels();
  for (int64_t i = 0; i < kCanaryBytes; ++i)
    if (memory_.data()[i] != kCanary || memory_.data()[memory_.bytes() - 1 - i] != kCanary) return false;
  return true;
}

std::span<const DType> tested_dtypes() {
  static constexpr DType kAll[] = {DType::kF32, DType::kBF16, DType::kF16};
  return std::span(kAll).first(used_device().kind == DeviceKind::kCuda ? 3 : 2);
}

OwnedTensor make_tensor(DType dtype, const Shape& shape, const std::vector<double>& values) {
  OwnedTensor owned(dtype, shape);
  PERMAFROST_CHECK(static_cast<int64_t>(values.size()) == shape.elements(), "make_tensor: ", shape, " takes ",
                   shape.elements(), " values; got ", values.size());
  switch (dtype) {
    case DType::kF32:
      store<float>(owned, values);
      break;
    case DType::kBF16:
      store<bfloat16>(owned, values);
      break;
    case DType::kF16:
      store<float16>(owned, values);
      break;
    case DType::kF64:
      store<double>(owned, values);
      break;
    case DType::kI64:
      store<int64_t>(owned, values);
      break;
    case DType::kI32:
      store<int32_t>(owned, values);
      break;
    case DType::kU8:
      store<uint8_t>(owned, values);
      break;
  }
  return owned;
}

OwnedTensor random_tensor(DType dtype, const Shape& shape, uint64_t seed, double scale) {
  Random random(seed, RandomPurpose::kSynthetic);
  std::vector<double> values(static_cast<size_t>(shape.elements()));
  for (double& value : values) value = scale * random.next_normal();
  return make_tensor(dtype, shape, values);
}

OwnedTensor filled_tensor(DType dtype, const Shape& shape, int byte) {
  OwnedTensor owned(dtype, shape);
  if (owned.view().bytes() > 0) std::memset(owned.view().raw(), byte, static_cast<size_t>(owned.view().bytes()));
  return owned;
}

std::vector<double> values_of(const Tensor& tensor) {
  finish_kernels();
  switch (tensor.dtype()) {
    case DType::kF32:
      return load<float>(tensor);
    case DType::kBF16:
      return load<bfloat16>(tensor);
    case DType::kF16:
      return load<float16>(tensor);
    case DType::kF64:
      return load<double>(tensor);
    case DType::kI64:
      return load<int64_t>(tensor);
    case DType::kI32:
      return load<int32_t>(tensor);
    case DType::kU8:
      return load<uint8_t>(tensor);
  }
  return {};
}

std::vector<double> plus(std::vector<double> a, const std::vector<double>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

Tolerance tolerance_for(DType dtype, int64_t reduction, double magnitude) {
  const double store = dtype == DType::kBF16 ? 0x1p-8 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-24;
  const double length = static_cast<double>(std::max<int64_t>(reduction, 1));
  // Worst-case growth of rounding in a sum is linear in its length; random signs make it a square root. Four
  // standard deviations of the latter, plus a few roundings of fixed count.
  const double accumulate = 0x1p-24 * (4.0 * std::sqrt(length) + 8.0) * magnitude;
  return {accumulate + (dtype == DType::kF32 ? 0.0 : store * 0x1p-6 * magnitude), 2.0 * store};
}

::testing::AssertionResult all_close(const Tensor& got, const std::vector<double>& want, Tolerance tolerance) {
  if (!got.defined()) return ::testing::AssertionFailure() << "tensor is undefined";
  const std::vector<double> values = values_of(got);
  if (values.size() != want.size())
    return ::testing::AssertionFailure() << "expected " << want.size() << " values; got " << got.spec();
  for (size_t i = 0; i < want.size(); ++i) {
    const double limit = tolerance.absolute + tolerance.relative * std::abs(want[i]);
    if (!(std::abs(values[i] - want[i]) <= limit))
      return ::testing::AssertionFailure() << "at flat index " << i << " of " << got.spec() << ": got " << values[i]
                                           << ", want " << want[i] << ", allowed difference " << limit;
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult same_bits(const Tensor& a, const Tensor& b) {
  if (!(a.spec() == b.spec())) return ::testing::AssertionFailure() << a.spec() << " against " << b.spec();
  finish_kernels();
  const auto* x = static_cast<const std::byte*>(a.raw());
  const auto* y = static_cast<const std::byte*>(b.raw());
  for (int64_t i = 0; i < a.bytes(); ++i)
    if (x[i] != y[i]) return ::testing::AssertionFailure() << "bytes differ first at byte " << i << " of " << a.spec();
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult throws_error(const std::function<void()>& statement, ErrorKind kind,
                                        const std::vector<std::string>& parts) {
  try {
    statement();
    finish_kernels();
  } catch (const Error& error) {
    if (error.kind() != kind)
      return ::testing::AssertionFailure()
             << "expected kind " << to_string(kind) << "; got " << to_string(error.kind()) << ": " << error.what();
    for (const std::string& part : parts)
      if (std::string(error.what()).find(part) == std::string::npos)
        return ::testing::AssertionFailure() << "message lacks '" << part << "': " << error.what();
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "nothing was thrown; expected " << to_string(kind);
}

Context cpu_context(int threads) {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<ThreadPool>> pools;
  const std::lock_guard lock(mutex);
  auto& pool = pools[threads];
  if (!pool) pool = std::make_unique<ThreadPool>(threads);
  Context context;
  context.pool = pool.get();
  return context;
}

std::string golden_path(const std::string& name) {
  const char* folder = std::getenv("PERMAFROST_GOLDENS");
  return (folder ? std::string(folder) : std::string("tests/goldens")) + "/" + name;
}

}  // namespace permafrost::testing
