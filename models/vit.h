#pragma once
#include <cstdint>
#include <vector>

#include "core/graph/graph.h"

namespace permafrost {

/// Sizes of a vision transformer with timm's parameter names and arithmetic: patch convolution, class token, learned
/// positions, pre-norm blocks with exact GELU, final norm. Square images only.
struct VitConfig {
  int64_t image_size = 224;
  int64_t channels = 3;
  int64_t patch = 16;
  int64_t dim = 768;
  int64_t depth = 12;
  int64_t heads = 12;
  int64_t mlp_dim = 3072;
  float eps = 1e-6f;

  static VitConfig b16() { return {}; }  ///< timm vit_base_patch16_224: 85,798,656 parameters without head
  static VitConfig l16();                ///< timm vit_large_patch16_224: 303,301,632

  int64_t tokens() const { return (image_size / patch) * (image_size / patch) + 1; }
  /// Throws kConfig naming what does not fit.
  void check() const;
};

/// What is wanted of a vision transformer besides its parameters.
struct VitOptions {
  /// Blocks, ascending, whose class token is taken through the final norm: value `features.{position in this list}`.
  std::vector<int64_t> features;
  /// Compute all tokens of the last block and their final norm (`vision.norm.out`). Without it the last block computes
  /// its MLP and output projection for the class token alone, which is all that features need of it.
  bool all_tokens = false;
};

struct VitValues {
  Value embed;                  ///< (B, L, D)
  std::vector<Value> blocks;    ///< (B, L, D) each; the last (B, 1, D) unless all_tokens
  std::vector<Value> features;  ///< (B, D) each
  Value norm;                   ///< (B, L, D) with all_tokens, else not there
};

/// Appends a vision transformer. images: (B, C, S, S) f32.
/// Parameters `vision.<timm's name>`; units vision.embed, vision.blocks.{i}, vision.norm; values vision.embed.out,
/// vision.blocks.{i}.out, features.{j}, vision.norm.out.
/// Errors: kConfig from check() and for features that are no ascending blocks; kShapeMismatch for other images.
/// Source: timm 0.6 models/vision_transformer.py; Dosovitskiy et al., ICLR 2021.
VitValues build_vit(Graph& graph, const VitConfig& config, Value images, const VitOptions& options);

}  // namespace permafrost
