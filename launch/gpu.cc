#include "launch/gpu.h"

#include <glog/logging.h>

#include <algorithm>
#include <vector>

#include "configs/config.pb.h"
#include "core/base/check.h"
#include "core/device/cuda.h"
#include "core/kernels/attention.h"

namespace permafrost {

std::unique_ptr<Stream> open_gpu(DeviceKind device, int rank_on_machine) {
  if (device == DeviceKind::kCpu) return nullptr;
  const int count = cuda::device_count();
  if (count == 0)
    fail(cuda::built() ? ErrorKind::kConfig : ErrorKind::kNotBuilt,
         "parallel.device: CUDA needs a GPU; got none: ", cuda::why_unavailable());
  auto stream = std::make_unique<Stream>(Device::cuda(rank_on_machine % count));
  const cuda::DeviceInfo info = cuda::device_info(stream->device().index);
  LOG(INFO) << "device: cuda:" << stream->device().index << ", " << info.name << ", " << (info.free_bytes >> 20)
            << " of " << (info.memory_bytes >> 20) << " MiB free";
  return stream;
}

void use_f32_products(const Context& context, const config::Precision& precision) {
  if (cuda::Queue* queue = context.stream.queue())
    cuda::allow_tf32(*queue, precision.f32_products() == config::F32Products::TF32);
}

void use_attention(const Context& context, const config::Parallel& parallel) {
  cuda::Queue* queue = context.stream.queue();
  if (!queue) return;
  cuda::use_cudnn(*queue,
                  parallel.attention() == config::Parallel::OWN ? cuda::CudnnUse::kNever : cuda::CudnnUse::kWherePays);
  cuda::on_note(*queue, [](const std::string& note) { LOG(WARNING) << note; });
  const AttentionLibrary library = attention_library(context);
  LOG(INFO) << "attention: " << library.name << (library.missing.empty() ? "" : ": ") << library.missing;
}

int64_t free_device_memory(const Stream* gpu) { return gpu ? cuda::device_info(gpu->device().index).free_bytes : 0; }

int ranks_on_gpu(Group& world, const Stream* gpu) {
  if (!gpu) return 1;
  constexpr size_t kText = 64;
  std::vector<uint8_t> texts(kText * static_cast<size_t>(world.size()));
  const auto of = [&](int rank) { return std::span(texts).subspan(kText * static_cast<size_t>(rank), kText); };
  const std::string uuid = cuda::device_info(gpu->device().index).uuid;
  std::copy_n(uuid.begin(), std::min(uuid.size(), kText), of(world.rank()).begin());
  world.all_gather(flat(of(world.rank())), flat(std::span(texts)), {}, StreamView::caller(), "GPUs of ranks").wait();
  int sharing = 0, first = -1;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (!std::ranges::equal(of(rank), of(world.rank()))) continue;
    if (first < 0) first = rank;
    ++sharing;
  }
  if (sharing > 1 && first == world.rank())
    LOG(WARNING) << "device: " << sharing << " ranks share " << uuid << ": right results, but they wait for each other";
  return sharing;
}

}  // namespace permafrost
