#include "configs/inherit.h"

namespace permafrost::config {

namespace {

/// Lists replace lists; a mix is never inherited by its own entries.
void inherit(Data outer, Data& inner) {
  outer.clear_mix();
  if (inner.length_buckets_size() > 0) outer.clear_length_buckets();
  outer.MergeFrom(inner);
  inner = outer;
}

void inherit_mix(Data& data) {
  for (MixedData& entry : *data.mutable_mix()) inherit(data, *entry.mutable_data());
}

}  // namespace

void inherit_data(Config& config) {
  Data& evaluated = *config.mutable_evaluation()->mutable_data();
  const bool own_mix = evaluated.mix_size() > 0;
  inherit(config.data(), evaluated);
  if (!own_mix) *evaluated.mutable_mix() = config.data().mix();
  inherit_mix(evaluated);
  inherit_mix(*config.mutable_data());
}

}  // namespace permafrost::config
