#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/device/buffer.h"
#include "parallel/group/group.h"
#include "parallel/group/moved_bytes.h"
#include "parallel/group/nccl/gpu_agreement.h"
#include "parallel/group/nccl/nccl_library.h"

namespace permafrost {

struct NcclOptions {
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};        ///< longest wait of one call for the other ranks
  std::chrono::milliseconds close_timeout{std::chrono::seconds(10)};  ///< for an orderly end, and for an abort
  std::string name = "nccl";                     ///< of the communicator, in messages and in NCCL's own log
  int64_t workspace_bytes = int64_t{4} << 20;    ///< on the device, for floating reductions; 0: they are refused
  bool copy_engines = false;                     ///< all_gathers of registered memory need no multiprocessors
  MovedBytes* moved = nullptr;                   ///< counts what this rank receives; outlives the group
  std::string cublaslt;                          ///< the version in use, compared among ranks as it is
  std::optional<GpuFacts> facts = std::nullopt;  ///< instead of what the device says: for tests
};

/// Ranks that are processes (or threads) with a GPU each and exchange tensors of it through NCCL. Beyond the contract
/// of Group:
///
/// Stream.   Of the group's device. StreamView::caller() stands for the stream that the group was made with: the work
///           is put there, and waited for. A stream of a CPU or of another device is kInvalidArgument.
/// Host.     A call returns when NCCL has given it to the stream, which is soon but not at once; the first of each kind
///           connects the ranks and takes longer. With more than 256 calls ahead of the device the host waits.
/// Sums.     As the contract says; those of integers, and their maxima and minima, are NCCL's own. Floating ones pass
///           through the workspace.
/// Errors.   An error of NCCL, a call that the device has begun and not ended within the time limit, and a failure that
///           the host group knows of break the group and free its streams; then Event::wait throws it. A call that was
///           captured into a graph has no time limit. NCCL does not know who is missing.
/// Ending.   The destructor ends the communicator with the other ranks, within close_timeout; under an exception, or
///           in a world that failed, it aborts it.
class NcclGroup : public Group {
 public:
  /// [memory, memory + bytes) of nccl_memory, of the same place and size on all ranks, is registered, so that NCCL
  /// reads and writes it directly. Collective, over the host group too; not for the step path. The memory outlives this
  /// group. Where that cannot be had nothing is registered, and describe() says why. Errors: kInvalidArgument for
  /// other memory, on this rank alone; kInvalidArgument when ranks give different sizes, on all of them.
  virtual void register_memory(std::byte* memory, int64_t bytes) = 0;
  /// For the log: "nccl 'gathers': 8 ranks, NCCL 2.28.9 (/path), registered 512.0 MiB in 1 window".
  virtual std::string describe() const = 0;
};

/// Collective over `host`, which tells ranks of the id, of each other's GPUs and of failures. It is used here, in split
/// and in register_memory, by nobody else meanwhile; it must outlive the group, and so must `stream`, of a CUDA device.
/// Each group has a communicator of its own; those that work at the same time are given their calls in the same order
/// by all ranks. One rank needs no NCCL.
/// Errors, the same on all ranks: kNotBuilt in a build without it; kConfig where NCCL cannot be used (why_no_nccl) or
/// GPUs differ (check_same_gpus); kTimeout and kPeer when ranks cannot join, with what each rank says.
std::unique_ptr<NcclGroup> make_nccl_group(Group& host, Stream& stream, const NcclOptions& options = {});

/// Device memory that can be registered, zero-filled. Errors: kStorage when the device has not enough, kNotBuilt
/// without NCCL.
Buffer nccl_memory(std::string name, int64_t bytes, Device device);

}  // namespace permafrost
