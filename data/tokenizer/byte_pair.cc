#include "data/tokenizer/byte_pair.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "core/base/narrow.h"

namespace permafrost {
namespace {

uint64_t key_of(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

size_t slot_of(uint64_t key, size_t mask) {
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 32) & mask;  // Fibonacci hashing
}

}  // namespace

BytePairMerger::BytePairMerger(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges)
    : byte_ids_(byte_ids), table_(std::bit_ceil(2 * merges.size() + 2)), result_of_rank_(merges.size()) {
  const size_t mask = table_.size() - 1;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t key = key_of(merges[rank].left, merges[rank].right);
    result_of_rank_[rank] = merges[rank].result;
    size_t slot = slot_of(key, mask);
    while (table_[slot].pair != UINT64_MAX && table_[slot].pair != key) slot = (slot + 1) & mask;
    if (table_[slot].pair == key) continue;
    table_[slot] = {key, narrow<uint32_t>(rank), merges[rank].result};
  }
}

const BytePairMerger::Entry* BytePairMerger::find(int32_t left, int32_t right) const {
  const uint64_t key = key_of(left, right);
  const size_t mask = table_.size() - 1;
  for (size_t slot = slot_of(key, mask); table_[slot].pair != UINT64_MAX; slot = (slot + 1) & mask)
    if (table_[slot].pair == key) return &table_[slot];
  return nullptr;
}

/// Looks up the pair that starts at `position` and queues it when it may merge.
void BytePairMerger::rank_pair(Scratch& s, int32_t position) const {
  const auto at = static_cast<size_t>(position);
  s.ranks[at] = kNoRank;
  if (s.next[at] < 0) return;
  const Entry* entry = find(s.ids[at], s.ids[static_cast<size_t>(s.next[at])]);
  if (!entry) return;
  s.ranks[at] = entry->rank;
  s.heap.push_back((static_cast<uint64_t>(entry->rank) << 32) | static_cast<uint32_t>(position));
  std::push_heap(s.heap.begin(), s.heap.end(), std::greater<>());
}

void BytePairMerger::encode(std::string_view piece, Scratch& s, std::vector<int32_t>& out) const {
  const auto n = narrow<int32_t>(piece.size());
  if (n == 0) return;
  s.ids.resize(piece.size());
  s.previous.resize(piece.size());
  s.next.resize(piece.size());
  s.ranks.resize(piece.size());
  s.heap.clear();
  for (int32_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    s.ids[at] = byte_ids_[static_cast<unsigned char>(piece[at])];
    s.previous[at] = i - 1;
    s.next[at] = i + 1 < n ? i + 1 : -1;
  }
  for (int32_t i = 0; i < n; ++i) rank_pair(s, i);
  while (!s.heap.empty()) {
    const uint64_t top = s.heap.front();
    std::pop_heap(s.heap.begin(), s.heap.end(), std::greater<>());
    s.heap.pop_back();
    const auto rank = static_cast<uint32_t>(top >> 32);
    const auto at = static_cast<size_t>(top & UINT32_MAX);
    if (s.ranks[at] != rank) continue;  // the pair has changed since it was queued
    const auto right = static_cast<size_t>(s.next[at]);
    s.ids[at] = result_of_rank_[rank];
    s.ranks[right] = kNoRank;
    s.next[at] = s.next[right];
    if (s.next[at] >= 0) s.previous[static_cast<size_t>(s.next[at])] = static_cast<int32_t>(at);
    rank_pair(s, static_cast<int32_t>(at));
    if (s.previous[at] >= 0) rank_pair(s, s.previous[at]);
  }
  for (int32_t i = 0; i >= 0; i = s.next[static_cast<size_t>(i)]) out.push_back(s.ids[static_cast<size_t>(i)]);
}

}  // namespace permafrost
