#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/graph/freezing.h"
#include "core/graph/graph.h"
#include "models/model_shape.h"
#include "models/text_batch.h"

namespace permafrost {

/// One micro-batch on the host, as the inputs of a model are filled from it. A model looks at what it has inputs for.
struct ModelBatch {
  std::span<const float> images;  ///< (B, C, S, S), normalised
  TextBatch text;
  int32_t pad_id = 0;
  std::span<const int32_t> classes;  ///< (B, labels); kIgnoredLabel where an image has no such label
  float row_weight = 0;              ///< share of the loss of everything that is predicted
  uint64_t seed = 0;                 ///< these three address random numbers
  uint32_t epoch = 0;
  std::span<const uint64_t> sample_ids;  ///< (B)
};

/// The inputs of a program by name; undefined where the graph has no such input.
using InputTensors = std::function<Tensor(std::string_view)>;

/// What can be trained and looked at: how its graph is built and its inputs are filled. models/factory.h makes it from
/// a configuration; what trains it knows nothing else of it.
class Model {
 public:
  virtual ~Model() = default;

  /// The graph of one micro-batch, with a loss: the same parameters in the same order for every shape. Values `logits`
  /// (rows, choices), `row_loss`, `loss`.
  virtual Graph build(DType compute, const ModelShape& shape) const = 0;
  /// What trains unless a configuration says otherwise.
  virtual std::vector<FreezeRule> freezing() const = 0;
  /// Fills the inputs of a graph that `build` made. Allocates nothing. Errors: kShapeMismatch, kInvalidArgument.
  virtual void fill(const ModelBatch& batch, const InputTensors& inputs) const = 0;

  virtual int64_t image_size() const = 0;        ///< pixels of the square images; 0: it sees none
  virtual int64_t vocab() const = 0;             ///< tokens; 0: it reads no text
  virtual int64_t labels() const { return 0; }   ///< class labels of an image; 0: it predicts text
  virtual int64_t classes() const { return 0; }  ///< choices of a label; 0 without labels
};

/// Copies batch.images into an input of a model. Errors: kShapeMismatch, kInvalidArgument for another number of them.
void fill_images(std::string_view who, const ModelBatch& batch, const Tensor& images);

}  // namespace permafrost
