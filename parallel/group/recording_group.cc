#include "parallel/group/recording_group.h"

#include <cstring>

#include "core/base/check.h"
#include "parallel/group/failure.h"

namespace permafrost {
namespace {

void copy(std::byte* target, const std::byte* source, int64_t bytes) {
  if (bytes > 0 && target != source) std::memcpy(target, source, static_cast<size_t>(bytes));
}

class RecordingGroup final : public Group {
 public:
  RecordingGroup(int size, int rank, std::shared_ptr<Recording> recording)
      : size_(size), rank_(rank), recording_(std::move(recording)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Group> split(int color, int /*key*/, std::string_view tag, Waiting /*waiting*/) override {
    Call call = barrier_call(tag);
    call.operation = Operation::kSplit;
    note(call, 0);
    if (color < 0) return nullptr;
    return std::make_unique<RecordingGroup>(size_, rank_, recording_);
  }
  Event barrier(StreamView stream, std::string_view tag) override {
    const Call call = barrier_call(tag);
    return stream.submit([this, call] { note(call, 0); });
  }
  Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                   std::string_view tag) override {
    const Call call = all_gather_call(rank_, size_, part, all, counts, tag);
    return stream.submit([this, call] {
      note(call, moved_bytes(rank_, size_, call.elements, call.counts, call.dtype));
      for (int r = 0; r < size_; ++r) {
        const int64_t bytes = call.count(r, size_) * size_of(call.dtype);
        std::byte* target = call.out + call.offset(r, size_) * size_of(call.dtype);
        if (r == rank_)
          copy(target, call.in, bytes);
        else if (bytes > 0)
          std::memset(target, 0, static_cast<size_t>(bytes));
      }
    });
  }
  Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                       StreamView stream, std::string_view tag) override {
    const Call call = reduce_scatter_call(rank_, size_, all, part, counts, op, tag);
    return stream.submit([this, call] {
      note(call, moved_bytes(rank_, size_, call.elements, call.counts, call.dtype));
      copy(call.out, call.in + call.offset(rank_, size_) * size_of(call.dtype),
           call.count(rank_, size_) * size_of(call.dtype));
    });
  }
  Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) override {
    const Call call = all_reduce_call(in, out, op, tag);
    return stream.submit([this, call] {
      const int64_t own = call.elements / size_ + (rank_ < call.elements % size_ ? 1 : 0);
      note(call, 2 * (call.elements - own) * size_of(call.dtype));
      copy(call.out, call.in, call.bytes());
    });
  }
  Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) override {
    const Call call = broadcast_call(size_, data, root, tag);
    return stream.submit([this, call] { note(call, size_ > 1 ? call.bytes() : 0); });
  }
  Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) override {
    const Call call = send_call(rank_, size_, data, to, tag);
    return stream.submit([this, call] { note(call, call.bytes()); });
  }
  Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) override {
    const Call call = recv_call(rank_, size_, data, from, tag);
    return stream.submit([this, call] {
      note(call, call.bytes());
      if (call.elements > 0) std::memset(call.out, 0, static_cast<size_t>(call.bytes()));
    });
  }

  std::optional<Error> async_error() const override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }
  void abort(const Error& reason) noexcept override {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = Failure{rank_, size_, reason.kind(), reason.what()}.error();
  }

 private:
  void note(const Call& call, int64_t moved) {
    if (const auto error = async_error()) throw Error(*error);
    recording_->add({call.operation, std::string(call.tag), call.dtype, call.op, call.elements, call.bytes(), moved});
  }

  int size_;
  int rank_;
  std::shared_ptr<Recording> recording_;
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
};

}  // namespace

void Recording::add(Record record) {
  const std::lock_guard lock(mutex_);
  records_.push_back(std::move(record));
}

std::vector<Record> Recording::records() const {
  const std::lock_guard lock(mutex_);
  return records_;
}

void Recording::clear() {
  const std::lock_guard lock(mutex_);
  records_.clear();
}

std::unique_ptr<Group> make_recording_group(int size, int rank, std::shared_ptr<Recording> recording) {
  PERMAFROST_CHECK(size >= 1 && rank >= 0 && rank < size, "make_recording_group: rank must be in 0..size-1; got rank ",
                   rank, " of ", size);
  PERMAFROST_CHECK(recording != nullptr, "make_recording_group: a recording is needed; got null");
  return std::make_unique<RecordingGroup>(size, rank, std::move(recording));
}

}  // namespace permafrost
