#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/plan/device_specs.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// Over what ranks exchange.
enum class Collectives : uint8_t {
  kDevice,  ///< NCCL: NVLink within a node, the network between nodes
  kHost,    ///< through the hosts' memory
};

struct ForecastOptions {
  Rates rates;
  Collectives collectives = Collectives::kDevice;
  double launch_seconds = 2.5e-6;     ///< the host's, per step of a program; 0: as with CUDA graphs. Not measured
  double collective_seconds = 20e-6;  ///< what a collective takes however small it is. Not measured
  int64_t samples_per_micro_batch = 1;
  int64_t tokens_per_micro_batch = 0;  ///< of text, padding included, in the largest bucket
};

/// What takes longest.
enum class Bound : uint8_t { kMatmul, kMemory, kGather, kLaunch, kExchange };
std::string_view to_string(Bound bound);

/// Seconds of a rank and step, in the largest bucket.
struct UnitForecast {
  double flops = 0;            ///< forward and backward
  double product_seconds = 0;  ///< of its floating-point operations
  double memory_seconds = 0;   ///< of the tensors of its steps
  double busy_seconds = 0;     ///< of each step the longer of the two, summed
  double gather_seconds = 0;   ///< until its frozen parameters are in their slot
  double launch_seconds = 0;   ///< of the host, for its steps
  Bound bound = Bound::kMatmul;
};

/// Seconds of a rank and step: of the rank with most micro-batches and the largest slice, all texts in the largest
/// bucket. Predicted; docs/notes/plan_for_gpus.md says how, and what would prove it wrong.
struct StepForecast {
  std::vector<UnitForecast> units;
  UnitForecast all;             ///< sums over units
  double frozen_flops = 0;      ///< not due to trainable parameters: 4N in front of the frontier, 2N behind
  double trainable_flops = 0;   ///< due to them: 6N
  double input_seconds = 0;     ///< inputs from the host to the device
  double programs_seconds = 0;  ///< micro-batches with the gathers that they wait for
  double vote_seconds = 0, reduce_seconds = 0, norms_seconds = 0;
  double optimizer_seconds = 0;  ///< AdamW and the memory of the sums
  double working_seconds = 0;    ///< gather of working copies
  double step_seconds = 0;
  Bound bound = Bound::kMatmul;
  double samples_per_s = 0, tokens_per_s = 0;  ///< of all ranks
  double utilisation = 0;                      ///< flops over what the data sheet could do in the time of the step
};

/// plan: of training, with World::device kCuda. Errors: kInvalidArgument for another.
StepForecast forecast_step(const Plan& plan, const ForecastOptions& options);

/// Seconds until every rank has the `bytes` of which each has a part (a reduction takes as long).
double exchange_seconds(const World& world, const ForecastOptions& options, double bytes);

/// One line per unit, then totals, rates and assumptions in words.
std::string forecast_table(const Plan& plan, const ForecastOptions& options, const StepForecast& forecast);
/// JSON of `plan` with the forecast's keys behind its own (docs/plan.md).
std::string forecast_json(const Plan& plan, const ForecastOptions& options, const StepForecast& forecast);

}  // namespace permafrost
