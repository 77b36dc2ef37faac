#include "configs/inherit.h"

#include <google/protobuf/text_format.h>

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

/// As text; "" where the field is not given.
std::string given(const Data& data, const google::protobuf::FieldDescriptor* field) {
  if (field->is_repeated() || !data.GetReflection()->HasField(data, field)) return {};
  std::string text;
  google::protobuf::TextFormat::PrintFieldValueToString(data, field, -1, &text);
  return text;
}

/// Fields of entries replace those around them, so what evaluation.data says would be lost without a word.
void check_inherited_mix(const Data& data, const Data& evaluated, Problems& problems) {
  for (const std::string_view name : source_fields()) {
    const auto* field = Data::descriptor()->FindFieldByName(std::string(name));
    const std::string wanted = given(evaluated, field);
    for (int i = 0; i < data.mix_size() && !wanted.empty(); ++i) {
      if (given(data.mix(i).data(), field).empty()) continue;
      problems.expected(concat("evaluation.data.", name),
                        concat("an evaluation.data.mix of its own, since data.mix[", i, "] gives this field"), wanted);
      break;
    }
  }
}

}  // namespace

std::span<const std::string_view> source_fields() {
  static constexpr std::string_view kFields[] = {"root",       "captions",       "images",      "format",
                                                 "split",      "questions",      "annotations", "shards",
                                                 "image_name", "train_fraction", "train_first", "mix"};
  return kFields;
}

void inherit_data(Config& config, Problems& problems) {
  Data& evaluated = *config.mutable_evaluation()->mutable_data();
  const bool own_mix = evaluated.mix_size() > 0;
  if (!own_mix) check_inherited_mix(config.data(), evaluated, problems);
  inherit(config.data(), evaluated);
  if (!own_mix) *evaluated.mutable_mix() = config.data().mix();
  inherit_mix(evaluated);
  inherit_mix(*config.mutable_data());
}

}  // namespace permafrost::config
