#include <array>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "configs/load.h"
#include "configs/validate.h"
#include "core/base/json.h"
#include "core/weights/atomic_file.h"
#include "launch/commands.h"
#include "launch/gpu.h"
#include "launch/metrics/pss.h"
#include "launch/temporary_folder.h"
#include "launch/training/agreement.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "launch/training/trainer.h"
#include "parallel/group/fail_together.h"

namespace permafrost {

namespace {

/// What is in memory at one moment of a run, by category, of one rank; and the largest resident set until then.
struct Moment {
  std::string name;
  std::vector<MemoryUse> uses;
  int64_t pss_bytes = 0;
  int64_t peak_bytes = 0;
  int64_t device_bytes = 0;  ///< taken of the rank's GPU since it was opened, by all processes; 0 on CPU
};

Moment look(const std::string& name, const Plan& plan, const Trainer& trainer, Runtime& runtime) {
  runtime.node.barrier(StreamView::caller(), "bench memory")
      .wait();  // shared pages are divided by who has touched them
  Moment moment{name, {}, pss_bytes(), peak_memory_bytes()};
  moment.uses = memory_use(plan, trainer.memory_pieces(), moment.pss_bytes);
  moment.device_bytes = runtime.device_free_bytes - free_device_memory(runtime.stream);
  runtime.node.barrier(StreamView::caller(), "bench memory").wait();
  reset_peak_memory();
  return moment;
}

std::string mib(int64_t bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (1 << 20);
  return out.str();
}

std::string memory_table(const Plan& plan, const std::vector<Moment>& moments) {
  std::ostringstream out;
  const auto cell = [&](const std::string& text) { out << std::right << std::setw(14) << text; };
  out << std::left << std::setw(12) << "MiB";
  cell("forecast");
  for (const Moment& moment : moments) cell(moment.name);
  out << '\n';
  for (size_t row = 0; row < moments.front().uses.size(); ++row) {
    out << std::left << std::setw(12) << moments.front().uses[row].category;
    cell(mib(moments.front().uses[row].forecast));
    for (const Moment& moment : moments) cell(mib(moment.uses[row].used));
    out << '\n';
  }
  out << std::left << std::setw(12) << "total (PSS)";
  cell(mib(plan.host_bytes_of_rank() + process_constant_bytes(plan.world.device)));
  for (const Moment& moment : moments) cell(mib(moment.pss_bytes));
  out << '\n' << std::left << std::setw(12) << "peak RSS";
  cell("");
  for (const Moment& moment : moments) cell(mib(moment.peak_bytes));
  out << '\n';
  if (plan.world.device == DeviceKind::kCpu) return out.str();
  out << std::left << std::setw(12) << "device";
  cell(mib(plan.device_memory.total()));
  for (const Moment& moment : moments) cell(mib(moment.device_bytes));
  out << "\n(device: what its driver says is taken since this rank opened it; the forecast has "
      << mib(plan.device_memory.constant) << " for context and libraries, part of which is taken at the opening)\n";
  return out.str();
}

std::string memory_json(const Plan& plan, const Runtime& runtime, const std::vector<Moment>& moments) {
  OrderedJson j;
  j["plan_hash"] = plan.hash();
  j["ranks"] = runtime.size();
  j["nodes"] = runtime.place.nodes;
  j["rank"] = runtime.rank();
  for (const MemoryUse& use : moments.front().uses) j["forecast_bytes"][use.category] = use.forecast;
  if (runtime.stream) j["forecast_bytes"]["device"] = plan.device_memory.total();
  for (const Moment& moment : moments) {
    OrderedJson row{{"moment", moment.name}};
    for (const MemoryUse& use : moment.uses) row["used_bytes"][use.category] = use.used;
    row["pss_bytes"] = moment.pss_bytes;
    row["peak_rss_bytes"] = moment.peak_bytes;
    if (runtime.stream) row["device_bytes"] = moment.device_bytes;
    j["moments"].push_back(std::move(row));
  }
  return json_text(j, 1) + "\n";
}

void bench_memory_rank(const BenchMemoryOptions& options, const config::Config& config, Runtime& runtime) {
  const Plan plan = agreed_plan(config, runtime);
  const TemporaryFolder folder(concat("bench-memory-", runtime.rank()));
  std::vector<Moment> moments;
  Trainer trainer(config, runtime, plan);
  // The trainer's communication thread may be waiting for the others.
  tell_before_unwinding(runtime.world, [&] {
    moments.push_back(look("load", plan, trainer, runtime));
    for (int step = 0; step < options.steps; ++step) trainer.train_step(false);
    moments.push_back(look("steady state", plan, trainer, runtime));
    trainer.save(CheckpointStore(folder.path().string(), 1));
    moments.push_back(look("checkpoint", plan, trainer, runtime));
  });
  if (!runtime.first()) return;
  for (const std::string& note : trainer.notes()) std::cout << note << '\n';
  std::cout << "memory of rank 0 of " << runtime.size() << " on " << runtime.place.nodes
            << " nodes, after each of: load, " << options.steps << " steps, a checkpoint\n"
            << memory_table(plan, moments);
  if (!options.json.empty()) write_file_atomically(options.json, memory_json(plan, runtime, moments));
}

}  // namespace

int run_bench_memory(const BenchMemoryOptions& options, const Launcher& launcher) {
  const config::Resolved resolved =
      config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  config::require_data(resolved.config);
  if (options.steps > resolved.config.train().max_steps())
    fail(ErrorKind::kConfig,
         "bench memory: --steps must be at most train.max_steps = ", resolved.config.train().max_steps(), "; got ",
         options.steps);
  return run_ranks(launcher, runtime_options(resolved.config.parallel()),
                   [&](Runtime& runtime) { bench_memory_rank(options, resolved.config, runtime); });
}

}  // namespace permafrost
