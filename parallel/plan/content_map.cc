#include "parallel/plan/content_map.h"

#include <algorithm>
#include <vector>

namespace permafrost {

void ContentMap::split(int64_t position) {
  auto at = ranges_.upper_bound(position);
  if (at == ranges_.begin()) return;
  --at;
  if (at->first == position || at->second.end <= position) return;
  ranges_[position] = at->second;
  at->second.end = position;
}

void ContentMap::write(int64_t begin, int64_t bytes, int content, int step) {
  if (bytes == 0) return;
  const int64_t end = begin + bytes;
  split(begin);
  split(end);
  ranges_.erase(ranges_.lower_bound(begin), ranges_.lower_bound(end));
  ranges_[begin] = {end, content};
  lives_[{content, begin}] = {bytes, step, step};
}

bool ContentMap::read(int64_t begin, int64_t bytes, int content, int step, int& found) {
  if (bytes == 0) return true;
  auto at = ranges_.upper_bound(begin);
  if (at == ranges_.begin()) return false;
  --at;
  for (int64_t position = begin; position < begin + bytes; ++at) {
    if (at == ranges_.end() || at->second.content != content) {
      found = at == ranges_.end() ? kNothing : at->second.content;
      return false;
    }
    position = at->second.end;
  }
  if (const auto life = lives_.find({content, begin}); life != lives_.end())
    life->second.last_step = std::max(life->second.last_step, step);
  return true;
}

int64_t ContentMap::peak_live_bytes() const {
  using Place = std::pair<int64_t, int64_t>;  // begin, bytes
  int last = 0;
  for (const auto& [key, life] : lives_) last = std::max(last, life.last_step);
  std::vector<std::vector<Place>> begins(static_cast<size_t>(last) + 1), ends(static_cast<size_t>(last) + 2);
  for (const auto& [key, life] : lives_) {
    begins[static_cast<size_t>(life.first_step)].push_back({key.second, life.bytes});
    ends[static_cast<size_t>(life.last_step) + 1].push_back({key.second, life.bytes});
  }
  std::map<Place, int> users;
  int64_t live = 0, peak = 0;
  for (size_t step = 0; step < begins.size(); ++step) {
    for (const Place& place : ends[step])
      if (--users[place] == 0) live -= place.second;
    for (const Place& place : begins[step])
      if (users[place]++ == 0) live += place.second;
    peak = std::max(peak, live);
  }
  return peak;
}

}  // namespace permafrost
