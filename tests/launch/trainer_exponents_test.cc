// A run that is stopped while what is kept of the size of gradients is on its way down, and goes on.
#include <filesystem>
#include <fstream>

#include "core/base/json.h"
#include "tests/launch/run_program.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

class TrainerExponents : public TrainerTest {
 protected:
  static constexpr int kSteps = 4, kStop = 2;

  /// Large steps, so that gradients soon shrink.
  static Overrides large_steps() {
    return {"data.max_text_tokens=32", "data.length_buckets=32", "train.global_batch=2",    "train.micro_batch=1",
            "train.max_steps=4",       "schedule.kind=CONSTANT", "schedule.warmup_steps=0", "optimizer.lr=0.05"};
  }
  CheckpointStore store(const std::string& name) const { return CheckpointStore((folder_ / name).string(), kSteps); }

  struct Run {
    std::vector<double> losses, norms;
    std::string adapter_sha256;
  };
  /// `steps` steps behind the checkpoint `from`, where it is not "", each with a checkpoint in `to`.
  void run(const Overrides& config, const std::string& from, int steps, const CheckpointStore& to, Run& into) const {
    with_trainer(config, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      if (!from.empty()) trainer.resume(from);
      for (int i = 0; i < steps; ++i) {
        const StepMetrics metrics = trainer.train_step(false);
        into.losses.push_back(metrics.loss);
        into.norms.push_back(metrics.grad_norm);
        into.adapter_sha256 = trainer.save(to);
      }
    });
  }
  static std::vector<int32_t> exponents_of(const std::string& checkpoint) {
    return parse_json(read_file(checkpoint + "/position.json")).at("exponents").get<std::vector<int32_t>>();
  }
  /// Of the gradients of one step alone: those that a run has which knows nothing of the steps before.
  std::vector<int32_t> exponents_of_step(const Overrides& config, const std::string& before) const {
    const std::string copy = (folder_ / "without").string();
    std::filesystem::copy(before, copy);
    Json position = parse_json(read_file(before + "/position.json"));
    position["exponents"] = std::vector<int32_t>();
    std::ofstream(copy + "/position.json") << json_text(position);
    Run one;
    const CheckpointStore own = store("of one step");
    run(config, copy, 1, own, one);
    std::filesystem::remove_all(copy);
    return exponents_of(own.path_of(kStop));
  }
};

TEST_F(TrainerExponents, ThatFallAreTakenUpWhereARunWasStopped) {
  const Overrides config = large_steps();
  Run whole, parts;
  const CheckpointStore of_whole = store("whole"), of_parts = store("parts");
  run(config, "", kSteps, of_whole, whole);
  const auto at = [&](int step) { return exponents_of(of_whole.path_of(step)); };
  const std::vector<int32_t> stop = at(kStop), next = at(kStop + 1),
                             step = exponents_of_step(config, of_whole.path_of(kStop - 1));
  int falling = 0;
  for (size_t i = 0; i < stop.size(); ++i) falling += stop[i] > step[i] && next[i] == stop[i] - 1 ? 1 : 0;
  ASSERT_GT(falling, 0) << "no exponent is above that of its gradient and falls on; choose other steps";
  run(config, "", kStop, of_parts, parts);
  run(config, of_parts.path_of(kStop), kSteps - kStop, of_parts, parts);
  EXPECT_EQ(parts.losses, whole.losses);
  EXPECT_EQ(parts.norms, whole.norms);
  EXPECT_EQ(parts.adapter_sha256, whole.adapter_sha256);
  for (int s = 1; s <= kSteps; ++s) EXPECT_EQ(exponents_of(of_parts.path_of(s)), at(s)) << "step " << s;
}

}  // namespace
}  // namespace permafrost
