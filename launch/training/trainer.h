#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/load.h"
#include "data/factory.h"
#include "launch/metrics/jsonl.h"
#include "launch/runtime.h"
#include "launch/training/checkpoint.h"
#include "launch/training/device_group.h"
#include "launch/training/device_time.h"
#include "launch/training/frozen_hash.h"
#include "launch/training/input_filler.h"
#include "launch/training/memory_use.h"
#include "launch/training/phase_observer.h"
#include "launch/training/step_segments.h"
#include "launch/training/trainable_watch.h"
#include "launch/training/validation.h"
#include "optim/learning_rate.h"
#include "optim/sharded_adamw.h"
#include "parallel/plan/plan.h"
#include "parallel/reduce/exponents.h"
#include "parallel/reduce/loss_scale.h"
#include "parallel/reduce/order_free_sums.h"
#include "parallel/reduce/vote.h"
#include "parallel/run/executor.h"

namespace permafrost {

/// Loss per token (class label) over the dataset, nothing trained.
struct FinalLoss {
  double nats_per_token = 0;
  std::optional<double> exchanged;  ///< with every text next to the image of another sample
  int64_t samples = 0;
};

/// What the last step of this rank was made of; repeated attempts count.
struct StepAccount {
  int64_t samples = 0, tokens = 0;  ///< of all ranks: those that counted in the loss
  int64_t attempts = 0;             ///< how often the micro-batches ran
  double data_ms = 0;               ///< waiting for micro-batches
  double inputs_ms = 0;             ///< writing them into the inputs of programs
  double program_ms = 0;            ///< forward, backward and sums, waiting for sharded weights included
  double device_ms = 0;             ///< of the GPU's clock: programs, then reduction to working copies
  /// By PhaseKind; of kMicroBatches all three above and what is between them.
  std::array<double, kPhaseKinds> phase_ms{};
  double& phase(PhaseKind kind) { return phase_ms[static_cast<size_t>(kind)]; }
};

/// Seconds that a trainer took to be made on this rank, by what for.
struct SetupSeconds {
  double load_weights = 0;  ///< reading or drawing them, and the ranks of the node waiting for each other
  double hash_frozen = 0;
};

/// One rank of a training run: the state that steps work on, and the step itself.
///
/// A step: this rank's micro-batches, one after the other (inputs, forward, backward, gradients into the order-free
/// sums); one vote of all ranks; then reduction, norm, AdamW on this rank's slice and gather of the working copies.
/// A vote may ask for the step again with larger exponents (step 0 always runs once for the maxima alone), or under f16
/// compute with a smaller loss scale.
class Trainer final : private GradientSink {
 public:
  /// Opens data and weights, allocates everything. `plan` must outlive the trainer.
  /// Errors: kData, kWeights, kConfig, kStorage.
  Trainer(const config::Config& config, Runtime& runtime, const Plan& plan);
  ~Trainer() override;

  /// What was loaded, for the log.
  const std::vector<std::string>& notes() const { return notes_; }
  const OpenedData& data() const { return data_; }
  int64_t step() const { return position_.step; }
  const std::string& frozen_sha256() const { return position_.frozen_sha256; }
  /// Of the checkpoint last written or resumed from; empty before.
  const std::string& adapter_sha256() const { return position_.adapter_sha256; }

  /// Continues from a checkpoint folder. Errors: kWeights.
  void resume(const std::string& checkpoint);
  /// Collective. Returns the SHA-256 of the adapter file on rank 0, "" on the others.
  std::string save(const CheckpointStore& store);
  /// Collective. The same as the best checkpoint, which stays until a better one comes.
  void save_best(const CheckpointStore& store);

  /// One optimizer step, with what there is to say about it on this rank. `stop` is voted: any rank's true makes
  /// stop_voted() true on all. Errors: kNonFinite naming value, unit and sample ids; kData when no sample of the step
  /// could be used; kPeer.
  StepMetrics train_step(bool stop);
  bool stop_voted() const { return stop_voted_; }

  const StepAccount& last_step() const { return account_; }
  /// Per bucket: how often this rank has run its program in training steps, repeated attempts included.
  const std::vector<int64_t>& program_runs() const { return program_runs_; }
  const SetupSeconds& setup_seconds() const { return setup_; }
  /// Programs, and segments of the work behind votes, launched as CUDA graphs so far.
  int64_t graph_launches() const { return executor_.graph_launches() + segments_.graph_launches(); }
  /// Of the programs of steps: Executor::observe.
  void observe(ExecutorObserver* observer) { executor_.observe(observer); }
  /// Of phases, and of the threads that prepare samples; null: nobody. Both must outlive the trainer.
  void observe(PhaseObserver* phases, LoaderObserver* loader);

  /// Collective. Over the first `samples` samples (0 = all) with the transform EVAL.
  FinalLoss measure_loss(bool exchange_images, int64_t samples);

  /// How validation.metric is measured where the trainer cannot do it itself: from generated texts.
  void validate_by(std::unique_ptr<ValidationMeasure> measure);
  /// Whether the steps done are a multiple of validation.every_steps or train.max_steps, and the weights that they left
  /// were not validated yet. True behind resume() where the run was stopped before it could validate.
  bool validation_due() const;
  /// Collective. Takes the value of validation.metric for the weights as they are now into what is best so far; steps
  /// before and after give the same bits as without it. The same on all ranks and for any number of them.
  /// Errors: kNonFinite for a value that is not finite; kData.
  ValidationMetrics validate();
  /// Whether validation.patience is used up.
  bool out_of_patience() const;
  const std::optional<BestSoFar>& best() const { return position_.best; }

  /// What steps work on. Frozen parameters and working copies may be lent to other programs between steps.
  const StepMemory& memory() const { return memory_; }
  const Plan& plan() const { return plan_; }
  /// Where this rank's host memory lies, by the categories of the plan.
  std::vector<MemoryPiece> memory_pieces() const;

  /// Samples that steps so far left out because their image could not be used (data.image_policy SKIP), on all ranks,
  /// counted every time they came up.
  int64_t skipped_samples() const { return position_.skipped_samples; }

  /// Collective. Units whose frozen parameters are not what they were when they were loaded.
  std::vector<std::string> changed_frozen_units();
  /// Collective, after each step, with its metrics. After the first step that could change anything (whose learning
  /// rate is not 0): a line that says what changed and what did not. Errors: kInternal with that line if frozen weights
  /// did.
  std::optional<std::string> check_changes(const StepMetrics& metrics);

 private:
  void add(int param, const Tensor& gradient) override;
  int same_work() const override { return sums_->captured_work(); }
  std::unique_ptr<Loader> make_loader(int64_t first_step) const;
  MeasureOn measure_on();
  const TrainingPosition& position_now();
  /// f32 of the trainable space in host memory, for gathered slices; `own` holds it where the sums do not.
  Tensor host_scratch(Buffer& own) const;
  void take_loaded(HostOptimizer& loaded);
  void resume_best(const std::optional<BestSoFar>& stored);
  LossCounts loss_counts(int64_t step);
  void note_left_out(const MicroBatch& batch);
  void leave_out_of_loss(const Vote& vote);
  /// Runs this rank's micro-batches; false when the vote asks for the step again.
  bool attempt(bool stop, StepMetrics& metrics);
  const MicroBatch& next_batch(int64_t slot, StepMetrics& metrics);
  void fill_inputs(const MicroBatch& batch, float row_weight);
  void look_ahead(StepMetrics& metrics);
  void forget_ahead();
  void run_slot(const MicroBatch& batch, double* loss);
  void take_losses();
  void throw_broken_exchange() const;
  void prepare_products();
  const Vote& vote(bool stop, StepMetrics& metrics);
  void optimizer_phases(StepMetrics& metrics);
  void run_phase(PhaseKind phase, StepMetrics& metrics);
  void do_work(VotedWork work);
  int64_t moved_so_far() const;
  void load_weights();
  void note_device();
  FrozenHash hash_frozen_now();
  std::vector<std::string> changed_since_start(const FrozenHash& now) const;
  void gather_working(StepMetrics& metrics);
  Tensor slice() const;
  Tensor norm_blocks() const;
  GradientNorm gradient_norm() const;
  void check_norm(StepMetrics& metrics);
  void smaller_scale_or_report(const Vote& vote, StepMetrics& metrics);
  [[noreturn]] void report_non_finite(const Vote& vote);

  const config::Config& config_;
  Runtime& runtime_;
  const Plan& plan_;
  std::shared_ptr<const Model> model_;
  LossWeighting weighting_;
  OpenedData data_;
  StepMemory memory_;
  std::unique_ptr<Group> gather_group_;  // of the executor's communication thread
  DeviceGroup exchange_;                 // of what lies where programs run
  Executor executor_;
  ShardedAdamw optimizer_;
  ScheduleConfig schedule_;
  ShardSpec shards_;
  Context context_;                  // of programs, sums and optimizer
  const DeviceMemory& sums_memory_;  // exchange_'s
  Buffer slice_memory_, norm_memory_;
  Buffer norm_;                          // f64, which the host reads
  Buffer clip_;                          // f32 factor and i32 whether the step is taken
  Buffer losses_memory_;                 // f64 per slot, which the host reads
  Buffer kept_memory_, kept_on_device_;  // kept_scale_ where programs run
  std::vector<int> layout_index_;        // of a plan parameter, -1 when frozen
  std::unique_ptr<OrderFreeSums> sums_;
  Exponents exponents_;
  LossScale loss_scale_;
  Voter voter_;
  DeviceTime device_time_;
  StepSegments segments_;
  std::vector<int64_t> working_bytes_per_rank_;
  std::unique_ptr<BatchIndex> index_;
  std::unique_ptr<Loader> loader_;
  const MicroBatch* ahead_ = nullptr;  // of the loader, for the next slot; null: not asked for yet
  bool filled_ahead_ = false;          // its inputs are in place
  float scale_ahead_ = 1;              // loss_scale_ among them
  InputFiller filler_;
  TrainingPosition position_;
  FrozenHash frozen_at_start_;
  std::unique_ptr<ValidationMeasure> validation_;  // null without validation, or until validate_by
  std::optional<TrainableWatch> watch_;            // until the first step that could change anything
  std::vector<std::string> notes_;
  SetupSeconds setup_;
  std::vector<int64_t> program_runs_;
  bool said_skipped_ = false, products_are_ready_ = false;
  PhaseObserver* phases_ = nullptr;
  LoaderObserver* loader_observer_ = nullptr;

  // Of the step in progress, or the last one.
  StepAccount account_;
  LossCounts counts_;    // with all samples; what the micro-batches are weighted by
  LossCounts left_out_;  // this rank's samples whose image could not be used
  LossCounts kept_;      // of all ranks' samples, those that counted
  float row_weight_ = 0;
  float kept_scale_ = 1;                // what loss and gradients are multiplied with since samples were left out
  std::vector<MicroBatchLoss> losses_;  // loss is filled in when they are known
  std::vector<int64_t> first_samples_;  // of each
  std::vector<int64_t> members_;
  int64_t bad_micro_batch_ = -1;  // with a loss that is not finite
  int64_t bad_sample_ = -1;
  int64_t first_sample_ = -1;  // of the first micro-batch with a bad gradient
  uint64_t schedule_hash_ = 0;
  bool stop_voted_ = false;
};

}  // namespace permafrost
