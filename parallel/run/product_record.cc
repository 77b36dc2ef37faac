#include "parallel/run/product_record.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost {

namespace {

constexpr const char* kFormat = "permafrost.products.1";
constexpr std::array kPasses = {"forward", "backward_input", "backward_weight"};  // in the order of LinearPass
constexpr std::array kStored = {DType::kF32, DType::kBF16, DType::kF16};

struct Number {
  const char* name;
  int64_t ProductKey::*place;
};
constexpr Number kExtents[] = {
    {"rows", &ProductKey::rows}, {"columns", &ProductKey::columns}, {"terms", &ProductKey::terms},
    {"lda", &ProductKey::lda},   {"ldb", &ProductKey::ldb},         {"ldd", &ProductKey::ldd},
};
constexpr Number kAlignments[] = {
    {"alignment_a", &ProductKey::alignment_a},
    {"alignment_b", &ProductKey::alignment_b},
    {"alignment_d", &ProductKey::alignment_d},
};
struct Flag {
  const char* name;
  bool ProductKey::*place;
};
constexpr Flag kFlags[] = {{"transposed_a", &ProductKey::transposed_a},
                           {"transposed_b", &ProductKey::transposed_b},
                           {"bias", &ProductKey::bias},
                           {"tf32", &ProductKey::tf32}};
struct Attribute {
  const char* name;
  int64_t ProductAlgorithm::*place;
};
constexpr Attribute kAttributes[] = {
    {"id", &ProductAlgorithm::id},
    {"tile", &ProductAlgorithm::tile},
    {"stages", &ProductAlgorithm::stages},
    {"split", &ProductAlgorithm::split},
    {"reduction", &ProductAlgorithm::reduction},
    {"swizzle", &ProductAlgorithm::swizzle},
    {"option", &ProductAlgorithm::option},
    {"inner", &ProductAlgorithm::inner},
    {"cluster", &ProductAlgorithm::cluster},
};

OrderedJson json_of(const ProductChoice& choice) {
  const ProductKey& key = choice.key;
  OrderedJson j;
  j["pass"] = kPasses.at(static_cast<size_t>(key.pass));
  for (const Number& n : kExtents) j[n.name] = key.*n.place;
  j["inputs"] = to_string(key.inputs);
  j["output"] = to_string(key.output);
  for (const Flag& f : kFlags) j[f.name] = key.*f.place;
  for (const Number& n : kAlignments) j[n.name] = key.*n.place;
  if (choice.algorithm.own) return j["algorithm"] = "own", j;
  for (const Attribute& a : kAttributes) j["algorithm"][a.name] = choice.algorithm.*a.place;
  j["tuned"] = choice.tuned;
  return j;
}

int64_t number(const Json& j, const char* name, int64_t least, int64_t most) {
  const Json& value = j.at(name);
  if (!value.is_number_integer() || value < least || value > most)
    fail(ErrorKind::kWeights, name, " must be ", least, " to ", most, "; got ", json_text(value));
  return value.get<int64_t>();
}

template <typename Names, typename Same>
size_t place_in(const Names& names, const Json& j, const char* name, Same same) {
  const auto text = j.at(name).get<std::string>();
  const auto found = std::ranges::find_if(names, [&](const auto& known) { return same(known) == text; });
  if (found == names.end()) fail(ErrorKind::kWeights, name, " must be one that products have; got ", text);
  return static_cast<size_t>(found - names.begin());
}

DType dtype_of(const Json& j, const char* name) {
  return kStored[place_in(kStored, j, name, [](DType dtype) { return to_string(dtype); })];
}

ProductChoice choice_of(const Json& j) {
  constexpr int64_t kMost = int64_t{1} << 40;  // far above what memories hold
  ProductChoice choice;
  ProductKey& key = choice.key;
  key.pass =
      static_cast<LinearPass>(place_in(kPasses, j, "pass", [](const char* known) { return std::string(known); }));
  for (const Number& n : kExtents) key.*n.place = number(j, n.name, 1, kMost);
  key.inputs = dtype_of(j, "inputs");
  key.output = dtype_of(j, "output");
  for (const Flag& f : kFlags) key.*f.place = j.at(f.name).get<bool>();
  for (const Number& n : kAlignments) key.*n.place = number(j, n.name, 1, 16);
  const Json& algorithm = j.at("algorithm");
  choice.algorithm.own = algorithm == "own";
  if (choice.algorithm.own) return choice;
  for (const Attribute& a : kAttributes) choice.algorithm.*a.place = number(algorithm, a.name, 0, UINT32_MAX);
  choice.tuned = j.at("tuned").get<bool>();
  return choice;
}

}  // namespace

std::string to_text(const ProductRecord& record) {
  OrderedJson head = {{"format", kFormat},
                      {"gpu", record.device.gpu},
                      {"compute_capability", record.device.compute_capability},
                      {"library", record.device.library}};
  if (!record.attention.empty()) head["attention"] = record.attention;
  std::string text = json_text(head);
  text.back() = ',';
  text += "\n\"products\": [";
  for (size_t i = 0; i < record.choices.size(); ++i)
    text += (i == 0 ? "\n" : ",\n") + json_text(json_of(record.choices[i]));
  return text + "\n]}\n";
}

ProductRecord parse_product_record(std::string_view text, std::string_view who) {
  ProductRecord record;
  try {
    const Json j = parse_json(text);
    if (j.at("format") != kFormat)
      fail(ErrorKind::kWeights, "format must be ", kFormat, "; got ", json_text(j.at("format")));
    record.device = {j.at("gpu").get<std::string>(), j.at("compute_capability").get<std::string>(),
                     j.at("library").get<std::string>()};
    record.attention = j.value("attention", std::string());
    for (const Json& product : j.at("products")) record.choices.push_back(choice_of(product));
  } catch (const Json::exception& error) {
    fail(ErrorKind::kWeights, who, " is damaged: ", error.what());
  } catch (const Error& error) {
    fail(ErrorKind::kWeights, who, " is damaged: ", error.what());
  }
  return record;
}

}  // namespace permafrost
