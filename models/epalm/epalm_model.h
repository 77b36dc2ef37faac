#pragma once
#include "models/epalm/epalm.h"
#include "models/model.h"

namespace permafrost {

/// eP-ALM as what trains it sees it; build_epalm says inputs and values.
class EpalmModel final : public Model {
 public:
  /// Errors: kConfig from EpalmConfig::check.
  explicit EpalmModel(const EpalmConfig& config);
  Graph build(DType compute, const ModelShape& shape) const override;
  std::vector<FreezeRule> freezing() const override { return epalm_freezing(config_); }
  void fill(const ModelBatch& batch, const InputTensors& inputs) const override;
  int64_t image_size() const override { return config_.vision.image_size; }
  int64_t vocab() const override { return config_.text.vocab; }

 private:
  EpalmConfig config_;
};

}  // namespace permafrost
