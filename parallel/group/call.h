#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/tensor/tensor.h"
#include "parallel/group/group.h"

namespace permafrost {

enum class Operation : uint8_t { kSplit, kBarrier, kAllGather, kReduceScatter, kAllReduce, kBroadcast, kSend, kRecv };
std::string_view to_string(Operation operation);

/// One checked call of one rank: what backends work on. For their eyes only.
struct Call {
  Operation operation = Operation::kBarrier;
  std::string_view tag;
  DType dtype = DType::kU8;
  ReduceOp op = ReduceOp::kSum;
  int64_t elements = 0;             ///< of the whole: `all`, or the tensor itself
  std::span<const int64_t> counts;  ///< empty: equal parts
  int peer = -1;                    ///< root, destination or source
  const std::byte* in = nullptr;
  std::byte* out = nullptr;

  int64_t count(int rank, int size) const {
    return counts.empty() ? elements / size : counts[static_cast<size_t>(rank)];
  }
  int64_t offset(int rank, int size) const;
  int64_t bytes() const { return elements * size_of(dtype); }
  /// "reduce_scatter 'adapter gradients'"
  std::string name() const;
};

/// Each checks its arguments (see the contract in group.h) and returns the call; throws kInvalidArgument or
/// kShapeMismatch before anything was exchanged. device: where tensors must be.
Call barrier_call(std::string_view tag);
Call all_gather_call(int rank, int size, const Tensor& part, const Tensor& all, std::span<const int64_t> counts,
                     std::string_view tag, Device device = Device::cpu());
Call reduce_scatter_call(int rank, int size, const Tensor& all, const Tensor& part, std::span<const int64_t> counts,
                         ReduceOp op, std::string_view tag, Device device = Device::cpu());
Call all_reduce_call(const Tensor& in, const Tensor& out, ReduceOp op, std::string_view tag,
                     Device device = Device::cpu());
Call broadcast_call(int size, const Tensor& data, int root, std::string_view tag, Device device = Device::cpu());
Call send_call(int rank, int size, const Tensor& data, int to, std::string_view tag, Device device = Device::cpu());
Call recv_call(int rank, int size, const Tensor& data, int from, std::string_view tag, Device device = Device::cpu());

/// A group of one: copies input to output where they differ.
void copy_alone(const Call& call);

}  // namespace permafrost
