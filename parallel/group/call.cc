#include "parallel/group/call.h"

#include <cstring>
#include <functional>

#include "core/base/check.h"

namespace permafrost {
namespace {

std::string device_text(Device device) {
  return device.kind == DeviceKind::kCpu ? "the CPU" : concat("cuda:", device.index);
}

void check_device(Operation operation, std::string_view tag, const Tensor& tensor, Device device) {
  // An undefined tensor stands for zero elements, and lies nowhere.
  if (tensor.defined() && tensor.device() != device)
    fail(ErrorKind::kShapeMismatch, to_string(operation), " '", tag, "': tensors must be on ", device_text(device),
         "; got one on ", device_text(tensor.device()));
}

void check_same_dtype(Operation operation, std::string_view tag, const Tensor& a, const Tensor& b) {
  // An undefined tensor stands for zero elements and has no dtype to compare.
  if (a.defined() && b.defined() && a.dtype() != b.dtype())
    fail(ErrorKind::kShapeMismatch, to_string(operation), " '", tag, "': both tensors must have one dtype; got ",
         to_string(a.dtype()), " and ", to_string(b.dtype()));
}

void check_reducible(Operation operation, std::string_view tag, DType dtype) {
  switch (dtype) {
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
    case DType::kF32:
    case DType::kF64:
      return;
    case DType::kBF16:
    case DType::kF16:
      break;
  }
  fail(ErrorKind::kShapeMismatch, to_string(operation), " '", tag, "': dtype must be u8, i32, i64, f32 or f64; got ",
       to_string(dtype));
}

void check_peer(Operation operation, std::string_view tag, const char* what, int peer, int size) {
  PERMAFROST_CHECK(peer >= 0 && peer < size, to_string(operation), " '", tag, "': ", what, " must be a rank in 0..",
                   size - 1, "; got ", peer);
}

void check_counts(Operation operation, std::string_view tag, int size, int64_t elements,
                  std::span<const int64_t> counts) {
  if (counts.empty()) {
    PERMAFROST_CHECK(elements % size == 0, to_string(operation), " '", tag, "': without counts, elements must be a ",
                     "multiple of ", size, " ranks; got ", elements);
    return;
  }
  PERMAFROST_CHECK(std::ssize(counts) == size, to_string(operation), " '", tag,
                   "': counts must have one entry per rank (", size, "); got ", counts.size());
  int64_t sum = 0;
  for (const int64_t count : counts) {
    PERMAFROST_CHECK(count >= 0, to_string(operation), " '", tag, "': counts must not be negative; got ", count);
    sum += count;
  }
  PERMAFROST_CHECK(sum == elements, to_string(operation), " '", tag, "': counts must sum to ", elements,
                   " elements; got ", sum);
}

bool overlap(const std::byte* a, int64_t a_bytes, const std::byte* b, int64_t b_bytes) {
  const std::less<const std::byte*> before;
  return a_bytes > 0 && b_bytes > 0 && before(a, b + b_bytes) && before(b, a + a_bytes);
}

/// `part` is apart from `all`, or exactly this rank's part of it.
void check_part(const Call& call, int rank, int size, const Tensor& part, const Tensor& all) {
  const int64_t count = call.count(rank, size);
  if (part.elements() != count)
    fail(ErrorKind::kShapeMismatch, call.name(), ": part must have ", count, " elements on rank ", rank, "; got ",
         part.elements());
  const auto* part_at = static_cast<const std::byte*>(part.raw());
  const auto* all_at = static_cast<const std::byte*>(all.raw());
  const auto* own = all_at + call.offset(rank, size) * size_of(call.dtype);
  PERMAFROST_CHECK(part_at == own || !overlap(part_at, part.bytes(), all_at, all.bytes()), call.name(),
                   ": part must lie outside all, or be this rank's own place in it");
}

Call make_call(Operation operation, std::string_view tag, const Tensor& typed, int64_t elements) {
  Call call;
  call.operation = operation;
  call.tag = tag;
  call.dtype = typed.dtype();
  call.elements = elements;
  return call;
}

std::byte* bytes_of(const Tensor& tensor) { return static_cast<std::byte*>(tensor.raw()); }

}  // namespace

std::string_view to_string(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kMin:
      return "min";
  }
  return "unknown";
}

std::string_view to_string(Operation operation) {
  switch (operation) {
    case Operation::kSplit:
      return "split";
    case Operation::kBarrier:
      return "barrier";
    case Operation::kAllGather:
      return "all_gather";
    case Operation::kReduceScatter:
      return "reduce_scatter";
    case Operation::kAllReduce:
      return "all_reduce";
    case Operation::kBroadcast:
      return "broadcast";
    case Operation::kSend:
      return "send";
    case Operation::kRecv:
      return "recv";
  }
  return "unknown";
}

int64_t Call::offset(int rank, int size) const {
  if (counts.empty()) return elements / size * rank;
  int64_t sum = 0;
  for (int r = 0; r < rank; ++r) sum += counts[static_cast<size_t>(r)];
  return sum;
}

std::string Call::name() const { return concat(to_string(operation), " '", tag, "'"); }

int64_t moved_bytes(int rank, int size, int64_t elements, std::span<const int64_t> counts, DType dtype) {
  const int64_t own = counts.empty() ? elements / size : counts[static_cast<size_t>(rank)];
  return (elements - own) * size_of(dtype);
}

Call barrier_call(std::string_view tag) {
  Call call;
  call.tag = tag;
  return call;
}

Call all_gather_call(int rank, int size, const Tensor& part, const Tensor& all, std::span<const int64_t> counts,
                     std::string_view tag, Device device) {
  check_device(Operation::kAllGather, tag, part, device);
  check_device(Operation::kAllGather, tag, all, device);
  check_same_dtype(Operation::kAllGather, tag, part, all);
  check_counts(Operation::kAllGather, tag, size, all.elements(), counts);
  Call call = make_call(Operation::kAllGather, tag, all, all.elements());
  call.counts = counts;
  call.in = bytes_of(part);
  call.out = bytes_of(all);
  check_part(call, rank, size, part, all);
  return call;
}

Call reduce_scatter_call(int rank, int size, const Tensor& all, const Tensor& part, std::span<const int64_t> counts,
                         ReduceOp op, std::string_view tag, Device device) {
  check_device(Operation::kReduceScatter, tag, all, device);
  check_device(Operation::kReduceScatter, tag, part, device);
  check_same_dtype(Operation::kReduceScatter, tag, part, all);
  check_reducible(Operation::kReduceScatter, tag, all.dtype());
  check_counts(Operation::kReduceScatter, tag, size, all.elements(), counts);
  Call call = make_call(Operation::kReduceScatter, tag, all, all.elements());
  call.counts = counts;
  call.op = op;
  call.in = bytes_of(all);
  call.out = bytes_of(part);
  check_part(call, rank, size, part, all);
  return call;
}

Call all_reduce_call(const Tensor& in, const Tensor& out, ReduceOp op, std::string_view tag, Device device) {
  check_device(Operation::kAllReduce, tag, in, device);
  check_device(Operation::kAllReduce, tag, out, device);
  check_same_dtype(Operation::kAllReduce, tag, in, out);
  check_reducible(Operation::kAllReduce, tag, in.dtype());
  Call call = make_call(Operation::kAllReduce, tag, in, in.elements());
  call.op = op;
  call.in = bytes_of(in);
  call.out = bytes_of(out);
  if (in.elements() != out.elements())
    fail(ErrorKind::kShapeMismatch, call.name(), ": in and out must have as many elements; got ", in.elements(),
         " and ", out.elements());
  PERMAFROST_CHECK(call.in == call.out || !overlap(call.in, in.bytes(), call.out, out.bytes()), call.name(),
                   ": out must be in, or lie outside it");
  return call;
}

Call broadcast_call(int size, const Tensor& data, int root, std::string_view tag, Device device) {
  check_device(Operation::kBroadcast, tag, data, device);
  check_peer(Operation::kBroadcast, tag, "root", root, size);
  Call call = make_call(Operation::kBroadcast, tag, data, data.elements());
  call.peer = root;
  call.in = bytes_of(data);
  call.out = bytes_of(data);
  return call;
}

Call send_call(int rank, int size, const Tensor& data, int to, std::string_view tag, Device device) {
  check_device(Operation::kSend, tag, data, device);
  check_peer(Operation::kSend, tag, "destination", to, size);
  PERMAFROST_CHECK(to != rank, "send '", tag, "': destination must be another rank; got ", to);
  Call call = make_call(Operation::kSend, tag, data, data.elements());
  call.peer = to;
  call.in = bytes_of(data);
  return call;
}

Call recv_call(int rank, int size, const Tensor& data, int from, std::string_view tag, Device device) {
  check_device(Operation::kRecv, tag, data, device);
  check_peer(Operation::kRecv, tag, "source", from, size);
  PERMAFROST_CHECK(from != rank, "recv '", tag, "': source must be another rank; got ", from);
  Call call = make_call(Operation::kRecv, tag, data, data.elements());
  call.peer = from;
  call.out = bytes_of(data);
  return call;
}

void copy_alone(const Call& call) {
  if (call.in != call.out && call.in && call.out && call.elements > 0)
    std::memcpy(call.out, call.in, static_cast<size_t>(call.bytes()));
}

}  // namespace permafrost
