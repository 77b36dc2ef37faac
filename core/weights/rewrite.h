#pragma once
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/weights/source.h"

namespace permafrost {

/// A stored tensor, its axes put into another order: axis i of the part is axis order[i] of the tensor. Empty: as it
/// is.
struct RewritePart {
  const SourceTensor* tensor = nullptr;
  std::vector<int> order = {};
};

/// A tensor to be made of stored ones: the values of its parts, one after the other, row-major, in its shape.
struct RewrittenTensor {
  std::string name;
  Shape shape;
  std::vector<RewritePart> parts;
};

using ByteSink = std::function<void(std::span<const std::byte>)>;

/// Gives all bytes of the tensor as dtype `to` to `sink`, in order. Memory: a few MiB; where axes change places also
/// the stored tensor of one part. Errors: kWeights as load_slice (values that are not finite, or too large for `to`);
/// the sink has been given them by then, so whoever writes them must not finish.
void rewrite(const WeightSource& source, const RewrittenTensor& tensor, DType to, const ByteSink& sink);

/// Errors: kWeights when the values of two tensors of one shape differ, naming both.
void require_equal(const WeightSource& source, const SourceTensor& tensor, const SourceTensor& alias);

}  // namespace permafrost
