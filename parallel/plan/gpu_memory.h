#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace permafrost {

class Plan;

/// CUDA context, libraries and code of a process on its device: 531 MiB on an H200 with driver 580 and cuBLASLt 13.1
/// (the driver's own count less what the plan places), before cuDNN was used; with it that was not counted. Stated
/// once, the same for all configurations.
constexpr int64_t kDeviceConstantBytes = int64_t{544} << 20;

/// A piece of memory by its name.
struct MemoryItem {
  std::string_view name;
  int64_t bytes = 0;
};

/// Bytes of the GPU of one rank (the one with the largest slice). All 0 in a plan for CPU.
struct DeviceMemoryPlan {
  int64_t frozen = 0;     ///< units that are not gathered into slots, as a whole: each device has its own copy
  int64_t slots = 0;      ///< two places for sharded units
  int64_t working = 0;    ///< working copies of trainables
  int64_t optimizer = 0;  ///< f32 master, m, v of this rank's slice
  int64_t sums = 0;       ///< of the gradients of all trainables
  int64_t gradients = 0;  ///< reduced f32 gradient of this rank's slice
  int64_t norms = 0;      ///< one f64 per block of the trainable space
  int64_t tables = 0;     ///< ranges, scales and factors of trainable parameters, and their pieces
  int64_t copies = 0;     ///< of frozen biases, in the compute dtype
  int64_t arena = 0;      ///< activations, gradients, workspaces
  int64_t inputs = 0;     ///< of the micro-batch in use and of the next one
  int64_t state = 0;
  int64_t constant = 0;  ///< kDeviceConstantBytes

  /// In the order in which they are shown.
  std::vector<MemoryItem> items() const;
  int64_t total() const;
  /// What a program needs that finds frozen parameters and working copies there already, lent by another.
  int64_t beside_lent() const { return slots + copies + arena + inputs + state; }
};

/// Bytes of the host of one rank whose programs run on a GPU. All 0 in a plan for CPU.
struct HostMemoryPlan {
  int64_t node_frozen = 0;  ///< frozen parameters as stored, on a node: its ranks share them
  int64_t working = 0;      ///< working copies of trainables, as they are loaded
  int64_t inputs = 0;       ///< the micro-batch in use and those prefetched
  int64_t staging = 0;      ///< pinned, for what is exchanged over the host

  int64_t own() const { return working + inputs + staging; }
  int64_t node(int64_t ranks) const { return node_frozen + ranks * own(); }
};

/// Bytes that frozen weights take on a device, slots included when units are gathered into them. parts_of: how many
/// ranks keep their parts of sharded units on their devices; 0: parts are on the host.
int64_t frozen_bytes_of_device(const std::vector<int64_t>& unit_bytes, const std::vector<bool>& sharded,
                               bool with_slots, int parts_of);

// Pieces of make_plan; they do nothing in a plan for CPU.

/// Everything but frozen weights and slots. forward_only: nothing is trained.
void count_gpu_memory(Plan& plan, bool forward_only);
/// Frozen weights, slots and copies, once units have policies.
void count_gpu_weights(Plan& plan);

}  // namespace permafrost
