#include "launch/bench/comm_plan.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/tensor/dtype.h"

namespace permafrost::bench {

namespace {

constexpr int64_t kF32Bytes = 4, kI64Bytes = 8;
constexpr int64_t kPartBytes = 16;  // nccl-tests' alignment
constexpr int64_t kPageBytes = 4096;

[[noreturn]] void refuse(const std::string& what, const char* option) {
  fail(ErrorKind::kConfig, "bench comm: ", what, " [param=", option, "]");
}

void check_sizes(const BenchCommOptions& options, int ranks) {
  if (options.min_bytes > options.max_bytes)
    refuse(concat("the smallest size must not exceed the largest (", options.max_bytes, " bytes); got ",
                  options.min_bytes),
           "--min-bytes");
  if (options.min_bytes < kPartBytes * ranks)
    refuse(concat("sizes begin at ", kPartBytes, " bytes per rank, ", kPartBytes * ranks, " for ", ranks,
                  " ranks; got ", options.min_bytes),
           "--min-bytes");
  if (options.max_bytes > kLargestCommBytes)
    refuse(concat("sizes end at ", kLargestCommBytes, " bytes, since MPI counts in int; got ", options.max_bytes),
           "--max-bytes");
  if (options.factor < 2)
    refuse(concat("the factor between sizes must be at least 2; got ", options.factor), "--factor");
  if (options.rounds < 1) refuse(concat("at least 1 round must be timed; got ", options.rounds), "--rounds");
}

CommCase make_case(CommOp op, int64_t bytes, int ranks, bool uneven) {
  CommCase made;
  made.op = op;
  made.uneven = uneven;
  int64_t total = bytes / kF32Bytes;
  if (!uneven && op != CommOp::kAllReduce) total = bytes / ranks / kPartBytes * kPartBytes / kF32Bytes * ranks;
  made.elements = total;
  const int64_t weights = int64_t{ranks} * (ranks + 1) / 2;
  for (int64_t r = 0; r < ranks; ++r)
    made.counts.push_back(uneven ? total * ((r + 1) * (r + 2) / 2) / weights - total * (r * (r + 1) / 2) / weights
                                 : total * (r + 1) / ranks - total * r / ranks);
  return made;
}

void make_room(CommPlan& plan, const CommCase& row) {
  const int64_t whole = row.size_bytes(), element = row.op == CommOp::kOrderFree ? kI64Bytes : kF32Bytes;
  const int64_t part = *std::ranges::max_element(row.counts) * element;
  const bool gathers = row.op == CommOp::kAllGather;
  const int64_t output = gathers || row.op == CommOp::kAllReduce ? whole : part;
  plan.input_bytes = std::max(plan.input_bytes, round_up(gathers ? part : whole, kPageBytes));
  plan.output_bytes = std::max(plan.output_bytes, round_up(output, kPageBytes));
  if (row.op == CommOp::kOrderFree) plan.slice_elements = std::max(plan.slice_elements, part / element);
}

}  // namespace

std::string_view to_string(CommOp op) {
  switch (op) {
    case CommOp::kAllGather:
      return "all_gather";
    case CommOp::kReduceScatter:
      return "reduce_scatter";
    case CommOp::kOrderFree:
      return "order_free";
    case CommOp::kAllReduce:
      return "all_reduce";
  }
  return "unknown";
}

int64_t CommCase::begin(int rank) const { return std::accumulate(counts.begin(), counts.begin() + rank, int64_t{0}); }

std::span<const int64_t> CommCase::given_counts() const {
  return uneven ? std::span<const int64_t>(counts) : std::span<const int64_t>();
}

int64_t CommCase::size_bytes() const { return elements * (op == CommOp::kOrderFree ? kI64Bytes : kF32Bytes); }

int64_t CommCase::nccl_count() const { return op == CommOp::kAllReduce ? elements : elements / ranks(); }

double CommCase::bus_factor() const {
  const auto n = static_cast<double>(ranks());
  return (op == CommOp::kAllReduce ? 2 : 1) * (n - 1) / n;
}

std::string CommCase::name(std::string_view variant) const { return concat(to_string(op), " ", variant); }

bool CommPlan::uses(size_t variant) const {
  return std::ranges::any_of(cases, [&](const CommCase& row) { return std::ranges::count(row.variants, variant) > 0; });
}

CommPlan plan_comm(const BenchCommOptions& options, int ranks, std::span<const std::string> variants) {
  check_sizes(options, ranks);
  CommPlan plan;
  const std::array<std::vector<CommOp>, 3> tables{
      {{CommOp::kAllGather}, {CommOp::kReduceScatter, CommOp::kOrderFree}, {CommOp::kAllReduce}}};
  for (const std::vector<CommOp>& ops : tables)
    for (int64_t bytes = options.min_bytes; bytes <= options.max_bytes; bytes *= options.factor)
      for (const CommOp op : ops) {
        CommCase row = make_case(op, bytes, ranks, options.uneven);
        for (size_t v = 0; v < variants.size(); ++v)
          if (row.name(variants[v]).find(options.only) != std::string::npos) row.variants.push_back(v);
        if (row.variants.empty()) continue;
        make_room(plan, row);
        plan.cases.push_back(std::move(row));
      }
  if (plan.cases.empty()) {
    std::string known;
    for (const CommOp op : {CommOp::kAllGather, CommOp::kReduceScatter, CommOp::kOrderFree, CommOp::kAllReduce})
      known += concat(known.empty() ? "" : ", ", to_string(op));
    std::string names;
    for (const std::string& variant : variants) names += (names.empty() ? "" : ", ") + variant;
    refuse(concat("a part of a row's name was expected, which is an operation (", known, "), a space and a variant (",
                  names, "); got '", options.only, "'"),
           "--only");
  }
  return plan;
}

int64_t comm_bytes(const CommPlan& plan, int ranks_on_node, int memories, bool plain_mpi) {
  return ranks_on_node *
         (memories * plan.memory_bytes() + plan.slice_elements * kF32Bytes + (plain_mpi ? 2 * plan.input_bytes : 0));
}

void check_comm_room(int64_t needed, int64_t available, int ranks_on_node, int64_t max_bytes) {
  if (needed > available)
    fail(ErrorKind::kStorage, "bench comm: sizes up to ", max_bytes, " bytes take ", needed,
         " bytes of memory for the ", ranks_on_node, " ranks of a machine; got ", available,
         " bytes free [param=--max-bytes]");
}

}  // namespace permafrost::bench
