// Threads of a block as stacks that one thread of the host runs in turn.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "tests/cuda_emulation/cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the registers that a function keeps and the stack pointer at *from, and goes on where `to` was saved.
extern "C" void permafrost_switch_stack(void** from, void* to);
asm(R"(
.text
.type permafrost_switch_stack, @function
permafrost_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size permafrost_switch_stack, .-permafrost_switch_stack
)");

namespace cuda_emulation {
size_t current_thread = 0;
std::array<LaneValues, kMaxThreads> lane_values;

namespace {

constexpr size_t kStackBytes = 256 * 1024, kNone = kMaxThreads;
// Stacks of threads that wait at one place are used at the same depth. A distance of a power of two would give these
// places the same sets of every cache and of the table of pages; this one spreads them.
constexpr size_t kStackDistance = kStackBytes + 4096 + 9 * 64;

struct Thread {
  std::byte* stack = nullptr;     // while it has begun and not ended
  void* stack_pointer = nullptr;  // while it waits
  uint3 index{};
};

/// Bits are lanes. A lane that has ended is in none.
struct Warp {
  uint32_t fresh = 0;  // have not begun
  uint32_t ready = 0;  // can run: fresh ones, those whose barrier is complete, and the one that runs
  uint32_t at_block_barrier = 0, at_warp_barrier = 0;
  uint32_t showing = 0;  // have given to `show`, which the last of them takes
  std::array<void*, kWarp> shown;
};

struct Block {
  std::array<Thread, kMaxThreads> threads;
  std::array<Warp, kMaxThreads / kWarp> warps;
  size_t size = 0, live = 0, arrived = 0;
  bool backwards = false;
  const std::function<void()>* body = nullptr;
  void *scheduler = nullptr, *ended = nullptr;  // stack pointers; of threads that have ended, which nobody reads
  std::vector<std::byte*> free_stacks;          // the one used last, and so in caches, is the last
  std::vector<std::byte> shared;

  size_t warp_count() const { return (size + kWarp - 1) / kWarp; }
  Warp& warp() { return warps[current_thread / kWarp]; }
};
Block block;
std::mutex running;

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "cuda_emulation: %s (block %u,%u, thread %zu)\n", what, blockIdx.x, blockIdx.y, current_thread);
  std::abort();
}

uint32_t own_bit() { return uint32_t{1} << current_thread % kWarp; }

void enter(size_t thread) {
  current_thread = thread;
  threadIdx = block.threads[thread].index;
}

// What the address sanitizer must know of a change from one stack to another: where the other one is, before, and that
// it was reached, after.
#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
bool from_scheduler = false;
void leave_stack(void** fake, const void* stack, size_t bytes) { __sanitizer_start_switch_fiber(fake, stack, bytes); }
void reach_stack(void* fake) {
  if (!std::exchange(from_scheduler, false)) return __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
}
#else
constexpr const void* scheduler_stack = nullptr;
constexpr size_t scheduler_stack_bytes = 0;
bool from_scheduler = false;
void leave_stack(void**, const void*, size_t) {}
void reach_stack(void*) {}
#endif

/// Of those that can run. A warp goes on as long as one of its lanes can, before another does, and its lanes in turn:
/// from the first to the last, or from the last to the first.
size_t next_thread() {
  const size_t own = current_thread / kWarp, lane = current_thread % kWarp;
  if (const uint32_t ready = block.warps[own].ready; ready != 0) {
    const uint32_t below = (uint32_t{1} << lane) - 1;
    const uint32_t behind = ready & (block.backwards ? below : ~(below * 2 + 1));
    const uint32_t lanes = behind != 0 ? behind : ready;
    return own * kWarp +
           static_cast<size_t>(block.backwards ? kWarp - 1 - std::countl_zero(lanes) : std::countr_zero(lanes));
  }
  const size_t count = block.warp_count();
  for (size_t i = 1; i < count; ++i) {
    const size_t w = (block.backwards ? own + count - i : own + i) % count;
    if (const uint32_t lanes = block.warps[w].ready; lanes != 0)
      return w * kWarp +
             static_cast<size_t>(block.backwards ? kWarp - 1 - std::countl_zero(lanes) : std::countr_zero(lanes));
  }
  if (block.live > 0) give_up("threads wait for each other at different barriers");
  return kNone;
}

bool begins(size_t thread) { return (block.warps[thread / kWarp].fresh >> thread % kWarp & 1u) != 0; }

extern "C" void permafrost_start_thread();

/// Puts a thread at its beginning, on a stack that nobody uses.
void prepare(size_t index) {
  Thread& thread = block.threads[index];
  block.warps[index / kWarp].fresh &= ~(uint32_t{1} << index % kWarp);
  thread.stack = block.free_stacks.back();
  block.free_stacks.pop_back();
  // As permafrost_switch_stack leaves it: six registers, then where to go on; one more so that the stack is aligned.
  auto* top = reinterpret_cast<void**>(thread.stack + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&permafrost_start_thread);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  thread.stack_pointer = top;
}

/// From a thread that waits to another one.
void wait() {
  const size_t self = current_thread, next = next_thread();
  if (next == self) return;
  if (begins(next)) prepare(next);
  enter(next);
  void* fake = nullptr;
  leave_stack(&fake, block.threads[next].stack, kStackBytes);
  permafrost_switch_stack(&block.threads[self].stack_pointer, block.threads[next].stack_pointer);
  reach_stack(fake);
}

void release_block_if_complete() {
  if (block.arrived == 0 || block.arrived < block.live) return;
  block.arrived = 0;
  for (size_t w = 0; w < block.warp_count(); ++w)
    block.warps[w].ready |= std::exchange(block.warps[w].at_block_barrier, 0);
}

void release_warp_if_complete(Warp& warp) {
  if ((warp.ready | warp.at_block_barrier) != 0) return;
  if (warp.showing != 0) give_up("some lanes of a warp are not at what all must do together");
  warp.ready = std::exchange(warp.at_warp_barrier, 0);
}

void end_thread() {
  Warp& warp = block.warp();
  warp.ready &= ~own_bit();
  --block.live;
  release_block_if_complete();
  release_warp_if_complete(warp);
}

// Where every stack begins. A thread that ends leaves its stack to the next if that one has not begun: threads that
// wait for nobody follow each other without a change of stacks.
extern "C" void permafrost_start_thread() {
  reach_stack(nullptr);
  size_t next;
  for (;;) {
    (*block.body)();
    std::byte* stack = block.threads[current_thread].stack;
    end_thread();
    next = next_thread();
    if (next == kNone || !begins(next)) {
      block.free_stacks.push_back(stack);
      break;
    }
    block.warps[next / kWarp].fresh &= ~(uint32_t{1} << next % kWarp);
    block.threads[next].stack = stack;
    enter(next);
  }
  if (next == kNone) {
    leave_stack(nullptr, scheduler_stack, scheduler_stack_bytes);
    permafrost_switch_stack(&block.ended, block.scheduler);
  } else {
    enter(next);
    leave_stack(nullptr, block.threads[next].stack, kStackBytes);
    permafrost_switch_stack(&block.ended, block.threads[next].stack_pointer);
  }
  give_up("a thread went on after its end");
}

void run_block(size_t index) {
  block.live = block.size;
  block.arrived = 0;
  for (size_t w = 0; w < block.warp_count(); ++w) {
    const size_t lanes = std::min(kWarp, block.size - w * kWarp);
    const auto all = static_cast<uint32_t>((uint64_t{1} << lanes) - 1);
    Warp& warp = block.warps[w];
    warp.fresh = warp.ready = all;
    warp.at_block_barrier = warp.at_warp_barrier = warp.showing = 0;
  }
  for (size_t t = 0; t < block.size; ++t) lane_values[t].given = 0;
  std::memset(block.shared.data(), 0xff, block.shared.size());  // NaN: nobody may rely on what it holds
  // Every second block from the last thread to the first: a result that needs an order that no barrier gives differs.
  block.backwards = index % 2 != 0;
  const size_t first = block.backwards ? block.size - 1 : 0;
  prepare(first);
  enter(first);
  from_scheduler = true;
  void* fake = nullptr;
  leave_stack(&fake, block.threads[first].stack, kStackBytes);
  permafrost_switch_stack(&block.scheduler, block.threads[first].stack_pointer);
  reach_stack(fake);
}

void make_stacks() {
  void* memory = mmap(nullptr, kMaxThreads * kStackDistance, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) give_up("no memory for the stacks of a block");
  for (size_t i = kMaxThreads; i-- > 0;)
    block.free_stacks.push_back(static_cast<std::byte*>(memory) + i * kStackDistance);
}

}  // namespace

void sync_threads() {
  Warp& warp = block.warp();
  warp.ready &= ~own_bit();
  warp.at_block_barrier |= own_bit();
  ++block.arrived;
  release_block_if_complete();
  wait();
}

void sync_warp(unsigned mask) {
  if (mask != 0xffffffffu) give_up("only whole warps are emulated");
  Warp& warp = block.warp();
  warp.ready &= ~own_bit();
  warp.at_warp_barrier |= own_bit();
  release_warp_if_complete(warp);
  wait();
}

void* const* show(void* mine) {
  Warp& warp = block.warp();
  warp.shown[current_thread % kWarp] = mine;
  warp.showing |= own_bit();
  if (warp.showing != 0xffffffffu) return nullptr;
  warp.showing = 0;
  return warp.shown.data();
}

std::byte* dynamic_shared() {
  const auto address = reinterpret_cast<uintptr_t>(block.shared.data());
  return reinterpret_cast<std::byte*>((address + 127) / 128 * 128);
}

void run(dim3 grid, dim3 size, size_t shared_bytes, const std::function<void()>& body) {
  const std::lock_guard lock(running);
  const DeviceAccess access;
  gridDim = grid;
  blockDim = size;
  block.size = size_t{size.x} * size.y * size.z;
  if (block.size == 0 || block.size > kMaxThreads) give_up("a block must have 1..1024 threads");
  if (block.free_stacks.empty()) make_stacks();
  size_t thread = 0;
  for (unsigned z = 0; z < size.z; ++z)
    for (unsigned y = 0; y < size.y; ++y)
      for (unsigned x = 0; x < size.x; ++x) block.threads[thread++].index = {x, y, z};
  block.body = &body;
  block.shared.resize(shared_bytes + 128);
  size_t index = 0;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(index++);
}

}  // namespace cuda_emulation
