#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/weights/problems.h"
#include "models/weight_maps.h"

namespace permafrost {

/// "layers.12.fc1.weight" with "layers." -> 12 and "fc1.weight".
struct InBlock {
  int block = 0;
  std::string rest;
};
/// Empty for another name. `separator`: what stands behind the number, up to 9999.
std::optional<InBlock> in_block(std::string_view name, std::string_view blocks, char separator = '.');

/// Makes a WeightMap, one stored tensor after the other, and collects what is wrong with them.
class WeightMapper {
 public:
  explicit WeightMapper(const WeightSource& source) : source_(source) {}

  /// The parts, of one dtype that can be written, become the tensor `name`.
  void keep(const std::string& name, const Shape& shape, std::vector<RewritePart> parts);
  void keep(const SourceTensor& tensor, const std::string& name) { keep(name, tensor.stored.shape, {{&tensor}}); }
  template <typename... Why>
  void drop(const SourceTensor& tensor, const Why&... why) {
    map_.dropped.push_back(concat(tensor.stored.name, " (", why..., ")"));
  }
  void miss(const std::string& name) { map_.missing.push_back(name); }
  void require(const std::string& name) {
    if (!has(name)) miss(name);
  }
  /// All tensors that are called `rest` within their blocks must have the shape of the first one.
  void require_alike(const SourceTensor& tensor, const std::string& rest);
  void add_unknown(const SourceTensor& tensor);

  bool has(const std::string& name) const { return by_name_.contains(name); }
  const SourceTensor& at(const std::string& name) const { return *by_name_.at(name); }
  ProblemList& problems() { return problems_; }
  /// Errors: kWeights naming all problems, or when nothing was kept.
  WeightMap finish(std::string_view kind);

 private:
  bool can_be_written(const std::vector<RewritePart>& parts);

  const WeightSource& source_;
  std::map<std::string, const SourceTensor*> by_name_;   // the new names; their first parts
  std::map<std::string, const SourceTensor*> first_of_;  // by `rest`
  WeightMap map_;
  ProblemList problems_;
};

}  // namespace permafrost
