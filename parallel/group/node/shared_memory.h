#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/device/buffer.h"
#include "parallel/group/node/registry.h"

namespace permafrost {

/// Owns this rank's view of one piece of memory that all ranks of a node see: zero-filled, aligned to a page (to 2 MiB
/// from 2 MiB up). Move-only. Made by NodeGroup::allocate; on a group of one it is private memory. Must be gone before
/// its group's bootstrap group is. Nothing has a name in any file system: when the last process is gone, so is the
/// memory, however the process ended.
class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory() { release(); }

  /// Private memory, for a group of one.
  static SharedMemory alone(std::string name, int64_t bytes);
  /// Maps `bytes` of an open file; kStorage when that is refused.
  static SharedMemory of_file(std::string name, int64_t bytes, int file);
  /// A piece that another library owns and keeps alive longer than this object.
  static SharedMemory of_window(std::string name, int64_t bytes, std::byte* data);
  /// Makes the piece known under a number, until this object is gone.
  void register_as(uint64_t piece, std::shared_ptr<PieceRegistry> registry);

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

  /// From now on a write of this rank to the piece is a segmentation fault. Other ranks are not concerned. kStorage
  /// when the system refuses.
  void protect();

 private:
  void release() noexcept;

  std::string name_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  Buffer private_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  std::shared_ptr<PieceRegistry> registry_;
  uint64_t piece_ = 0;
};

/// An anonymous file of `bytes`, all of it taken at once so that no later touch can fail. The caller closes it.
/// Errors: kStorage with the bytes needed and available.
int make_memory_file(const std::string& name, int64_t bytes);
/// The same file, opened through the process that made it: /proc/<pid>/fd/<file>. -1 with errno when that is refused,
/// or when what lies there is not the file `inode` (another namespace of processes).
int open_memory_file(int64_t pid, int64_t file, int64_t inode);
int64_t inode_of(int file);

}  // namespace permafrost
