#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/training/best_so_far.h"
#include "optim/sharded_adamw.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"
#include "parallel/reduce/loss_scale.h"

namespace permafrost {

/// Where a run stands: with this and the optimizer's tensors, continuing is a pure function.
struct TrainingPosition {
  int64_t step = 0;                               ///< updates done
  std::vector<int32_t> exponents;                 ///< of the order-free sums, per trainable parameter in plan order
  std::string graph_hash;                         ///< Plan::graph_hash
  std::optional<LossScale::Position> loss_scale;  ///< under f16 compute
  int64_t skipped_samples = 0;  ///< left out so far because their image could not be used, every time they came up
  int64_t max_steps = 0;        ///< what the run was to have; may change, and a cosine schedule with it
  std::map<std::string, std::string> identity;  ///< run_identity: what must stay the same
  std::string frozen_sha256;                    ///< of the frozen parameters as stored
  std::string adapter_sha256;                   ///< of adapter.safetensors; filled by save
  int64_t validated_step = 0;                   ///< updates behind which validation was last
  std::optional<BestSoFar> best;                ///< by validation; of the best checkpoint itself that of its own step
  std::string products;                         ///< prepare_products: its record; "" for a run that was never on CUDA
};

/// Checkpoints of one run: folders `step-00000040` with
///   adapter.safetensors    master weights of the trainable parameters, f32, under their published names
///   optimizer.safetensors  "m." and "v." + name, f32
///   products.json          of runs on CUDA: how products of matrices are computed
///   position.json          TrainingPosition and the SHA-256 of these files
/// A folder appears under its name only when complete and read back; older ones are removed after that. The folder
/// `best` has the same files; it is replaced by a better one alone, never removed for being old.
/// The bytes do not depend on the number of ranks; what stands in products.json may depend on what was measured.
class CheckpointStore {
 public:
  CheckpointStore(std::string folder, int keep) : folder_(std::move(folder)), keep_(keep) {}

  /// Collective. scratch: flat f32 of plan.trainable_space elements, used to gather slices. Rank 0 writes.
  /// Errors: kStorage with path and reason; earlier checkpoints stay.
  void save(const Plan& plan, const ShardedAdamw& optimizer, Group& group, const Tensor& scratch,
            TrainingPosition& position) const;

  /// Collective. The same into `best`, in one step where the file system can exchange folders.
  void save_best(const Plan& plan, const ShardedAdamw& optimizer, Group& group, const Tensor& scratch,
                 TrainingPosition& position) const;

  std::string path_of_best() const { return folder_ + "/best"; }
  /// Updates before the best checkpoint; nothing where there is none. Errors: kWeights when it is damaged.
  std::optional<int64_t> step_of_best() const;

  /// Where the checkpoint after `step` updates is or would be.
  std::string path_of(int64_t step) const;
  /// The complete checkpoint with the most steps, if any.
  std::optional<std::string> latest() const;

 private:
  void write_folder(const std::string& temporary, const Plan& plan, const ShardedAdamw& optimizer, Group& group,
                    const Tensor& scratch, TrainingPosition& position) const;
  void save_as(const std::string& final_path, const Plan& plan, const ShardedAdamw& optimizer, Group& group,
               const Tensor& scratch, TrainingPosition& position) const;
  void remove_old() const;

  std::string folder_;
  int keep_;
};

/// The file of trained parameters that `path` names: that of a checkpoint folder, else the path itself.
std::string adapter_file(const std::string& path);

/// Reads a checkpoint folder: checks its files against their hashes and the trainables against the plan, then fills
/// this rank's masters and moments. Any rank count. Errors: kWeights naming what differs or is damaged.
TrainingPosition load_checkpoint(const std::string& folder, const Plan& plan, ShardedAdamw& optimizer);

}  // namespace permafrost
