// A profile as a table and as JSON.
#include <iomanip>
#include <sstream>

#include "launch/bench/quantile.h"
#include "launch/bench/step_profile.h"

namespace permafrost {

namespace {

double per_second(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

OrderedJson json_of(const ProfiledOp& op, double step_seconds, bool on_device) {
  OrderedJson j{{"kind", op.kind}, {"direction", op.direction}, {"shape", op.shape}};
  if (!op.name.empty()) j["name"] = op.name;
  if (!op.unit.empty()) j["unit"] = op.unit;
  j["tokens"] = op.tokens;
  j["calls_per_step"] = op.calls;
  j["seconds"] = op.seconds;
  j["mean_seconds"] = op.mean;
  j["share"] = per_second(op.mean, step_seconds);
  j["flops_per_call"] = op.flops;
  j["gflop_per_s"] = per_second(op.flops * op.calls, op.mean) / 1e9;
  j["bytes_per_call"] = op.bytes;
  if (!on_device) j["outside_pool_us_per_call"] = op.outside_us;
  return j;
}

OrderedJson distribution(const std::vector<double>& values) {
  return {{"median", bench::quantile(values, 0.5)},
          {"q1", bench::quantile(values, 0.25)},
          {"q3", bench::quantile(values, 0.75)},
          {"p99", bench::quantile(values, 0.99)}};
}

void write_overhead(std::ostream& out, const char* what, const std::vector<double>& values) {
  out << "  " << std::left << std::setw(52) << what << std::right << std::setprecision(2);
  for (const double share : {0.25, 0.5, 0.75, 0.99}) out << std::setw(9) << bench::quantile(values, share);
  out << '\n';
}

void write_head_of_overhead(std::ostream& out, const char* what) {
  out << '\n' << std::left << std::setw(54) << what << std::right;
  for (const char* share : {"25%", "median", "75%", "99%"}) out << std::setw(9) << share;
  out << '\n';
}

void write_parts(std::ostream& out, const NamedMilliseconds& parts, double step_ms, int decimals) {
  for (const auto& [name, ms] : parts)
    out << std::setprecision(decimals) << std::setw(10) << ms << std::setprecision(1) << std::setw(6)
        << 100 * per_second(ms, step_ms) << "%  " << name << '\n';
}

OrderedJson parts_json(const NamedMilliseconds& parts) {
  OrderedJson j;
  for (const auto& [name, ms] : parts) j[name] = ms;
  return j;
}

}  // namespace

std::string StepProfile::table() const {
  const bool on_device = device_ != nullptr;
  const int decimals = on_device ? 3 : 2;  // of milliseconds
  const double step_ms = median_step_seconds() * 1e3;
  std::ostringstream out;
  out << std::fixed << "operations of rank 0" << (on_device ? " on the device" : "")
      << ", by kind and shape; ms: per step" << (on_device ? " by the clock of the device" : "") << ", median over "
      << training_step_ << " steps; GB/s: tensors of the call, each once; "
      << (on_device ? "programs were given operation by operation, not as graphs"
                    : "outside: us per call not within the thread pool")
      << "\n      ms  share   calls   GFLOP/s     GB/s" << (on_device ? "" : "  outside") << "  operation\n";
  double total = 0;
  for (const double seconds : step_seconds_) total += seconds;
  const double mean_step = per_second(total, static_cast<double>(training_step_));
  for (const ProfiledOp& op : groups()) {
    out << std::setprecision(decimals) << std::setw(8) << op.seconds * 1e3 << std::setprecision(1) << std::setw(6)
        << 100 * per_second(op.mean, mean_step) << "%" << std::setw(8) << op.calls << std::setw(10)
        << per_second(op.flops * op.calls, op.mean) / 1e9 << std::setw(9)
        << per_second(static_cast<double>(op.bytes) * op.calls, op.mean) / 1e9;
    if (!on_device) out << std::setw(9) << op.outside_us;
    out << "  " << op.kind << (op.direction.empty() ? "" : " ") << op.direction << "  " << op.shape << '\n';
  }
  out << "\nparts of a step (ms, median), of " << std::setprecision(decimals) << step_ms;
  if (on_device) out << "; all but \"other\" by the clock of the device, together " << device_ms();
  out << ":\n";
  write_parts(out, parts(), step_ms, decimals);
  if (on_device) {
    out << "\nthe host meanwhile (ms, median), giving work and waiting for it:\n";
    write_parts(out, host_parts(), step_ms, decimals);
    write_head_of_overhead(out, "on the device (us per operation):");
  } else {
    write_head_of_overhead(out, "executor overhead (us per operation):");
  }
  write_overhead(out, "between operations", overhead_.between);
  if (!on_device) {
    write_overhead(out, "within an operation, outside the thread pool", overhead_.within);
    write_overhead(out, "both", overhead_.sum());
  }
  write_overhead(out, "a whole operation, kernels included", overhead_.whole);
  return out.str();
}

OrderedJson StepProfile::json() const {
  OrderedJson j;
  const bool on_device = device_ != nullptr;
  const double step_seconds = median_step_seconds();
  j["step_seconds"] = step_seconds;
  j["clock"] = on_device ? "device" : "host";
  if (on_device) {
    j["graphs"] = false;
    j["device_ms"] = device_ms();
  }
  j["parts_ms"] = parts_json(parts());
  if (on_device) {
    j["host_ms"] = parts_json(host_parts());
    j["device_us"] = {{"between", distribution(overhead_.between)}, {"whole", distribution(overhead_.whole)}};
  } else {
    j["overhead_us"] = {{"between", distribution(overhead_.between)},
                        {"within", distribution(overhead_.within)},
                        {"both", distribution(overhead_.sum())},
                        {"whole", distribution(overhead_.whole)}};
  }
  for (const ProfiledOp& op : groups()) j["groups"].push_back(json_of(op, step_seconds, on_device));
  for (const ProfiledOp& op : operations()) j["operations"].push_back(json_of(op, step_seconds, on_device));
  return j;
}

}  // namespace permafrost
