#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/weights/strided.h"
#include "core/weights/zip_archive.h"

namespace permafrost {

/// A tensor that lies in a member of a zip archive.
struct ZipView {
  const ZipMember* member = nullptr;
  int64_t begin = 0;  ///< byte of the member where its first element lies
  int64_t item = 0;   ///< bytes of an element: 1, 2, 4 or 8
  StridedView view;
};

/// Reads tensors of a zip archive in row-major order. Contiguous ones are read where they lie; of others (transposed,
/// Fortran order) long rows are read one by one, and those with short rows are loaded once and gathered from memory:
/// one at a time (and those that other threads are still reading from), at most 16 MiB more than the tensor itself.
/// Several threads may read.
class ZipViews {
 public:
  explicit ZipViews(std::unique_ptr<ZipArchive> archive) : archive_(std::move(archive)) {}
  const ZipArchive& archive() const { return *archive_; }
  /// Bytes [byte_offset, byte_offset + out.size()) of the tensor.
  void read(const ZipView& view, int64_t byte_offset, std::span<std::byte> out) const;

 private:
  using Bytes = std::vector<std::byte>;
  void read_elements(const ZipView& view, int64_t first, int64_t count, std::byte* out) const;
  std::shared_ptr<const Bytes> loaded(const ZipView& view) const;
  void forget(const ZipView& view) const;

  std::unique_ptr<ZipArchive> archive_;
  mutable std::mutex mutex_;  // of the two below
  mutable const ZipView* loaded_view_ = nullptr;
  mutable std::shared_ptr<const Bytes> loaded_;
};

}  // namespace permafrost
