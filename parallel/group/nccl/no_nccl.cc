#include "core/base/check.h"
#include "core/device/cuda.h"
#include "parallel/group/nccl/nccl_group.h"

// A build without the NCCL backend: whoever asks for it learns what it lacks.
namespace permafrost {

namespace {
std::string why_not_built() {
  if (!cuda::built()) return cuda::why_unavailable();
  return "this build has no NCCL backend: configure where nccl.h of NCCL 2.28 or later is found, with "
         "-DPERMAFROST_NCCL=ON";
}
}  // namespace

bool nccl_built() { return false; }

const NcclFound& find_nccl() {
  static const NcclFound none{"", "", why_not_built()};
  return none;
}

NcclFound find_nccl(const std::filesystem::path&) { return find_nccl(); }

std::unique_ptr<NcclGroup> make_nccl_group(Group&, Stream&, const NcclOptions&) {
  fail(ErrorKind::kNotBuilt, "nccl: ", why_not_built());
}

Buffer nccl_memory(std::string name, int64_t, Device) {
  fail(ErrorKind::kNotBuilt, "Buffer ", name, ": ", why_not_built());
}

}  // namespace permafrost
