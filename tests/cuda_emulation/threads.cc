// Threads of a block as stacks that one thread of the host runs in turn.
#include <sys/mman.h>

#include <algorithm>
#include <array>
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
namespace {

constexpr size_t kStackBytes = 256 * 1024, kMaxThreads = 1024, kWarp = 32, kLaneBytes = 32;

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Thread {
  State state = State::kDone;
  void* stack_pointer = nullptr;
  size_t given = 0;  // values to other lanes so far
};

struct Warp {
  size_t live = 0, arrived = 0;
  // A lane that gives its value after the next waits until all have given the next, and so read this one: two places.
  std::array<std::array<std::array<std::byte, kLaneBytes>, kWarp>, 2> values;
};

struct Block {
  std::array<Thread, kMaxThreads> threads;
  std::array<Warp, kMaxThreads / kWarp> warps;
  size_t size = 0, live = 0, arrived = 0, current = 0;
  const std::function<void()>* body = nullptr;
  void* scheduler = nullptr;
  std::byte* stacks = nullptr;
  std::vector<std::byte> shared;
};
Block block;
std::mutex running;

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "cuda_emulation: %s (block %u,%u, thread %zu)\n", what, blockIdx.x, blockIdx.y, block.current);
  std::abort();
}

void enter(size_t thread) {
  block.current = thread;
  const auto t = static_cast<unsigned>(thread);
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
}

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
std::array<void*, kMaxThreads> fake_stacks;
#endif

void to_scheduler(bool finished) {
  Thread& thread = block.threads[block.current];
#if defined(__SANITIZE_ADDRESS__)
  const size_t self = block.current;
  __sanitizer_start_switch_fiber(finished ? nullptr : &fake_stacks[self], scheduler_stack, scheduler_stack_bytes);
#endif
  (void)finished;
  permafrost_switch_stack(&thread.stack_pointer, block.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stacks[self], &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void run_thread(size_t index) {
  enter(index);
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, block.stacks + index * kStackBytes, kStackBytes);
#endif
  permafrost_switch_stack(&block.scheduler, block.threads[index].stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void release(State waiting, size_t first, size_t last) {
  for (size_t i = first; i < last; ++i)
    if (block.threads[i].state == waiting) block.threads[i].state = State::kReady;
}

void release_block_if_complete() {
  if (block.arrived == 0 || block.arrived < block.live) return;
  block.arrived = 0;
  release(State::kAtBlockBarrier, 0, block.size);
}

void release_warp_if_complete(size_t index) {
  Warp& warp = block.warps[index];
  if (warp.arrived == 0 || warp.arrived < warp.live) return;
  warp.arrived = 0;
  release(State::kAtWarpBarrier, index * kWarp, (index + 1) * kWarp);
}

extern "C" void permafrost_start_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  (*block.body)();
  block.threads[block.current].state = State::kDone;
  --block.live;
  --block.warps[block.current / kWarp].live;
  release_block_if_complete();
  release_warp_if_complete(block.current / kWarp);
  to_scheduler(true);
  give_up("a thread went on after its end");
}

void prepare(size_t index) {
  // As permafrost_switch_stack leaves it: six registers, then where to go on; one more so that the stack is aligned.
  auto* top = reinterpret_cast<void**>(block.stacks + (index + 1) * kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&permafrost_start_thread);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  block.threads[index] = {.state = State::kReady, .stack_pointer = top, .given = 0};
}

void run_block(size_t index) {
  block.live = block.size;
  block.arrived = 0;
  for (size_t i = 0; i < block.size; ++i) prepare(i);
  for (size_t w = 0; w * kWarp < block.size; ++w) {
    block.warps[w].live = std::min(kWarp, block.size - w * kWarp);
    block.warps[w].arrived = 0;
  }
  std::memset(block.shared.data(), 0xff, block.shared.size());  // NaN: nobody may rely on what it holds
  while (block.live > 0) {
    bool moved = false;
    for (size_t i = 0; i < block.size; ++i) {
      // Every second block from the last thread to the first: a result that needs an order that no barrier gives
      // differs.
      const size_t thread = index % 2 == 0 ? i : block.size - 1 - i;
      if (block.threads[thread].state != State::kReady) continue;
      run_thread(thread);
      moved = true;
    }
    if (!moved) give_up("threads wait for each other at different barriers");
  }
}

}  // namespace

void sync_threads() {
  Thread& self = block.threads[block.current];
  self.state = State::kAtBlockBarrier;
  ++block.arrived;
  release_block_if_complete();
  to_scheduler(false);
}

void sync_warp(unsigned mask) {
  if (mask != 0xffffffffu) give_up("only whole warps are emulated");
  Thread& self = block.threads[block.current];
  self.state = State::kAtWarpBarrier;
  const size_t warp = block.current / kWarp;
  ++block.warps[warp].arrived;
  release_warp_if_complete(warp);
  to_scheduler(false);
}

int lane() { return static_cast<int>(block.current % kWarp); }

void give(const void* mine, size_t bytes) {
  if (bytes > kLaneBytes) give_up("a value exchanged between lanes has more than 32 bytes");
  const size_t place = ++block.threads[block.current].given % 2;
  std::memcpy(block.warps[block.current / kWarp].values[place][block.current % kWarp].data(), mine, bytes);
  sync_warp(0xffffffffu);
}

const std::byte* given(int lane) {
  const size_t place = block.threads[block.current].given % 2;
  return block.warps[block.current / kWarp].values[place][static_cast<size_t>(lane)].data();
}

void exchange(const void* mine, void* theirs, size_t bytes, int source) {
  give(mine, bytes);
  std::memcpy(theirs, given(source), bytes);
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
  if (!block.stacks) {
    void* memory = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) give_up("no memory for the stacks of a block");
    block.stacks = static_cast<std::byte*>(memory);
  }
  block.body = &body;
  block.shared.resize(shared_bytes + 128);
  size_t index = 0;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block(index++);
}

}  // namespace cuda_emulation
