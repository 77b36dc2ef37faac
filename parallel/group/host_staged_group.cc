#include "parallel/group/host_staged_group.h"

#include "core/base/check.h"
#include "core/device/buffer.h"
#include "core/device/cuda.h"
#include "parallel/group/call.h"

namespace permafrost {
namespace {

class HostStagedGroup final : public Group {
 public:
  HostStagedGroup(Group& host, Device device, const Tensor& staging)
      : host_(host), device_(device), staging_(staging), own_stream_(device) {}
  HostStagedGroup(std::unique_ptr<Group> host, Device device, int64_t staging_bytes)
      : owned_host_(std::move(host)),
        host_(*owned_host_),
        device_(device),
        memory_(Buffer::pinned("staging of a group", staging_bytes, device)),
        staging_(memory_.data(), DType::kU8, Shape{staging_bytes}),
        own_stream_(device) {}

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }

  std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting) override {
    auto part = host_.split(color, key, tag, waiting);
    if (!part) return nullptr;
    return std::make_unique<HostStagedGroup>(std::move(part), device_, staging_.bytes());
  }

  Event barrier(StreamView stream, std::string_view tag) override {
    Queue queue(*this, stream);
    queue.wait();
    host_.barrier(StreamView::caller(), tag).wait();
    return Event();
  }

  Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                   std::string_view tag) override {
    const Call call = all_gather_call(rank(), size(), part, all, counts, tag, device_);
    const int64_t item = size_of(call.dtype), begin = call.offset(rank(), size()) * item;
    const int64_t own = call.count(rank(), size()) * item, end = begin + own;
    Queue queue(*this, stream);
    if (size() == 1) return queue.copied(call.out, call.in, call.bytes());
    std::byte* staged = place(call, call.bytes());
    queue.copy(staged + begin, call.in, own);
    queue.wait();
    host_
        .all_gather(at(staged + begin, call.dtype, own), at(staged, call.dtype, call.bytes()), counts,
                    StreamView::caller(), tag)
        .wait();
    const bool in_place = call.out + begin == call.in;
    queue.copy(call.out, staged, in_place ? begin : end);
    queue.copy(call.out + end, staged + end, call.bytes() - end);
    return queue.done();
  }

  Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                       StreamView stream, std::string_view tag) override {
    const Call call = reduce_scatter_call(rank(), size(), all, part, counts, op, tag, device_);
    const int64_t item = size_of(call.dtype), begin = call.offset(rank(), size()) * item;
    const int64_t own = call.count(rank(), size()) * item;
    Queue queue(*this, stream);
    if (size() == 1) return queue.copied(call.out, call.in, call.bytes());
    std::byte* staged = place(call, call.bytes());
    queue.copy(staged, call.in, call.bytes());
    queue.wait();
    host_
        .reduce_scatter(at(staged, call.dtype, call.bytes()), at(staged + begin, call.dtype, own), counts, op,
                        StreamView::caller(), tag)
        .wait();
    queue.copy(call.out, staged + begin, own);
    return queue.done();
  }

  Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) override {
    const Call call = all_reduce_call(in, out, op, tag, device_);
    Queue queue(*this, stream);
    if (size() == 1) return queue.copied(call.out, call.in, call.bytes());
    std::byte* staged = place(call, call.bytes());
    queue.copy(staged, call.in, call.bytes());
    queue.wait();
    const Tensor all = at(staged, call.dtype, call.bytes());
    host_.all_reduce(all, all, op, StreamView::caller(), tag).wait();
    queue.copy(call.out, staged, call.bytes());
    return queue.done();
  }

  Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) override {
    const Call call = broadcast_call(size(), data, root, tag, device_);
    Queue queue(*this, stream);
    if (size() == 1) return queue.done();
    std::byte* staged = place(call, call.bytes());
    if (rank() == root) queue.copy(staged, data.raw(), call.bytes());
    queue.wait();
    host_.broadcast(at(staged, call.dtype, call.bytes()), root, StreamView::caller(), tag).wait();
    if (rank() != root) queue.copy(data.raw(), staged, call.bytes());
    return queue.done();
  }

  Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) override {
    const Call call = send_call(rank(), size(), data, to, tag, device_);
    Queue queue(*this, stream);
    std::byte* staged = place(call, call.bytes());
    queue.copy(staged, data.raw(), call.bytes());
    queue.wait();
    host_.send(at(staged, call.dtype, call.bytes()), to, StreamView::caller(), tag).wait();
    return Event();
  }

  Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) override {
    const Call call = recv_call(rank(), size(), data, from, tag, device_);
    Queue queue(*this, stream);
    std::byte* staged = place(call, call.bytes());
    host_.recv(at(staged, call.dtype, call.bytes()), from, StreamView::caller(), tag).wait();
    queue.copy(data.raw(), staged, call.bytes());
    return queue.done();
  }

  std::optional<Error> async_error() const override { return host_.async_error(); }
  void abort(const Error& reason) noexcept override { host_.abort(reason); }

 private:
  /// The stream of a call. When it is made, nothing of an earlier call uses the staging any more.
  class Queue {
   public:
    Queue(HostStagedGroup& group, StreamView stream)
        : group_(group), caller_(stream.is_caller()), stream_(caller_ ? StreamView(group.own_stream_) : stream) {
      PERMAFROST_CHECK(stream_.queue() != nullptr, "host-staged group: stream must be one of CUDA; got one of the CPU");
      group_.last_.wait();
    }
    void copy(void* to, const void* from, int64_t bytes) {
      if (bytes > 0) cuda::copy(*stream_.queue(), to, from, bytes);
    }
    void wait() { cuda::synchronize(*stream_.queue()); }
    Event done() {
      if (caller_) return wait(), Event();
      return group_.last_ = stream_.submit([] {});
    }
    /// Of a group of one. Nothing is staged, and who needs an event that is not there records one.
    Event copied(void* to, const void* from, int64_t bytes) {
      if (to == from) return Event();
      copy(to, from, bytes);
      return done();
    }

   private:
    HostStagedGroup& group_;
    bool caller_;
    StreamView stream_;
  };

  std::byte* place(const Call& call, int64_t bytes) const {
    PERMAFROST_CHECK(bytes <= staging_.bytes(), "host-staged group: ", call.name(), " must fit the staging of ",
                     staging_.bytes(), " bytes; got ", bytes);
    return static_cast<std::byte*>(staging_.raw());
  }
  static Tensor at(std::byte* place, DType dtype, int64_t bytes) {
    return {place, dtype, Shape{bytes / size_of(dtype)}};
  }

  std::unique_ptr<Group> owned_host_;
  Group& host_;
  Device device_;
  Buffer memory_;
  Tensor staging_;
  Stream own_stream_;
  Event last_;
};

}  // namespace

std::unique_ptr<Group> make_host_staged_group(std::unique_ptr<Group> host, Device device, int64_t staging_bytes) {
  return std::make_unique<HostStagedGroup>(std::move(host), device, staging_bytes);
}

std::unique_ptr<Group> make_host_staged_group(Group& host, Device device, const Tensor& staging) {
  return std::make_unique<HostStagedGroup>(host, device, staging);
}

}  // namespace permafrost
