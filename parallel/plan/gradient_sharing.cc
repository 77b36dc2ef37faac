#include "parallel/plan/gradient_sharing.h"

#include <algorithm>

namespace permafrost {

GradientSharing::GradientSharing(const std::vector<GradientUse>& uses)
    : uses_(uses), class_of_(uses.size()), members_(uses.size()), joined_(uses.size(), -1) {
  for (size_t v = 0; v < uses.size(); ++v) {
    class_of_[v] = static_cast<int>(v);
    members_[v] = {static_cast<int>(v)};
  }
}

bool GradientSharing::conflicts(int writer, int reader) const {
  const int joined = joined_[static_cast<size_t>(reader)];
  for (int write : uses_[static_cast<size_t>(writer)].writes)
    for (int read : uses_[static_cast<size_t>(reader)].reads)
      if (read >= write && !(write <= joined)) return true;
  return false;
}

bool GradientSharing::try_share(int from, int to, int step) {
  const auto target = static_cast<size_t>(class_of_[static_cast<size_t>(from)]);
  const auto source = static_cast<size_t>(class_of_[static_cast<size_t>(to)]);
  if (target == source || members_[source].size() != 1) return false;
  GradientUse& use = uses_[static_cast<size_t>(to)];
  const GradientUse before = use;
  std::erase(use.writes, step);  // the write that sharing makes superfluous
  joined_[static_cast<size_t>(to)] = step;
  const bool valid =
      std::ranges::none_of(members_[target], [&](int m) { return conflicts(m, to) || conflicts(to, m); });
  if (!valid) {
    use = before;
    joined_[static_cast<size_t>(to)] = -1;
    return false;
  }
  members_[target].push_back(to);
  members_[source].clear();
  class_of_[static_cast<size_t>(to)] = static_cast<int>(target);
  return true;
}

std::vector<GradientSharing::Class> GradientSharing::classes() const {
  std::vector<Class> result;
  for (const std::vector<int>& members : members_) {
    Class c{members, -1, -1};
    for (int m : members) {
      for (const auto* steps : {&uses_[static_cast<size_t>(m)].writes, &uses_[static_cast<size_t>(m)].reads})
        for (int step : *steps) {
          c.first_step = c.first_step < 0 ? step : std::min(c.first_step, step);
          c.last_step = std::max(c.last_step, step);
        }
    }
    if (c.first_step >= 0) result.push_back(c);
  }
  return result;
}

}  // namespace permafrost
