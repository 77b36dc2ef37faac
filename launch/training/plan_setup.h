#pragma once
#include <map>
#include <optional>
#include <string>

#include "configs/config.pb.h"
#include "models/factory.h"
#include "parallel/plan/plan.h"
#include "parallel/reduce/loss_scale.h"

namespace permafrost {

/// Compute dtype of a configuration on this processor: AUTO is bf16 where it has bf16 instructions.
/// Errors: kConfig when BF16 is asked for and the processor has none (it would be slower than f32 and say nothing), or
/// FP16 anywhere but on CUDA.
DType compute_dtype(const config::Config& config);
/// precision.loss_scale where the compute dtype needs one.
std::optional<LossScaleConfig> loss_scale_config(const config::Config& config, DType compute);
/// Of parallel.device.
DeviceKind program_device(const config::Config& config);

/// Storage dtypes of frozen matrices by parameter name, read from the headers of the weight files; empty where the
/// configuration does not keep what the files have. Errors: kWeights as in match_parameters.
std::map<std::string, DType> file_dtypes(const config::Config& config, const Graph& graph);

struct PlanChoices {
  World world;
  ProgramOptions program;
  int64_t node_memory_bytes = 0;    ///< what a node has, where the configuration sets no limit; 0: not known
  int64_t device_memory_bytes = 0;  ///< what a rank may use of its GPU; 0: not known
  bool read_files = true;  ///< false: plan without looking at weight files (published OPT files are f16, others f32)
};

/// What the ranks of a node may take together: parallel.memory_limit_bytes, without it what the node has.
int64_t node_memory_limit(const config::Config& config, const PlanChoices& choices);

/// What `plan`, `train` and `weights random` build from a resolved configuration.
PlanRequest plan_request(const config::Config& config, const PlanChoices& choices);

/// Of the host's memory. Errors: kConfig, before anything is allocated, when the ranks of a node need more than
/// `available_bytes`; the message has the numbers and the largest items.
void check_memory(const Plan& plan, int64_t available_bytes);

/// What a rank needs of the host beside the plan: code, libraries, stacks, decoders. Stated once, the same for all
/// configurations.
constexpr int64_t kProcessConstantBytes = int64_t{192} << 20;
/// The same of a rank with a GPU, with what the driver and CUDA's libraries keep there: 603 to 607 MiB were seen (H200,
/// driver 580, CUDA 13.0, cuDNN 9.19).
constexpr int64_t kGpuProcessConstantBytes = int64_t{608} << 20;
constexpr int64_t process_constant_bytes(DeviceKind device) {
  return device == DeviceKind::kCuda ? kGpuProcessConstantBytes : kProcessConstantBytes;
}

}  // namespace permafrost
