// Trainers on an emulated GPU that makes no graphs.
#include <cuda_runtime.h>

#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

class TrainerRefused : public TrainerTest {
 protected:
  static constexpr size_t kAll = SIZE_MAX;
  void TearDown() override { cuda_emulation::capture_room = kAll; }
  struct Steps {
    std::vector<double> norms;
    int64_t graph_launches = 0;
    std::string said;
  };
  /// Three steps where captures have room for so many pieces of work.
  Steps take_steps(size_t room, const Overrides& more) const {
    Overrides all{"parallel.device=CUDA",   "parallel.tune_products=false", "data.max_text_tokens=32",
                  "data.length_buckets=32", "train.global_batch=2",         "train.micro_batch=1",
                  "train.max_steps=3"};
    all.insert(all.end(), more.begin(), more.end());
    Steps steps;
    cuda_emulation::capture_room = room;
    ::testing::internal::CaptureStderr();
    with_trainer(all, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      for (int i = 0; i < 3; ++i) {
        steps.norms.push_back(trainer.train_step(false).grad_norm);
      }
      steps.graph_launches = trainer.graph_launches();
    });
    steps.said = ::testing::internal::GetCapturedStderr();
    return steps;
  }
  static int times_said(const Steps& steps, const std::string& work) {
    const std::string line = concat("device: ", work, " is given kernel by kernel, not as a CUDA graph: ");
    int times = 0;
    for (size_t at = steps.said.find(line); at != std::string::npos; at = steps.said.find(line, at + 1)) ++times;
    return times;
  }
};

TEST_F(TrainerRefused, KernelsAreGivenOneByOneWithTheSameBitsAndThatIsSaid) {
  const std::string behind_vote = "work behind the vote (sums to gradients, norm blocks, norm, update)";
  const Steps graphs = take_steps(kAll, {});
  EXPECT_GT(graphs.graph_launches, 0);
  EXPECT_EQ(times_said(graphs, "program 0") + times_said(graphs, behind_vote), 0) << graphs.said;
  const Steps kernels = take_steps(0, {});
  EXPECT_EQ(kernels.norms, graphs.norms);
  EXPECT_EQ(kernels.graph_launches, 0);
  EXPECT_EQ(times_said(kernels, "program 0"), 1) << kernels.said;
  EXPECT_EQ(times_said(kernels, behind_vote), 1) << kernels.said;
}

/// In the middle of a program, when slots of sharded units are in use: they are in order again for what comes.
TEST_F(TrainerRefused, SlotsSurviveAProgramThatCannotBeCaptured) {
  const Overrides sharded{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                          "parallel.frozen_policy=SHARDED"};
  const Steps graphs = take_steps(kAll, sharded), kernels = take_steps(40, sharded);
  EXPECT_EQ(kernels.norms, graphs.norms);
  EXPECT_EQ(times_said(kernels, "program 0"), 1) << kernels.said;
  EXPECT_EQ(kernels.graph_launches, 2) << "of the work behind votes";
}

}  // namespace
}  // namespace permafrost
