#include "parallel/group/inproc_group.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "core/base/narrow.h"
#include "parallel/group/call.h"
#include "parallel/group/combine.h"
#include "parallel/group/failure.h"

namespace permafrost {
namespace {

using Clock = std::chrono::steady_clock;

/// What all groups of one world share: one lock, one condition, and the reason why the world ended.
struct World {
  explicit World(int size, InprocOptions world_options) : ranks(size), options(world_options) {}
  int ranks;
  InprocOptions options;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Error> failure;  // guarded by mutex; set once

  void fail_locked(Error error) {
    if (!failure) failure = std::move(error);
    changed.notify_all();
  }
};

/// The meeting point of one group's ranks.
struct Room {
  Room(std::shared_ptr<World> the_world, std::vector<int> world_ranks)
      : world(std::move(the_world)),
        members(std::move(world_ranks)),
        calls(members.size()),
        present(members.size(), false),
        splits(members.size()),
        rooms(members.size()),
        mail(members.size() * members.size()) {}

  struct Split {
    int color = -1;
    int key = 0;
  };
  struct Letter {  // from one rank to another; rendezvous
    const Call* sent = nullptr;
    bool taken = false;
  };

  int size() const { return static_cast<int>(members.size()); }

  std::shared_ptr<World> world;
  std::vector<int> members;  // rank here -> rank in the world
  std::vector<Call> calls;   // of the present operation; written under the lock before all have come
  std::vector<bool> present;
  std::vector<Split> splits;
  std::vector<std::pair<std::shared_ptr<Room>, int>> rooms;  // results of a split: room and rank in it
  std::vector<Letter> mail;                                  // [from * size + to]
  int come = 0;
  uint64_t generation = 0;
};

std::string describe(const Call& call) {
  std::string text = concat(call.name(), " of ", call.elements, " ", to_string(call.dtype));
  if (call.operation == Operation::kReduceScatter || call.operation == Operation::kAllReduce)
    text += concat(" by ", to_string(call.op));
  if (call.operation == Operation::kBroadcast) text += concat(" from rank ", call.peer);
  return text;
}

bool same_call(const Call& a, const Call& b) {
  return a.operation == b.operation && a.tag == b.tag && a.dtype == b.dtype && a.op == b.op &&
         a.elements == b.elements && a.peer == b.peer && std::ranges::equal(a.counts, b.counts);
}

class InprocGroup final : public Group {
 public:
  InprocGroup(std::shared_ptr<Room> room, int rank) : room_(std::move(room)), rank_(rank) {
    sources_.resize(room_->members.size());
  }

  int rank() const override { return rank_; }
  int size() const override { return room_->size(); }

  std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting) override;
  Event barrier(StreamView stream, std::string_view tag) override {
    return run(barrier_call(tag), stream, &InprocGroup::do_barrier);
  }
  Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                   std::string_view tag) override {
    return run(all_gather_call(rank_, size(), part, all, counts, tag), stream, &InprocGroup::do_all_gather);
  }
  Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                       StreamView stream, std::string_view tag) override {
    return run(reduce_scatter_call(rank_, size(), all, part, counts, op, tag), stream, &InprocGroup::do_reduce_scatter);
  }
  Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) override {
    return run(all_reduce_call(in, out, op, tag), stream, &InprocGroup::do_all_reduce);
  }
  Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) override {
    return run(broadcast_call(size(), data, root, tag), stream, &InprocGroup::do_broadcast);
  }
  Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) override {
    return run(send_call(rank_, size(), data, to, tag), stream, &InprocGroup::do_send);
  }
  Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) override {
    return run(recv_call(rank_, size(), data, from, tag), stream, &InprocGroup::do_recv);
  }

  std::optional<Error> async_error() const override {
    const std::lock_guard lock(world().mutex);
    return world().failure;
  }
  void abort(const Error& reason) noexcept override {
    const std::lock_guard lock(world().mutex);
    const int world_rank = room_->members[static_cast<size_t>(rank_)];
    world().fail_locked(Failure{world_rank, world().ranks, reason.kind(), reason.what()}.error());
  }

 private:
  World& world() const { return *room_->world; }
  void count_moved(int64_t bytes) const {
    if (world().options.moved.empty()) return;
    world().options.moved[static_cast<size_t>(room_->members[static_cast<size_t>(rank_)])].add(bytes);
  }

  Event run(const Call& call, StreamView stream, void (InprocGroup::*body)(const Call&)) {
    return stream.submit([this, call, body] { (this->*body)(call); });
  }

  /// Registers the call and waits for all ranks; the last one to come compares the calls. After this every rank is
  /// inside the operation and none can leave it before the others read what they need.
  void meet(const Call& call);
  /// Waits for all ranks without a way out: everybody is inside the operation and on the way here.
  void regroup();
  void compare_calls_locked();
  /// Waits until ready() or the end of the world or the time limit (which ends the world).
  template <typename Ready, typename Missing>
  void wait(std::unique_lock<std::mutex>& lock, const Call& call, Ready ready, Missing missing);
  std::string missing_locked() const;
  const Call& call_of(int rank) const { return room_->calls[static_cast<size_t>(rank)]; }

  void do_barrier(const Call& call) { meet(call); }
  void do_all_gather(const Call& call);
  void do_reduce_scatter(const Call& call);
  void do_all_reduce(const Call& call);
  void do_broadcast(const Call& call);
  void do_send(const Call& call);
  void do_recv(const Call& call);
  void combine_slice(const Call& call, int64_t begin, int64_t count, std::byte* target);

  std::shared_ptr<Room> room_;
  int rank_;
  std::vector<const std::byte*> sources_;
};

template <typename Ready, typename Missing>
void InprocGroup::wait(std::unique_lock<std::mutex>& lock, const Call& call, Ready ready, Missing missing) {
  const auto deadline = Clock::now() + world().options.timeout;
  const bool in_time =
      world().changed.wait_until(lock, deadline, [&] { return ready() || world().failure.has_value(); });
  if (ready()) return;
  if (!in_time)
    world().fail_locked(
        Error(ErrorKind::kTimeout, concat(call.name(), ": all ranks must come within ", world().options.timeout.count(),
                                          " ms; ", missing(), " [rank ", rank_, "/", size(), "]")));
  throw Error(*world().failure);
}

std::string InprocGroup::missing_locked() const {
  std::string text = "missing rank";
  for (int r = 0; r < size(); ++r)
    if (!room_->present[static_cast<size_t>(r)]) text += concat(" ", r);
  return text;
}

void InprocGroup::compare_calls_locked() {
  for (int r = 1; r < size(); ++r)
    if (!same_call(call_of(0), call_of(r)))
      world().fail_locked(
          Error(ErrorKind::kPeer, concat("group: all ranks must make the same call; got rank 0: ", describe(call_of(0)),
                                         ", rank ", r, ": ", describe(call_of(r)))));
}

void InprocGroup::meet(const Call& call) {
  std::unique_lock lock(world().mutex);
  if (world().failure) throw Error(*world().failure);
  Room& room = *room_;
  room.calls[static_cast<size_t>(rank_)] = call;
  room.present[static_cast<size_t>(rank_)] = true;
  if (++room.come == size()) {
    compare_calls_locked();
    if (world().failure) throw Error(*world().failure);
    room.come = 0;
    std::fill(room.present.begin(), room.present.end(), false);
    ++room.generation;
    world().changed.notify_all();
    return;
  }
  wait(
      lock, call, [&room, seen = room.generation] { return room.generation != seen; },
      [this] { return missing_locked(); });
}

void InprocGroup::regroup() {
  std::unique_lock lock(world().mutex);
  Room& room = *room_;
  if (++room.come == size()) {
    room.come = 0;
    ++room.generation;
    world().changed.notify_all();
    return;
  }
  world().changed.wait(lock, [&room, seen = room.generation] { return room.generation != seen; });
}

void InprocGroup::do_all_gather(const Call& call) {
  if (size() == 1) return copy_alone(call);
  meet(call);
  for (int r = 0; r < size(); ++r) {
    const int64_t bytes = call.count(r, size()) * size_of(call.dtype);
    std::byte* target = call.out + call.offset(r, size()) * size_of(call.dtype);
    if (bytes > 0 && call_of(r).in != target) std::memcpy(target, call_of(r).in, static_cast<size_t>(bytes));
    if (r != rank_) count_moved(bytes);
  }
  regroup();
}

void InprocGroup::combine_slice(const Call& call, int64_t begin, int64_t count, std::byte* target) {
  if (count == 0) return;
  for (int r = 0; r < size(); ++r) sources_[static_cast<size_t>(r)] = call_of(r).in + begin * size_of(call.dtype);
  combine(call.op, call.dtype, sources_, target, count);
  count_moved((size() - 1) * count * size_of(call.dtype));
}

// In place is safe: slice r is read and written by rank r alone, others read only their own slices.
void InprocGroup::do_reduce_scatter(const Call& call) {
  if (size() == 1) return copy_alone(call);
  meet(call);
  combine_slice(call, call.offset(rank_, size()), call.count(rank_, size()), call.out);
  regroup();
}

void InprocGroup::do_all_reduce(const Call& call) {
  if (size() == 1) return copy_alone(call);
  meet(call);
  const auto begin_of = [&](int r) { return call.elements * r / size(); };
  const int64_t begin = begin_of(rank_);
  combine_slice(call, begin, begin_of(rank_ + 1) - begin, call.out + begin * size_of(call.dtype));
  regroup();
  for (int r = 0; r < size(); ++r) {
    const int64_t at = begin_of(r) * size_of(call.dtype);
    const int64_t bytes = begin_of(r + 1) * size_of(call.dtype) - at;
    if (r == rank_ || bytes == 0) continue;
    std::memcpy(call.out + at, call_of(r).out + at, static_cast<size_t>(bytes));
    count_moved(bytes);
  }
  regroup();
}

void InprocGroup::do_broadcast(const Call& call) {
  if (size() == 1) return;
  meet(call);
  if (rank_ != call.peer && call.elements > 0) {
    std::memcpy(call.out, call_of(call.peer).in, static_cast<size_t>(call.bytes()));
    count_moved(call.bytes());
  }
  regroup();
}

void InprocGroup::do_send(const Call& call) {
  std::unique_lock lock(world().mutex);
  if (world().failure) throw Error(*world().failure);
  Room::Letter& letter = room_->mail[static_cast<size_t>(rank_ * size() + call.peer)];
  struct Withdraw {  // however this call ends, nobody finds a letter whose sender has left
    Room::Letter& letter;
    ~Withdraw() { letter = {}; }
  } const withdraw{letter};
  letter = {&call, false};
  world().changed.notify_all();
  wait(
      lock, call, [&letter] { return letter.taken; }, [&call] { return concat("missing rank ", call.peer); });
}

void InprocGroup::do_recv(const Call& call) {
  std::unique_lock lock(world().mutex);
  if (world().failure) throw Error(*world().failure);
  Room::Letter& letter = room_->mail[static_cast<size_t>(call.peer * size() + rank_)];
  wait(
      lock, call, [&letter] { return letter.sent != nullptr && !letter.taken; },
      [&call] { return concat("missing rank ", call.peer); });
  const Call& sent = *letter.sent;
  if (sent.dtype != call.dtype || sent.elements != call.elements) {
    world().fail_locked(Error(ErrorKind::kPeer, concat("group: send and recv must agree; got rank ", call.peer, ": ",
                                                       describe(sent), ", rank ", rank_, ": ", describe(call))));
    throw Error(*world().failure);
  }
  // Copied under the lock: the sender cannot leave, and point-to-point traffic is rare here.
  if (call.elements > 0) std::memcpy(call.out, sent.in, static_cast<size_t>(call.bytes()));
  count_moved(call.bytes());
  letter.taken = true;
  world().changed.notify_all();
}

// Waits sleep on a condition, whichever kind is asked for.
std::unique_ptr<Group> InprocGroup::split(int color, int key, std::string_view tag, Waiting /*waiting*/) {
  Room& room = *room_;
  {
    const std::lock_guard lock(world().mutex);
    room.splits[static_cast<size_t>(rank_)] = {color, key};
  }
  Call call = barrier_call(tag);
  call.operation = Operation::kSplit;
  meet(call);
  if (rank_ == 0) {  // one rank lays out all new rooms, the others read the result
    const std::lock_guard lock(world().mutex);
    std::map<int, std::vector<int>> colors;
    for (int r = 0; r < size(); ++r) {
      room.rooms[static_cast<size_t>(r)] = {};
      const int c = room.splits[static_cast<size_t>(r)].color;
      if (c >= 0) colors[c].push_back(r);
    }
    for (auto& [unused, ranks] : colors) {
      std::ranges::stable_sort(ranks, {}, [&](int r) { return room.splits[static_cast<size_t>(r)].key; });
      std::vector<int> members;
      for (const int r : ranks) members.push_back(room.members[static_cast<size_t>(r)]);
      const auto made = std::make_shared<Room>(room.world, members);
      for (size_t i = 0; i < ranks.size(); ++i) room.rooms[static_cast<size_t>(ranks[i])] = {made, static_cast<int>(i)};
    }
  }
  regroup();
  std::pair<std::shared_ptr<Room>, int> mine;
  {
    const std::lock_guard lock(world().mutex);
    mine = std::exchange(room.rooms[static_cast<size_t>(rank_)], {});
  }
  if (!mine.first) return nullptr;
  return std::make_unique<InprocGroup>(std::move(mine.first), mine.second);
}

}  // namespace

std::vector<std::unique_ptr<Group>> make_inproc_groups(int ranks, const InprocOptions& options) {
  PERMAFROST_CHECK(ranks >= 1, "make_inproc_groups: ranks must be >= 1; got ", ranks);
  PERMAFROST_CHECK(options.moved.empty() || std::ssize(options.moved) == ranks,
                   "make_inproc_groups: moved must have one counter per rank (", ranks, "); got ",
                   options.moved.size());
  std::vector<int> members(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) members[static_cast<size_t>(r)] = r;
  const auto room = std::make_shared<Room>(std::make_shared<World>(ranks, options), members);
  std::vector<std::unique_ptr<Group>> groups;
  for (int r = 0; r < ranks; ++r) groups.push_back(std::make_unique<InprocGroup>(room, r));
  return groups;
}

std::unique_ptr<Group> make_solo_group() { return std::move(make_inproc_groups(1).front()); }

void run_inproc(int ranks, const std::function<void(Group&)>& body, const InprocOptions& options) {
  const auto groups = make_inproc_groups(ranks, options);
  std::mutex mutex;
  std::exception_ptr first;
  const auto keep = [&](Group& group, const Error& reason) {
    const std::lock_guard lock(mutex);
    if (!first) first = std::current_exception();
    group.abort(reason);  // under the lock, so that no consequence is taken for the cause
  };
  std::vector<std::thread> threads;
  for (const auto& group : groups)
    threads.emplace_back([&body, &keep, &group = *group] {
      try {
        body(group);
      } catch (const Error& error) {
        keep(group, error);
      } catch (const std::exception& error) {
        keep(group, Error(ErrorKind::kInternal, error.what()));
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace permafrost
