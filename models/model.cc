#include "models/model.h"

#include <cstring>

#include "core/base/check.h"

namespace permafrost {

void fill_images(std::string_view who, const ModelBatch& batch, const Tensor& images) {
  if (!images.defined()) fail(ErrorKind::kShapeMismatch, who, ": images must be (B, C, S, S) f32; got nothing");
  PERMAFROST_CHECK(std::ssize(batch.images) == images.elements(), who, ": images must be ", images.spec(), "; got ",
                   batch.images.size(), " numbers");
  std::memcpy(images.raw(), batch.images.data(), static_cast<size_t>(images.bytes()));
}

}  // namespace permafrost
