#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/base/json.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {

struct ReadSpan {
  std::string name, category;
  int64_t begin = 0, end = 0;  ///< nanoseconds
  Json args;
};

/// A trace file as a viewer reads it.
class ReadTrace {
 public:
  explicit ReadTrace(const std::filesystem::path& path) : json(parse_json(read_file(path))) {
    for (const Json& event : json.at("traceEvents")) {
      const int pid = event.at("pid");
      if (event.at("ph") == "M") {
        if (event.at("name") == "thread_name") titles[{pid, event.at("tid")}] = event["args"]["name"];
        if (event.at("name") == "process_labels") labels[pid] = event["args"]["labels"];
        continue;
      }
      EXPECT_EQ(event.at("ph"), "X");
      ReadSpan span{event.at("name"), event.at("cat"), nanoseconds(event.at("ts")), 0, event.at("args")};
      span.end = span.begin + nanoseconds(event.at("dur"));
      lanes[{pid, event.at("tid")}].push_back(span);
    }
  }
  static int64_t nanoseconds(const Json& microseconds) { return std::llround(microseconds.get<double>() * 1e3); }

  /// Spans of the lane with this title.
  const std::vector<ReadSpan>& lane(const std::string& title, int pid = 0) const {
    static const std::vector<ReadSpan> kNone;
    for (const auto& [key, name] : titles)
      if (key.first == pid && name == title) {
        const auto found = lanes.find(key);
        return found == lanes.end() ? kNone : found->second;
      }
    ADD_FAILURE() << "no lane " << title << " of rank " << pid;
    return kNone;
  }
  bool has_lane(const std::string& title, int pid = 0) const {
    return std::ranges::any_of(titles,
                               [&](const auto& each) { return each.first.first == pid && each.second == title; });
  }

  /// In each lane spans follow each other, or one holds the other.
  void expect_nested() const {
    for (const auto& [key, spans] : lanes) {
      std::vector<const ReadSpan*> open;
      int64_t last = INT64_MIN;
      for (const ReadSpan& span : spans) {
        EXPECT_GE(span.begin, last) << titles.at(key);
        EXPECT_GE(span.end, span.begin) << span.name;
        last = span.begin;
        while (!open.empty() && open.back()->end <= span.begin) open.pop_back();
        if (!open.empty()) {
          EXPECT_LE(span.end, open.back()->end) << span.name << " in " << open.back()->name << ", " << titles.at(key);
        }
        open.push_back(&span);
      }
    }
  }

  Json json;
  std::map<std::pair<int, int>, std::string> titles;
  std::map<std::pair<int, int>, std::vector<ReadSpan>> lanes;
  std::map<int, std::string> labels;
};

inline std::vector<std::string> names_of(const std::vector<ReadSpan>& spans, const std::string& category = "") {
  std::vector<std::string> names;
  for (const ReadSpan& span : spans)
    if (category.empty() || span.category == category) names.push_back(span.name);
  return names;
}

}  // namespace permafrost
