// Trainers on an emulated GPU that makes no graphs.
#include <cuda_runtime.h>

#include <set>

#include "tests/launch/trainer_fixture.h"
#include "tests/support/long_stretches.h"

namespace permafrost {
namespace {

class TrainerRefused : public TrainerTest {
 protected:
  static constexpr size_t kAll = SIZE_MAX;
  void TearDown() override { cuda_emulation::capture_room = kAll; }
  struct Steps {
    std::vector<double> norms;
    int64_t graph_launches = 0;
    std::vector<std::pair<int, int>> segments;  // of the program, where it is cut
    std::string said;
  };
  /// Three steps where captures have room for so many pieces of work.
  Steps take_steps(size_t room, const Overrides& more, int ranks = 1) const {
    Overrides all{"parallel.device=CUDA", "parallel.tune_products=false", "train.global_batch=2", "train.micro_batch=1",
                  "train.max_steps=3"};
    all.insert(all.end(), more.begin(), more.end());
    Steps steps;
    cuda_emulation::capture_room = room;
    ::testing::internal::CaptureStderr();
    with_ranks(ranks, 1, on_smaller_model(all),
               [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
                 std::vector<double> norms;
                 for (int i = 0; i < 3; ++i) norms.push_back(trainer.train_step(false).grad_norm);
                 if (!runtime.first()) return;
                 steps.norms = norms;
                 steps.graph_launches = trainer.graph_launches();
                 steps.segments = testing::long_stretches(plan.programs[0]);
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

/// Two ranks that gather units from each other: what stands between two gathers is given kernel by kernel where it does
/// not fit, gradients that it has summed by then counted once, and the rest as graphs.
TEST_F(TrainerRefused, OneSegmentBetweenGathersDoesNotStopTheOthers) {
  const Overrides gathered{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                           "parallel.frozen_policy=SHARDED", "parallel.gather=PREFETCH", "parallel.collectives=HOST"};
  const Steps graphs = take_steps(kAll, gathered, 2);
  EXPECT_EQ(graphs.said.find("is given kernel by kernel"), std::string::npos) << graphs.said;
  const auto segments = std::ssize(graphs.segments);
  EXPECT_EQ(graphs.graph_launches, 2 * (segments + 2));
  std::set<int64_t> numbers;
  for (const size_t room : {1, 6, 12, 18, 24, 36}) {
    const Steps some = take_steps(room, gathered, 2);
    EXPECT_EQ(some.norms, graphs.norms) << room;
    int64_t refused = 0;
    for (const auto& [first, end] : some.segments) {
      const int times = times_said(some, concat("program 0, steps ", first, " to ", end - 1));
      EXPECT_TRUE(times == 0 || times == 2) << "once on each rank, not " << times << ": " << some.said;
      refused += times / 2;
    }
    const int64_t behind_vote = some.graph_launches - 2 * (segments - refused);
    EXPECT_TRUE(behind_vote >= 0 && behind_vote <= 4 && behind_vote % 2 == 0) << behind_vote;
    numbers.insert(refused);
  }
  EXPECT_GT(std::ssize(numbers), 2) << "none, some and other ones";
}

}  // namespace
}  // namespace permafrost
