#include <iostream>

#include "configs/load.h"
#include "launch/ceilings.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "optim/factory.h"
#include "parallel/plan/step_forecast.h"

namespace permafrost {

namespace {

void require_device(const PlanOptions& options) {
  if (!options.device.empty()) return;
  const char* given = !options.ceilings.empty() ? "--ceilings" : options.nic_gbps > 0 ? "--nic-gbps" : nullptr;
  if (options.tf32) given = "--tf32";
  if (given)
    fail(ErrorKind::kConfig, "plan: ", given, " says something of a forecast of time; got no --device to forecast for");
}

Collectives collectives_of(const std::string& name) {
  if (name == "nccl") return Collectives::kDevice;
  if (name == "host") return Collectives::kHost;
  fail(ErrorKind::kConfig, "plan: nccl or host expected; got '", name, "' [param=--collectives]");
}

ForecastOptions forecast_options(const PlanOptions& options, const config::Config& config, const Plan& plan,
                                 const DeviceSpec& spec) {
  ForecastOptions forecast;
  const Products of_f32 = options.tf32 ? Products::kTf32 : Products::kF32;
  const MeasuredCeilings measured = options.ceilings.empty() ? MeasuredCeilings{} : read_ceilings(options.ceilings);
  forecast.rates = rates_of(spec, plan.compute == DType::kF32 ? of_f32 : Products::kBF16, measured);
  forecast.collectives = collectives_of(options.collectives);
  forecast.launch_seconds = options.launch_us * 1e-6;
  forecast.samples_per_micro_batch = config.train().micro_batch();
  const bool has_text = make_model(config)->vocab() > 0;
  forecast.tokens_per_micro_batch = has_text ? forecast.samples_per_micro_batch * plan.buckets.back() : 0;
  return forecast;
}

std::string room_text(const Plan& plan, const DeviceSpec& spec) {
  const int64_t needed = plan.device_memory.total(), lacking = needed - spec.memory_bytes;
  return concat("memory of ", spec.title, ": ", gib_text(needed), " of ", gib_text(spec.memory_bytes),
                lacking <= 0 ? concat(", fits") : concat(", does NOT fit: short by ", gib_text(lacking)), "\n\n");
}

}  // namespace

int run_plan(const PlanOptions& options) {
  require_device(options);
  DeviceSpec spec;
  ConfigOptions source = options.config;
  if (!options.device.empty()) {
    spec = device_spec(options.device);
    if (options.nic_gbps > 0) spec.network_bytes_per_s = options.nic_gbps * 1e9 / 8;
    source.overrides.push_back("parallel.device=CUDA");
  }
  const config::Resolved resolved = config::load_config(source.path, source.overrides, check_name_patterns);
  PlanChoices choices;
  choices.world = {options.ranks, options.nodes, options.threads};
  choices.world.cores = options.cores_per_node;
  choices.world.device = program_device(resolved.config);
  choices.node_memory_bytes = static_cast<int64_t>(options.memory_gib * static_cast<double>(int64_t{1} << 30));
  choices.device_memory_bytes = spec.memory_bytes;
  choices.read_files = !resolved.config.weights().vision().empty() || !resolved.config.weights().text().empty();
  PlanRequest request = plan_request(resolved.config, choices);
  if (!options.device.empty()) request.device_collectives = collectives_of(options.collectives) == Collectives::kDevice;
  const Plan plan = make_plan(request);
  resolve_groups(plan, make_adamw_config(resolved.config));  // patterns that match nothing are named here too
  if (options.device.empty()) {
    std::cout << (options.json ? plan.json() + "\n" : plan.table());
    return 0;
  }
  const ForecastOptions with = forecast_options(options, resolved.config, plan, spec);
  const StepForecast forecast = forecast_step(plan, with);
  if (options.json)
    std::cout << forecast_json(plan, with, forecast) << '\n';
  else
    std::cout << plan.table() << room_text(plan, spec) << forecast_table(plan, with, forecast);
  return 0;
}

}  // namespace permafrost
