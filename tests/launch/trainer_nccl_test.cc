// Trainers that exchange through NCCL, over an emulated one: the same bits as through the memory of hosts.
#include "tests/group/nccl_test_ranks.h"
#include "tests/launch/trainer_fixture.h"
#include "tests/support/long_stretches.h"

namespace permafrost {
namespace {

class TrainerNccl : public TrainerTest {
 protected:
  void SetUp() override {
    TrainerTest::SetUp();
    nccl_emulation::set({});
    use_nccl_api(&testing::emulated_nccl_api());
    cuda_emulation::a_gpu_for_each_thread = true;
  }
  void TearDown() override {
    EXPECT_EQ(nccl_emulation::communicators(), 0) << "neither destroyed nor aborted";
    cuda_emulation::a_gpu_for_each_thread = false;
    use_nccl_api(nullptr);
  }

  struct Learned {
    std::vector<double> losses;
    std::string adapter_sha256, how;
    int64_t gathered_bytes = 0, reduced_bytes = 0, moved_bytes = 0, graph_launches = 0, segments = 0;
  };
  /// Two ranks, of which each device holds a part of every frozen unit.
  static Overrides two_devices(const std::string& collectives) {
    return on_smaller_model(
        {"parallel.device=CUDA", "parallel.tune_products=false", "parallel.collectives=" + collectives,
         "parallel.frozen_policy=SHARDED", "parallel.gather=PREFETCH", "train.global_batch=2", "train.micro_batch=1",
         "train.max_steps=3", "freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}"});
  }
  Learned train(const std::string& collectives, bool graphs = true) const {
    Learned run;
    const CheckpointStore store((folder_ / concat(collectives, graphs ? "" : "_kernels")).string(), 3);
    Overrides config = two_devices(collectives);
    config.push_back(concat("parallel.cuda_graphs=", graphs ? "true" : "false"));
    with_ranks(2, 1, config, [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
      Learned mine;
      for (int i = 0; i < 3; ++i) {
        const StepMetrics metrics = trainer.train_step(false);
        mine.losses.push_back(metrics.loss);
        mine.gathered_bytes = metrics.gathered_bytes;
        mine.reduced_bytes = metrics.reduced_bytes;
        mine.moved_bytes = metrics.moved_bytes;
      }
      mine.adapter_sha256 = trainer.save(store);
      mine.graph_launches = trainer.graph_launches();
      mine.segments = std::ssize(testing::long_stretches(plan.programs[0]));
      for (const std::string& note : trainer.notes())
        if (note.starts_with("nccl") || note.starts_with("device: ranks")) mine.how += note;
      if (runtime.first()) run = mine;
    });
    return run;
  }
};

TEST_F(TrainerNccl, GivesTheBitsOfExchangesThroughHosts) {
  const Learned hosts = train("HOST"), nccl = train("NCCL");
  EXPECT_NE(hosts.how.find("not through NCCL: asked for by parallel.collectives"), std::string::npos) << hosts.how;
  EXPECT_NE(nccl.how.find("'reductions': 2 ranks"), std::string::npos) << nccl.how;
  EXPECT_NE(nccl.how.find("registered"), std::string::npos) << nccl.how;
  const size_t gathers = nccl.how.find("'gathers': 2 ranks");
  ASSERT_NE(gathers, std::string::npos) << nccl.how;
  EXPECT_NE(nccl.how.find(" in 2 windows", gathers), std::string::npos) << "parts and slots: " << nccl.how;
  EXPECT_EQ(nccl.losses, hosts.losses);
  EXPECT_EQ(nccl.adapter_sha256, hosts.adapter_sha256);
  EXPECT_EQ(nccl.gathered_bytes, hosts.gathered_bytes);
  EXPECT_EQ(nccl.reduced_bytes, hosts.reduced_bytes);
}

/// NCCL's calls stand between graphs, and behind each vote two more are launched.
TEST_F(TrainerNccl, GraphsBetweenGathersChangeNoBit) {
  const Learned graphs = train("NCCL"), kernels = train("NCCL", false);
  EXPECT_EQ(graphs.losses, kernels.losses);
  EXPECT_EQ(graphs.adapter_sha256, kernels.adapter_sha256);
  EXPECT_EQ(graphs.gathered_bytes, kernels.gathered_bytes);
  EXPECT_GT(graphs.segments, 4);
  EXPECT_EQ(graphs.graph_launches, (graphs.segments + 2) * (3 - 1));
  EXPECT_EQ(kernels.graph_launches, 0);
}

TEST_F(TrainerNccl, AutoTakesNcclWhereItCanAndSaysWhyNotElsewhere) {
  EXPECT_NE(train("COLLECTIVES_AUTO").how.find("'reductions': 2 ranks"), std::string::npos);
  cuda_emulation::a_gpu_for_each_thread = false;
  const Learned shared = train("COLLECTIVES_AUTO");
  EXPECT_NE(shared.how.find("slowly, not through NCCL: ranks 0 and 1 share a GPU"), std::string::npos) << shared.how;
}

/// Not a later one: what it computed from an exchange that was given up must not be logged, saved or built upon.
TEST_F(TrainerNccl, AnExchangeThatBreaksEndsTheStepItIsIn) {
  std::atomic<int> ended = 0;
  Overrides resident = two_devices("NCCL");
  resident.push_back(
      "parallel.frozen_policy=RESIDENT");  // then a step has three exchanges: sums, norms, working copies
  EXPECT_TRUE(testing::throws_error(
      [&] {
        with_ranks(2, 1, resident, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
          trainer.train_step(false);
          runtime.world.barrier(StreamView::caller(), "a good step").wait();
          nccl_emulation::set({.broken = 1, .broken_after = 2});
          trainer.train_step(false);
          ++ended;
        });
      },
      ErrorKind::kPeer, {"nccl"}));
  EXPECT_EQ(ended, 0);
}

TEST_F(TrainerNccl, AskedForWhereItCannotBeItIsRefused) {
  cuda_emulation::a_gpu_for_each_thread = false;
  EXPECT_TRUE(testing::throws_error([&] { train("NCCL"); }, ErrorKind::kConfig,
                                    {"parallel.collectives: NCCL cannot be used", "share a GPU"}));
}

}  // namespace
}  // namespace permafrost
