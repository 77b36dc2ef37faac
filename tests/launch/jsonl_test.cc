#include "launch/metrics/jsonl.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "core/base/philox.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {
using testing::throws_error;

StepMetrics at(int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.loss = 1.0 / 3.0;
  metrics.lr = 2e-5;
  metrics.gathered_bytes = int64_t{1} << 40;
  return metrics;
}

TEST(MetricsFile, LinesHaveTheFieldsInOrder) {
  StepMetrics metrics = at(3);
  metrics.grad_norm = 0.5;
  metrics.samples_per_s = 12;
  metrics.pss_bytes = 7;
  EXPECT_EQ(json_line(metrics),
            "{\"step\": 3, \"loss\": 0.3333333333333333, \"lr\": 2e-05, \"grad_norm\": 0.5, \"samples_per_s\": 12, "
            "\"tokens_per_s\": 0, \"step_ms\": 0, \"wait_ms\": 0, \"exposed_comm_ms\": 0, \"gathered_bytes\": "
            "1099511627776, \"reduced_bytes\": 0, \"moved_bytes\": 0, \"arena_bytes\": 0, \"pss_bytes\": 7}\n");
}

TEST(MetricsFile, TheLossScaleIsWrittenWhereThereIsOne) {
  StepMetrics metrics = at(3);
  metrics.loss_scale = 65536;
  metrics.scale_repeats = 2;
  const std::string line = json_line(metrics);
  EXPECT_NE(line.find("\"pss_bytes\": 0, \"loss_scale\": 65536, \"scale_repeats\": 2}\n"), std::string::npos) << line;
  EXPECT_EQ(parse_json_line(line), metrics);
  const auto has_scale = [](const StepMetrics& m) {
    return std::ranges::any_of(scalars(m), [](const auto& s) { return s.first == "train/loss_scale"; });
  };
  EXPECT_TRUE(has_scale(metrics));
  EXPECT_FALSE(has_scale(at(3)));
  const std::string half = line.substr(0, line.find(", \"scale_repeats\"")) + "}";
  EXPECT_TRUE(throws_error([&] { parse_json_line(half); }, ErrorKind::kData, {"expected the field 'scale_repeats'"}));
}

TEST(MetricsFile, NumbersReadBackToTheSameBits) {
  Random random(1, RandomPurpose::kSynthetic);
  for (int i = 0; i < 2000; ++i) {
    StepMetrics metrics = at(i);
    metrics.loss = std::ldexp(random.next_double() - 0.5, static_cast<int>(random.next_below(2000)) - 1000);
    metrics.grad_norm = static_cast<double>(random.next_float());
    EXPECT_EQ(parse_json_line(json_line(metrics)), metrics);
  }
  StepMetrics odd = at(0);
  odd.loss = std::numeric_limits<double>::denorm_min();
  odd.grad_norm = -0.0;
  odd.lr = std::numeric_limits<double>::max();
  EXPECT_EQ(parse_json_line(json_line(odd)), odd);
  EXPECT_TRUE(std::signbit(parse_json_line(json_line(odd)).grad_norm));
}

TEST(MetricsFile, NanAndInfinityAreStrings) {
  StepMetrics metrics = at(0);
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.grad_norm = -std::numeric_limits<double>::infinity();
  EXPECT_NE(json_line(metrics).find("\"loss\": \"nan\""), std::string::npos);
  const StepMetrics back = parse_json_line(json_line(metrics));
  EXPECT_TRUE(std::isnan(back.loss));
  EXPECT_EQ(back.grad_norm, metrics.grad_norm);
}

TEST(MetricsFile, BadLinesAreRefused) {
  EXPECT_TRUE(throws_error([] { parse_json_line("{\"step\": 1}"); }, ErrorKind::kData, {"expected the field 'loss'"}));
  EXPECT_TRUE(throws_error([] { parse_json_line("{\"step\": 1"); }, ErrorKind::kData, {"expected one JSON object"}));
  EXPECT_TRUE(
      throws_error([] { parse_json_line("{\"step\": 1.5}"); }, ErrorKind::kData, {"whole number in 'step'; got 1.5"}));
  EXPECT_TRUE(throws_error([] { parse_json_line("{\"step\": 1, \"loss\": \"x\"}"); }, ErrorKind::kData,
                           {"expected a number; got \"x\""}));
}

TEST(MetricsFile, ResumingDropsWhatWillBeWrittenAgain) {
  const ScratchFolder folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsFile file(path, 0);
    for (int step = 0; step < 5; ++step) file.write(at(step));
  }
  std::ofstream(path, std::ios::app) << "{\"step\": 5, \"lo";  // torn by a crash
  {
    MetricsFile file(path, 3);
    file.write(at(3));
  }
  EXPECT_EQ(read_file(path), json_line(at(0)) + json_line(at(1)) + json_line(at(2)) + json_line(at(3)));
  MetricsFile fresh(path, 0);
  EXPECT_EQ(read_file(path), "");
}

ValidationMetrics validation_at(int64_t step) {
  return {step, "class_accuracy", 0.875, 64, true, 0.875, step + 1, 0, 1.5};
}

TEST(MetricsFile, ValidationsStandBesideSteps) {
  EXPECT_EQ(json_line(validation_at(3)),
            "{\"step\": 3, \"metric\": \"class_accuracy\", \"value\": 0.875, \"samples\": 64, \"best\": true, "
            "\"best_value\": 0.875, \"best_step\": 4, \"without_better\": 0, \"seconds\": 1.5}\n");
  const ScratchFolder folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsFile file(path, 0);
    for (int step = 0; step < 5; ++step) {
      file.write(at(step));
      if (step % 2 == 1) file.write(validation_at(step));
    }
  }
  const std::vector<StepMetrics> steps = read_steps(path);
  ASSERT_EQ(steps.size(), 5u);
  EXPECT_EQ(steps[3], at(3));
  const MetricsFile again(path, 2);  // goes on after two updates
  EXPECT_EQ(read_file(path), json_line(at(0)) + json_line(at(1)) + json_line(validation_at(1)));
  EXPECT_TRUE(read_steps(folder / "nothing").empty());
  std::ofstream(path, std::ios::app) << "{\"step\": 2}\n";
  EXPECT_TRUE(throws_error([&] { read_steps(path); }, ErrorKind::kData, {"expected the field 'loss'"}));
  EXPECT_EQ(scalars(validation_at(3)),
            (std::vector<std::pair<std::string, double>>{{"validation/class_accuracy", 0.875}}));
}

TEST(MetricsFile, ScalarsForTensorBoardHaveEveryFieldButTheStep) {
  const auto values = scalars(at(1));
  EXPECT_EQ(values.size(), 13u);
  EXPECT_EQ(values[0].first, "train/loss");
  EXPECT_EQ(values[0].second, 1.0 / 3.0);
  EXPECT_EQ(values.back().first, "train/pss_bytes");
}

}  // namespace
}  // namespace permafrost
