#include "parallel/group/nccl/gpu_agreement.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/base/check.h"
#include "core/device/cuda.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/nccl/nccl_library.h"

namespace permafrost {
namespace {

/// As it goes over the host group.
struct FactsRecord {
  std::array<char, 96> name{}, capability{}, driver{}, runtime{}, cublaslt{}, nccl{}, uuid{}, pci{};
  std::array<char, 512> nccl_missing{};
};

template <size_t N>
void put(const std::string& text, std::array<char, N>& place) {
  std::copy_n(text.begin(), std::min(text.size(), N - 1), place.begin());
}

std::vector<FactsRecord> exchange_facts(Group& host, const GpuFacts& facts) {
  FactsRecord mine;
  put(facts.name, mine.name);
  put(facts.capability, mine.capability);
  put(facts.driver, mine.driver);
  put(facts.runtime, mine.runtime);
  put(facts.cublaslt, mine.cublaslt);
  put(facts.nccl, mine.nccl);
  put(facts.uuid, mine.uuid);
  put(facts.pci, mine.pci);
  put(facts.nccl_missing, mine.nccl_missing);
  std::vector<FactsRecord> all(static_cast<size_t>(host.size()));
  constexpr auto kBytes = static_cast<int64_t>(sizeof(FactsRecord));
  host.all_gather(Tensor(&mine, DType::kU8, Shape({kBytes})),
                  Tensor(all.data(), DType::kU8, Shape({kBytes * host.size()})), {}, StreamView::caller(),
                  "facts about GPUs")
      .wait();
  return all;
}

struct SameFact {
  std::array<char, 96> FactsRecord::*field;
  const char* what;
  const char* remedy;
};

constexpr std::array kSameFacts = {
    SameFact{&FactsRecord::name, "GPU model", "ask the scheduler for machines of one kind"},
    SameFact{&FactsRecord::capability, "compute capability", "ask the scheduler for machines of one kind"},
    SameFact{&FactsRecord::driver, "NVIDIA driver (newest CUDA it runs)", "use machines with one driver"},
    SameFact{&FactsRecord::runtime, "CUDA runtime", "start one build on all machines"},
    SameFact{&FactsRecord::cublaslt, "cuBLASLt", "give all ranks the same libcublasLt.so.13 (LD_LIBRARY_PATH)"},
    SameFact{&FactsRecord::nccl, "NCCL", "give all ranks the same libnccl.so.2 (LD_LIBRARY_PATH)"},
};

std::string shown(const std::array<char, 96>& value) { return value[0] == '\0' ? "none" : value.data(); }

}  // namespace

GpuFacts gpu_facts(Device device, std::string cublaslt) {
  const cuda::DeviceInfo info = cuda::device_info(device.index);
  const NcclFound& nccl = find_nccl();
  return {.name = info.name,
          .capability = concat(info.major, ".", info.minor),
          .driver = cuda::driver_version(),
          .runtime = cuda::runtime_version(),
          .cublaslt = std::move(cublaslt),
          .nccl = nccl.version,
          .nccl_missing = nccl.missing,
          .uuid = info.uuid,
          .pci = info.pci};
}

void check_same_gpus(Group& host, const GpuFacts& facts) {
  const std::vector<FactsRecord> all = exchange_facts(host, facts);
  const bool all_have_nccl = std::ranges::all_of(all, [](const FactsRecord& r) { return r.nccl[0] != '\0'; });
  for (const SameFact& fact : kSameFacts) {
    if (fact.field == &FactsRecord::nccl && !all_have_nccl) continue;
    const auto& expected = all.front().*fact.field;
    std::string others;
    size_t first = 0;
    for (size_t r = 1; r < all.size(); ++r) {
      if (all[r].*fact.field == expected) continue;
      if (first == 0) first = r;
      others += (others.empty() ? "" : ", ") + concat(r);
    }
    if (first == 0) continue;
    fail(ErrorKind::kConfig, "device: all ranks must have the same ", fact.what, ", or their results differ; got ",
         shown(expected), " on rank 0 and ", shown(all[first].*fact.field), " on rank ", first, " (differing: ", others,
         "): ", fact.remedy);
  }
}

std::optional<std::string> why_no_nccl(Group& host, const GpuFacts& facts) {
  if (host.size() == 1) return std::nullopt;
  const std::vector<int> nodes = find_nodes(host);
  const std::vector<FactsRecord> all = exchange_facts(host, facts);
  for (size_t r = 0; r < all.size(); ++r)
    if (all[r].nccl[0] == '\0') return concat("rank ", r, ": ", all[r].nccl_missing.data());
  for (size_t b = 1; b < all.size(); ++b)
    for (size_t a = 0; a < b; ++a)
      // Parts of one GPU (MIG) have a UUID each and one place.
      if (all[a].uuid == all[b].uuid || (nodes[a] == nodes[b] && all[a].pci == all[b].pci))
        return concat("ranks ", a, " and ", b, " share a GPU (", all[a].name.data(), ", ", all[a].pci.data(), ", ",
                      all[a].uuid.data(), "), and NCCL takes one rank per GPU: start as many ranks as there are GPUs");
  return std::nullopt;
}

std::optional<std::string> why_no_nccl(Group& host, Device device, std::string cublaslt) {
  if (host.size() == 1) return std::nullopt;
  return why_no_nccl(host, gpu_facts(device, std::move(cublaslt)));
}

}  // namespace permafrost
