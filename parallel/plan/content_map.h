#pragma once
#include <cstdint>
#include <map>
#include <utility>

namespace permafrost {

/// Which content every byte of a region holds, and how long each content was of use: the checker's memory. A content is
/// a number; kNothing is what memory holds at first.
class ContentMap {
 public:
  static constexpr int kNothing = 0;
  explicit ContentMap(int64_t bytes) : bytes_(bytes) { ranges_[0] = {bytes, kNothing}; }

  int64_t bytes() const { return bytes_; }
  void write(int64_t begin, int64_t bytes, int content, int step);
  /// True when all bytes hold `content`, which is then in use at `step`; otherwise `found` is what the first other byte
  /// holds.
  bool read(int64_t begin, int64_t bytes, int content, int step, int& found);

  /// The most bytes at any step that held something written before or at it and read at it or later. Bytes that one
  /// content takes over from another count once.
  int64_t peak_live_bytes() const;

 private:
  struct Range {
    int64_t end = 0;
    int content = kNothing;
  };
  struct Life {
    int64_t bytes = 0;
    int first_step = 0, last_step = 0;
  };
  void split(int64_t position);

  int64_t bytes_;
  std::map<int64_t, Range> ranges_;
  std::map<std::pair<int, int64_t>, Life> lives_;  // by content and place
};

}  // namespace permafrost
