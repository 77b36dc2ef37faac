#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace permafrost {

struct BenchCommOptions {
  std::string json_path;                   ///< one JSON object per line; empty = none
  std::string only;                        ///< rows whose "operation variant" contains this; empty = all
  int64_t min_bytes = 1 << 10;             ///< sizes are those of the large f32 buffer
  int64_t max_bytes = int64_t{256} << 20;  ///< at most kLargestCommBytes
  int64_t factor = 4;                      ///< from one size to the next
  int rounds = 15;
  bool uneven = false;  ///< rank r's part is in proportion to r + 1
};

namespace bench {

/// Counts of plain MPI are `int`; and a buffer of order-free sums is twice as long.
inline constexpr int64_t kLargestCommBytes = int64_t{4} << 30;

enum class CommOp : uint8_t {
  kAllGather,      ///< f32
  kReduceScatter,  ///< f32
  kOrderFree,      ///< reduce-scatter of int64 sums, then this rank's part to f32: what OrderFreeSums::reduce does
  kAllReduce,      ///< f32
};
std::string_view to_string(CommOp op);

/// One operation at one size, and the variants (indices) that are compared in it.
struct CommCase {
  CommOp op = CommOp::kAllGather;
  int64_t elements = 0;         ///< of the large buffer
  std::vector<int64_t> counts;  ///< elements of each rank's part
  bool uneven = false;
  std::vector<size_t> variants;

  int64_t ranks() const { return static_cast<int64_t>(counts.size()); }
  int64_t begin(int rank) const;
  int64_t count(int rank) const { return counts[static_cast<size_t>(rank)]; }
  /// As Group takes them: empty for equal parts.
  std::span<const int64_t> given_counts() const;
  /// nccl-tests' figures: bytes of the large buffer; elements per rank, of an all-reduce all elements.
  int64_t size_bytes() const;
  int64_t nccl_count() const;
  /// Bytes over the bus per byte of size: (N-1)/N, of an all-reduce twice that.
  double bus_factor() const;
  std::string name(std::string_view variant) const;  ///< "all_gather node_registered"
};

/// What is measured, in order. Sizes as in nccl-tests: each rank's part is rounded down to 16 bytes (except uneven
/// parts), so that 1 KiB on 3 ranks is 1,008 bytes. Order-free cases have the elements of the reduce-scatter before
/// them, thus twice its bytes.
struct CommPlan {
  std::vector<CommCase> cases;
  int64_t input_bytes = 0, output_bytes = 0;  ///< largest of one rank, whole pages
  int64_t slice_elements = 0;                 ///< largest part that is converted to f32

  int64_t memory_bytes() const { return input_bytes + output_bytes; }
  bool uses(size_t variant) const;
};

/// variants: names of all there are in this run. Errors: kConfig for sizes that make no sense or a pattern that matches
/// nothing, naming the option.
CommPlan plan_comm(const BenchCommOptions& options, int ranks, std::span<const std::string> variants);

/// Bytes that all ranks of a machine take together: `memories` times the buffers per rank, and what plain MPI's
/// reduce-scatter may take for itself: twice the whole (Open MPI 4.1 was seen to touch 1.5 times the whole on 2 ranks).
int64_t comm_bytes(const CommPlan& plan, int ranks_on_node, int memories, bool plain_mpi);
/// kStorage with both numbers when they do not fit.
void check_comm_room(int64_t needed, int64_t available, int ranks_on_node, int64_t max_bytes);

}  // namespace bench
}  // namespace permafrost
