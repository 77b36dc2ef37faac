#pragma once
#include <memory>

#include "core/device/stream.h"
#include "parallel/group/group.h"

namespace permafrost {

/// A group of the tensors of a CUDA device over a group of the host: what goes out is copied into `staging`, exchanged
/// there, and copied back. Right for any number of ranks on any number of GPUs, several on one included; every call
/// waits for what its stream was given before, and for the other ranks.
/// host: used by this group alone; outlives it. staging: host memory, (bytes) u8, of which each call needs what its
/// larger tensor has; pinned memory is fastest, and memory of a NodeGroup is read by its neighbours in place.
/// StreamView::caller() uses a stream of the group's own and waits. A split group has staging of its own, pinned.
/// Errors beside those of Group: kInvalidArgument for a tensor that is larger than the staging, and for a stream that
/// is none of CUDA.
std::unique_ptr<Group> make_host_staged_group(Group& host, Device device, const Tensor& staging);
/// With a host group and pinned staging of its own.
std::unique_ptr<Group> make_host_staged_group(std::unique_ptr<Group> host, Device device, int64_t staging_bytes);

}  // namespace permafrost
