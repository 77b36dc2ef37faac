#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "core/base/json.h"

namespace permafrost {

/// Nanoseconds of the clock that all processes of a machine share.
int64_t trace_clock();

/// What spans may be called; spans hold an index into these.
struct TraceName {
  std::string name;
  std::string category;
  OrderedJson args;        ///< an object, or null for none
  std::string number_key;  ///< of the number that spans have; "": they have none
};

/// Whether lanes record. Several lanes share one.
struct TraceSwitch {
  std::atomic<bool> on{false};
};

struct TraceSpan {
  static constexpr int64_t kOpen = INT64_MIN;
  int64_t begin = 0;
  int64_t number = 0;
  std::atomic<int64_t> end{kOpen};
  uint32_t name = 0;
};

/// Spans of one thread, one after the other or one within the other. Takes its memory when it is made. One thread
/// writes; others may read spans() and the spans so counted meanwhile.
class TraceLane {
 public:
  /// `full`: set by the first lane that has no room left, and from then on none that shares it begins a span.
  TraceLane(std::string title, int thread_id, size_t room, const TraceSwitch& recording, std::atomic<bool>& full);

  void begin(uint32_t name, int64_t number = 0);
  void end();      ///< of the last span begun, recorded or not
  void end_all();  ///< of all that are open
  /// A span whose times come from elsewhere, not before those of earlier ones.
  void add(uint32_t name, int64_t begin, int64_t end, int64_t number = 0);
  bool records() const;

  const std::string& title() const { return title_; }
  int thread_id() const { return thread_id_; }
  size_t room() const { return memory_.size(); }
  size_t spans() const { return count_.load(std::memory_order_acquire); }
  const TraceSpan& span(size_t i) const { return memory_[i]; }

 private:
  static constexpr size_t kDepth = 8;
  static constexpr size_t kNone = SIZE_MAX;
  TraceSpan* next();

  std::string title_;
  int thread_id_;
  const TraceSwitch& recording_;
  std::atomic<bool>& full_;
  std::vector<TraceSpan> memory_;
  std::atomic<size_t> count_{0};
  std::array<size_t, kDepth> open_{};  // indices of spans, kNone of those not recorded
  size_t depth_ = 0;
};

/// All lanes of a rank, and the names of their spans.
class Trace {
 public:
  /// Before anything is recorded.
  uint32_t name(TraceName name);
  TraceLane& lane(std::string title, int thread_id, size_t room, const TraceSwitch& recording);

  const std::vector<TraceName>& names() const { return names_; }
  const std::deque<TraceLane>& lanes() const { return lanes_; }
  /// Whether a lane had no room left.
  bool full() const { return full_.load(); }
  size_t spans() const;

 private:
  std::vector<TraceName> names_;
  std::deque<TraceLane> lanes_;
  std::atomic<bool> full_{false};
};

}  // namespace permafrost
