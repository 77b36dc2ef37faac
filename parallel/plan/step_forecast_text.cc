// The forecast as text and JSON.
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "parallel/plan/plan_json.h"
#include "parallel/plan/step_forecast.h"

namespace permafrost {

namespace {

std::string fixed_text(double value, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << value;
  return out.str();
}
std::string ms(double seconds) { return fixed_text(1e3 * seconds, 3); }

/// "664.4 TFLOP/s (0.85 of ...)": of a ceiling that was given, or of a part of the data sheet.
std::string rate_text(double attained, double unit, const char* name, bool given, double ceiling, bool known) {
  const std::string of = given ? "of a measured ceiling"
                               : concat("of a ceiling that is ", ceiling, " of the data sheet, ",
                                        known ? "as measured on one card" : "assumed");
  return concat(fixed_text(attained / unit, 1), ' ', name, " (", kOfCeiling, ' ', of, ")");
}

void add_row(std::ostringstream& out, int width, const std::string& name, std::string_view freeze_class,
             std::string_view policy, const UnitForecast& unit) {
  out << std::left << std::setw(width) << name << std::setw(14) << freeze_class << std::setw(10) << policy << std::right
      << std::setw(12) << fixed_text(unit.flops / 1e9, 2);
  for (double seconds :
       {unit.product_seconds, unit.memory_seconds, unit.gather_seconds, unit.launch_seconds, unit.busy_seconds})
    out << std::setw(12) << ms(seconds);
  out << "  " << to_string(unit.bound) << '\n';
}

std::string assumptions(const Plan& plan, const ForecastOptions& options) {
  const Rates& rates = options.rates;
  const bool device = options.collectives == Collectives::kDevice;
  std::string text = concat(
      "predicted for ", rates.device, ", not measured: ", to_string(rates.products), " products ",
      rate_text(rates.product_flops, 1e12, "TFLOP/s", rates.products_measured, rates.product_ceiling,
                rates.ceilings_known),
      "; memory ",
      rate_text(rates.memory_bytes, 1e9, "GB/s", rates.memory_measured, rates.memory_ceiling, rates.ceilings_known),
      "; host link ", fixed_text(rates.host_link_bytes / 1e9, 1), " GB/s; ", options.launch_seconds * 1e6,
      " us to launch a step");
  if (plan.world.ranks == 1) return text + '\n';
  text += concat("; collectives ", device ? "between GPUs (NCCL)" : "over the hosts' memory", ", ",
                 options.collective_seconds * 1e6, " us each");
  if (device && plan.world.ranks > plan.world.nodes)
    text += concat(", NVLink ", fixed_text(rates.node_link_bytes / 1e9, 1), " GB/s");
  if (plan.world.nodes > 1) text += concat(", network ", fixed_text(rates.network_bytes / 1e9, 1), " GB/s per GPU");
  return text + '\n';
}

}  // namespace

std::string forecast_table(const Plan& plan, const ForecastOptions& options, const StepForecast& forecast) {
  std::ostringstream out;
  size_t width = std::string_view("all units").size();
  for (const UnitPlan& unit : plan.units) width = std::max(width, unit.name.size());
  const int name_width = static_cast<int>(width) + 2;
  out << "predicted, per rank and step (" << plan.slots << (plan.slots == 1 ? " micro-batch" : " micro-batches")
      << " of " << options.samples_per_micro_batch << (options.samples_per_micro_batch == 1 ? " sample" : " samples");
  if (options.tokens_per_micro_batch > 0) out << ", " << options.tokens_per_micro_batch << " text tokens";
  out << "):\n"
      << std::left << std::setw(name_width) << "unit" << std::setw(14) << "class" << std::setw(10) << "policy"
      << std::right << std::setw(12) << "GFLOP" << std::setw(12) << "matmul ms" << std::setw(12) << "memory ms"
      << std::setw(12) << "gather ms" << std::setw(12) << "launch ms" << std::setw(12) << "busy ms"
      << "  bound\n";
  for (size_t u = 0; u < plan.units.size(); ++u)
    add_row(out, name_width, plan.units[u].name, to_string(plan.units[u].freeze_class), to_string(plan.units[u].policy),
            forecast.units[u]);
  add_row(out, name_width, "all units", "", "", forecast.all);
  out << "\nstep: " << ms(forecast.step_seconds) << " ms predicted = inputs " << ms(forecast.input_seconds)
      << " + micro-batches " << ms(forecast.programs_seconds) << " + vote " << ms(forecast.vote_seconds)
      << " + reduction " << ms(forecast.reduce_seconds) << " + norms " << ms(forecast.norms_seconds) << " + optimizer "
      << ms(forecast.optimizer_seconds) << " + working copies " << ms(forecast.working_seconds)
      << "; bound: " << to_string(forecast.bound) << '\n'
      << "speed: " << fixed_text(forecast.samples_per_s, 1) << " samples/s";
  if (options.tokens_per_micro_batch > 0) out << ", " << fixed_text(forecast.tokens_per_s, 0) << " text tokens/s";
  out << " predicted, padding included; " << fixed_text(100 * forecast.utilisation, 1) << " % of the data sheet's "
      << fixed_text(options.rates.peak_flops / 1e12, 1)
      << " TFLOP/s (work counted as freezing leaves it: " << fixed_text(forecast.frozen_flops / 1e12, 3)
      << " TFLOP frozen, " << fixed_text(forecast.trainable_flops / 1e12, 3) << " trainable)\n"
      << assumptions(plan, options);
  return out.str();
}

std::string forecast_json(const Plan& plan, const ForecastOptions& options, const StepForecast& f) {
  OrderedJson j = plan_json(plan);
  const Rates& rates = options.rates;
  j["rates"] = {{"device", rates.device},
                {"products", to_string(rates.products)},
                {"peak_flops", rates.peak_flops},
                {"product_flops", rates.product_flops},
                {"memory_bytes_per_s", rates.memory_bytes},
                {"node_link_bytes_per_s", rates.node_link_bytes},
                {"host_link_bytes_per_s", rates.host_link_bytes},
                {"network_bytes_per_s", rates.network_bytes},
                {"products_measured", rates.products_measured},
                {"memory_measured", rates.memory_measured},
                {"launch_seconds", options.launch_seconds},
                {"collective_seconds", options.collective_seconds},
                {"collectives", options.collectives == Collectives::kDevice ? "nccl" : "host"}};
  j["predicted"] = {{"step_seconds", f.step_seconds},
                    {"bound", to_string(f.bound)},
                    {"input_seconds", f.input_seconds},
                    {"programs_seconds", f.programs_seconds},
                    {"vote_seconds", f.vote_seconds},
                    {"reduce_seconds", f.reduce_seconds},
                    {"norms_seconds", f.norms_seconds},
                    {"optimizer_seconds", f.optimizer_seconds},
                    {"working_seconds", f.working_seconds},
                    {"product_seconds", f.all.product_seconds},
                    {"memory_seconds", f.all.memory_seconds},
                    {"busy_seconds", f.all.busy_seconds},
                    {"gather_seconds", f.all.gather_seconds},
                    {"launch_seconds", f.all.launch_seconds},
                    {"frozen_flops", f.frozen_flops},
                    {"trainable_flops", f.trainable_flops},
                    {"samples_per_s", f.samples_per_s},
                    {"tokens_per_s", f.tokens_per_s},
                    {"utilisation", f.utilisation}};
  for (size_t u = 0; u < plan.units.size(); ++u) {
    const UnitForecast& unit = f.units[u];
    j["predicted_units"].push_back({{"name", plan.units[u].name},
                                    {"bound", to_string(unit.bound)},
                                    {"flops", unit.flops},
                                    {"product_seconds", unit.product_seconds},
                                    {"memory_seconds", unit.memory_seconds},
                                    {"busy_seconds", unit.busy_seconds},
                                    {"gather_seconds", unit.gather_seconds},
                                    {"launch_seconds", unit.launch_seconds}});
  }
  return json_text(j, 2);
}

}  // namespace permafrost
