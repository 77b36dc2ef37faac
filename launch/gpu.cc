#include "launch/gpu.h"

#include <glog/logging.h>

#include "configs/config.pb.h"
#include "core/base/narrow.h"
#include "core/device/cuda.h"

namespace permafrost {

std::unique_ptr<Stream> open_gpu(DeviceKind device, int rank_on_machine, int ranks_on_machine) {
  if (device == DeviceKind::kCpu) return nullptr;
  const int count = cuda::device_count();
  if (count == 0)
    fail(cuda::built() ? ErrorKind::kConfig : ErrorKind::kNotBuilt,
         "parallel.device: CUDA needs a GPU; got none: ", cuda::why_unavailable());
  if (ranks_on_machine > count && rank_on_machine == 0)
    LOG(WARNING) << "device: " << ranks_on_machine << " ranks of this machine share " << count
                 << (count == 1 ? " GPU" : " GPUs") << ": right results, but they wait for each other";
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

int64_t free_device_memory(const Stream* gpu) { return gpu ? cuda::device_info(gpu->device().index).free_bytes : 0; }

int ranks_on_gpu(int ranks_on_machine) {
  const int count = cuda::device_count();
  return count == 0 ? 1 : static_cast<int>(div_up(ranks_on_machine, count));
}

}  // namespace permafrost
