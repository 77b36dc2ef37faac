#include "configs/validate_data.h"

#include <algorithm>

#include "configs/inherit.h"
#include "configs/section.h"
#include "configs/validate.h"

namespace permafrost::config {

namespace {

void check_buckets(const Data& data, const Section& s) {
  for (int i = 0; i < data.length_buckets_size(); ++i) {
    const int bucket = data.length_buckets(i);
    const int before = i == 0 ? 1 : data.length_buckets(i - 1);
    if (bucket <= before)
      s.problems().expected(s.at(concat("length_buckets[", i, "]")), concat("more than ", before, " (ascending)"),
                            bucket);
  }
  const int count = data.length_buckets_size();
  if (count > 0 && data.length_buckets(count - 1) != data.max_text_tokens())
    s.problems().expected(s.at(concat("length_buckets[", count - 1, "]")),
                          concat("max_text_tokens = ", data.max_text_tokens(), " as the last one"),
                          data.length_buckets(count - 1));
}

bool is_vqa(Data::Format format) {
  return format == Data::VQAV2 || format == Data::VLT5 || format == Data::AOKVQA || format == Data::GQA;
}

/// A field that only some formats read.
void only_where(const Section& s, const std::string& field, bool read, const std::string& value,
                const std::string& formats) {
  if (!read && !value.empty()) s.problems().expected(s.at(field), concat("none where format is not ", formats), value);
}

/// Where the samples of one dataset are, and which of them count.
void check_source(const Data& data, const Section& s) {
  const std::string format = Data::Format_Name(data.format());
  if (data.format() != Data::SHARDS) {
    const Data::Task task = is_vqa(data.format()) ? Data::VQA : Data::CAPTIONING;
    if (data.task() != task)
      s.problems().expected(s.at("task"), concat(Data::Task_Name(task), " where data.format is ", format),
                            Data::Task_Name(data.task()));
  } else if (data.shards().empty()) {
    s.problems().expected(s.at("shards"), "a folder where format is SHARDS", "none");
  }
  only_where(s, "shards", data.format() == Data::SHARDS, data.shards(), "SHARDS");
  only_where(s, "annotations", data.format() == Data::VQAV2, data.annotations(), "VQAV2");
  only_where(s, "split", data.format() == Data::KARPATHY, data.split(), "KARPATHY");
  only_where(s, "image_name", is_vqa(data.format()), data.image_name(), "VQAV2, VLT5, AOKVQA or GQA");
  if (!(data.train_fraction() > 0 && data.train_fraction() <= 1))
    s.problems().expected(s.at("train_fraction"), "above 0 to 1", data.train_fraction());
  s.whole("train_first", data.train_first(), 0, kMost);
  if (data.train_first() > 0 && data.train_fraction() < 1)
    s.problems().expected(s.at("train_first"), "0 where train_fraction is below 1 (one of the two)",
                          data.train_first());
}

Data only_field(const Data& data, const google::protobuf::FieldDescriptor* field) {
  Data one = data;
  for (int i = 0; i < Data::descriptor()->field_count(); ++i)
    if (Data::descriptor()->field(i) != field) one.GetReflection()->ClearField(&one, Data::descriptor()->field(i));
  return one;
}

/// Names the fields in which an entry says how samples are read, which only the whole mix can.
void check_same_reading(const Data& data, const Data& entry, const Section& s) {
  for (int i = 0; i < Data::descriptor()->field_count(); ++i) {
    const auto* field = Data::descriptor()->field(i);
    if (std::ranges::find(source_fields(), field->name()) == source_fields().end() &&
        only_field(data, field).SerializeAsString() != only_field(entry, field).SerializeAsString())
      s.problems().expected(s.at(field->name()), "what the fields around data.mix say", "something else");
  }
}

void check_mix(const Data& data, const Section& s) {
  for (int i = 0; i < data.mix_size(); ++i) {
    const Section entry(s.at(concat("mix[", i, "]")), s.problems());
    entry.above_zero("weight", data.mix(i).weight());
    const Section inner(entry.at("data"), s.problems());
    if (data.mix(i).data().mix_size() > 0) s.problems().expected(inner.at("mix"), "none inside a mix", "one");
    check_same_reading(data, data.mix(i).data(), inner);
    check_source(data.mix(i).data(), inner);
  }
}

void check_one(const Data& data, const Section& s) {
  s.whole("max_text_tokens", data.max_text_tokens(), 2, 1 << 20);
  s.whole("decode_threads", data.decode_threads(), 0, 64);
  s.whole("prefetch", data.prefetch(), 1, 64);
  check_buckets(data, s);
  if (data.mix().empty())
    check_source(data, s);
  else
    check_mix(data, s);
}

}  // namespace

void check_data(const Config& config, Problems& problems) {
  const Data& data = config.data();
  check_one(data, Section("data", problems));
  if (!data.mix().empty() && !data.shuffle())
    problems.expected("data.shuffle", "true where data.mix is given (weights need an order)", "false");
  if (data.task() == Data::CAPTIONING && config.loss().tokens() == Loss::ANSWER)
    problems.expected("loss.tokens", "ALL where data.task is CAPTIONING (captions have no answer)", "ANSWER");
  const Data& evaluated = config.evaluation().data();
  if (config.evaluation().has_data() && evaluated.SerializeAsString() != data.SerializeAsString())
    check_one(evaluated, Section("evaluation.data", problems));
}

namespace {

void require_samples(const Data& data, const Section& s) {
  const auto has_place = [](const Data& one) { return !one.root().empty() || one.format() == Data::SHARDS; };
  if (data.mix().empty() && !has_place(data)) s.problems().expected(s.at("root"), "the folder of the dataset", "none");
  for (int i = 0; i < data.mix_size(); ++i)
    if (!has_place(data.mix(i).data()))
      s.problems().expected(s.at(concat("mix[", i, "].data.root")), "the folder of the dataset", "none");
}

void require_its_tokenizer(const Data& data, const Section& s) {
  const Tokenizer& tokenizer = data.tokenizer();
  if (data.task() != Data::CLASSES && tokenizer.root().empty() && tokenizer.tokenizer_json().empty())
    s.problems().expected(s.at("tokenizer.root"), "the folder of vocab.json and merges.txt (or tokenizer_json)",
                          "none");
}

}  // namespace

void require_data(const Config& config) {
  Problems problems;
  const Section s("data", problems);
  require_samples(config.data(), s);
  require_its_tokenizer(config.data(), s);
  problems.throw_if_any("the configuration");
}

void require_evaluation_data(const Config& config) {
  Problems problems;
  const Section s("evaluation.data", problems);
  require_samples(config.evaluation().data(), s);
  require_its_tokenizer(config.evaluation().data(), s);
  problems.throw_if_any("the configuration");
}

void require_tokenizer(const Config& config) {
  Problems problems;
  require_its_tokenizer(config.evaluation().data(), Section("evaluation.data", problems));
  problems.throw_if_any("the configuration");
}

}  // namespace permafrost::config
