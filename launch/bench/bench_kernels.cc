#include "launch/bench/bench_kernels.h"

#include <cmath>
#include <iomanip>
#include <ostream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/device/cpu_features.h"
#include "launch/bench/bench_linear.h"
#include "launch/bench/bench_memory.h"
#include "launch/bench/onednn.h"
#include "launch/bench/results_file.h"

namespace permafrost {

namespace {
using bench::LinearRow;
using bench::MemoryRow;

constexpr double kWantedRatio = 0.9, kWantedShare = 0.7;

/// The table on `out` and the same figures as JSON lines.
class Report {
 public:
  Report(const BenchKernelsOptions& options, std::ostream& out)
      : out_(out), file_("bench kernels", options.json_path) {}

  void machine(ThreadPool& pool, const BenchKernelsOptions& options) {
    peak_bf16_ = bench::peak_bf16(pool);
    peak_f32_ = bench::peak_f32(pool);
    out_ << processor_name() << ", " << pool.threads() << " threads, " << to_string(cpu_features()) << ", oneDNN "
         << bench::onednn_version() << (options.quick ? ", quick (5 samples)" : "") << "\n"
         << std::fixed << std::setprecision(0) << "peak of registers alone: bf16 tiles " << peak_bf16_ / 1e9
         << " GFLOP/s, f32 FMA " << peak_f32_ / 1e9 << " GFLOP/s\n";
    write({{"kind", "machine"},
           {"processor", processor_name()},
           {"threads", pool.threads()},
           {"instruction_sets", to_string(cpu_features())},
           {"onednn", bench::onednn_version()},
           {"compiler", "g++ " __VERSION__},
           {"quick", options.quick},
           {"peak_bf16_gflops", peak_bf16_ / 1e9},
           {"peak_f32_gflops", peak_f32_ / 1e9}});
  }

  void linear_head() {
    out_ << "\nGFLOP/s of one linear layer (median); ratio: ours / the better of oneDNN's; peak: our share of the "
            "registers' peak\n"
         << std::left << std::setw(42) << "layer" << std::setw(20) << "m x n x k" << std::right << std::setw(8)
         << "ours" << std::setw(8) << "plain" << std::setw(8) << "packed" << std::setw(8) << "ratio" << std::setw(8)
         << "peak"
         << "\n";
  }

  void linear(const LinearRow& row) {
    const double peak = row.dtype == DType::kBF16 && peak_bf16_ > 0 ? peak_bf16_ : peak_f32_,
                 speed = row.flops / row.ours;
    const double share = peak > 0 ? speed / peak : 0;
    out_ << std::left << std::setw(42) << row.name() << std::setw(20) << concat(row.m, " x ", row.n, " x ", row.k)
         << std::right << std::setprecision(0) << std::setw(8) << speed / 1e9 << std::setw(8)
         << row.flops / row.plain / 1e9 << std::setw(8);
    row.packed > 0 ? out_ << row.flops / row.packed / 1e9 : out_ << "-";
    out_ << std::setprecision(2) << std::setw(8) << row.ratio() << std::setw(7) << std::setprecision(0) << 100 * share
         << "%" << (row.ratio() < kWantedRatio ? "  below 0.9" : "") << "\n"
         << std::flush;
    write({{"kind", "linear"},
           {"model", row.model},
           {"layer", row.layer},
           {"pass", row.pass},
           {"dtype", to_string(row.dtype)},
           {"samples", row.samples},
           {"m", row.m},
           {"n", row.n},
           {"k", row.k},
           {"ours_ms", row.ours * 1e3},
           {"onednn_plain_ms", row.plain * 1e3},
           {"onednn_packed_ms", row.packed > 0 ? OrderedJson(row.packed * 1e3) : OrderedJson()},
           {"gflops", speed / 1e9},
           {"ratio", row.ratio()},
           {"peak_share", share}});
    ++rows_;
    short_ += row.ratio() < kWantedRatio;
    log_sum_ += std::log(row.ratio());
  }

  void memory_head() {
    if (rows_ > 0)
      out_ << rows_ << " rows, geometric mean of the ratios " << std::setprecision(2) << std::exp(log_sum_ / rows_)
           << ", " << short_ << " below " << kWantedRatio << "\n";
    out_ << "\nGB/s of kernels that should be as fast as memory (median); share: of a copy through main memory (1 "
            "GiB);\n"
         << "cached: a copy of as many bytes as the kernel's, which the caches may hold\n"
         << std::left << std::setw(42) << "kernel" << std::right << std::setw(10) << "MB" << std::setw(10) << "GB/s"
         << std::setw(10) << "copy" << std::setw(10) << "share" << std::setw(10) << "cached"
         << "\n";
  }

  void memory(const MemoryRow& row) {
    out_ << std::left << std::setw(42) << row.dtype + " " + row.kernel << std::right << std::setprecision(1)
         << std::setw(10) << row.bytes / 1e6 << std::setw(10) << row.bandwidth() / 1e9 << std::setw(10)
         << row.memory_copy / 1e9 << std::setw(10) << std::setprecision(2) << row.share() << std::setprecision(1)
         << std::setw(10) << row.cached_copy / 1e9 << (row.share() < kWantedShare ? "  below 0.7" : "") << "\n"
         << std::flush;
    write({{"kind", "memory"},
           {"kernel", row.kernel},
           {"dtype", row.dtype},
           {"bytes", row.bytes},
           {"ms", row.seconds * 1e3},
           {"gb_per_s", row.bandwidth() / 1e9},
           {"copy_gb_per_s", row.memory_copy / 1e9},
           {"cached_copy_gb_per_s", row.cached_copy / 1e9},
           {"share", row.share()}});
  }

  void close() { file_.close(); }

 private:
  void write(const OrderedJson& line) { file_.write(line); }

  std::ostream& out_;
  bench::ResultsFile file_;
  double peak_bf16_ = 0, peak_f32_ = 0, log_sum_ = 0;
  int rows_ = 0, short_ = 0;
};
}  // namespace

void bench_kernels(const BenchKernelsOptions& options, ThreadPool& pool, std::ostream& out) {
  Report report(options, out);
  bench::set_openmp_threads(pool.threads());
  bench::Stopwatch watch(pool, options.quick ? 5 : 20);
  report.machine(pool, options);
  report.linear_head();
  bench::bench_linear(pool, watch, options.only, [&](const LinearRow& row) { report.linear(row); });
  report.memory_head();
  bench::bench_memory(pool, watch, options.only, [&](const MemoryRow& row) { report.memory(row); });
  report.close();
}

}  // namespace permafrost
