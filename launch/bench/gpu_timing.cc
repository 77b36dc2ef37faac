#include "launch/bench/gpu_timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/base/narrow.h"
#include "core/device/cuda.h"
#include "core/kernels/linear.h"
#include "launch/bench/quantile.h"
#include "launch/bench/timing.h"

namespace permafrost::bench {

namespace {
/// The calls as one piece of work; null where a call does what cannot be captured.
cuda::OwnedCapture captured(Stream& stream, const GpuCall& call, int64_t calls, int64_t& turn) {
  cuda::begin_capture(*stream.queue());
  try {
    for (int64_t i = 0; i < calls; ++i) call(turn++);
  } catch (const Error& refusal) {
    try {  // ends the capture, whatever it holds
      cuda::destroy_captured(cuda::end_capture(*stream.queue()));
    } catch (const Error&) {
    }
    if (refusal.kind() != ErrorKind::kInternal) throw;  // not the device's
    return nullptr;
  }
  try {
    return cuda::OwnedCapture(cuda::end_capture(*stream.queue()));
  } catch (const Error&) {
    return nullptr;
  }
}
}  // namespace

GpuStopwatch::GpuStopwatch(Stream& stream, int takes, double seconds)
    : stream_(stream),
      takes_(takes),
      seconds_(seconds),
      lead_("bench lead", seconds > 0 ? int64_t{128} << 20 : 256, stream.device()),  // some 30 us
      begin_(cuda::create_timed_mark(*stream.queue())),
      end_(cuda::create_timed_mark(*stream.queue())) {}

double GpuStopwatch::given_one_by_one(const GpuCall& call, int64_t calls) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (int64_t i = 0; i < calls; ++i) call(turn_++);
  stream_.synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
}

double GpuStopwatch::take(const Side& side) {
  cuda::Queue& queue = *stream_.queue();
  cuda::fill(queue, lead_.data(), 0, lead_.bytes());
  cuda::record(*begin_, queue);
  if (side.graph)
    cuda::launch(queue, *side.graph);
  else
    for (int64_t i = 0; i < side.calls; ++i) (*side.call)(turn_++);
  cuda::record(*end_, queue);
  stream_.synchronize();
  return cuda::milliseconds_between(*begin_, *end_) * 1e-3 / static_cast<double>(side.calls);
}

GpuStopwatch::Side GpuStopwatch::prepared(const GpuCall& call) {
  constexpr int64_t kMostCalls = 2000, kSome = 20;
  constexpr double kShort = 1e-4, kLong = 3e-4;
  Side side{.call = &call, .calls = 1, .graph = {}, .host_shows = false};
  given_one_by_one(call, 1);  // loads code, makes handles
  double one = 0;
  if (seconds_ > 0) {
    one = given_one_by_one(call, 1);
    if (one < kShort) one = given_one_by_one(call, kSome);  // not what it takes the host to wait
    side.calls = std::clamp(static_cast<int64_t>(std::ceil(seconds_ / std::max(one, 1e-7))), int64_t{1}, kMostCalls);
  }
  // The host is ahead of long calls by itself. And in a graph a copy of memory is slower than given alone (on an H200
  // 2.6 instead of 4.2 TB/s), so that graphs would measure a low ceiling.
  if (one >= kLong) return side;
  side.graph = captured(stream_, call, side.calls, turn_);
  side.host_shows = side.graph == nullptr;
  if (side.graph && seconds_ > 0) take(side);  // goes to the device
  return side;
}

std::vector<GpuTakes> GpuStopwatch::takes(const std::vector<GpuCall>& sides) {
  std::vector<Side> all;
  for (const GpuCall& call : sides) all.push_back(prepared(call));
  std::vector<GpuTakes> times(sides.size());
  for (size_t s = 0; s < all.size(); ++s) times[s].host_shows = all[s].host_shows;
  for (int i = 0; i < takes_; ++i)
    for (size_t s = 0; s < all.size(); ++s) times[s].seconds.push_back(take(all[s]));
  return times;
}

Tensor GpuTensors::make(DType dtype, const Shape& shape) {
  const TensorSpec spec{shape, dtype};
  buffers_.emplace_back("bench tensor", spec.bytes(), stream_.device());
  bytes_ += spec.bytes();
  const Tensor tensor(buffers_.back().data(), spec, stream_.device());
  if (dtype != DType::kF32 && dtype != DType::kBF16) return tensor;
  // A piece from the host, whose period divides it, then what is there already behind itself.
  constexpr int64_t kPiece = int64_t{8191} * 32;
  const int64_t first = std::min(kPiece, tensor.elements());
  const Buffer host("bench values", first * size_of(dtype));
  fill_uniform(Tensor(host.data(), dtype, {first}));
  cuda::Queue& queue = *stream_.queue();
  auto* data = static_cast<std::byte*>(tensor.raw());
  cuda::copy(queue, data, host.data(), first * size_of(dtype));
  for (int64_t done = first * size_of(dtype); done < tensor.bytes();) {
    const int64_t more = std::min(done, tensor.bytes() - done);
    cuda::copy(queue, data + done, data, more);
    done += more;
  }
  stream_.synchronize();
  return tensor;
}

Tensor GpuTensors::indices(int64_t count, int64_t limit) {
  const Tensor tensor = make(DType::kI32, {count});
  std::vector<int32_t> host(narrow<size_t>(count));
  constexpr int64_t kStride = 7919;  // a prime
  for (int64_t i = 0; i < count; ++i) host[narrow<size_t>(i)] = narrow<int32_t>(i * kStride % limit);
  cuda::copy(*stream_.queue(), tensor.raw(), host.data(), tensor.bytes());
  stream_.synchronize();
  return tensor;
}

Context gpu_context(Stream& stream) {
  Context context;
  context.device = stream.device();
  context.stream = StreamView(stream);
  return context;
}

int64_t gpu_sets(int64_t bytes_of_one, int64_t most) {
  constexpr int64_t kBeyondCaches = int64_t{192} << 20;  // three times the second-level cache of the largest
  return std::clamp(kBeyondCaches / std::max<int64_t>(bytes_of_one, 1) + 1, int64_t{1}, most);
}

namespace {
GpuCall square_product(Stream& stream, DType dtype, int64_t side) {
  auto tensors = std::make_shared<GpuTensors>(stream);
  const Tensor x = tensors->make(dtype, {side, side}), weight = tensors->make(dtype, {side, side}),
               y = tensors->make(dtype, {side, side});
  const Tensor workspace = tensors->make(
      DType::kU8, {linear_workspace_bytes(LinearPass::kForward, side, side, side, dtype, dtype, 1, DeviceKind::kCuda)});
  const LinearForward product{.x = x, .weight = weight, .bias = {}, .y = y, .pre = {}};
  const Context context = gpu_context(stream);
  tune_linear(context, product, workspace);
  return [=](int64_t) {
    (void)tensors;
    linear_forward(context, product, workspace);
  };
}
}  // namespace

GpuCeilings measure_ceilings(Stream& stream, GpuStopwatch& watch, int64_t side, int64_t copied) {
  GpuCeilings ceilings;
  const double flops = 2.0 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side);
  const auto speed = [&](const GpuCall& call, double work) {
    return work / quantile(watch.takes({call})[0].seconds, 0.5);
  };
  {
    const GpuCall product = square_product(stream, DType::kF32, side / 2);
    ceilings.f32 = speed(product, flops / 8);
  }
  cuda::allow_tf32(*stream.queue(), true);
  {
    const GpuCall product = square_product(stream, DType::kF32, side / 2);
    ceilings.tf32 = speed(product, flops / 8);
  }
  cuda::allow_tf32(*stream.queue(), false);
  ceilings.product = square_product(stream, DType::kBF16, side);
  ceilings.product_flops = flops;
  ceilings.bf16 = speed(ceilings.product, flops);
  auto tensors = std::make_shared<GpuTensors>(stream);
  const Tensor from = tensors->make(DType::kF32, {copied / 4}), to = tensors->make(DType::kF32, {copied / 4});
  ceilings.copy = [=, &stream](int64_t) {
    (void)tensors;
    cuda::copy(*stream.queue(), to.raw(), from.raw(), from.bytes());
  };
  ceilings.copy_bytes = 2.0 * static_cast<double>(from.bytes());
  ceilings.copy_bytes_per_s = speed(ceilings.copy, ceilings.copy_bytes);
  return ceilings;
}

}  // namespace permafrost::bench
