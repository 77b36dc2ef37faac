#include "launch/bench/bench_comm.h"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <memory>
#include <ostream>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/device/buffer.h"
#include "launch/bench/comm_call.h"
#include "launch/bench/quantile.h"
#include "launch/bench/results_file.h"

namespace permafrost {

namespace {
using bench::CommCall;
using bench::CommCase;
using bench::CommOp;
using CommClock = std::chrono::steady_clock;

constexpr int64_t kBytesPerTurn = int64_t{4} << 20;  // small calls are repeated within a turn, up to
constexpr int64_t kCallsPerTurn = 16;

/// The table on `out` and the same figures as JSON lines; rank 0 alone has one.
class CommReport {
 public:
  CommReport(const BenchCommOptions& options, const CommBench& setup, std::ostream& out)
      : setup_(setup), out_(out), file_("bench comm", options.json_path) {}

  void head(int rounds) {
    out_ << "# " << setup_.world.size() << " ranks; time: median of " << rounds
         << " rounds in which the variants take turns, slowest rank; 25%, 75%: quartiles; ratio: speed in units of "
         << setup_.base << "'s\n"
         << "# " << std::left << std::setw(15) << "operation" << std::setw(16) << "variant" << std::right
         << std::setw(12) << "size" << std::setw(12) << "count" << std::setw(8) << "type" << std::setw(7) << "redop"
         << std::setw(12) << "time" << std::setw(12) << "25%" << std::setw(12) << "75%" << std::setw(9) << "algbw"
         << std::setw(9) << "busbw" << std::setw(8) << "#wrong" << std::setw(8) << "ratio"
         << "\n# " << std::setw(43) << "(B)" << std::setw(12) << "(elements)" << std::setw(27) << "(us)"
         << std::setw(12) << "(us)" << std::setw(12) << "(us)" << std::setw(9) << "(GB/s)" << std::setw(9) << "(GB/s)"
         << "\n";
  }

  void line(const CommRow& row) {
    const CommCase& at = *row.row;
    out_ << "  " << std::left << std::setw(15) << to_string(at.op) << std::setw(16) << row.variant << std::right
         << std::setw(12) << at.size_bytes() << std::setw(12) << at.nccl_count() << std::setw(8) << type(at)
         << std::setw(7) << redop(at) << std::fixed << std::setprecision(2) << std::setw(12) << row.time * 1e6
         << std::setw(12) << row.quartile1 * 1e6 << std::setw(12) << row.quartile3 * 1e6 << std::setw(9)
         << row.algbw() / 1e9 << std::setw(9) << row.busbw() / 1e9 << std::setw(8) << row.wrong << std::setw(8);
    row.base_ratio > 0 ? out_ << row.base_ratio : out_ << "-";
    out_ << "\n" << std::flush;
    if (!file_.wanted()) return;
    OrderedJson json{{"op", to_string(at.op)},
                     {"variant", row.variant},
                     {"size_bytes", at.size_bytes()},
                     {"count", at.nccl_count()},
                     {"type", type(at)},
                     {"redop", redop(at)},
                     {"uneven", at.uneven},
                     {"time_us", row.time * 1e6},
                     {"time_q1_us", row.quartile1 * 1e6},
                     {"time_q3_us", row.quartile3 * 1e6},
                     {"algbw_gb_per_s", row.algbw() / 1e9},
                     {"busbw_gb_per_s", row.busbw() / 1e9},
                     {"wrong", row.wrong},
                     {"ratio", row.base_ratio > 0 ? OrderedJson(row.base_ratio) : OrderedJson()},
                     {"samples", row.samples},
                     {"ranks", at.ranks()}};
    json.update(setup_.about);
    file_.write(json);
  }

  void close() { file_.close(); }

 private:
  static const char* type(const CommCase& row) { return row.op == CommOp::kOrderFree ? "int64" : "float"; }
  static const char* redop(const CommCase& row) { return row.op == CommOp::kAllGather ? "none" : "sum"; }

  const CommBench& setup_;
  std::ostream& out_;
  bench::ResultsFile file_;
};

/// One case: its variants, checked, timed in turn, checked again.
class CommTimer {
 public:
  CommTimer(const BenchCommOptions& options, const bench::CommPlan& plan, const CommBench& setup)
      : rounds_(options.rounds), plan_(plan), setup_(setup), slice_("bench slice", plan.slice_elements * 4) {}

  std::vector<CommRow> measure(const CommCase& row) {
    std::vector<CommCall> calls;
    for (const size_t v : row.variants) {
      const CommVariant& variant = setup_.variants[v];
      calls.emplace_back(row, *variant.group,
                         bench::CommMemory{variant.memory, variant.memory + plan_.input_bytes,
                                           reinterpret_cast<float*>(slice_.data())},
                         variant.sums_in_place);
    }
    std::vector<CommRow> rows(calls.size());
    for (size_t i = 0; i < calls.size(); ++i) rows[i].wrong = check(calls[i]);
    std::vector<std::vector<double>> times = take_turns(row, calls);
    for (size_t i = 0; i < calls.size(); ++i) {
      rows[i].row = &row;
      rows[i].variant = setup_.variants[row.variants[i]].name;
      rows[i].wrong += check(calls[i]);
      summarise(times[i], rows[i]);
    }
    const auto base = std::ranges::find(rows, setup_.base, &CommRow::variant);
    if (base != rows.end())
      for (CommRow& each : rows) each.base_ratio = base->time / each.time;
    return rows;
  }

 private:
  void meet() { setup_.world.barrier(StreamView::caller(), "bench: all ranks begin"); }

  /// Wrong elements of all ranks, the same number on each.
  int64_t check(const CommCall& call) {
    call.fill();
    meet();
    call.run(setup_.context);
    int64_t wrong = call.wrong();
    const Tensor tensor = flat(std::span(&wrong, 1));
    setup_.world.all_reduce(tensor, tensor, ReduceOp::kSum, StreamView::caller(), "bench: wrong elements").wait();
    return wrong;
  }

  /// Seconds of this rank, per call.
  std::vector<std::vector<double>> take_turns(const CommCase& row, const std::vector<CommCall>& calls) {
    const int64_t repeats =
        std::clamp<int64_t>(kBytesPerTurn / std::max<int64_t>(row.size_bytes(), 1), 1, kCallsPerTurn);
    std::vector<std::vector<double>> times(calls.size());
    for (auto& side : times) side.reserve(narrow<size_t>(rounds_ * repeats));
    for (int round = 0; round < rounds_; ++round)
      for (size_t i = 0; i < calls.size(); ++i)
        for (int64_t repeat = 0; repeat < repeats; ++repeat) {
          meet();
          const auto start = CommClock::now();
          calls[i].run(setup_.context);
          times[i].push_back(std::chrono::duration<double>(CommClock::now() - start).count());
        }
    return times;
  }

  /// The slowest rank of each call counts.
  void summarise(std::vector<double>& times, CommRow& row) {
    const Tensor tensor = flat(std::span(times));
    setup_.world.all_reduce(tensor, tensor, ReduceOp::kMax, StreamView::caller(), "bench: slowest rank").wait();
    row.samples = std::ssize(times);
    row.quartile1 = bench::quantile(times, 0.25);
    row.time = bench::quantile(times, 0.5);
    row.quartile3 = bench::quantile(times, 0.75);
  }

  int rounds_;
  const bench::CommPlan& plan_;
  const CommBench& setup_;
  Buffer slice_;
};

}  // namespace

void bench_comm(const BenchCommOptions& options, const bench::CommPlan& plan, const CommBench& setup,
                std::ostream& out) {
  std::unique_ptr<CommReport> report;
  if (setup.world.rank() == 0) {
    report = std::make_unique<CommReport>(options, setup, out);
    report->head(options.rounds);
  }
  CommTimer timer(options, plan, setup);
  int64_t wrong = 0;
  std::string first;
  for (const CommCase& at : plan.cases)
    for (const CommRow& row : timer.measure(at)) {
      if (report) report->line(row);
      if (row.wrong > 0 && wrong == 0) first = concat(at.name(row.variant), " of ", at.size_bytes(), " bytes");
      wrong += row.wrong;
    }
  if (report) report->close();
  if (wrong > 0)
    fail(ErrorKind::kPeer, "bench comm: every element must be what the ranks' inputs give; got ", wrong,
         " wrong, the first in ", first);
}

}  // namespace permafrost
