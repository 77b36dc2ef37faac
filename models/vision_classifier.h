#pragma once
#include "models/model.h"
#include "models/vit.h"

namespace permafrost {

/// A vision transformer with linear heads on its class token, one per label: how a backbone is trained from scratch.
struct VisionClassifierConfig {
  VitConfig vision;
  int64_t labels = 1;   ///< per image; each is a choice of its own
  int64_t classes = 2;  ///< choices of each label, the most that any label has
  /// Last blocks whose class token goes through final norm and heads; the loss is the mean over them. Source of more
  /// than 1: Lee et al., Deeply-Supervised Nets, AISTATS 2015 (there with heads of their own).
  int64_t supervised_blocks = 1;
  float label_smoothing = 0;

  /// Throws kConfig naming what does not fit.
  void check() const;
};

/// The graph of one micro-batch. All heads are one linear layer with timm's name: row l classes + c of
/// vision.head.weight (labels classes, D) speaks for class c of label l.
/// Inputs, n = supervised_blocks: images (B, C, S, S) f32, labels (B, n labels) i32 with kIgnoredLabel for none (those
/// of the image, repeated for every block, the last block's last), row_weight (B, n labels) f32. Values: vision.* and
/// features.* as in build_vit, logits (B, n labels, classes) f32, row_loss (B n labels), loss (1) f64. Units: those of
/// build_vit, vision.head, loss.
Graph build_vision_classifier(const VisionClassifierConfig& config, DType compute, const ModelShape& shape);

/// Everything trains.
class VisionClassifier final : public Model {
 public:
  /// Errors: kConfig from check().
  explicit VisionClassifier(const VisionClassifierConfig& config);
  Graph build(DType compute, const ModelShape& shape) const override;
  std::vector<FreezeRule> freezing() const override { return {{"*", true}}; }
  /// Fills labels from batch.classes. Errors: kData for a class that is not below `classes`.
  void fill(const ModelBatch& batch, const InputTensors& inputs) const override;
  int64_t image_size() const override { return config_.vision.image_size; }
  int64_t vocab() const override { return 0; }
  int64_t labels() const override { return config_.labels; }
  int64_t classes() const override { return config_.classes; }

 private:
  VisionClassifierConfig config_;
};

}  // namespace permafrost
