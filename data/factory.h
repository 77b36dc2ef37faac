#pragma once
#include <memory>

#include "configs/config.pb.h"
#include "data/loader/loader.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

/// What a dataset is opened for.
struct OpenOptions {
  int64_t model_vocab = 0;    ///< rows of the text model's embedding, which must hold the tokenizer; 0: not looked at
  int threads = 1;            ///< that tokenise
  int decode_threads = 1;     ///< of a loader, where data.decode_threads is 0
  bool with_images = true;    ///< false: images are neither looked up nor read
  bool needs_answers = true;  ///< every question must have an answer: for training, not for generation
  bool whole = false;         ///< not only what train_fraction and train_first leave to training: for evaluation
  LossTokens loss_tokens = LossTokens::kAll;
};

/// The tokenizer that `data` names; null with task CLASSES, which needs none. Errors: kData.
std::unique_ptr<const Tokenizer> open_tokenizer(const config::Data& data, int64_t model_vocab);
/// The samples that `data` describes, from files, shards or several of them. `tokenizer` may be null where nothing is
/// tokenised. Errors: kData, kConfig.
std::unique_ptr<const Dataset> open_dataset(const config::Data& data, const OpenOptions& options,
                                            const Tokenizer* tokenizer);
TextTask text_task(const config::Data& data);

/// Everything a run reads, opened and tokenised. Not movable: the parts refer to each other.
struct OpenedData {
  std::unique_ptr<const Tokenizer> tokenizer;  ///< null with task CLASSES, which needs none
  std::unique_ptr<const Dataset> dataset;
  TextTable texts;
  int decode_threads;  ///< where data.decode_threads is 0

  /// From a resolved configuration; relative paths start at data.root. Errors: kData and kConfig as in the parts, and
  /// kData naming both sizes when the vocabulary does not fit `model_vocab`.
  OpenedData(const config::Data& data, const OpenOptions& options);
  /// The data a configuration trains on, as its model needs them.
  OpenedData(const config::Config& config, int64_t model_vocab, int threads);
  OpenedData(const OpenedData&) = delete;
  OpenedData& operator=(const OpenedData&) = delete;
};

/// How the data of a configuration are opened for training its model.
OpenOptions training_options(const config::Config& config, int64_t model_vocab, int threads);
/// Threads that read and decode for a rank with `threads` compute threads: see data.decode_threads.
int decode_threads(const config::Config& config, int threads);
/// Pixels of the square its vision model reads; 0 for a model without one. Errors: kConfig for no model.
int64_t image_size(const config::Config& config);

/// Loader settings of training; slots and micro_batch_of_slot are the caller's.
LoaderConfig loader_config(const config::Config& config, const OpenedData& data);
/// The same for any data: `image_size` as above; batches in samples.
LoaderConfig loader_config(const config::Data& data, const OpenedData& opened, int64_t image_size, int64_t global_batch,
                           int64_t micro_batch);

}  // namespace permafrost
