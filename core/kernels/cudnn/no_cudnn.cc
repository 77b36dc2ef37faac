#include "core/base/check.h"
#include "core/device/cuda.h"
#include "core/device/cudnn.h"
#include "core/kernels/cudnn/attention.h"

// A build that cannot call cuDNN: attention runs without it.
namespace permafrost::cuda {

namespace {
std::string why() {
  if (!built()) return why_unavailable();
  return "this build cannot call cuDNN: configure where cudnn_graph.h of cuDNN 9.8 or later is found, with "
         "-DPERMAFROST_CUDNN=ON";
}
}  // namespace

bool cudnn_built() { return false; }

const CudnnFound& find_cudnn() {
  static const CudnnFound none{"", "", why()};
  return none;
}

namespace cudnn {

namespace {
[[noreturn]] void absent() { fail(ErrorKind::kNotBuilt, find_cudnn().missing); }
}  // namespace

const std::string& missing_for(const Context&) { return find_cudnn().missing; }
const std::string& refusal_of(const Context&, const AttentionKey&) { return find_cudnn().missing; }
void run_attention(const Context&, const AttentionKey&, const AttentionMemory&, void*) { absent(); }
std::string engine_of(const Context&, const AttentionKey&) { absent(); }

}  // namespace cudnn
}  // namespace permafrost::cuda
