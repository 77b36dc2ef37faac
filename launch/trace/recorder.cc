#include "launch/trace/recorder.h"

#include <chrono>
#include <utility>

#include "core/base/narrow.h"

namespace permafrost {

int64_t trace_clock() { return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count(); }

TraceLane::TraceLane(std::string title, int thread_id, size_t room, const TraceSwitch& recording,
                     std::atomic<bool>& full)
    : title_(std::move(title)), thread_id_(thread_id), recording_(recording), full_(full), memory_(room) {}

bool TraceLane::records() const {
  return recording_.on.load(std::memory_order_relaxed) && !full_.load(std::memory_order_relaxed);
}

/// Place of the next span, which the caller publishes; null when nothing is recorded.
TraceSpan* TraceLane::next() {
  if (!records()) return nullptr;
  const size_t count = count_.load(std::memory_order_relaxed);
  if (count < memory_.size()) return &memory_[count];
  full_ = true;
  return nullptr;
}

void TraceLane::begin(uint32_t name, int64_t number) {
  TraceSpan* span = depth_ < kDepth ? next() : nullptr;
  if (depth_ < kDepth) open_[depth_] = span ? count_.load(std::memory_order_relaxed) : kNone;
  ++depth_;
  if (!span) return;
  span->name = name;
  span->number = number;
  span->begin = trace_clock();
  count_.fetch_add(1, std::memory_order_release);
}

void TraceLane::end() {
  if (depth_ == 0) return;
  --depth_;
  if (depth_ < kDepth && open_[depth_] != kNone)
    memory_[open_[depth_]].end.store(trace_clock(), std::memory_order_release);
}

void TraceLane::end_all() {
  while (depth_ > 0) end();
}

void TraceLane::add(uint32_t name, int64_t begin, int64_t end, int64_t number) {
  TraceSpan* span = next();
  if (!span) return;
  span->name = name;
  span->number = number;
  span->begin = begin;
  span->end.store(end, std::memory_order_relaxed);
  count_.fetch_add(1, std::memory_order_release);
}

uint32_t Trace::name(TraceName name) {
  names_.push_back(std::move(name));
  return narrow<uint32_t>(std::ssize(names_) - 1);
}

TraceLane& Trace::lane(std::string title, int thread_id, size_t room, const TraceSwitch& recording) {
  return lanes_.emplace_back(std::move(title), thread_id, room, recording, full_);
}

size_t Trace::spans() const {
  size_t spans = 0;
  for (const TraceLane& lane : lanes_) spans += lane.spans();
  return spans;
}

}  // namespace permafrost
