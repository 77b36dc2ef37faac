#include "launch/trace/trace_steps.h"

#include <algorithm>
#include <charconv>

#include "core/base/check.h"

namespace permafrost {

TraceSteps parse_trace_steps(std::string_view who, const std::string& text) {
  TraceSteps steps;
  const char *at = text.data(), *last = at + text.size();
  const auto begin = std::from_chars(at, last, steps.begin);
  const bool colon = begin.ec == std::errc() && begin.ptr != last && *begin.ptr == ':';
  const auto end = colon ? std::from_chars(begin.ptr + 1, last, steps.end) : begin;
  if (!colon || end.ec != std::errc() || end.ptr != last || steps.begin < 0 || steps.begin >= steps.end)
    fail(ErrorKind::kConfig, who,
         ": --trace-steps must be A:B with 0 <= A < B (from step A up to and without B); got '", text, "'");
  return steps;
}

TraceSteps usual_trace_steps(int64_t first, int64_t end) {
  const int64_t begin = std::max(first, std::min(first + 2, end - kUsualTraceSteps));
  return {begin, begin + kUsualTraceSteps};
}

}  // namespace permafrost
