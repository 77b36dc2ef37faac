#pragma once
#include <memory>

#include "configs/config.pb.h"
#include "data/loader/loader.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

/// Everything a run reads, opened and tokenised. Not movable: the parts refer to each other.
struct OpenedData {
  Tokenizer tokenizer;
  CaptionDataset dataset;
  TextTable texts;

  /// From a resolved configuration; relative paths start at data.root. Errors: kData and kConfig as in the parts, and
  /// kData naming both sizes when the vocabulary does not fit `model_vocab`.
  OpenedData(const config::Config& config, int64_t model_vocab, int threads);
  OpenedData(const OpenedData&) = delete;
  OpenedData& operator=(const OpenedData&) = delete;
};

/// Loader settings of a configuration; slots and micro_batch_of_slot are the caller's.
LoaderConfig loader_config(const config::Config& config, int64_t samples);

}  // namespace permafrost
