#include "core/weights/torch_contents.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/utf8.h"

namespace permafrost {

namespace {

using Kind = PickleValue::Kind;

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxVisits = 1'000'000;
constexpr int64_t kMaxAllVisits = 4 * kMaxPickleValues;  // without sharing each value is met twice
constexpr int64_t kMaxMetadata = 64 << 10;
constexpr size_t kMaxKeyBytes = 4096;
constexpr size_t kMaxNameBytes = size_t{64} << 20;
constexpr std::string_view kTensorEntries[] = {"model", "state_dict", "model_state", "model_state_dict", "module"};

bool is_container(const PickleValue& value) {
  return value.kind == Kind::kDict || value.kind == Kind::kList || value.kind == Kind::kTuple;
}

/// What messages, JSON and safetensors can carry.
bool is_text(const std::string& text) { return printable(text, Lines::kSeveral) == text; }

class Walk {
 public:
  explicit Walk(const std::string& path) : path_(path) {}

  /// Calls tensor(name, value) for every tensor below. Shared containers are walked each time they are met, but never
  /// more than kMaxVisits values, and kMaxAllVisits in all walks together.
  template <typename Tensor>
  void tensors(const PickleValue& value, int depth, const Tensor& tensor) {
    all_visits_ += std::exchange(visits_, 0);
    keys_.clear();
    walk(value, depth, tensor);
  }

  bool has_tensors(const PickleValue& value) {
    bool any = false;
    tensors(value, 1, [&](const PickleValue&) { any = true; });
    return any;
  }

  /// Of the tensor that is being told of.
  std::string name() {
    std::string name;
    for (const std::string* key : keys_) (name += name.empty() ? "" : ".") += *key;
    name_bytes_ += name.size();
    if (name_bytes_ > kMaxNameBytes)
      fail(ErrorKind::kWeights, path_, ": expected names of at most ", kMaxNameBytes, " bytes together; got more");
    return name.empty() ? "tensor" : name;
  }

  template <typename Visit>
  void for_each_entry(const PickleValue& container, const Visit& entry) const {
    if (container.kind != Kind::kDict) {
      for (size_t i = 0; i < container.items.size(); ++i) entry(std::to_string(i), *container.items[i]);
      return;
    }
    for (size_t i = 0; i + 1 < container.items.size(); i += 2)
      if (const auto key = key_of(*container.items[i])) entry(*key, *container.items[i + 1]);
  }

 private:
  template <typename Tensor>
  void walk(const PickleValue& value, int depth, const Tensor& tensor) {
    visit(depth);
    if (value.kind == Kind::kTensor) return tensor(value);
    if (!is_container(value)) return;
    for_each_entry(value, [&](const std::string& key, const PickleValue& inner) {
      keys_.push_back(&key);
      walk(inner, depth + 1, tensor);
      keys_.pop_back();
    });
  }

  void visit(int depth) {
    if (depth > kMaxDepth)
      fail(ErrorKind::kWeights, path_, ": expected containers nested at most ", kMaxDepth, " deep; got deeper ones");
    const bool too_many = ++visits_ > kMaxVisits;
    if (too_many || all_visits_ + visits_ > kMaxAllVisits)
      fail(ErrorKind::kWeights, path_, ": expected at most ", too_many ? kMaxVisits : kMaxAllVisits,
           " values; got containers that hold more");
  }

  std::optional<std::string> key_of(const PickleValue& key) const {
    if (key.kind == Kind::kInt) return std::to_string(key.integer);
    if (key.kind != Kind::kString) return std::nullopt;
    const bool too_long = key.text.size() > kMaxKeyBytes;
    if (too_long || !is_text(key.text))
      fail(ErrorKind::kWeights, path_, ": expected keys of UTF-8 text of at most ", kMaxKeyBytes, " bytes; got ",
           too_long ? concat(key.text.size(), " bytes") : "one of other bytes");
    return key.text;
  }

  const std::string& path_;
  std::vector<const std::string*> keys_;  // on the way to the value at hand
  int64_t visits_ = 0, all_visits_ = 0;   // of this walk, of those before
  size_t name_bytes_ = 0;
};

/// A value without tensors, walked before, as JSON of up to kMaxMetadata bytes.
class JsonText {
 public:
  explicit JsonText(const Walk& walk) : walk_(walk) {}

  /// Empty for what is longer, or has no place in JSON.
  std::string of(const PickleValue& value) {
    left_ = kMaxMetadata;
    const std::optional<Json> json = convert(value);
    const std::string text = json && left_ > 0 ? json_text(*json) : "";
    return text.size() <= kMaxMetadata ? text : "";
  }

 private:
  /// Empty for what has no place in JSON.
  std::optional<Json> convert(const PickleValue& value) {
    if (!take(1)) return std::nullopt;
    switch (value.kind) {
      case Kind::kNone:
        return Json();
      case Kind::kBool:
        return Json(value.integer != 0);
      case Kind::kInt:
        return Json(value.integer);
      case Kind::kFloat:
        return Json(value.real);
      case Kind::kString:
        return take(value.text.size()) && is_text(value.text) ? std::optional(Json(value.text)) : std::nullopt;
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kDict: {
        Json result = value.kind == Kind::kDict ? Json::object() : Json::array();
        walk_.for_each_entry(value, [&](const std::string& key, const PickleValue& inner) {
          if (left_ <= 0 || (value.kind == Kind::kDict && !take(key.size()))) return;
          auto element = convert(inner);
          if (value.kind != Kind::kDict)
            result.push_back(element.value_or(Json()));
          else if (element)
            result[key] = *std::move(element);
        });
        return result;
      }
      default:
        return std::nullopt;
    }
  }

  /// Every value has a byte of text at least, so memory is bounded before there is any text.
  bool take(size_t bytes) {
    left_ = std::cmp_less(bytes, left_) ? left_ - static_cast<int64_t>(bytes) : 0;
    return left_ > 0;
  }

  const Walk& walk_;
  int64_t left_ = 0;
};

/// The entry of the outer dict that holds the model's tensors; nullptr when that is the dict itself.
const PickleValue* tensor_entry(const PickleValue& root, Walk& walk, std::string& name) {
  if (root.kind != Kind::kDict) return nullptr;
  for (const std::string_view wanted : kTensorEntries) {
    const PickleValue* found = nullptr;
    walk.for_each_entry(root, [&](const std::string& key, const PickleValue& value) {
      if (key == wanted) found = &value;
    });
    if (!found || found->kind != Kind::kDict || !walk.has_tensors(*found)) continue;
    name = wanted;
    return found;
  }
  return nullptr;
}

}  // namespace

TorchContents torch_contents(const std::string& path, const Pickle& pickle) {
  TorchContents contents;
  Walk walk(path);
  std::string entry;
  const PickleValue* model = tensor_entry(*pickle.root, walk, entry);
  if (model) {
    contents.metadata["torch.dict"] = entry;
    std::string not_read;
    JsonText json(walk);
    walk.for_each_entry(*pickle.root, [&](const std::string& key, const PickleValue& value) {
      if (&value == model) return;
      if (walk.has_tensors(value)) {
        not_read += (not_read.empty() ? "" : ", ") + key;
        return;
      }
      if (std::string text = json.of(value); !text.empty()) contents.metadata[key] = std::move(text);
    });
    if (!not_read.empty()) contents.metadata["torch.not_read"] = not_read;
  }
  walk.tensors(model ? *model : *pickle.root, 0,
               [&](const PickleValue& value) { contents.tensors.emplace_back(walk.name(), &value); });
  if (contents.tensors.empty())
    fail(ErrorKind::kWeights, path, ": expected a dict of tensors; got a pickle without any");
  return contents;
}

}  // namespace permafrost
