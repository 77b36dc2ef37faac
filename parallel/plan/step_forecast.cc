#include "parallel/plan/step_forecast.h"

#include <algorithm>
#include <array>

#include "core/base/narrow.h"
#include "parallel/plan/step_traffic.h"

namespace permafrost {

std::string_view to_string(Bound bound) {
  switch (bound) {
    case Bound::kMatmul:
      return "matmul";
    case Bound::kMemory:
      return "memory";
    case Bound::kGather:
      return "gather";
    case Bound::kLaunch:
      return "launch";
    case Bound::kExchange:
      return "exchange";
  }
  return "?";
}

namespace {

/// Of one gather of a unit of so many bytes.
double gather_seconds(const Plan& plan, const ForecastOptions& options, double bytes) {
  switch (plan.gather.kind) {
    case GatherKind::kInPlace:
      return 0;
    case GatherKind::kCopy:
      return bytes / options.rates.host_link_bytes;
    case GatherKind::kCollective:
      break;
  }
  return exchange_seconds(plan.world, options, bytes);
}

Bound largest(const UnitForecast& unit, double exchange) {
  constexpr std::array kBounds{Bound::kMatmul, Bound::kMemory, Bound::kGather, Bound::kLaunch, Bound::kExchange};
  const std::array seconds{unit.product_seconds, unit.memory_seconds, unit.gather_seconds, unit.launch_seconds,
                           exchange};
  return kBounds[static_cast<size_t>(std::ranges::max_element(seconds) - seconds.begin())];
}

/// One run of a program: the device, the host that launches, and the stream of gathers, each in its order.
class Timeline {
 public:
  Timeline(const Plan& plan, const ForecastOptions& options) : plan_(plan), options_(options) {}

  /// Seconds of one run; what its steps do is added to `units`, once.
  double run(size_t bucket, std::vector<UnitForecast>& units, StepForecast& totals) {
    const Program& program = plan_.programs[bucket];
    std::vector<double> done;  // when the first s steps are
    double launched = 0, gathered = 0;
    done.push_back(0);
    size_t next = 0;
    for (size_t s = 0; s < program.steps.size(); ++s) {
      UnitForecast& unit = units[static_cast<size_t>(program.steps[s].unit)];
      const double busy = add(step_work(plan_, bucket, program.steps[s]), unit, totals);
      launched += options_.launch_seconds;
      unit.launch_seconds += options_.launch_seconds;
      double begin = std::max(done.back(), launched);
      for (; next < program.gathers.size() && program.gathers[next].first_use == narrow<int>(s); ++next) {
        const Gather& gather = program.gathers[next];
        const auto u = static_cast<size_t>(gather.unit);
        const double seconds = gather_seconds(plan_, options_, static_cast<double>(plan_.frozen_units[u].bytes));
        const double free = plan_.gather.prefetch ? done[static_cast<size_t>(gather.start_step)] : done.back();
        gathered = std::max(gathered, free) + seconds;
        units[u].gather_seconds += seconds;
        begin = std::max(begin, gathered);
      }
      done.push_back(begin + busy);
    }
    return done.back();
  }

 private:
  /// Seconds that the device is busy with a step.
  double add(const StepWork& work, UnitForecast& unit, StepForecast& totals) const {
    const double flops = work.frozen_flops + work.trainable_flops;
    const double product = flops / options_.rates.product_flops;
    const double memory = static_cast<double>(work.bytes) / options_.rates.memory_bytes;
    unit.flops += flops;
    unit.product_seconds += product;
    unit.memory_seconds += memory;
    unit.busy_seconds += std::max(product, memory);
    totals.frozen_flops += work.frozen_flops;
    totals.trainable_flops += work.trainable_flops;
    return std::max(product, memory);
  }

  const Plan& plan_;
  const ForecastOptions& options_;
};

/// The micro-batches of a step, one after the other.
void forecast_programs(const Plan& plan, const ForecastOptions& options, StepForecast& forecast) {
  const size_t bucket = plan.programs.size() - 1;
  const auto slots = static_cast<double>(plan.slots);
  forecast.units.resize(plan.units.size());
  forecast.programs_seconds = slots * Timeline(plan, options).run(bucket, forecast.units, forecast);
  forecast.input_seconds =
      slots * static_cast<double>(plan.programs[bucket].input_bytes) / options.rates.host_link_bytes;
  forecast.frozen_flops *= slots;
  forecast.trainable_flops *= slots;
  UnitForecast& all = forecast.all;
  for (UnitForecast& unit : forecast.units) {
    for (double* value : {&unit.flops, &unit.product_seconds, &unit.memory_seconds, &unit.busy_seconds,
                          &unit.gather_seconds, &unit.launch_seconds})
      *value *= slots;
    unit.bound = largest(unit, 0);
    all.flops += unit.flops;
    all.product_seconds += unit.product_seconds;
    all.memory_seconds += unit.memory_seconds;
    all.busy_seconds += unit.busy_seconds;
    all.gather_seconds += unit.gather_seconds;
    all.launch_seconds += unit.launch_seconds;
  }
}

/// What follows the micro-batches.
void forecast_phases(const Plan& plan, const ForecastOptions& options, StepForecast& forecast) {
  const auto space = static_cast<double>(plan.trainable_space);
  const auto slice = static_cast<double>(plan.device_memory.gradients) / 4;
  const auto working = static_cast<double>(plan.memory.working);
  const double sum_bytes = plan.reduction == Reduction::kOrderFree ? 8 : 4;
  const auto exchange = [&](double bytes) { return exchange_seconds(plan.world, options, bytes); };
  forecast.vote_seconds = exchange(static_cast<double>(plan.traffic.vote));
  forecast.reduce_seconds = exchange(sum_bytes * space);
  forecast.norms_seconds = exchange(8.0 * static_cast<double>(div_up(plan.trainable_space, kTrainableBlock)));
  forecast.working_seconds = exchange(working);
  // Sums: all cleared, the slice read; its gradient written and read for the norm. AdamW: gradient, master, m and v
  // read, the last three and the working copy written.
  const double bytes = sum_bytes * (space + slice) + 8 * slice + 28 * slice + (space > 0 ? working * slice / space : 0);
  forecast.optimizer_seconds = bytes / options.rates.memory_bytes;
}

}  // namespace

double exchange_seconds(const World& world, const ForecastOptions& options, double bytes) {
  if (world.ranks == 1) return 0;
  // A node takes what it lacks once, over the networks of all its ranks; a rank then takes from the others of its node
  // what it did not get itself. Over the host everything passes the link between host and device as well.
  const auto nodes = static_cast<double>(world.nodes);
  const double per_node = static_cast<double>(world.ranks) / nodes;
  const double network = bytes * (1 - 1 / nodes) / per_node / options.rates.network_bytes;
  if (options.collectives == Collectives::kHost)
    return options.collective_seconds + network + bytes / options.rates.host_link_bytes;
  const double links = bytes * (1 - 1 / per_node) / options.rates.node_link_bytes;
  return options.collective_seconds + std::max(network, links);
}

StepForecast forecast_step(const Plan& plan, const ForecastOptions& options) {
  PERMAFROST_CHECK(plan.world.device == DeviceKind::kCuda && !plan.lockstep,
                   "forecast_step: a plan for training on CUDA was expected; got one ",
                   plan.lockstep ? "of programs in lockstep" : "for CPU");
  StepForecast forecast;
  forecast_programs(plan, options, forecast);
  forecast_phases(plan, options, forecast);
  const double exchange =
      forecast.vote_seconds + forecast.reduce_seconds + forecast.norms_seconds + forecast.working_seconds;
  forecast.step_seconds = forecast.input_seconds + forecast.programs_seconds + exchange + forecast.optimizer_seconds;
  UnitForecast step = forecast.all;
  step.memory_seconds += forecast.optimizer_seconds;
  forecast.bound = largest(step, exchange);
  forecast.all.bound = largest(forecast.all, 0);
  const double micro_batches = static_cast<double>(plan.micro_batches) / forecast.step_seconds;
  forecast.samples_per_s = micro_batches * static_cast<double>(options.samples_per_micro_batch);
  forecast.tokens_per_s = micro_batches * static_cast<double>(options.tokens_per_micro_batch);
  forecast.utilisation = forecast.all.flops / (options.rates.peak_flops * forecast.step_seconds);
  return forecast;
}

}  // namespace permafrost
