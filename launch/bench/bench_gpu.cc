#include "launch/bench/bench_gpu.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <ostream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/device/cuda.h"
#include "core/kernels/linear.h"
#include "launch/bench/gpu_rows.h"
#include "launch/bench/quantile.h"
#include "launch/bench/results_file.h"

namespace permafrost {

namespace {

using bench::GpuCall;
using bench::GpuCase;
using bench::GpuCeilings;
using bench::GpuRow;
using bench::GpuStopwatch;
using bench::GpuWorkload;
using bench::quantile;

constexpr double kWantedGpuShare = 0.85;

/// Work and time of a workload's step, as far as rows have them.
struct GpuSum {
  double seconds = 0, flops = 0, bytes = 0, ceiling_seconds = 0;
  std::map<std::string, double> by_freezing;  // FLOPs
};

class GpuReport {
 public:
  GpuReport(const BenchGpuOptions& options, std::ostream& out) : out_(out), file_("bench kernels", options.json_path) {}

  void machine(const BenchGpuOptions& options, const Stream& stream, const GpuCeilings& ceilings) {
    const cuda::DeviceInfo info = cuda::device_info(stream.device().index);
    emulated_ = info.name == "emulated";
    out_ << info.name << ", driver for CUDA " << cuda::driver_version() << ", runtime " << cuda::runtime_version()
         << (options.quick ? ", quick" : "") << (emulated_ ? ": emulated, figures mean nothing" : "") << "\n"
         << std::fixed << std::setprecision(1) << "at most: products bf16 " << ceilings.bf16 / 1e12 << " TFLOP/s, TF32 "
         << ceilings.tf32 / 1e12 << ", f32 " << ceilings.f32 / 1e12 << "; copy " << ceilings.copy_bytes_per_s / 1e9
         << " GB/s read and written\n";
    write({{"kind", "machine"},
           {"device", info.name},
           {"compute_capability", concat(info.major, ".", info.minor)},
           {"processors", info.processors},
           {"memory_bytes", info.memory_bytes},
           {"driver", cuda::driver_version()},
           {"runtime", cuda::runtime_version()},
           {"emulated", emulated_},
           {"quick", options.quick},
           {"matmul_flops", ceilings.bf16},
           {"matmul_flops_tf32", ceilings.tf32},
           {"matmul_flops_f32", ceilings.f32},
           {"copy_bytes_per_s", ceilings.copy_bytes_per_s}});
  }

  void head(const char* title, const char* unit) {
    out_ << "\n"
         << title << "\n"
         << std::left << std::setw(46) << "row" << std::setw(7) << "parts" << std::setw(24) << "shape" << std::right
         << std::setw(10) << "us" << std::setw(10) << unit << std::setw(9) << "share" << std::setw(9) << "a step"
         << "\n";
  }

  void row(const GpuRow& row, double seconds, double ceiling, bool host_shows) {
    const bool product = row.flops > 0;
    const double speed = (product ? row.flops : row.bytes) / seconds, share = speed / ceiling;
    out_ << std::left << std::setw(46) << row.name() << std::setw(7) << row.freezing << std::setw(24) << row.shape
         << std::right << std::setprecision(1) << std::setw(10) << seconds * 1e6 << std::setw(10)
         << speed / (product ? 1e12 : 1e9) << std::setprecision(0) << std::setw(8) << 100 * share << "%" << std::setw(9)
         << row.per_step << (share < kWantedGpuShare && !emulated_ ? "  below 85 %" : "")
         << (host_shows ? "  from the host" : "") << "\n"
         << std::flush;
    write({{"kind", product ? "product" : "memory"},
           {"workload", row.workload},
           {"part", row.part},
           {"pass", row.pass},
           {"freezing", row.freezing},
           {"dtype", to_string(row.dtype)},
           {"shape", row.shape},
           {"per_step", row.per_step},
           {"flops", row.flops},
           {"bytes", row.bytes},
           {"seconds", seconds},
           {"timed", host_shows ? "host" : "device"},
           {product ? "flop_per_s" : "bytes_per_s", speed},
           {"ceiling", ceiling},
           {"share", share}});
    GpuSum& sum = sums_[{row.workload, product}];
    sum.seconds += row.per_step * seconds;
    sum.flops += row.per_step * row.flops;
    sum.bytes += row.per_step * row.bytes;
    sum.ceiling_seconds += row.per_step * (product ? row.flops : row.bytes) / ceiling;
    sum.by_freezing[row.freezing] += row.per_step * row.flops;
  }

  void sums() {
    out_ << "\nA step's calls one after the other, each as often as it comes; share: time at the ceilings over time\n";
    for (const auto& [key, sum] : sums_) {
      const auto& [workload, product] = key;
      out_ << std::left << std::setw(10) << workload << std::setw(10) << (product ? "products" : "memory") << std::right
           << std::setprecision(2) << std::setw(10) << sum.seconds * 1e3 << " ms" << std::setprecision(0)
           << std::setw(6) << 100 * sum.ceiling_seconds / sum.seconds << "%";
      OrderedJson classes = OrderedJson::object();
      for (const auto& [freezing, flops] : sum.by_freezing) {
        classes[freezing] = flops;
        if (product) out_ << "  " << freezing << " " << std::setprecision(3) << flops / 1e12 << " TFLOP";
      }
      out_ << "\n";
      write({{"kind", "sum"},
             {"workload", workload},
             {"of", product ? "products" : "memory"},
             {"seconds", sum.seconds},
             {"flops", sum.flops},
             {"flops_by_freezing", product ? classes : OrderedJson()},
             {"bytes", sum.bytes},
             {"share", sum.ceiling_seconds / sum.seconds}});
    }
  }

  void choices(const std::string& text) { write({{"kind", "choices"}, {"text", text}}); }

  void close() { file_.close(); }

 private:
  void write(const OrderedJson& line) { file_.write(line); }

  std::ostream& out_;
  bench::ResultsFile file_;
  bool emulated_ = false;
  std::map<std::pair<std::string, bool>, GpuSum> sums_;  // by workload and whether products
};

void measure_rows(const std::vector<GpuCase>& cases, const std::string& only, Stream& stream, GpuStopwatch& watch,
                  const GpuCeilings& ceilings, GpuReport& report) {
  for (const GpuCase& each : cases) {
    if (each.row.name().find(only) == std::string::npos) continue;
    const bool product = each.row.flops > 0;
    const GpuCall call = each.make(stream);
    const auto takes = watch.takes({call, product ? ceilings.product : ceilings.copy});
    report.row(each.row, quantile(takes[0].seconds, 0.5),
               (product ? ceilings.product_flops : ceilings.copy_bytes) / quantile(takes[1].seconds, 0.5),
               takes[0].host_shows);
  }
}

}  // namespace

void bench_gpu(const BenchGpuOptions& options, Stream& stream, std::ostream& out) {
  GpuReport report(options, out);
  GpuStopwatch watch(stream, options.tiny ? 1 : options.quick ? 5 : 15, options.tiny ? 0 : options.quick ? 2e-3 : 5e-3);
  const int64_t side = options.tiny ? 32 : 8192, copied = options.tiny ? 4096 : int64_t{1} << 30;
  const GpuCeilings ceilings = bench::measure_ceilings(stream, watch, side, copied);
  report.machine(options, stream, ceilings);
  const std::vector<GpuWorkload> workloads = bench::gpu_workloads(options.tiny);
  report.head("Products and attention, bf16; share: of the ceiling of bf16 products, measured in turns", "TFLOP/s");
  for (const GpuWorkload& workload : workloads)
    measure_rows(bench::product_cases(workload), options.only, stream, watch, ceilings, report);
  report.head("What should be as fast as memory; share: of the copy, measured in turns", "GB/s");
  for (const GpuWorkload& workload : workloads)
    measure_rows(bench::memory_cases(workload), options.only, stream, watch, ceilings, report);
  report.sums();
  report.choices(linear_choices(bench::gpu_context(stream)));
  report.close();
}

}  // namespace permafrost
