#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/epalm/epalm.h"
#include "models/model.h"
#include "tests/support/golden.h"
#include "tests/support/run_graph.h"

namespace permafrost::testing {

/// All parts of a model in small: projections, soft prompts, adapters, two features in a window of layers.
EpalmConfig small_epalm();

/// Lengths of the sums on the longest path through a model: what its rounding errors grow with.
struct PathLength {
  int64_t terms = 0;      ///< added numbers, one product or norm after the other
  int64_t roundings = 0;  ///< results stored on the way
};
PathLength operator+(PathLength a, PathLength b);
PathLength operator*(int64_t times, PathLength a);

/// Of one transformer block: two norms, the products, the scores and the mixing of `keys` values.
PathLength block_path(int64_t width, int64_t heads, int64_t hidden, int64_t keys);
PathLength vit_path(const VitConfig& config);
PathLength opt_path(const OptConfig& config, int64_t tokens);
/// Backward walks the same path and adds over `rows` at its end.
PathLength gradient_path(PathLength forward, int64_t rows);

/// Absolute tolerance around `want`, whose truth is fp64. fp32: rounding errors of n added numbers behave like a random
/// walk (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis": error <= lambda sqrt(n) u
/// with probability 1 - 2 exp(-lambda^2 / 2)), here with lambda = 6, u = 2^-24, relative to the largest value, because
/// norms mix all values of a row. bf16 and f16: the same walk over the stored results, u = 2^-9 and 2^-12; weights are
/// rounded too, hence twice.
Tolerance model_tolerance(DType dtype, PathLength path, const std::vector<double>& want);

/// Distance of many gradients from their truth taken together: |got - want| / |want|, L2 over all elements of all of
/// them. For bf16 and f16, where single elements have no useful bound: a rounded pre-activation near 0 switches a whole
/// term of relu's gradient on or off, while all gradients together move by the share of such units only.
class GradientDistance {
 public:
  /// got: `scale` times the gradient.
  void add(const Tensor& got, const std::vector<double>& want, double scale = 1);
  double relative() const { return std::sqrt(difference_ / size_); }

 private:
  double difference_ = 0, size_ = 0;
};

/// The dtypes of the device in use that are narrower than f32.
inline std::span<const DType> narrow_dtypes() { return tested_dtypes().subspan(1); }
/// What gradients are multiplied by in these tests under f16 compute: all of them are then normal numbers.
inline double scale_for(DType compute) { return compute == DType::kF16 ? 1024 : 1; }

/// Units of relu that are on in one run of a graph and off in another of the same operations: numbers that are 0 in one
/// alone.
int64_t switched_units(const GraphRunner& a, const GraphRunner& b);

/// Bound of GradientDistance for a run in `compute` whose relu's switched so many units: rounding alone where there is
/// none. One that switched is a whole term, whatever the dtype, and models here have few units: then what bf16 may do,
/// which switches eight times as many as f16.
double distance_bound(DType compute, PathLength backward, int64_t switched);

/// The scalar sum_i sum(x_i * c_i) as loss; its gradient towards x_i is c_i. Shapes of x_i and c_i agree.
Value dot_loss(Graph& graph, const std::vector<Value>& x, const std::vector<Value>& c);

VitConfig vit_config_of(const Golden& golden);
OptConfig opt_config_of(const Golden& golden);

/// Sets every parameter whose name starts with `prefix` from the tensor of the file that has the rest of the name.
void load_params(const GraphRunner& runner, const std::string& prefix, const Golden& weights);

/// The adaptor that the `adapter_*` metadata say.
AdaptorConfig adaptor_config_of(const Golden& golden);

/// Lengths of the rows of `attention_mask`.
std::vector<int32_t> lengths_in(const Golden& golden);
/// `input_ids`, every token of them a label.
TextBatch texts_in(const Golden& golden);

/// A model of texts and what a golden file says of it.
struct TextGolden {
  const Model& model;
  const Golden& golden;
  std::function<void(const GraphRunner&)> load;  ///< sets all parameters
  PathLength path;                               ///< of the longest text
  std::string prefix = {};                       ///< that parameters have and names of gradients in the file have not
};

/// Loss (TOKEN_MEAN), logits and the gradients of all that trains, as the batch is, with all values and in a longer
/// bucket; f32. With all values also every value of the file that the graph names.
void expect_text_golden(const TextGolden& want);
/// The same in narrow_dtypes(): loss, logits, all gradients together.
void expect_text_golden_narrow(const TextGolden& want);

/// What trains is exactly what the golden adapter file holds, under its names.
void expect_trains_what_is_in(const std::string& file, const Model& model);

}  // namespace permafrost::testing
