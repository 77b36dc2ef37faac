#include "parallel/group/nccl/gpu_agreement.h"

#include "tests/group/nccl_test_ranks.h"

namespace permafrost::testing {
namespace {

class GpuAgreement : public EmulatedNccl {};

TEST_F(GpuAgreement, FactsAreThoseOfTheDevice) {
  const GpuFacts facts = gpu_facts(Device::cuda(0), "13.0.2");
  EXPECT_EQ(facts.name, "emulated");
  EXPECT_EQ(facts.capability, "9.0");
  EXPECT_EQ(facts.driver, "13.0");
  EXPECT_EQ(facts.nccl, "2.28.9");
  EXPECT_EQ(facts.uuid, "GPU-5d4c0000-0000-0000-0000-000000000000");
  EXPECT_EQ(facts.pci, "0000:3b:00");
}

TEST_F(GpuAgreement, RanksThatAgree) {
  run_inproc(3, [](Group& host) {
    check_same_gpus(host, facts_of_rank(host.rank()));
    EXPECT_EQ(why_no_nccl(host, facts_of_rank(host.rank())), std::nullopt);
  });
}

TEST_F(GpuAgreement, ADifferenceIsAnErrorOnAllRanksThatSaysWhoHasWhat) {
  struct Row {
    std::string GpuFacts::*field;
    std::string value;
    std::vector<std::string> parts;
  };
  const std::vector<Row> rows = {
      {&GpuFacts::name,
       "H200",
       {"same GPU model", "got emulated on rank 0 and H200 on rank 1", "machines of one kind"}},
      {&GpuFacts::capability, "8.0", {"same compute capability", "got 9.0 on rank 0 and 8.0 on rank 1"}},
      {&GpuFacts::driver, "12.9", {"same NVIDIA driver", "and 12.9 on rank 1", "one driver"}},
      {&GpuFacts::runtime, "13.1", {"same CUDA runtime", "and 13.1 on rank 1", "one build"}},
      {&GpuFacts::cublaslt, "", {"same cuBLASLt", "got 13.0.2 on rank 0 and none on rank 1", "libcublasLt.so.13"}},
      {&GpuFacts::nccl, "2.29.1", {"same NCCL", "got 2.28.9 on rank 0 and 2.29.1 on rank 1", "libnccl.so.2"}}};
  for (const Row& row : rows)
    run_inproc(3, [&](Group& host) {
      GpuFacts facts = facts_of_rank(host.rank());
      if (host.rank() > 0) facts.*row.field = row.value;
      auto parts = row.parts;
      parts.push_back("(differing: 1, 2)");
      EXPECT_TRUE(throws_error([&] { check_same_gpus(host, facts); }, ErrorKind::kConfig, parts));
    });
}

TEST_F(GpuAgreement, AGroupIsNotMadeOfRanksThatDiffer) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(2, [](Group& host) {
          Stream stream(Device::cuda(0));
          NcclOptions options;
          options.facts = facts_of_rank(host.rank());
          if (host.rank() == 1) options.facts->nccl = "2.28.3";
          make_nccl_group(host, stream, options);
        });
      },
      ErrorKind::kConfig, {"same NCCL", "got 2.28.9 on rank 0 and 2.28.3 on rank 1"}));
}

TEST_F(GpuAgreement, ALibraryThatIsMissingOnOneRank) {
  run_inproc(3, [](Group& host) {
    GpuFacts facts = facts_of_rank(host.rank());
    if (host.rank() == 2) {
      facts.nccl = "";
      facts.nccl_missing = "no usable libnccl.so.2";
    }
    check_same_gpus(host, facts);  // the version of the others is not compared with none
    EXPECT_EQ(why_no_nccl(host, facts), "rank 2: no usable libnccl.so.2");
  });
}

TEST_F(GpuAgreement, TwoRanksOnOneGpu) {
  run_inproc(3, [](Group& host) {
    GpuFacts facts = facts_of_rank(host.rank() == 2 ? 1 : host.rank());
    const auto why = why_no_nccl(host, facts);
    ASSERT_TRUE(why.has_value());
    EXPECT_NE(why->find("ranks 1 and 2 share a GPU (emulated, 0000:3b:00-1, GPU-5d4c"), std::string::npos) << *why;
    EXPECT_NE(why->find("as many ranks as there are GPUs"), std::string::npos);
    facts.uuid = concat("MIG-", host.rank());  // parts of one GPU
    EXPECT_TRUE(why_no_nccl(host, facts).has_value());
  });
  EXPECT_TRUE(throws_error(
      [] {
        NcclOptions options;
        options.facts = facts_of_rank(0);
        run_nccl(
            2, [](NcclGroup&, Stream&) { ADD_FAILURE(); }, options);
      },
      ErrorKind::kConfig, {"nccl 'nccl'", "usable by all ranks; got ranks 0 and 1 share a GPU"}));
}

TEST_F(GpuAgreement, TheDeviceSaysItBySelf) {  // the emulation has one GPU for all ranks
  run_inproc(2, [](Group& host) {
    const auto why = why_no_nccl(host, Device::cuda(0), "13.0.2");
    ASSERT_TRUE(why.has_value());
    EXPECT_NE(why->find("share a GPU"), std::string::npos);
  });
  EXPECT_EQ(why_no_nccl(*make_solo_group(), Device::cuda(0), ""), std::nullopt);
}

}  // namespace
}  // namespace permafrost::testing
