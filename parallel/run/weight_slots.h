#pragma once
#include <atomic>
#include <exception>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "core/device/context.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"
#include "parallel/run/device_copies.h"
#include "parallel/run/executor_observer.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// Brings sharded units into the two slots while a program runs, as the plan says: copied from the node's memory or
/// gathered from all ranks, by the computing thread at the first use or by a thread of its own one unit ahead.
///
/// One program at a time: begin, then acquire each of its gathers in order and let go of the lease after its last use.
/// After construction nothing is allocated.
class WeightSlots {
 public:
  /// group: for GatherKind::kCollective, of what lies where programs run; this object's alone, on CPU made with
  /// Waiting::kSleeping. May be null otherwise.
  WeightSlots(const Plan& plan, const StepMemory& memory, const Context& context, Group* group);
  ~WeightSlots();
  WeightSlots(const WeightSlots&) = delete;
  WeightSlots& operator=(const WeightSlots&) = delete;

  /// The right to read a unit in its slot. The slot may be filled anew once the lease is gone.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept : slots_(std::exchange(other.slots_, nullptr)), gather_(other.gather_) {}
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { release(); }

   private:
    friend class WeightSlots;
    Lease(WeightSlots& slots, size_t gather) : slots_(&slots), gather_(gather) {}
    void release();
    WeightSlots* slots_ = nullptr;
    size_t gather_ = 0;
  };

  void begin(size_t bucket);
  /// Waits until the unit of this gather of the program is in its slot. Errors: what the gather threw.
  Lease acquire(size_t gather);

  /// Acquires the gathers from `first` on and reads none: for a program that is not run, or not to its end.
  void pass_over(size_t first);

  /// A program has run whose units a device copies: these are counted by runs, since a graph copies without a call of
  /// this object, and a capture calls without a copy. Nothing of gathers, each of which `acquire` counts.
  void count_copies(size_t bucket);

  /// Milliseconds that acquire waited or copied, and bytes gathered from other ranks' parts, since the last call.
  double take_waited_ms();
  int64_t take_gathered_bytes();

  /// Of fills alone; see Executor::observe. Between programs: then the communication thread is in none of its calls,
  /// and `allowed_` carries the change to it.
  void observe(ExecutorObserver* observer) {
    observer_ = observer;
    if (copies_) copies_->observe(observer);
  }

 private:
  void fill_seen(const Gather& gather);
  void fill(const Gather& gather);
  void count(const Gather& gather);
  bool copies_on_device() const { return copies_ && plan_.gather.kind == GatherKind::kCopy; }
  void work();
  void allow(uint32_t gathers);
  template <typename Enough>
  static void wait_until(const std::atomic<uint32_t>& counter, Enough enough);

  const Plan& plan_;
  const StepMemory& memory_;
  Context context_;
  Group* group_;
  std::vector<std::vector<int64_t>> counts_;  // per unit: bytes of each rank's part
  const std::vector<Gather>* gathers_ = nullptr;
  double waited_ms_ = 0;
  int64_t gathered_bytes_ = 0;
  ExecutorObserver* observer_ = nullptr;

  // Of the communication thread. Counts wrap; differences do not.
  std::unique_ptr<UnitCopies> copies_;  // on CUDA: nothing below is used then
  uint32_t base_ = 0;                   // gathers of all programs before this one
  std::atomic<uint32_t> allowed_{0};    // how many may begin
  std::atomic<uint32_t> filled_{0};     // how many are done
  std::atomic<bool> stopping_{false};
  std::exception_ptr error_;  // of the thread; read after `filled_` went ahead of it
  std::atomic<bool> failed_{false};
  std::thread thread_;
};

}  // namespace permafrost
