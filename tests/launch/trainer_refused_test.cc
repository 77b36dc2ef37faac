// Trainers on an emulated GPU that makes no graphs.
#include <cuda_runtime.h>

#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

class TrainerRefused : public TrainerTest {
 protected:
  void TearDown() override { cuda_emulation::refuses_captures = false; }
  std::vector<double> norms_of_3_steps() const {
    std::vector<double> norms;
    with_trainer({"parallel.device=CUDA", "parallel.tune_products=false", "data.max_text_tokens=32",
                  "data.length_buckets=32", "train.global_batch=2", "train.micro_batch=1", "train.max_steps=3"},
                 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
                   for (int i = 0; i < 3; ++i) norms.push_back(trainer.train_step(false).grad_norm);
                   EXPECT_EQ(trainer.graph_launches() > 0, !cuda_emulation::refuses_captures);
                 });
    return norms;
  }
};

TEST_F(TrainerRefused, KernelsAreGivenOneByOneWithTheSameBitsAndThatIsSaid) {
  const std::vector<double> graphs = norms_of_3_steps();
  cuda_emulation::refuses_captures = true;
  ::testing::internal::CaptureStderr();
  const std::vector<double> kernels = norms_of_3_steps();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(kernels, graphs);
  for (const char* work : {"program 0", "work behind the vote (sums to gradients, norm blocks, norm, update)"}) {
    const std::string line = concat("device: ", work, " is given kernel by kernel, not as a CUDA graph: ");
    const size_t at = said.find(line);
    ASSERT_NE(at, std::string::npos) << said;
    EXPECT_EQ(said.find(line, at + 1), std::string::npos) << "once";
  }
}

}  // namespace
}  // namespace permafrost
