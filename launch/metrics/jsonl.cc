#include "launch/metrics/jsonl.h"

#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost {

namespace {

/// Calls visit(name, member) for every field, in order.
template <typename Metrics, typename Visit>
void for_each_field(Metrics& m, Visit&& visit) {
  visit("step", m.step);
  visit("loss", m.loss);
  visit("lr", m.lr);
  visit("grad_norm", m.grad_norm);
  visit("samples_per_s", m.samples_per_s);
  visit("tokens_per_s", m.tokens_per_s);
  visit("step_ms", m.step_ms);
  visit("wait_ms", m.wait_ms);
  visit("exposed_comm_ms", m.exposed_comm_ms);
  visit("gathered_bytes", m.gathered_bytes);
  visit("reduced_bytes", m.reduced_bytes);
  visit("moved_bytes", m.moved_bytes);
  visit("arena_bytes", m.arena_bytes);
  visit("pss_bytes", m.pss_bytes);
}

/// The same for the fields that not every step has.
template <typename Metrics, typename Visit>
void for_each_scale_field(Metrics& m, Visit&& visit) {
  visit("loss_scale", m.loss_scale);
  visit("scale_repeats", m.scale_repeats);
}

std::string print(int64_t value) { return std::to_string(value); }

std::string print(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  if (value == 0) return std::signbit(value) ? "-0.0" : "0";  // JSON's "-0" is a whole number, which has no sign
  std::array<char, 32> text{};
  const auto result = std::to_chars(text.data(), text.data() + text.size(), value);  // the shortest that reads back
  return std::string(text.data(), result.ptr);
}

double read_double(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (value == "inf" || value == "-inf") return (value == "inf" ? 1 : -1) * std::numeric_limits<double>::infinity();
  fail(ErrorKind::kData, "metrics: expected a number; got ", json_text(value));
}

/// Lines of steps before `first_step`, as they are.
std::string kept_lines(const std::filesystem::path& path, int64_t first_step) {
  std::ifstream stream(path, std::ios::binary);
  std::string kept, line;
  while (std::getline(stream, line) && !stream.eof()) {
    const auto json = try_parse_json(line);
    const auto step = json.is_object() ? json.find("step") : json.end();
    if (!json.is_object() || step == json.end() || !step->is_number_integer() || step->get<int64_t>() >= first_step)
      continue;
    kept += line + "\n";
  }
  return kept;
}

std::filesystem::path trimmed(const std::filesystem::path& path, int64_t first_step) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return path;
  const std::string kept = first_step > 0 ? kept_lines(path, first_step) : "";
  const std::filesystem::path fresh = path.string() + ".new";
  std::filesystem::remove(fresh, error);
  OutputFile(fresh).append(kept);
  std::filesystem::rename(fresh, path, error);
  if (error) fail(ErrorKind::kStorage, "metrics: cannot replace ", path.string(), ": ", error.message());
  return path;
}

/// line: what json was read from, for messages.
StepMetrics step_metrics(const Json& json, const std::string& line) {
  if (!json.is_object()) fail(ErrorKind::kData, "metrics: expected one JSON object per line; got '", line, "'");
  StepMetrics metrics;
  const auto read = [&](const char* name, auto& value) {
    const auto found = json.find(name);
    if (found == json.end()) fail(ErrorKind::kData, "metrics: expected the field '", name, "'; got '", line, "'");
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(value)>, double>) {
      value = read_double(*found);
    } else {
      if (!found->is_number_integer())
        fail(ErrorKind::kData, "metrics: expected a whole number in '", name, "'; got ", found->dump());
      value = found->template get<int64_t>();
    }
  };
  for_each_field(metrics, read);
  if (json.contains("loss_scale")) for_each_scale_field(metrics, read);
  return metrics;
}

}  // namespace

std::string json_line(const StepMetrics& metrics) {
  std::string line;
  const auto write = [&](const char* name, auto value) {
    line += concat(line.empty() ? "{" : ", ", "\"", name, "\": ", print(value));
  };
  for_each_field(metrics, write);
  if (metrics.loss_scale > 0) for_each_scale_field(metrics, write);
  return line + "}\n";
}

std::string json_line(const ValidationMetrics& m) {
  return concat("{\"step\": ", m.step, ", \"metric\": ", "\"", m.metric, "\"", ", \"value\": ", print(m.value),
                ", \"samples\": ", m.samples, ", \"best\": ", m.best ? "true" : "false",
                ", \"best_value\": ", print(m.best_value), ", \"best_step\": ", m.best_step,
                ", \"without_better\": ", m.without_better, ", \"seconds\": ", print(m.seconds), "}\n");
}

StepMetrics parse_json_line(const std::string& line) { return step_metrics(try_parse_json(line), line); }

std::vector<std::pair<std::string, double>> scalars(const StepMetrics& metrics) {
  std::vector<std::pair<std::string, double>> values;
  const auto take = [&](const char* name, auto value) {
    if (std::string(name) != "step") values.emplace_back(std::string("train/") + name, static_cast<double>(value));
  };
  for_each_field(metrics, take);
  if (metrics.loss_scale > 0) for_each_scale_field(metrics, take);
  return values;
}

std::vector<std::pair<std::string, double>> scalars(const ValidationMetrics& metrics) {
  return {{"validation/" + metrics.metric, metrics.value}};
}

std::vector<StepMetrics> read_steps(const std::filesystem::path& path) {
  std::vector<StepMetrics> steps;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto json = try_parse_json(line);
    if (json.is_object() && json.contains("metric")) continue;  // of a validation
    steps.push_back(step_metrics(json, line));
  }
  return steps;
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t first_step) : file_(trimmed(path, first_step)) {}

}  // namespace permafrost
