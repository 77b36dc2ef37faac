#include "launch/training/validation.h"

#include <algorithm>
#include <array>

#include "core/base/narrow.h"
#include "core/base/sha256.h"
#include "launch/training/agreement.h"

namespace permafrost {

namespace {

/// Takes row `row` out of the loss.
void leave_out(MicroBatch& batch, size_t row) {
  const auto blank = [&](std::vector<int32_t>& labels, int64_t each) {
    std::fill_n(labels.begin() + static_cast<std::ptrdiff_t>(row) * each, each, kIgnoredLabel);
  };
  if (!batch.labels.empty()) blank(batch.labels, batch.tokens);
  if (!batch.classes.empty()) blank(batch.classes, std::ssize(batch.classes) / batch.batch);
  batch.weights[row] = 0;
}

/// Replaces every image by one of `donor` that shows another photograph; rows for which there is none are left out.
void exchange_images(MicroBatch& batch, const std::vector<int64_t>& images, const MicroBatch& donor,
                     const std::vector<int64_t>& donor_images) {
  const auto pixels = static_cast<std::ptrdiff_t>(batch.images.size() / images.size());
  for (size_t row = 0; row < images.size(); ++row) {
    bool found = false;
    for (size_t tries = 0; tries < images.size() && !found; ++tries) {
      const size_t from = (row + tries) % images.size();
      found = donor_images[from] >= 0 && donor.weights[from] > 0 && donor_images[from] != images[row];
      if (found)
        std::copy_n(donor.images.begin() + static_cast<std::ptrdiff_t>(from) * pixels, pixels,
                    batch.images.begin() + static_cast<std::ptrdiff_t>(row) * pixels);
    }
    if (!found) leave_out(batch, row);
  }
}

/// One place per micro-batch, filled by the rank that computes it: their sum in order does not depend on ranks.
class SumsByMicroBatch {
 public:
  explicit SumsByMicroBatch(int64_t micro_batches) : nats_(static_cast<size_t>(micro_batches), 0.0) {}

  void add(int64_t number, double nats, int64_t targets, int64_t correct, int64_t samples) {
    nats_[static_cast<size_t>(number)] = nats;
    counts_[0] += targets;
    counts_[1] += correct;
    counts_[2] += samples;
  }
  MeasuredSums over(Group& world) {
    std::vector<double> all(nats_.size());
    std::array<int64_t, 3> counts{};
    world.all_reduce(flat(std::span(nats_)), flat(std::span(all)), ReduceOp::kSum, StreamView::caller(), "losses")
        .wait();
    world
        .all_reduce(flat(std::span<int64_t>(counts_)), flat(std::span<int64_t>(counts)), ReduceOp::kSum,
                    StreamView::caller(), "counts")
        .wait();
    MeasuredSums sums{0, counts[0], counts[1], counts[2]};
    for (double value : all) sums.nats += value;
    return sums;
  }

 private:
  std::vector<double> nats_;
  std::array<int64_t, 3> counts_{};
};

/// One measurement over micro-batches that ranks take in turn; with exchanged images each comes behind its donor.
class MeasurePass {
 public:
  MeasurePass(const MeasureOn& on, const OpenedData& data, LoaderConfig loader, int64_t samples, bool exchange)
      : on_(on), data_(data), loader_(std::move(loader)), exchange_(exchange) {
    loader_.order.global_batch = loader_.order.micro_batch;
    loader_.transform.training = false;
    loader_.order.parts.clear();  // every sample once, whatever the weights of a mix
    loader_.buckets = on.plan.buckets;
    wanted_ = samples > 0 ? std::min(samples, loader_.order.samples) : loader_.order.samples;
    micro_batches_ = div_up(wanted_, loader_.order.micro_batch);
    index_.emplace(data.texts, loader_.order, loader_.buckets);
    const int64_t each = exchange ? 2 : 1, all = div_up(loader_.order.samples, loader_.order.micro_batch);
    const int64_t ranks = on.runtime.size(), rank = on.runtime.rank(), micro_batches = micro_batches_;
    loader_.slots = each * div_up(micro_batches, ranks);
    loader_.micro_batch_of_slot = [=](int64_t slot) {
      const int64_t number = slot / each * ranks + rank;
      if (number >= micro_batches) return kIdleMicroBatch;
      return slot % each < each - 1 ? (number + 1) % all : number;  // the donor first
    };
  }

  MeasuredSums run() {
    SumsByMicroBatch sums(micro_batches_);
    Loader batches(*data_.dataset, data_.texts, loader_);
    for (int64_t slot = 0; slot < loader_.slots; slot += exchange_ ? 2 : 1) {
      if (exchange_) donor_ = batches.next();
      batch_ = batches.next();
      if (batch_.number == kIdleMicroBatch)
        on_.executor.only_gather();
      else
        measure(sums);
    }
    const MeasuredSums all = sums.over(on_.runtime.world);
    if (all.targets == 0)
      fail(ErrorKind::kData, "train: measuring needs samples with something to predict; got none of ", wanted_);
    return all;
  }

 private:
  void measure(SumsByMicroBatch& sums) {
    for (int64_t row = 0; row < batch_.batch; ++row)
      if (batch_.number * batch_.batch + row >= wanted_) leave_out(batch_, static_cast<size_t>(row));
    if (exchange_) {
      photographs(batch_, images_);
      photographs(donor_, donor_images_);
      exchange_images(batch_, images_, donor_, donor_images_);
    }
    const size_t bucket = on_.plan.bucket_for(batch_.tokens);
    on_.filler.fill(batch_, 1.0f, on_.executor, bucket);
    const double nats = on_.executor.forward(bucket);
    const Tensor labels = on_.executor.value(bucket, "labels");
    const int64_t own = on_.model.labels();
    const int64_t correct = own > 0 ? count_correct(on_.executor.value(bucket, "logits"), labels, own) : 0;
    const auto is_label = [](int32_t label) { return label != kIgnoredLabel; };
    const int64_t repeats = own > 0 ? labels.dim(1) / own : 1;  // one for every supervised block
    sums.add(batch_.number, nats,
             std::count_if(labels.data<int32_t>(), labels.data<int32_t>() + labels.elements(), is_label) / repeats,
             correct, std::ranges::count_if(batch_.weights, [](float weight) { return weight > 0; }));
  }

  /// Which image each row shows; -1 for padding.
  void photographs(const MicroBatch& batch, std::vector<int64_t>& images) {
    index_->members(batch.number, rows_);
    images.clear();
    for (int64_t row : rows_)
      images.push_back(row == BatchOrder::kPadding ? -1 : data_.dataset->sample(data_.texts.dataset_index(row)).image);
  }

  const MeasureOn& on_;
  const OpenedData& data_;
  LoaderConfig loader_;
  bool exchange_;
  int64_t wanted_ = 0, micro_batches_ = 0;
  MicroBatch batch_, donor_;
  std::vector<int64_t> rows_, images_, donor_images_;
  std::optional<BatchIndex> index_;
};

/// What is looked at, in its order and without augmentation, whatever its fields say.
config::Data evaluation_data(const config::Config& config) {
  config::Data data = config.evaluation().data();
  data.set_transform(config::Data::EVAL);
  data.set_shuffle(false);
  return data;
}

OpenOptions evaluation_options(const config::Config& config, const MeasureOn& on) {
  OpenOptions options = training_options(config, on.model.vocab(), on.runtime.pool.threads());
  options.whole = true;  // train_fraction and train_first say what is trained on
  return options;
}

/// Loss and share of right class labels come from the programs that train.
class ProgramMeasure final : public ValidationMeasure {
 public:
  ProgramMeasure(const config::Config& config, const MeasureOn& on)
      : metric_(config.validation().metric()),
        samples_(config.validation().samples()),
        on_(on),
        data_(evaluation_data(config), evaluation_options(config, on)),
        loader_(loader_config(evaluation_data(config), data_, on.model.image_size(), config.train().micro_batch(),
                              config.train().micro_batch())) {
    require_labels("evaluation.data", data_, on.model);
    const std::string hash = data_.texts.hash();
    require_same_samples(on.runtime.world, "evaluation.data", hash);
    const std::string all = concat(hash, ' ', samples_);
    measured_on_ = sha256(all.data(), all.size());
  }

  MeasuredValue measure() override {
    const MeasuredSums sums = measure_sums(on_, data_, loader_, samples_, false);
    if (metric_ == config::Validation::LOSS) return {sums.nats_per_target(), sums.samples};
    return {static_cast<double>(sums.correct) / static_cast<double>(sums.targets), sums.samples};
  }
  std::string measured_on() const override { return measured_on_; }

 private:
  config::Validation::Metric metric_;
  int64_t samples_;
  MeasureOn on_;
  OpenedData data_;
  LoaderConfig loader_;
  std::string measured_on_;
};

}  // namespace

int64_t count_correct(const Tensor& logits, const Tensor& labels, int64_t own) {
  const int64_t classes = logits.shape()[-1], all = labels.dim(1);
  int64_t correct = 0;
  for (int64_t i = 0; i < labels.elements(); ++i) {
    if (i % all < all - own) continue;
    const int32_t wanted = labels.data<int32_t>()[i];
    if (wanted == kIgnoredLabel) continue;
    const float* row = logits.data<float>() + i * classes;
    if (std::max_element(row, row + classes) - row == wanted) ++correct;
  }
  return correct;
}

void require_labels(std::string_view who, const OpenedData& data, const Model& model) {
  const int64_t labels = data.dataset->labels_per_image();
  if (model.labels() > 0 && labels != model.labels())
    fail(ErrorKind::kData, who,
         ": images must have as many class labels as model.vision_classifier.labels = ", model.labels(), "; got ",
         labels, " class labels");
}

MeasuredSums measure_sums(const MeasureOn& on, const OpenedData& data, LoaderConfig loader, int64_t samples,
                          bool exchange_images) {
  return MeasurePass(on, data, std::move(loader), samples, exchange_images).run();
}

std::unique_ptr<ValidationMeasure> make_program_measure(const config::Config& config, const MeasureOn& on) {
  if (config.validation().every_steps() == 0 || is_generated(config.validation().metric())) return nullptr;
  return std::make_unique<ProgramMeasure>(config, on);
}

}  // namespace permafrost
