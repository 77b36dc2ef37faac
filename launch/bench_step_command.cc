#include <unistd.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <sstream>

#include "configs/load.h"
#include "configs/validate.h"
#include "core/weights/atomic_file.h"
#include "launch/about_run.h"
#include "launch/bench/bench_step.h"
#include "launch/bench/onednn.h"
#include "launch/bench/quantile.h"
#include "launch/bench/step_control.h"
#include "launch/commands.h"
#include "launch/training/name_patterns.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace {

/// What rank 0 knows when it is done.
struct StepFigures {
  StepSeries warmup, timed;
  StepMemoryUse memory;
  StepCheckpoint checkpoint;
};

/// What was measured with, and on what: the first line under --control.
OrderedJson heading(const StepBench& bench, const Runtime& runtime, const std::string& config) {
  OrderedJson j{{"benchmark", "step"}, {"config", config}};
  j.update(about_run(runtime));
  j["onednn"] = bench::onednn_version();
  j.update(bench.describe());
  return j;
}

template <typename T>
double median_of(const std::vector<T>& values) {
  return bench::quantile(std::vector<double>(values.begin(), values.end()), 0.5);
}

/// Per second, of the steps together.
template <typename T>
double rate(const std::vector<T>& counts, const std::vector<double>& seconds) {
  return static_cast<double>(std::accumulate(counts.begin(), counts.end(), T{0})) /
         std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

double share_of(const std::vector<double>& part, const std::vector<double>& whole) {
  return std::accumulate(part.begin(), part.end(), 0.0) / std::accumulate(whole.begin(), whole.end(), 0.0);
}

OrderedJson figures_json(const StepFigures& figures, const StepBench& bench) {
  const std::vector<double>& seconds = figures.timed.seconds;
  OrderedJson j{{"step_seconds",
                 {{"median", bench::quantile(seconds, 0.5)},
                  {"q1", bench::quantile(seconds, 0.25)},
                  {"q3", bench::quantile(seconds, 0.75)}}},
                {"samples_per_s", rate(figures.timed.samples, seconds)},
                {"tokens_per_s", rate(figures.timed.tokens, seconds)},
                {"gflop_per_s", rate(figures.timed.flops, seconds) / 1e9},
                {"data_wait_share", share_of(figures.timed.data_wait_seconds, seconds)},
                {"device_ms", 1e3 * median_of(figures.timed.device_seconds)},
                {"device_outside_share", 1 - share_of(figures.timed.device_seconds, seconds)},
                {"to_first_step_seconds", bench.to_first_step().json()}};
  j.update(figures.memory.json());
  j.update(figures.checkpoint.json());
  j["warmup"] = figures.warmup.json();
  j["timed"] = figures.timed.json();
  return j;
}

std::string mebibytes(double bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << bytes / (1 << 20) << " MiB";
  return out.str();
}

std::string list_of_mebibytes(const std::vector<int64_t>& bytes) {
  std::string text;
  for (const int64_t each : bytes) text += (text.empty() ? "" : ", ") + mebibytes(static_cast<double>(each));
  return text;
}

void print_bytes(const OrderedJson& head, const StepFigures& figures) {
  const OrderedJson& plan = head["plan_bytes_per_step"];
  std::cout << "bytes per step    ";
  const auto one = [&](const char* name, const std::vector<int64_t>& counted, const char* end) {
    std::cout << name << ' ' << static_cast<int64_t>(median_of(counted)) << " (plan " << plan[name] << ')' << end;
  };
  one("moved", figures.timed.moved_bytes, ", ");
  one("gathered", figures.timed.gathered_bytes, ", ");
  one("reduced", figures.timed.reduced_bytes, "; all ranks, median\n");
}

/// Empty on CPU, where no device was busy.
std::string device_text(const OrderedJson& body) {
  if (body["device_ms"] == 0.0) return "";
  std::ostringstream out;
  out << std::fixed << std::setprecision(3) << "GPU               " << body["device_ms"].get<double>()
      << " ms of a step (median) from the first to the last kernel of its programs; "
      << 100 * body["device_outside_share"].get<double>() << " % of the steps is outside\n";
  return out.str();
}

void print_text(const OrderedJson& head, const OrderedJson& body, const StepFigures& figures) {
  const OrderedJson &step = body["step_seconds"], &first = body["to_first_step_seconds"],
                    &forecast = head["forecast_bytes"];
  std::cout << std::fixed << std::setprecision(3) << "machine           " << head["machine"].get<std::string>() << ", "
            << head["cores"] << " cores; " << head["ranks"] << " ranks x " << head["threads_per_rank"] << " threads, "
            << head["dtype"].get<std::string>() << '\n'
            << "plan              " << head["plan_hash"].get<std::string>() << '\n'
            << "parameters        " << head["parameters"]["trainable"] << " of " << head["parameters"]["total"]
            << " train\n"
            << "step              " << step["median"].get<double>() * 1e3 << " ms median (quartiles "
            << step["q1"].get<double>() * 1e3 << ", " << step["q3"].get<double>() * 1e3 << ") of "
            << figures.timed.seconds.size() << " steps behind " << figures.warmup.seconds.size() << ", slowest rank\n"
            << "rate              " << body["samples_per_s"].get<double>() << " samples/s, "
            << body["tokens_per_s"].get<double>() << " predicted tokens/s, " << body["gflop_per_s"].get<double>()
            << " GFLOP/s\n"
            << "waiting for data  " << 100 * body["data_wait_share"].get<double>() << " % of the timed steps\n"
            << device_text(body) << "first step        " << first["total"].get<double>()
            << " s from process start: launch " << first["launch"].get<double>() << ", plan "
            << first["plan"].get<double>() << ", weights " << first["load_weights"].get<double>() << ", their hash "
            << first["hash_frozen"].get<double>() << ", other set-up " << first["other_set_up"].get<double>()
            << ", step " << first["first_step"].get<double>() << '\n';
  print_bytes(head, figures);
  std::cout << "memory            PSS " << mebibytes(static_cast<double>(figures.memory.pss_sum())) << " ("
            << list_of_mebibytes(figures.memory.pss_bytes) << "), forecast of the node "
            << mebibytes(forecast["node"].get<double>()) << "; USS " << list_of_mebibytes(figures.memory.uss_bytes)
            << "; peak RSS " << list_of_mebibytes(figures.memory.peak_rss_bytes) << '\n'
            << "checkpoint        " << mebibytes(static_cast<double>(figures.checkpoint.bytes)) << ", "
            << figures.checkpoint.seconds << " s, read back\n"
            << "loss              ";
  for (const double loss : figures.timed.losses) std::cout << std::setprecision(6) << loss << ' ';
  std::cout << '\n';
}

/// The first of the steps that are timed, where nothing else is asked for.
TraceOptions trace_options(const BenchStepOptions& options) {
  TraceOptions made{.who = "bench step", .file = options.trace, .steps = options.trace_steps};
  if (made.steps.empty())
    made.steps = concat(options.warmup, ":", options.warmup + std::min(kUsualTraceSteps, options.steps));
  return made;
}

void measure(const BenchStepOptions& options, StepBench& bench, Runtime& runtime) {
  StepFigures figures;
  figures.warmup = bench.run(options.warmup);
  std::optional<StepProfile> profile;
  if (options.profile && runtime.first())
    profile.emplace(bench.plan(), runtime.pool, runtime.rank(), options.steps,
                    runtime.stream ? runtime.stream->queue() : nullptr);
  figures.timed = bench.run(options.steps, profile ? &*profile : nullptr);
  const std::optional<std::string> traced = bench.run_trace().finish();
  figures.memory = bench.memory();
  figures.checkpoint = bench.checkpoint();
  if (!runtime.first()) return;
  const OrderedJson head = heading(bench, runtime, options.config.path);
  OrderedJson body = figures_json(figures, bench);
  print_text(head, body, figures);
  if (profile) {
    std::cout << '\n' << profile->table();
    body["profile"] = profile->json();
  }
  if (traced) std::cout << *traced << '\n';
  if (options.json.empty()) return;
  OrderedJson all = head;
  all.update(body);
  write_file_atomically(options.json, json_text(all) + "\n");
}

void bench_step_rank(const BenchStepOptions& options, const config::Resolved& resolved, Runtime& runtime) {
  StepBench bench(resolved, runtime, trace_options(options), options.warmup + options.steps);
  // The trainer's communication thread may be waiting for the others.
  tell_before_unwinding(runtime.world, [&] {
    if (!options.control) return bench.run_trace().keep_when_failing([&] { measure(options, bench, runtime); });
    if (runtime.first()) std::cout << json_text(heading(bench, runtime, options.config.path)) << std::endl;
    serve_step_commands(bench, runtime, STDIN_FILENO,
                        std::chrono::milliseconds(250 * resolved.config.parallel().timeout_s()), std::cout);
  });
}

}  // namespace

int run_bench_step(const BenchStepOptions& options, const Launcher& launcher) {
  const config::Resolved resolved =
      config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  config::require_data(resolved.config);
  const int64_t wanted = options.warmup + options.steps, most = resolved.config.train().max_steps();
  if (!options.control && wanted > most)
    fail(ErrorKind::kConfig, "bench step: --warmup and --steps together must be at most train.max_steps = ", most,
         "; got ", wanted);
  if (!options.control) check_trace_options(trace_options(options), wanted);
  return run_ranks(launcher, runtime_options(resolved.config.parallel()),
                   [&](Runtime& runtime) { bench_step_rank(options, resolved, runtime); });
}

}  // namespace permafrost
