#pragma once
#include <memory>
#include <vector>

#include "core/weights/tensor_file.h"
#include "core/weights/zip_views.h"

namespace permafrost {

/// A numpy .npz file: a zip archive of .npy arrays (format versions 1 to 3), stored or deflated. Arrays are named as
/// the members without ".npy". Opening reads their headers; a deflated array is unpacked on the way when it is read,
/// whole from its beginning up to the slice, so read it in order. Arrays in Fortran order are turned on the way (see
/// ZipViews). Known are booleans, whole numbers and floats, little endian, of up to 8 bytes. Errors: as TensorFile;
/// arrays of Python objects, other types and a size that contradicts the header are refused by name. Source:
/// numpy/lib/format.py.
class NpzArchive : public TensorFile {
 public:
  explicit NpzArchive(std::unique_ptr<ZipArchive> archive);

 private:
  void read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const override;

  ZipViews views_;
  std::vector<ZipView> places_;  // by StoredTensor::number
};

/// True when the archive has members and all of them are arrays.
bool is_npz_archive(const ZipArchive& archive);

/// The header of a .npy array, what stands between braces: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }.
struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> extents;
};
/// Returns false when the text is no such header.
bool parse_npy_header(std::string_view text, NpyHeader& header);

}  // namespace permafrost
