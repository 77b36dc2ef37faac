#include "parallel/group/nccl/nccl_communicator.h"

#include <cuda_runtime.h>
#include <glog/logging.h>

#include <cstdio>
#include <thread>
#include <utility>

#include "core/base/narrow.h"
#include "parallel/group/nccl/bounded.h"

namespace permafrost {
namespace {

using Clock = std::chrono::steady_clock;

void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  fail(ErrorKind::kInternal, "nccl: ", what, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
}

/// Polls of NCCL's state: at once at first, since most launches take microseconds.
class Pause {
 public:
  void operator()() {
    if (++polls_ < 200)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(polls_ < 2000 ? 20 : 500));
  }

 private:
  int polls_ = 0;
};

}  // namespace

NcclCommunicator::NcclCommunicator(NcclWorld& world, std::string name, int rank, int size)
    : world_(world), api_(nccl_api()), name_(std::move(name)), rank_(rank), size_(size) {
  check_cuda(cudaSetDevice(world_.device.index), "cudaSetDevice");
  for (Tracked& call : calls_)
    for (cudaEvent_t* event : {&call.before, &call.after})
      check_cuda(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

NcclCommunicator::~NcclCommunicator() {
  abort();
  for (const Tracked& call : calls_)
    for (cudaEvent_t event : {call.before, call.after})
      if (event) cudaEventDestroy(event);
}

std::string NcclCommunicator::whom() const { return concat("nccl '", name_, "'"); }

Error NcclCommunicator::error_of(const std::string& who, ncclResult_t result) const {
  const char* last = comm_ ? api_.GetLastError(comm_) : nullptr;
  return {ErrorKind::kPeer, concat(whom(), ": ", who, " must succeed; got ", api_.GetErrorString(result),
                                   last && *last ? concat(" (", last, ")") : "", " [rank ", rank_, "/", size_, "]")};
}

/// Of a call on a communicator that was aborted or closed.
Error NcclCommunicator::gone(const std::string& who) const {
  if (const auto failure = world_.failure()) return *failure;
  return {ErrorKind::kInternal, concat(whom(), ": ", who, " needs a communicator; got a call after its end")};
}

void NcclCommunicator::wait_until_ready(const std::string& who, std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  for (Pause pause;; pause()) {
    ncclResult_t state = ncclSuccess;
    {
      const std::lock_guard lock(mutex_);
      if (!comm_) throw gone(who);
      const ncclResult_t asked = api_.CommGetAsyncError(comm_, &state);
      if (gone_wrong(asked)) state = asked;
      if (gone_wrong(state)) throw error_of(who, state);
    }
    if (state == ncclSuccess) return;
    if (const auto failure = world_.failure()) throw Error(*failure);
    if (Clock::now() > deadline)
      fail(ErrorKind::kTimeout, whom(), ": ", who, ": all ranks must come within ", limit.count(),
           " ms; NCCL still waits for others and does not say for whom [rank ", rank_, "/", size_, "]");
  }
}

void NcclCommunicator::join(const ncclUniqueId& id, bool copy_engines) {
  check_cuda(cudaSetDevice(world_.device.index), "cudaSetDevice");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.commName = name_.c_str();
  if (copy_engines) config.CTAPolicy = NCCL_CTA_POLICY_ZERO;
  {
    const std::lock_guard lock(mutex_);
    const ncclResult_t result = api_.CommInitRankConfig(&comm_, size_, id, rank_, &config);
    if (gone_wrong(result) || !comm_) throw error_of("joining", result);
  }
  wait_until_ready("joining", world_.options.timeout);
}

void NcclCommunicator::settle(const Call& call) {
  try {
    wait_until_ready(call.name(), world_.options.timeout);
  } catch (const Error& error) {
    throw world_.fail_with(error);
  }
}

bool NcclCommunicator::register_window(void* memory, int64_t bytes) {
  Call call = barrier_call("register memory");
  ncclWindow_t& handle = windows_.emplace_back().handle;
  start(call, [&](ncclComm_t comm) {
    return api_.CommWindowRegister(comm, memory, narrow<size_t>(bytes), &handle, NCCL_WIN_COLL_SYMMETRIC);
  });
  if (!handle) windows_.pop_back();
  return handle != nullptr;
}

/// Forgets what is done. True: there is room for one more.
bool NcclCommunicator::retire_locked() {
  while (oldest_ != newest_) {
    Tracked& call = calls_[oldest_ % calls_.size()];
    if (!call.complete || cudaEventQuery(call.after) == cudaErrorNotReady) break;
    ++oldest_;
  }
  return newest_ - oldest_ < calls_.size();
}

NcclCommunicator::Tracked* NcclCommunicator::begin(const Call& call, cudaStream_t stream) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &capturing), "cudaStreamIsCapturing");
  if (capturing != cudaStreamCaptureStatusNone) return nullptr;  // events of captured work cannot be asked
  for (Pause pause;; pause()) {
    const std::lock_guard lock(calls_mutex_);
    if (!retire_locked()) {  // the host is far ahead of the device: it waits here, as long as nobody has failed
      if (const auto failure = world_.failure()) throw Error(*failure);
      continue;
    }
    Tracked& tracked = calls_[newest_ % calls_.size()];
    tracked.reached.reset();
    tracked.complete = false;
    const std::string_view operation = to_string(call.operation);
    std::snprintf(tracked.name.data(), tracked.name.size(), "%.*s '%.*s'", static_cast<int>(operation.size()),
                  operation.data(), static_cast<int>(call.tag.size()), call.tag.data());
    check_cuda(cudaEventRecord(tracked.before, stream), "cudaEventRecord");
    ++newest_;
    return &tracked;
  }
}

void NcclCommunicator::end(Tracked* tracked, cudaStream_t stream) {
  if (!tracked) return;
  const std::lock_guard lock(calls_mutex_);
  check_cuda(cudaEventRecord(tracked->after, stream), "cudaEventRecord");
  tracked->complete = true;
}

std::optional<Error> NcclCommunicator::overdue() {
  const std::lock_guard lock(calls_mutex_);
  retire_locked();
  if (oldest_ == newest_) return std::nullopt;
  Tracked& call = calls_[oldest_ % calls_.size()];
  if (!call.complete || cudaEventQuery(call.before) == cudaErrorNotReady) return std::nullopt;
  const auto now = Clock::now();
  if (!call.reached) call.reached = now;
  if (now - *call.reached <= world_.options.timeout) return std::nullopt;
  return Error(
      ErrorKind::kTimeout,
      concat(whom(), ": ", call.name.data(), ": all ranks must come within ", world_.options.timeout.count(),
             " ms; the GPU still waits for others, and NCCL does not say for whom [rank ", rank_, "/", size_, "]"));
}

std::optional<Error> NcclCommunicator::look() {
  {
    const std::unique_lock lock(mutex_, std::try_to_lock);  // whoever has it sees errors by itself
    if (lock && comm_) {
      ncclResult_t state = ncclSuccess;
      const ncclResult_t asked = api_.CommGetAsyncError(comm_, &state);
      if (gone_wrong(asked)) state = asked;
      if (gone_wrong(state)) return error_of("a call under way", state);
    }
  }
  return overdue();
}

/// Whoever has taken it is alone with it.
ncclComm_t NcclCommunicator::take() noexcept {
  const std::lock_guard lock(mutex_);
  return std::exchange(comm_, nullptr);
}

void NcclCommunicator::abort() noexcept { abort(take()); }

void NcclCommunicator::abort(ncclComm_t comm) noexcept {
  if (!comm) return;
  const NcclApi& api = api_;
  try {
    if (!run_bounded(world_.options.close_timeout, [&api, comm] { api.CommAbort(comm); }))
      LOG(WARNING) << whom() << ": NCCL did not abort within " << world_.options.close_timeout.count()
                   << " ms; left alone";
  } catch (const std::exception& error) {  // no thread to be had
    LOG(WARNING) << whom() << ": not aborted: " << error.what();
  }
}

bool NcclCommunicator::finalize(ncclComm_t comm) noexcept {
  const auto deadline = Clock::now() + world_.options.close_timeout;
  for (Pause pause;; pause()) {  // a window must not go away under a call
    {
      const std::lock_guard lock(calls_mutex_);
      retire_locked();
      if (oldest_ == newest_) break;
    }
    if (world_.failure() || Clock::now() > deadline) return false;
  }
  for (const Window& window : windows_) api_.CommWindowDeregister(comm, window.handle);
  if (gone_wrong(api_.CommFinalize(comm))) return false;
  for (Pause pause;; pause()) {
    ncclResult_t state = ncclSuccess;
    if (gone_wrong(api_.CommGetAsyncError(comm, &state)) || gone_wrong(state)) return false;
    if (state == ncclSuccess) return true;
    if (world_.failure() || Clock::now() > deadline) return false;
  }
}

void NcclCommunicator::close() noexcept {
  world_.remove(*this);
  const ncclComm_t comm = take();
  if (!comm) return;
  if (world_.failure()) return abort(comm);
  if (!finalize(comm)) {
    if (!world_.failure())
      LOG(WARNING) << whom() << ": not all ranks ended it within " << world_.options.close_timeout.count()
                   << " ms; aborted [rank " << rank_ << "/" << size_ << "]";
    return abort(comm);
  }
  const NcclApi& api = api_;
  try {
    if (!run_bounded(world_.options.close_timeout, [&api, comm] { api.CommDestroy(comm); }))
      LOG(WARNING) << whom() << ": NCCL did not destroy it; left alone";
  } catch (const std::exception& error) {
    LOG(WARNING) << whom() << ": not destroyed: " << error.what();
  }
}

}  // namespace permafrost
