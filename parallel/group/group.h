#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "core/base/error.h"
#include "core/device/stream.h"
#include "core/tensor/tensor.h"

namespace permafrost {

enum class ReduceOp : uint8_t { kSum, kMax, kMin };
std::string_view to_string(ReduceOp op);

/// How the waits of a group spend their time.
enum class Waiting : uint8_t {
  kEager,     ///< look for the others for some microseconds before giving the core away: the thread that computes
  kSleeping,  ///< sleep at once (polls, where it must poll, are 50 us apart, and 5 ms after 2 s): a thread beside
              ///< those that compute
};

/// N ranks that exchange tensors. This page is the whole contract; every backend obeys it and one conformance suite
/// (tests/group/conformance.h) checks them all.
///
/// Order.    All ranks of a group call the same methods with the same arguments in the same order, each rank from one
///           stream at a time. Work that must overlap on two streams takes two groups (`split` makes the second).
/// Stream.   A method puts its work on `stream` and returns an event that completes when this rank's output is ready
///           and its input may be reused. StreamView::caller() does the work before returning. Until the event
///           completes, tensors, counts and tag must stay alive and untouched: nothing is copied, nothing allocated.
/// Tensors.  Contiguous, on the group's device. Shapes do not matter, elements do. Counts are int64 and may exceed
///           2^31; zero elements are legal everywhere, undefined tensors only where a rank's count is zero.
/// Dtypes.   Moving: all. Reducing: u8, i32, i64, f32, f64 (bf16 and f16 sums round: reduce their f32 source).
/// Sums.     Floating sums are taken element by element in the order of ranks 0, 1, ..., N-1, so they depend on N but
///           on nothing else. Integer sums wrap. kMax and kMin of floats: a NaN of any rank gives NaN.
///           Nobody averages.
/// Counts.   `counts` (one per rank, summing to the elements of `all`) lets parts be uneven, zero included; an empty
///           span means N equal parts. Part r of `all` starts at counts[0] + ... + counts[r-1].
/// In place. all_gather and reduce_scatter: `part` may be exactly this rank's part of `all`. all_reduce: `out` may be
///           `in`. No other overlap. reduce_scatter uses `all` up: but for a
///           `part` within it, `all` is undefined afterwards.
/// One rank. A group of one copies, and never waits.
/// Tag.      Names the call in logs (debug level: tag, sequence number, bytes) and in errors.
/// Errors.   kInvalidArgument or kShapeMismatch for arguments, before anything is sent. kTimeout when ranks do not come
///           within the group's time limit, naming them where known. The failing rank's own kind when a peer aborted,
///           so that all ranks end with one exit code. kPeer for errors of the transport. After an error that is not
///           about arguments the group is broken: every later call throws that error again.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// Ranks that give the same color >= 0 form a new group, ordered by (key, rank here); color < 0 joins none and
  /// returns null. Blocks all ranks; not for the step path. `waiting` is of the new group alone, and may differ by
  /// rank.
  virtual std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting = Waiting::kEager) = 0;

  /// Completes when all ranks have come.
  virtual Event barrier(StreamView stream, std::string_view tag) = 0;
  /// all = part of rank 0, part of rank 1, ...
  virtual Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                           std::string_view tag) = 0;
  /// part = this rank's part of the reduction of `all` over ranks.
  virtual Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                               StreamView stream, std::string_view tag) = 0;
  /// out = the reduction of `in` over ranks.
  virtual Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream,
                           std::string_view tag) = 0;
  /// data of every rank = data of rank `root`.
  virtual Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) = 0;

  /// Point to point, matched in order per pair of ranks; both sides name the same dtype and elements. A send may
  /// complete only when the receiver has come: do not rely on buffering. No message to oneself.
  virtual Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) = 0;
  virtual Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) = 0;

  /// The error that broke this group or a peer, if any is known. Does not wait; callable from any thread.
  virtual std::optional<Error> async_error() const = 0;
  /// This rank cannot go on: every wait and every later call of every rank of the *world*, not only of this group,
  /// ends with `reason` and this rank's number. First reason wins. Callable from any thread. Backends of processes
  /// do not return: after the others had a moment to report, all processes end with exit_code(reason.kind()).
  /// Use it through fail_together (parallel/group/fail_together.h).
  virtual void abort(const Error& reason) noexcept = 0;
};

/// A span as a tensor of rank 1, for calls on plain memory.
template <typename T>
Tensor flat(std::span<T> values) {
  return {values.data(), DTypeOf<T>::value, Shape({static_cast<int64_t>(values.size())})};
}

/// Bytes that one rank receives from others in an all_gather, and sends to others in a reduce_scatter: all but its own
/// part. An all_reduce counts as both. This is what plans and counters mean by gathered and reduced bytes.
int64_t moved_bytes(int rank, int size, int64_t elements, std::span<const int64_t> counts, DType dtype);

}  // namespace permafrost
