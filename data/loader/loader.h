#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/kernels/cross_entropy.h"
#include "data/datasets/dataset.h"
#include "data/images/decode.h"
#include "data/images/transform.h"
#include "data/loader/batch_index.h"
#include "data/loader/loader_observer.h"
#include "data/loader/prepare_image.h"
#include "data/loader/text_table.h"

namespace permafrost {

/// What to do with an image that is missing or cannot be decoded.
enum class ImagePolicy {
  kFail,  ///< the consumer gets the error, which names the file
  kSkip,  ///< its sample gets weight 0 and no labels, and is counted
};

/// Sample id of rows that only fill a micro-batch up.
inline constexpr uint64_t kPaddingSample = UINT64_MAX;
/// Number of a micro-batch that a rank runs only to take part in the collectives; all its rows are padding.
inline constexpr int64_t kIdleMicroBatch = -1;

/// B samples padded to T tokens. Arrays are larger than needed when T is below the largest bucket: rows of ids and
/// labels have stride `tokens`, and only the first batch * tokens values mean something.
struct MicroBatch {
  int64_t number = kIdleMicroBatch;  ///< through the whole training
  uint32_t epoch = 0;
  int64_t batch = 0;                 ///< B
  int64_t tokens = 0;                ///< T
  int64_t image_size = 0;            ///< 0 where no images are read
  std::vector<uint64_t> sample_ids;  ///< [B], kPaddingSample for padding
  std::vector<float> weights;        ///< [B], 1, or 0 for padding and skipped images
  std::vector<float> images;         ///< [B, 3, size, size], normalised; zeros where weight is 0
  std::vector<int32_t> input_ids;    ///< [B, T], pad id behind the text
  std::vector<int32_t> key_lengths;  ///< [B], tokens before the padding, >= 1
  /// [B, T], not shifted: label t is what position t - 1 predicts. The tokens of the text that are predicted (see
  /// TextTable::first_target); kIgnoredLabel elsewhere and everywhere in rows of weight 0.
  std::vector<int32_t> labels;
  std::vector<int32_t> classes;  ///< [B, Dataset::labels_per_image()]; kIgnoredLabel in rows of weight 0
  int64_t samples = 0;           ///< rows of weight 1
  int64_t targets = 0;           ///< text labels that are not ignored
};

struct LoaderConfig {
  BatchOrder order;
  std::vector<int64_t> buckets;  ///< see BatchIndex
  /// false: texts alone. No image is read and `images` stays empty; samples of one image still are samples each.
  bool with_images = true;
  TransformConfig transform;
  DecodeOptions decode;
  ImagePolicy image_policy = ImagePolicy::kFail;
  uint64_t seed = 0;          ///< of the augmentations
  int threads = 1;            ///< that decode, besides the consumer's
  int prefetch = 2;           ///< micro-batches ready or in the making ahead of the consumer
  int64_t slots = INT64_MAX;  ///< how many micro-batches `next` will give
  /// Micro-batch that the consumer runs as its slot-th one (a pure function; kIdleMicroBatch for none). Called on
  /// decode threads. Default: all of them in order.
  std::function<int64_t(int64_t slot)> micro_batch_of_slot;
};

/// Prepares the micro-batches of one rank on threads of its own, a bounded number ahead, and hands them over in order.
/// What a micro-batch holds depends on its number alone, never on threads, prefetch or slots before it: crop, flip and
/// augmentation of a sample are drawn from Random(seed, kAugment, epoch, sample id).
class Loader {
 public:
  /// Dataset and texts must outlive the loader. Errors: kConfig for contradictory numbers (see BatchIndex).
  Loader(const Dataset& dataset, const TextTable& texts, LoaderConfig config);
  /// Stops the threads after the image each is busy with.
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const BatchIndex& index() const { return index_; }

  /// The micro-batch of the next slot, valid until the next call. Waits until it is complete.
  /// Errors: what reading or decoding an image threw (of several, the first in the micro-batch), again at every call;
  /// kInvalidArgument behind the last slot.
  const MicroBatch& next();

  /// Milliseconds for which `next` waited: the last call, all calls.
  double last_wait_ms() const { return last_wait_ms_; }
  double total_wait_ms() const { return total_wait_ms_; }
  /// The images of all places of the ring, which is nearly all memory that the loader keeps.
  std::vector<std::span<const float>> image_memory() const;
  /// Images left out under ImagePolicy::kSkip so far, and the message of one of them.
  int64_t skipped_images() const;
  std::string skip_message() const;

  /// Of the samples that threads begin from now on; null: nobody. Must outlive the loader.
  void observe(LoaderObserver* observer) { observer_ = observer; }

 private:
  /// One place of the ring of micro-batches.
  struct Entry {
    MicroBatch batch;
    std::vector<int64_t> rows;  // of the text table
    int64_t slot = -1;
    int64_t unfinished = 0;
    int64_t error_row = INT64_MAX;
    std::exception_ptr error;
  };
  void work(int thread);
  void fill_row_seen(int thread, Entry& entry, int64_t row, PrepareScratch& scratch);
  void prepare(Entry& entry, int64_t slot);
  void fill_row(Entry& entry, int64_t row, PrepareScratch& scratch);
  void fill_text(Entry& entry, int64_t row, const TextIds& ids, int64_t first_target);
  void fill_classes(Entry& entry, int64_t row, std::span<const int32_t> classes);
  bool fill_image(Entry& entry, int64_t row, const Sample& sample, PrepareScratch& scratch);

  const Dataset& dataset_;
  const TextTable& texts_;
  const LoaderConfig config_;
  const BatchIndex index_;

  mutable std::mutex mutex_;
  std::condition_variable may_start_, ready_;
  std::vector<Entry> ring_;
  int64_t next_slot_ = 0, next_row_ = 0;  // the next piece of work
  int64_t released_ = 0;                  // slots whose memory the consumer gave back
  int64_t delivered_ = 0;
  int64_t skipped_ = 0;
  std::string skip_message_;
  bool stopping_ = false;
  double last_wait_ms_ = 0, total_wait_ms_ = 0;
  std::atomic<LoaderObserver*> observer_{nullptr};
  std::vector<std::thread> threads_;
};

}  // namespace permafrost
