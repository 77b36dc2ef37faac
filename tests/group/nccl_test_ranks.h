#pragma once
#include <functional>

#include "parallel/group/inproc_group.h"
#include "parallel/group/nccl/nccl_api.h"
#include "parallel/group/nccl/nccl_group.h"
#include "tests/support/compare.h"

namespace permafrost::testing {

/// The emulated NCCL's functions.
inline const NcclApi& emulated_nccl_api() {
  static const NcclApi api = [] {
    NcclApi made;
#define PERMAFROST_LINKED_IN(name) made.name = &nccl##name;
    PERMAFROST_NCCL_FUNCTIONS(PERMAFROST_LINKED_IN)
#undef PERMAFROST_LINKED_IN
    return made;
  }();
  return api;
}

/// Tests over the emulated NCCL, with tensors on the emulated GPU.
class EmulatedNccl : public ::testing::Test {
 protected:
  void SetUp() override {
    nccl_emulation::set({});
    use_nccl_api(&emulated_nccl_api());
    use_device(Device::cuda(0));
  }
  void TearDown() override {
    EXPECT_EQ(nccl_emulation::communicators(), 0) << "neither destroyed nor aborted";
    use_device(Device::cpu());
    use_nccl_api(nullptr);
    nccl_emulation::set({});
  }
};

/// As if each rank had a GPU of its own: there is one in the emulation.
inline GpuFacts facts_of_rank(int rank) {
  GpuFacts facts = gpu_facts(Device::cuda(0), "13.0.2");
  facts.uuid += concat("-", rank);
  facts.pci += concat("-", rank);
  return facts;
}

/// Short limits, for tests that wait for them.
inline NcclOptions impatient() {
  NcclOptions options;
  options.timeout = std::chrono::milliseconds(700);
  options.close_timeout = std::chrono::milliseconds(500);
  return options;
}

/// Runs body(group, stream) on `ranks` threads with a group over NCCL; errors as run_inproc.
inline void run_nccl(int ranks, const std::function<void(NcclGroup&, Stream&)>& body, const NcclOptions& options = {}) {
  run_inproc(ranks, [&](Group& host) {
    Stream stream(Device::cuda(0));
    NcclOptions own = options;
    if (!own.facts) own.facts = facts_of_rank(host.rank());
    const auto group = make_nccl_group(host, stream, own);
    body(*group, stream);
  });
}

}  // namespace permafrost::testing
