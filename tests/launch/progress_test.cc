#include "launch/metrics/progress.h"

#include <cmath>
#include <sstream>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

StepMetrics at(int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 3.25;
  metrics.lr = 1e-3;
  metrics.grad_norm = 0.5;
  metrics.samples_per_s = 4.0;
  return metrics;
}

TEST(Progress, DurationsAreForPeople) {
  EXPECT_EQ(duration_text(0), "0:00");
  EXPECT_EQ(duration_text(64.2), "1:05");
  EXPECT_EQ(duration_text(12 * 3600 + 7), "12:00:07");
  EXPECT_EQ(duration_text(3 * 86400 + 4 * 3600), "3 d 04:00");
  EXPECT_EQ(duration_text(-1), "?");
  EXPECT_EQ(duration_text(std::nan("")), "?");
}

TEST(Progress, ALogGetsPlainLinesWithTheFirstAndTheLastStep) {
  std::ostringstream out;
  Progress progress(out, {.first_step = 0, .steps = 5, .every_steps = 2});
  for (int step = 0; step < 5; ++step) progress.step(at(step), 10.0 + 2.0 * step);
  EXPECT_EQ(out.str(),
            "step 1/5  loss 3.25  lr 0.001  norm 0.5  4 samples/s  ETA ?\n"
            "step 2/5  loss 3.25  lr 0.001  norm 0.5  4 samples/s  ETA 0:06\n"
            "step 4/5  loss 3.25  lr 0.001  norm 0.5  4 samples/s  ETA 0:02\n"
            "step 5/5  loss 3.25  lr 0.001  norm 0.5  4 samples/s\n");
}

TEST(Progress, ATerminalGetsOneLineThatIsWrittenOver) {
  std::ostringstream out;
  Progress progress(out, {.first_step = 0, .steps = 2, .every_steps = 1, .terminal = true, .columns = 20});
  progress.step(at(0), 1.0);
  EXPECT_EQ(out.str(), "\r\x1b[Kstep 1/2  loss 3.25");
  progress.end_line();
  progress.end_line();
  progress.step(at(1), 2.0);
  EXPECT_EQ(out.str(), "\r\x1b[Kstep 1/2  loss 3.25\n\r\x1b[Kstep 2/2  loss 3.25\n");
}

TEST(Progress, TheFirstStepDoesNotCountForTheEstimate) {
  std::ostringstream out;
  Progress progress(out, {.first_step = 0, .steps = 100, .every_steps = 1});
  progress.step(at(0), 1000.0);
  progress.step(at(1), 1001.0);
  EXPECT_NE(out.str().find("ETA 1:38"), std::string::npos) << out.str();
}

}  // namespace
}  // namespace permafrost
