#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace permafrost {

/// Training steps [begin, end), counted from 0 through the training.
struct TraceSteps {
  int64_t begin = 0, end = 0;
  bool contains(int64_t step) const { return begin <= step && step < end; }
  friend bool operator==(const TraceSteps&, const TraceSteps&) = default;
};

constexpr int64_t kUsualTraceSteps = 10;

/// Of "A:B". who: the command, for the message. Errors: kConfig unless 0 <= A < B.
TraceSteps parse_trace_steps(std::string_view who, const std::string& text);

/// Ten steps from the third of a run on that does [first, end); of a shorter one its last ten at most.
TraceSteps usual_trace_steps(int64_t first, int64_t end);

}  // namespace permafrost
