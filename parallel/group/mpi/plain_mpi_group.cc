#include "parallel/group/mpi/plain_mpi_group.h"

#include <limits>

#include "core/base/check.h"
#include "parallel/group/mpi/mpi_check.h"

namespace permafrost {
namespace {

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return MPI_FLOAT;
    case DType::kF64:
      return MPI_DOUBLE;
    case DType::kI32:
      return MPI_INT32_T;
    case DType::kI64:
      return MPI_INT64_T;
    case DType::kBF16:
    case DType::kF16:
      return MPI_UINT16_T;  // moved, never added
    case DType::kU8:
      return MPI_UINT8_T;
  }
  return MPI_DATATYPE_NULL;
}

MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMax:
      return MPI_MAX;
    case ReduceOp::kMin:
      return MPI_MIN;
  }
  return MPI_OP_NULL;
}

void check_int(const Call& call) {
  constexpr int kMost = std::numeric_limits<int>::max();
  PERMAFROST_CHECK(call.elements <= kMost, call.name(), ": plain MPI counts at most ", kMost, " elements; got ",
                   call.elements);
}

[[noreturn]] void missing(std::string_view method, std::string_view tag) {
  fail(ErrorKind::kNotBuilt, "plain MPI: all_gather, reduce_scatter and all_reduce are all there is; got ", method,
       " '", tag, "'");
}

}  // namespace

PlainMpiGroup::PlainMpiGroup(std::shared_ptr<MpiShared> shared, MPI_Comm comm)
    : shared_(std::move(shared)), comm_(comm) {
  mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "plain MPI");
  mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "plain MPI");
  counts_.resize(static_cast<size_t>(size_));
  offsets_.resize(static_cast<size_t>(size_));
}

PlainMpiGroup::~PlainMpiGroup() {
  if (shared_->open && !shared_->watch->failed()) MPI_Comm_free(&comm_);
}

std::optional<Error> PlainMpiGroup::async_error() const {
  if (const auto failure = shared_->watch->failure()) return failure->error();
  return std::nullopt;
}

Event PlainMpiGroup::run(const Call& call, StreamView stream, void (PlainMpiGroup::*body)(const Call&)) {
  check_int(call);
  return stream.submit([this, call, body] {
    if (const auto error = async_error()) throw Error(*error);
    PERMAFROST_CHECK(shared_->open, call.name(), ": MPI must not be finalised yet; got a call after close");
    (this->*body)(call);
  });
}

void PlainMpiGroup::set_counts(const Call& call) {
  int offset = 0;
  for (int r = 0; r < size_; ++r) {
    const auto at = static_cast<size_t>(r);
    counts_[at] = static_cast<int>(call.count(r, size_));
    offsets_[at] = offset;
    offset += counts_[at];
  }
}

Event PlainMpiGroup::all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts,
                                StreamView stream, std::string_view tag) {
  return run(all_gather_call(rank_, size_, part, all, counts, tag), stream, &PlainMpiGroup::do_all_gather);
}

Event PlainMpiGroup::reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                                    StreamView stream, std::string_view tag) {
  const Call call = reduce_scatter_call(rank_, size_, all, part, counts, op, tag);
  PERMAFROST_CHECK(
      call.count(rank_, size_) == 0 || call.out != call.in + call.offset(rank_, size_) * size_of(call.dtype),
      call.name(), ": plain MPI needs a part outside of the whole; got a part in place");
  return run(call, stream, &PlainMpiGroup::do_reduce_scatter);
}

Event PlainMpiGroup::all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream,
                                std::string_view tag) {
  return run(all_reduce_call(in, out, op, tag), stream, &PlainMpiGroup::do_all_reduce);
}

void PlainMpiGroup::do_all_gather(const Call& call) {
  const MPI_Datatype type = mpi_type(call.dtype);
  const int own = static_cast<int>(call.count(rank_, size_));
  const bool in_place = own > 0 && call.in == call.out + call.offset(rank_, size_) * size_of(call.dtype);
  const void* part = in_place ? MPI_IN_PLACE : call.in;
  if (call.counts.empty()) {
    mpi_check(MPI_Allgather(part, own, type, call.out, own, type, comm_), "MPI_Allgather", call.tag);
    return;
  }
  set_counts(call);
  mpi_check(MPI_Allgatherv(part, own, type, call.out, counts_.data(), offsets_.data(), type, comm_), "MPI_Allgatherv",
            call.tag);
}

void PlainMpiGroup::do_reduce_scatter(const Call& call) {
  set_counts(call);
  mpi_check(MPI_Reduce_scatter(call.in, call.out, counts_.data(), mpi_type(call.dtype), mpi_op(call.op), comm_),
            "MPI_Reduce_scatter", call.tag);
}

void PlainMpiGroup::do_all_reduce(const Call& call) {
  const void* in = call.in == call.out ? MPI_IN_PLACE : call.in;
  mpi_check(MPI_Allreduce(in, call.out, static_cast<int>(call.elements), mpi_type(call.dtype), mpi_op(call.op), comm_),
            "MPI_Allreduce", call.tag);
}

std::unique_ptr<Group> PlainMpiGroup::split(int /*color*/, int /*key*/, std::string_view tag, Waiting /*waiting*/) {
  missing("split", tag);
}
Event PlainMpiGroup::barrier(StreamView /*stream*/, std::string_view tag) { missing("barrier", tag); }
Event PlainMpiGroup::broadcast(const Tensor& /*data*/, int /*root*/, StreamView /*stream*/, std::string_view tag) {
  missing("broadcast", tag);
}
Event PlainMpiGroup::send(const Tensor& /*data*/, int /*to*/, StreamView /*stream*/, std::string_view tag) {
  missing("send", tag);
}
Event PlainMpiGroup::recv(const Tensor& /*data*/, int /*from*/, StreamView /*stream*/, std::string_view tag) {
  missing("recv", tag);
}

}  // namespace permafrost
