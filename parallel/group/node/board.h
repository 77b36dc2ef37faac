#pragma once
#include <array>
#include <atomic>
#include <cstdint>

#include "core/base/narrow.h"
#include "parallel/group/node/shared_memory.h"

namespace permafrost {

/// A number in shared memory that others wait for to change. A waiter counts itself among the sleepers before it
/// sleeps, and the system compares the number once more as it falls asleep; so whoever changes the number and then
/// finds no sleepers needs to wake nobody.
struct alignas(64) FutexWord {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> sleepers;

  /// Changes the number and wakes who sleeps. What was written before is seen by who sees the number.
  void post(uint32_t changed);
  /// Sleeps at most so long, unless the number is not `seen` any more.
  void sleep(uint32_t seen, int64_t nanoseconds);
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "what lies in shared memory must not need a lock");

/// What one rank says about its call before it meets the others.
struct Notice {
  uint64_t signature = 0;  ///< equal on all ranks of one call
  PieceLocation location;  ///< of what the others read
};

/// The memory that ranks of a node group work through. All of it is zero at first, which is the state of a group where
/// nobody came yet.
class Board {
 public:
  static constexpr int64_t kChunkBytes = int64_t{512} << 10;  ///< of a half of the scratch
  static constexpr int64_t kSmallBytes = int64_t{16} << 10;   ///< of a half of the tray

  struct alignas(64) Gate {
    std::atomic<uint32_t> come;
    FutexWord phase;  ///< completed meetings
  };
  struct alignas(64) Seat {
    std::atomic<uint32_t> phase;    ///< meetings this rank came to: names the missing
    std::array<Notice, 2> notices;  ///< of even and of odd calls
  };
  struct alignas(64) MailBox {
    FutexWord sent;   ///< pieces of messages, ever
    FutexWord taken;  ///< of these
    Notice notice;
  };

  static int64_t bytes(int size) { return tray_at(size) + size * (2 * kSmallBytes + 2 * kChunkBytes); }
  Board() = default;
  Board(SharedMemory memory, int size) : memory_(std::move(memory)), size_(size) {}

  Gate& gate() const { return *at<Gate>(0); }
  Seat& seat(int rank) const { return *at<Seat>(kSeats + rank * kSeatBytes); }
  MailBox& mail(int from, int to) const {
    return *at<MailBox>(mail_at(size_) + (int64_t{from} * size_ + to) * static_cast<int64_t>(sizeof(MailBox)));
  }
  /// For small tensors: the half of even and of odd calls.
  std::byte* tray(int rank, uint64_t call) const {
    return at<std::byte>(tray_at(size_) + (2 * rank + static_cast<int64_t>(call % 2)) * kSmallBytes);
  }
  /// For pieces of large ones: the half of even and of odd rounds.
  std::byte* scratch(int rank, int64_t round) const {
    return at<std::byte>(tray_at(size_) + size_ * 2 * kSmallBytes + (2 * rank + round % 2) * kChunkBytes);
  }

 private:
  static constexpr int64_t kSeats = sizeof(Gate);
  static constexpr int64_t kSeatBytes = sizeof(Seat);
  static int64_t mail_at(int size) { return kSeats + size * kSeatBytes; }
  static int64_t tray_at(int size) {
    return round_up(mail_at(size) + int64_t{size} * size * static_cast<int64_t>(sizeof(MailBox)), 4096);
  }
  template <typename T>
  T* at(int64_t offset) const {
    return reinterpret_cast<T*>(memory_.data() + offset);
  }

  SharedMemory memory_;
  int size_ = 0;
};

}  // namespace permafrost
