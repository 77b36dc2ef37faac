#include "parallel/group/copy.h"

#include <emmintrin.h>

#include <cstring>

namespace permafrost {

namespace {
constexpr int64_t kStreamFrom = int64_t{1} << 20;  // smaller pieces are read again while they are in a cache
constexpr int64_t kLine = 64;
}  // namespace

void copy_past_caches(std::byte* target, const std::byte* source, int64_t bytes) {
  if (bytes < kStreamFrom) {
    if (bytes > 0) std::memcpy(target, source, static_cast<size_t>(bytes));
    return;
  }
  const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(target) % kLine);
  const int64_t head = misaligned == 0 ? 0 : kLine - misaligned, lines = (bytes - head) / kLine;
  std::memcpy(target, source, static_cast<size_t>(head));
  target += head;
  source += head;
  for (int64_t line = 0; line < lines; ++line, target += kLine, source += kLine) {
    const auto* from = reinterpret_cast<const __m128i*>(source);
    auto* to = reinterpret_cast<__m128i*>(target);
    const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1), c = _mm_loadu_si128(from + 2),
                  d = _mm_loadu_si128(from + 3);
    _mm_stream_si128(to, a);
    _mm_stream_si128(to + 1, b);
    _mm_stream_si128(to + 2, c);
    _mm_stream_si128(to + 3, d);
  }
  _mm_sfence();  // before anybody is told that the copy is there
  std::memcpy(target, source, static_cast<size_t>(bytes - head - lines * kLine));
}

}  // namespace permafrost
