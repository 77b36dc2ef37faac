#pragma once
#include <nccl.h>

#include "parallel/group/nccl/nccl_library.h"

namespace permafrost {

#define PERMAFROST_NCCL_FUNCTIONS(X) \
  X(GetVersion)                      \
  X(GetUniqueId)                     \
  X(GetErrorString)                  \
  X(GetLastError)                    \
  X(CommInitRankConfig)              \
  X(CommGetAsyncError)               \
  X(CommFinalize)                    \
  X(CommDestroy)                     \
  X(CommAbort)                       \
  X(CommWindowRegister)              \
  X(CommWindowDeregister)            \
  X(MemAlloc)                        \
  X(MemFree)                         \
  X(AllReduce)                       \
  X(AllGather)                       \
  X(ReduceScatter)                   \
  X(Reduce)                          \
  X(Broadcast)                       \
  X(Send)                            \
  X(Recv)                            \
  X(GroupStart)                      \
  X(GroupEnd)

/// The functions of NCCL that are used, from a library that is loaded at run time and stays.
struct NcclApi {
#define PERMAFROST_NCCL_MEMBER(name) decltype(&nccl##name) name = nullptr;
  PERMAFROST_NCCL_FUNCTIONS(PERMAFROST_NCCL_MEMBER)
#undef PERMAFROST_NCCL_MEMBER
};

/// Errors: kNotBuilt, saying what is missing and where was looked.
const NcclApi& nccl_api();

/// Instead of the library, from now on: for programs that have the functions linked in. Null: the library again.
void use_nccl_api(const NcclApi* api);

}  // namespace permafrost
