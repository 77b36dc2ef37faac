#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/group/call.h"
#include "parallel/group/group.h"

namespace permafrost {

/// One call as the recording group saw it.
struct Record {
  Operation operation = Operation::kBarrier;
  std::string tag;
  DType dtype = DType::kU8;
  ReduceOp op = ReduceOp::kSum;
  int64_t elements = 0;     ///< of the whole
  int64_t bytes = 0;        ///< of the whole
  int64_t moved_bytes = 0;  ///< to or from other ranks, as `moved_bytes` of group.h counts; send, recv, broadcast: all
  friend bool operator==(const Record&, const Record&) = default;
};

/// Every call made on a recording group and on the groups split from it, in order. Shared by them.
class Recording {
 public:
  void add(Record record);
  std::vector<Record> records() const;
  void clear();

 private:
  mutable std::mutex mutex_;
  std::vector<Record> records_;
};

/// A fake: rank `rank` of `size` where the others are silent. Nothing waits. Data is what would come if the others held
/// the neutral element of the operation: reductions give this rank's own values, gathered parts of others and received
/// tensors are zero, a broadcast from another rank leaves the data as it is. split: this rank alone decides the new
/// group, as if all others gave the same color and key.
std::unique_ptr<Group> make_recording_group(int size, int rank, std::shared_ptr<Recording> recording);

}  // namespace permafrost
