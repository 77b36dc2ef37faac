// NCCL for ranks that are threads of one process. Communicators meet by id. A launch holds its stream, as kernels of
// the library do, until the communicator's thread has met the other ranks and moved the data.
#include "tests/cuda_emulation/nccl.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cinttypes>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using cuda_emulation::Hold;

std::mutex state_mutex;  // of what follows
nccl_emulation::Faults faults;
std::map<std::string, int> calls_made;
std::set<void*> allocations;
int communicators_alive = 0;

nccl_emulation::Faults faults_now() {
  const std::lock_guard lock(state_mutex);
  return faults;
}

bool breaks_now(int rank) {
  const std::lock_guard lock(state_mutex);
  return faults.broken == rank && faults.broken_after-- <= 0;
}

enum class Kind { kAllReduce, kAllGather, kReduceScatter, kReduce, kBroadcast, kSend, kRecv };

struct Op {
  Kind kind;
  const std::byte* in;
  std::byte* out;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  int peer;
  friend bool same(const Op& a, const Op& b) {
    return a.kind == b.kind && a.count == b.count && a.type == b.type && a.op == b.op && a.peer == b.peer;
  }
};

/// What one ncclGroupEnd gives to a stream.
struct Batch {
  std::vector<Op> ops;
  std::shared_ptr<Hold> before, mine;
  bool point_to_point() const { return ops.front().kind == Kind::kSend || ops.front().kind == Kind::kRecv; }
};

struct Letter {
  std::vector<std::byte> data;
  bool taken = false;
};

struct Round {
  std::vector<const Batch*> batches;  // by rank
  int come = 0;
  bool done = false;
};

struct WindowRound {
  std::vector<size_t> sizes;
};

/// The ranks of one id.
struct Meeting {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0, joined = 0, finalized = 0;
  bool mismatch = false;
  std::map<uint64_t, Round> rounds;
  std::map<uint64_t, WindowRound> windows;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Letter>>> letters;  // from, to
};
std::map<std::string, std::shared_ptr<Meeting>> meetings;  // under state_mutex

size_t width(ncclDataType_t type) { return type == ncclUint8 ? 1 : type == ncclInt32 || type == ncclFloat32 ? 4 : 8; }

template <typename T>
void reduce_typed(ncclRedOp_t op, T* target, const T* source, size_t count) {
  using Unsigned = std::make_unsigned_t<T>;
  for (size_t i = 0; i < count; ++i)
    target[i] = op == ncclSum   ? static_cast<T>(static_cast<Unsigned>(target[i]) + static_cast<Unsigned>(source[i]))
                : op == ncclMax ? std::max(target[i], source[i])
                                : std::min(target[i], source[i]);
}

/// target = target op source.
void reduce(const Op& op, std::vector<std::byte>& target, const std::byte* source) {
  if (op.type == ncclUint8)
    return reduce_typed(op.op, reinterpret_cast<uint8_t*>(target.data()), reinterpret_cast<const uint8_t*>(source),
                        target.size());
  if (op.type == ncclInt32)
    return reduce_typed(op.op, reinterpret_cast<int32_t*>(target.data()), reinterpret_cast<const int32_t*>(source),
                        target.size() / 4);
  reduce_typed(op.op, reinterpret_cast<int64_t*>(target.data()), reinterpret_cast<const int64_t*>(source),
               target.size() / 8);
}

/// One collective, of all ranks: every result before any is written, as inputs may lie in outputs.
void collective(const std::vector<const Op*>& ops) {
  const Op& first = *ops.front();
  const size_t ranks = ops.size(), bytes = first.count * width(first.type);
  const auto root = static_cast<size_t>(std::max(first.peer, 0));
  std::vector<std::byte> whole;
  if (first.kind == Kind::kBroadcast) {
    whole.assign(ops[root]->in, ops[root]->in + bytes);
  } else if (first.kind == Kind::kAllGather) {
    for (const Op* op : ops) whole.insert(whole.end(), op->in, op->in + bytes);
  } else {
    const size_t all = first.kind == Kind::kReduceScatter ? bytes * ranks : bytes;
    whole.assign(first.in, first.in + all);
    for (size_t r = 1; r < ranks; ++r) reduce(first, whole, ops[r]->in);
  }
  for (size_t r = 0; r < ranks; ++r) {
    if (first.kind == Kind::kReduce && r != root) continue;
    if (first.kind == Kind::kReduceScatter)
      std::memcpy(ops[r]->out, whole.data() + r * bytes, bytes);
    else
      std::memcpy(ops[r]->out, whole.data(), whole.size());
  }
}

struct GroupState {
  int depth = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<Op> ops;
};
thread_local GroupState group;

}  // namespace

struct ncclComm {
  std::shared_ptr<Meeting> meeting;
  int rank = 0;
  std::atomic<ncclResult_t> error = ncclSuccess;  // stays
  std::function<ncclResult_t()> pending;          // what is in progress; asked by whoever looks
  std::atomic<bool> in_use = false;
  bool finalized = false;
  uint64_t collectives = 0, windows = 0;

  std::thread thread;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Batch> batches;
  bool running = false;  // a batch is under way
  std::atomic<bool> aborted = false;

  void work();
  bool carry_out(const Batch& batch);
  bool exchange_letters(const Batch& batch);
  bool meet(const Batch& batch);
  bool idle() {
    const std::lock_guard lock(mutex);
    return batches.empty() && !running;
  }
};

namespace {

/// Ends the program when two threads use a communicator at once, which the library does not allow.
class Use {
 public:
  explicit Use(ncclComm_t comm) : comm_(comm) {
    if (!comm_->in_use.exchange(true)) return;
    std::fprintf(stderr, "nccl_emulation: two threads use a communicator at once\n");
    std::abort();
  }
  ~Use() { comm_->in_use = false; }

 private:
  ncclComm_t comm_;
};

/// In progress for two looks, as a launch is in the library.
std::function<ncclResult_t()> launching() {
  return [looks = 0]() mutable { return ++looks > 2 ? ncclSuccess : ncclInProgress; };
}

ncclResult_t state_of(ncclComm_t comm) {
  if (comm->error != ncclSuccess) return comm->error;
  if (!comm->pending) return ncclSuccess;
  const ncclResult_t result = comm->pending();
  if (result == ncclInProgress) return result;
  comm->pending = nullptr;
  if (result != ncclSuccess) comm->error = result;
  return result;
}

/// As the library: not while something is in progress.
ncclResult_t ready(ncclComm_t comm) {
  if (comm->error != ncclSuccess) return comm->error;
  return comm->pending ? ncclInvalidArgument : ncclSuccess;
}

ncclResult_t enqueue(const char* name, ncclComm_t comm, cudaStream_t stream, const Op& op) {
  const Use use(comm);
  if (const ncclResult_t result = ready(comm); result != ncclSuccess) return result;
  {
    const std::lock_guard lock(state_mutex);
    ++calls_made[name];
  }
  if (group.depth == 0) return ncclInvalidUsage;  // the library allows it; the backend never does it
  if (group.comm && (group.comm != comm || group.stream != stream)) return ncclInvalidUsage;  // likewise
  const bool floats = op.type == ncclFloat32 || op.type == ncclFloat64;
  if (floats && op.kind != Kind::kSend && op.kind != Kind::kRecv) return ncclInvalidUsage;  // likewise
  const bool mixed = !group.ops.empty() && (group.ops.front().kind >= Kind::kSend) != (op.kind >= Kind::kSend);
  if (mixed || op.peer >= comm->meeting->size || (op.count > 0 && !op.in && !op.out)) return ncclInvalidArgument;
  group.comm = comm;
  group.stream = stream;
  group.ops.push_back(op);
  return ncclSuccess;
}

const std::byte* bytes(const void* p) { return static_cast<const std::byte*>(p); }
std::byte* bytes(void* p) { return static_cast<std::byte*>(p); }

}  // namespace

void ncclComm::work() {
  while (true) {
    Batch batch;
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return aborted || !batches.empty(); });
      if (aborted) break;
      batch = std::move(batches.front());
      batches.pop_front();
      running = true;
    }
    while (batch.before && !cuda_emulation::released(*batch.before) && !aborted)
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    if (!aborted && breaks_now(rank)) error = ncclRemoteError;
    const bool done = !aborted && error == ncclSuccess && carry_out(batch);
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done || aborted; });  // a kernel that met an error spins until it is aborted
    cuda_emulation::release(*batch.mine);
    running = false;
  }
  const std::lock_guard lock(mutex);
  for (const Batch& batch : batches) cuda_emulation::release(*batch.mine);
}

bool ncclComm::carry_out(const Batch& batch) { return batch.point_to_point() ? exchange_letters(batch) : meet(batch); }

bool ncclComm::exchange_letters(const Batch& batch) {
  std::vector<std::shared_ptr<Letter>> sent;
  std::unique_lock lock(meeting->mutex);
  for (const Op& op : batch.ops) {
    if (op.kind != Kind::kSend) continue;
    const cuda_emulation::DeviceAccess access;
    auto letter = std::make_shared<Letter>();
    letter->data.assign(op.in, op.in + op.count * width(op.type));
    meeting->letters[{rank, op.peer}].push_back(letter);
    sent.push_back(std::move(letter));
  }
  meeting->changed.notify_all();
  for (const Op& op : batch.ops) {
    if (op.kind != Kind::kRecv) continue;
    auto& mail = meeting->letters[{op.peer, rank}];
    meeting->changed.wait(lock, [&] { return aborted || !mail.empty(); });
    if (aborted) return false;
    const auto letter = mail.front();
    mail.pop_front();
    if (letter->data.size() != op.count * width(op.type)) {
      error = ncclInvalidUsage;  // the library would hang, or write too much
      return false;
    }
    const cuda_emulation::DeviceAccess access;
    std::memcpy(op.out, letter->data.data(), letter->data.size());
    letter->taken = true;
    meeting->changed.notify_all();
  }
  for (const auto& letter : sent) meeting->changed.wait(lock, [&] { return aborted || letter->taken; });
  return !aborted;
}

bool ncclComm::meet(const Batch& batch) {
  std::unique_lock lock(meeting->mutex);
  const uint64_t number = collectives++;
  Round& round = meeting->rounds[number];
  round.batches.resize(static_cast<size_t>(meeting->size));
  round.batches[static_cast<size_t>(rank)] = &batch;
  if (++round.come < meeting->size) {
    meeting->changed.wait(lock, [&] { return aborted || round.done || meeting->mismatch; });
    if (meeting->mismatch) error = ncclInvalidUsage;
    if (!round.done) {  // this rank leaves: who comes later must not look at its batch
      --round.come;
      round.batches[static_cast<size_t>(rank)] = nullptr;
    }
    return round.done;
  }
  const cuda_emulation::DeviceAccess access;
  for (size_t i = 0; i < batch.ops.size() && !meeting->mismatch; ++i) {
    std::vector<const Op*> ops;
    for (const Batch* theirs : round.batches)
      if (theirs->ops.size() == batch.ops.size() && same(theirs->ops[i], batch.ops[i])) ops.push_back(&theirs->ops[i]);
    if (ops.size() == round.batches.size())
      collective(ops);
    else
      meeting->mismatch = true;
  }
  if (meeting->mismatch)
    error = ncclInvalidUsage;
  else
    round.done = true;
  meeting->changed.notify_all();
  return round.done;
}

namespace {
void stop(ncclComm_t comm) {
  {
    const std::lock_guard lock(comm->mutex);
    comm->aborted = true;
    comm->changed.notify_all();
  }
  {
    const std::lock_guard lock(comm->meeting->mutex);
    comm->meeting->changed.notify_all();
  }
  comm->thread.join();
  delete comm;
  const std::lock_guard lock(state_mutex);
  --communicators_alive;
}
}  // namespace

void nccl_emulation::set(const Faults& wanted) {
  const std::lock_guard lock(state_mutex);
  faults = wanted;
}
int nccl_emulation::communicators() {
  const std::lock_guard lock(state_mutex);
  return communicators_alive;
}
int nccl_emulation::calls(const char* name) {
  const std::lock_guard lock(state_mutex);
  return calls_made[name];
}

ncclResult_t ncclGetVersion(int* version) { return *version = faults_now().version, ncclSuccess; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<int> next = 0;
  std::snprintf(id->internal, sizeof id->internal, "emulated %d", next++);
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  constexpr std::array names = {"no error",         "unhandled cuda error", "unhandled system error", "internal error",
                                "invalid argument", "invalid usage",        "remote process exited",  "in progress"};
  return names[static_cast<size_t>(result)];
}
const char* ncclGetLastError(ncclComm_t comm) { return comm->error == ncclSystemError ? "no socket" : ""; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t* made, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->magic != 0xcafebeef || config->blocking != 0 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  const auto faulty = faults_now();
  auto* comm = new ncclComm;
  {
    const std::lock_guard lock(state_mutex);
    auto& meeting = meetings[id.internal];
    if (!meeting) meeting = std::make_shared<Meeting>();
    comm->meeting = meeting;
    ++communicators_alive;
  }
  comm->rank = rank;
  comm->thread = std::thread([comm] { comm->work(); });
  *made = comm;
  if (faulty.failing == rank) {
    comm->pending = [looks = 0]() mutable { return ++looks > 2 ? ncclSystemError : ncclInProgress; };
    return ncclInProgress;
  }
  const std::lock_guard lock(comm->meeting->mutex);
  comm->meeting->size = ranks;
  if (faulty.absent != rank) ++comm->meeting->joined;
  comm->pending = [meeting = comm->meeting, ranks] {
    const std::lock_guard here(meeting->mutex);
    return meeting->joined == ranks ? ncclSuccess : ncclInProgress;
  };
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const Use use(comm);
  *state = state_of(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const Use use(comm);
  if (const ncclResult_t result = ready(comm); result != ncclSuccess) return result;
  comm->finalized = true;
  const std::lock_guard lock(comm->meeting->mutex);
  ++comm->meeting->finalized;
  comm->pending = [comm] {
    if (faults_now().stuck_finalize || !comm->idle()) return ncclInProgress;
    const std::lock_guard here(comm->meeting->mutex);
    return comm->meeting->finalized == comm->meeting->size ? ncclSuccess : ncclInProgress;
  };
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  { const Use use(comm); }
  if (!comm->finalized || comm->pending) return ncclInvalidUsage;  // the library finalizes by itself, and may hang
  stop(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  { const Use use(comm); }
  stop(comm);
  return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** memory, size_t size) {
  if (cudaMalloc(memory, size) != cudaSuccess) return ncclUnhandledCudaError;
  const std::lock_guard lock(state_mutex);
  allocations.insert(*memory);
  return ncclSuccess;
}
ncclResult_t ncclMemFree(void* memory) {
  {
    const std::lock_guard lock(state_mutex);
    allocations.erase(memory);
  }
  return cudaFree(memory) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void* memory, size_t size, ncclWindow_t* window, int flags) {
  const Use use(comm);
  if (const ncclResult_t result = ready(comm); result != ncclSuccess) return result;
  if (faults_now().no_windows) return ncclSuccess;
  {
    const std::lock_guard lock(state_mutex);
    if (!allocations.contains(memory)) return comm->error = ncclUnhandledCudaError;  // as memory of cudaMalloc
  }
  if (flags != NCCL_WIN_COLL_SYMMETRIC) return ncclInvalidArgument;
  const std::lock_guard lock(comm->meeting->mutex);
  const uint64_t number = comm->windows++;
  comm->meeting->windows[number].sizes.push_back(size);
  comm->pending = [meeting = comm->meeting, number, window, memory] {
    const std::lock_guard here(meeting->mutex);
    const auto& sizes = meeting->windows[number].sizes;
    if (static_cast<int>(sizes.size()) < meeting->size) return ncclInProgress;
    if (std::ranges::count(sizes, sizes.front()) != meeting->size) return ncclInvalidArgument;
    *window = reinterpret_cast<ncclWindow_t>(memory);
    return ncclSuccess;
  };
  return ncclSuccess;  // as the library says, although it is in progress
}
ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window) {
  const Use use(comm);
  return window ? ready(comm) : ncclInvalidArgument;
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return enqueue("AllReduce", comm, stream, {Kind::kAllReduce, bytes(in), bytes(out), count, type, op, -1});
}
ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return enqueue("AllGather", comm, stream, {Kind::kAllGather, bytes(in), bytes(out), count, type, ncclSum, -1});
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return enqueue("ReduceScatter", comm, stream, {Kind::kReduceScatter, bytes(in), bytes(out), count, type, op, -1});
}
ncclResult_t ncclReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  return enqueue("Reduce", comm, stream, {Kind::kReduce, bytes(in), bytes(out), count, type, op, root});
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return enqueue("Broadcast", comm, stream, {Kind::kBroadcast, bytes(in), bytes(out), count, type, ncclSum, root});
}
ncclResult_t ncclSend(const void* in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return enqueue("Send", comm, stream, {Kind::kSend, bytes(in), nullptr, count, type, ncclSum, peer});
}
ncclResult_t ncclRecv(void* out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return enqueue("Recv", comm, stream, {Kind::kRecv, nullptr, bytes(out), count, type, ncclSum, peer});
}

ncclResult_t ncclGroupStart() { return ++group.depth, ncclSuccess; }
ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return ncclInvalidUsage;
  if (--group.depth > 0) return ncclSuccess;
  const GroupState ended = std::exchange(group, {});
  if (!ended.comm) return ncclSuccess;  // nothing was given
  const Use use(ended.comm);
  Batch batch{ended.ops, cuda_emulation::last_hold(ended.stream), nullptr};
  batch.mine = cuda_emulation::hold(ended.stream);
  ended.comm->pending = launching();
  const std::lock_guard lock(ended.comm->mutex);
  ended.comm->batches.push_back(std::move(batch));
  ended.comm->changed.notify_all();
  return ncclInProgress;
}
