#pragma once
#include <sstream>

#include "launch/metrics/jsonl.h"
#include "tests/launch/training_fixture.h"

namespace permafrost {

/// Runs of `permafrost bench step` beside runs of `train` on the same configuration.
class BenchStep : public Training {
 protected:
  Outcome bench(const std::string& options, const std::string& before = "") const {
    return run("bench step " + settings() + options, before);
  }
  /// Starts what follows with these lines (as printf writes them) as its input.
  static std::string with_input(const std::string& printf_text) {
    return "bash -c 'printf \"" + printf_text + "\" | \"$@\"' --";
  }
  /// The lines of an outcome that are JSON.
  static std::vector<Json> json_lines(const Outcome& outcome) {
    std::vector<Json> lines;
    std::istringstream stream(outcome.output);
    for (std::string line; std::getline(stream, line);)
      if (line.starts_with("{")) lines.push_back(parse_json(line));
    return lines;
  }
  std::filesystem::path json_path() const { return folder_ / "step.json"; }
  /// The only line of --json.
  Json figures() const {
    const std::string text = read_file(json_path());
    EXPECT_EQ(std::ranges::count(text, '\n'), 1);
    return parse_json(text);
  }
  std::vector<double> trained_losses(const std::string& name) const {
    std::vector<double> all;
    for (const StepMetrics& step : read_steps(dir(name) / "metrics.jsonl")) all.push_back(step.loss);
    return all;
  }
  static std::vector<double> measured_losses(const Json& figures) {
    std::vector<double> all = figures["warmup"]["losses"];
    const std::vector<double> timed = figures["timed"]["losses"];
    all.insert(all.end(), timed.begin(), timed.end());
    return all;
  }

  /// The same losses as `train`, bit for bit, and figures that fit together.
  void expect_same_steps_as_train(const std::string& more, const std::string& before, int ranks) const {
    ASSERT_TRUE(ends(train(more, "trained", before), 0, {}));
    ASSERT_TRUE(ends(bench(more + " --warmup 1 --steps 3 --json " + json_path().string(), before), 0,
                     {"ms median (quartiles ", " of 3 steps behind 1, slowest rank", "samples/s", "waiting for data",
                      "s from process start: launch ", "moved ", "PSS ", "forecast of the node ", "read back"}));
    const Json j = figures();
    const std::vector<double> losses = measured_losses(j);
    EXPECT_EQ(losses.size(), 4u);
    EXPECT_EQ(losses, trained_losses("trained"));
    EXPECT_EQ(j["plan_hash"], summary("trained")["plan_hash"]);
    EXPECT_EQ(j["parameters"], summary("trained")["parameters"]);
    EXPECT_EQ(j["ranks"], ranks);
    for (const char* list : {"pss_bytes", "uss_bytes", "peak_rss_bytes"}) {
      EXPECT_EQ(j[list].size(), static_cast<size_t>(ranks)) << list;
      for (const auto& bytes : j[list]) EXPECT_GT(bytes.get<int64_t>(), 0) << list;
    }
    // Bytes are the plan's, in every step but the first, which runs twice.
    const Json& plan = j["plan_bytes_per_step"];
    for (const char* what : {"moved", "gathered", "reduced"}) {
      EXPECT_EQ(plan[what].get<int64_t>() > 0, ranks > 1) << what;
      for (const auto& bytes : j["timed"][std::string(what) + "_bytes"]) EXPECT_EQ(bytes, plan[what]) << what;
    }
    for (const auto& samples : j["timed"]["samples"]) EXPECT_GT(samples.get<int>(), 0);
    const Json& first = j["to_first_step_seconds"];
    double sum = 0;
    for (const char* part : {"launch", "plan", "load_weights", "hash_frozen", "other_set_up", "first_step"}) {
      EXPECT_GE(first[part].get<double>(), 0) << part;
      sum += first[part].get<double>();
    }
    EXPECT_NEAR(first["total"].get<double>(), sum, 1e-9);  // the same seconds in another order
  }

  /// A whole conversation: every answer a line of JSON, bad lines answered and survived.
  void expect_serves_commands(const std::string& before, int ranks) const {
    ASSERT_TRUE(ends(train("", "trained", before), 0, {}));
    const Outcome given = bench("--control", with_input("run 1\\nmemory\\nrun 9\\nhello\\nrun 2\\ncheckpoint\\nrun "
                                                        "1\\nquit\\nrun 1\\n") +
                                                 " " + before);
    ASSERT_EQ(given.code, 0) << given.output;
    const std::vector<Json> lines = json_lines(given);
    ASSERT_EQ(lines.size(), 8u) << given.output;
    EXPECT_EQ(lines[0]["benchmark"], "step");
    EXPECT_EQ(lines[0]["ranks"], ranks);
    for (const char* key : {"machine", "version", "commit", "compiler", "onednn", "mpi", "config", "config_sha256",
                            "plan_hash", "threads_per_rank", "dtype", "parameters", "forecast_bytes"})
      EXPECT_TRUE(lines[0].contains(key)) << key;
    EXPECT_TRUE(lines[1].contains("to_first_step_seconds"));
    EXPECT_EQ(lines[2]["pss_bytes"].size(), static_cast<size_t>(ranks));
    EXPECT_EQ(lines[3]["error"], "bench step: expected at most the 3 steps that train.max_steps = 4 has left; got 9");
    EXPECT_EQ(lines[4]["error"],
              "bench step: expected a line 'run N' (N steps, 1 and up), 'memory', 'checkpoint' or 'quit'; got 'hello'");
    EXPECT_EQ(lines[5]["first_step"], 1);
    EXPECT_FALSE(lines[5].contains("to_first_step_seconds"));
    EXPECT_EQ(lines[5]["seconds"].size(), 2u);
    EXPECT_GT(lines[6]["checkpoint_bytes"].get<int64_t>(), 0);
    EXPECT_GT(lines[6]["checkpoint_seconds"].get<double>(), 0);
    std::vector<double> losses;
    for (const size_t i : {1, 5, 7})
      for (const auto& loss : lines[i]["losses"]) losses.push_back(loss);
    EXPECT_EQ(losses, trained_losses("trained"));
  }
};

}  // namespace permafrost
