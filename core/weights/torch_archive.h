#pragma once
#include <memory>
#include <vector>

#include "core/weights/tensor_file.h"
#include "core/weights/zip_views.h"

namespace permafrost {

/// A file that torch.save wrote (PyTorch 1.6 and later): a zip archive of a pickle and the storages of its tensors.
/// Opening reads the pickle, executing nothing (see read_pickle), and checks every tensor against its storage. Tensors
/// are read by slices where they lie; views such as transposed ones are gathered (see ZipViews), tensors that share a
/// storage are read each from it.
///
/// Names: a checkpoint is a dict with the tensors in one of its entries; where the outer dict has `model`,
/// `state_dict`, `model_state`, `model_state_dict` or `module` with tensors in it (the first of these), that entry's
/// tensors are the file's, and metadata has `torch.dict` (its name), `torch.not_read` (other entries with tensors, such
/// as an optimizer) and every other entry of plain values under its key, as JSON ("epoch": "7"). Otherwise all tensors
/// are, those of inner dicts and lists under joined names: "encoder.weight", "layers.0". Errors: as TensorFile; and for
/// TorchScript, big-endian files, sparse and quantised tensors by what they are.
class TorchArchive : public TensorFile {
 public:
  explicit TorchArchive(std::unique_ptr<ZipArchive> archive);

 private:
  void read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const override;

  ZipViews views_;
  std::vector<ZipView> places_;  // by StoredTensor::number
};

/// True when the archive has the pickle that torch.save writes.
bool is_torch_archive(const ZipArchive& archive);

}  // namespace permafrost
