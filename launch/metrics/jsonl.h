#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "launch/metrics/output_file.h"

namespace permafrost {

/// What is written about every step. Units are in the names. Rates are of all ranks together; times and bytes are those
/// of the rank that writes, rank 0.
struct StepMetrics {
  int64_t step = 0;
  double loss = 0;
  double lr = 0;
  double grad_norm = 0;
  double samples_per_s = 0;
  double tokens_per_s = 0;
  double step_ms = 0;
  double wait_ms = 0;          ///< waiting for data
  double exposed_comm_ms = 0;  ///< waiting for other ranks, and for sharded weights to be in their slot
  int64_t gathered_bytes = 0;
  int64_t reduced_bytes = 0;
  int64_t moved_bytes = 0;  ///< read from other ranks' memory or received
  int64_t arena_bytes = 0;
  int64_t pss_bytes = 0;
  // Under f16 compute alone; not written where there is no scale, which 0 stands for.
  double loss_scale = 0;      ///< of the attempt that counted
  int64_t scale_repeats = 0;  ///< attempts before it, given up because a gradient was infinite, each at twice the scale

  bool operator==(const StepMetrics&) const = default;
};

/// What is written about a validation, in a line of its own behind that of the step it follows. Such lines have a field
/// "metric", which those of steps have not.
struct ValidationMetrics {
  int64_t step = 0;  ///< that it follows, counted as in StepMetrics
  std::string metric;
  double value = 0;
  int64_t samples = 0;
  bool best = false;           ///< better than all before
  double best_value = 0;       ///< this one included
  int64_t best_step = 0;       ///< updates done when it was measured: one more than the step it followed
  int64_t without_better = 0;  ///< validations since then
  double seconds = 0;          ///< that it took on the rank that writes

  bool operator==(const ValidationMetrics&) const = default;
};

/// One line of JSON, fields in the order above, with line end. Numbers read back to the same bits; NaN and infinity,
/// which JSON does not have, become the strings "nan", "inf" and "-inf".
std::string json_line(const StepMetrics& metrics);
std::string json_line(const ValidationMetrics& metrics);
/// The inverse, of a step. Errors: kData naming what is missing.
StepMetrics parse_json_line(const std::string& line);
/// The steps among the lines of a metrics.jsonl; none where there is no file. Errors: kData as in parse_json_line.
std::vector<StepMetrics> read_steps(const std::filesystem::path& path);

/// The scalars among them, for TensorBoard.
std::vector<std::pair<std::string, double>> scalars(const StepMetrics& metrics);
std::vector<std::pair<std::string, double>> scalars(const ValidationMetrics& metrics);

/// metrics.jsonl of a run directory.
class MetricsFile {
 public:
  /// Keeps the lines of steps before `first_step` and drops the others, whole or torn: what a run wrote after the
  /// checkpoint from which it resumes is written again. Errors: kStorage.
  MetricsFile(const std::filesystem::path& path, int64_t first_step);
  void write(const StepMetrics& metrics) { file_.append(json_line(metrics)); }
  void write(const ValidationMetrics& metrics) { file_.append(json_line(metrics)); }

 private:
  OutputFile file_;
};

}  // namespace permafrost
