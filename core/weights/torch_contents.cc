#include "core/weights/torch_contents.h"

#include <algorithm>
#include <optional>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost {

namespace {

using Kind = PickleValue::Kind;

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxVisits = 1'000'000;
constexpr size_t kMaxMetadata = 64 << 10;
constexpr std::string_view kTensorEntries[] = {"model", "state_dict", "model_state", "model_state_dict", "module"};

bool is_container(const PickleValue& value) {
  return value.kind == Kind::kDict || value.kind == Kind::kList || value.kind == Kind::kTuple;
}

class Walk {
 public:
  explicit Walk(const std::string& path) : path_(path) {}

  /// Calls tensor(name, value) for every tensor below. Shared containers are walked each time they are met, but never
  /// more than kMaxVisits values.
  template <typename Tensor>
  void tensors(const PickleValue& value, const std::string& name, int depth, const Tensor& tensor) {
    visit(depth);
    if (value.kind == Kind::kTensor) return tensor(name, value);
    if (!is_container(value)) return;
    for_each_entry(value, [&](const std::string& key, const PickleValue& inner) {
      tensors(inner, name.empty() ? key : name + "." + key, depth + 1, tensor);
    });
  }

  bool has_tensors(const PickleValue& value) {
    bool any = false;
    tensors(value, "", 1, [&](const std::string&, const PickleValue&) { any = true; });
    return any;
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

  /// Empty for what has no place in JSON.
  std::optional<Json> json(const PickleValue& value, int depth) {
    visit(depth);
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
        return is_text(value.text) ? std::optional(Json(value.text)) : std::nullopt;
      case Kind::kList:
      case Kind::kTuple:
      case Kind::kDict: {
        Json result = value.kind == Kind::kDict ? Json::object() : Json::array();
        for_each_entry(value, [&](const std::string& key, const PickleValue& inner) {
          auto element = json(inner, depth + 1);
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

 private:
  void visit(int depth) {
    if (depth > kMaxDepth)
      fail(ErrorKind::kWeights, path_, ": expected containers nested at most ", kMaxDepth, " deep; got deeper ones");
    if (++visits_ > kMaxVisits)
      fail(ErrorKind::kWeights, path_, ": expected at most ", kMaxVisits, " values; got containers that hold more");
  }

  /// A name that messages, JSON and safetensors can carry: UTF-8 without control characters.
  static bool is_text(const std::string& text) {
    try {
      json_text(Json(text));
    } catch (const Json::exception&) {
      return false;
    }
    return std::ranges::none_of(text,
                                [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t'; });
  }

  std::optional<std::string> key_of(const PickleValue& key) const {
    if (key.kind == Kind::kInt) return std::to_string(key.integer);
    if (key.kind != Kind::kString) return std::nullopt;
    if (!is_text(key.text)) fail(ErrorKind::kWeights, path_, ": expected keys of UTF-8 text; got one of other bytes");
    return key.text;
  }

  const std::string& path_;
  int64_t visits_ = 0;
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
    walk.for_each_entry(*pickle.root, [&](const std::string& key, const PickleValue& value) {
      if (&value == model) return;
      if (walk.has_tensors(value)) {
        not_read += (not_read.empty() ? "" : ", ") + key;
        return;
      }
      const auto json = walk.json(value, 1);
      const std::string text = json ? json_text(*json) : "";
      if (!text.empty() && text.size() <= kMaxMetadata) contents.metadata[key] = text;
    });
    if (!not_read.empty()) contents.metadata["torch.not_read"] = not_read;
  }
  walk.tensors(model ? *model : *pickle.root, "", 0, [&](const std::string& name, const PickleValue& value) {
    contents.tensors.emplace_back(name.empty() ? "tensor" : name, &value);
  });
  if (contents.tensors.empty())
    fail(ErrorKind::kWeights, path, ": expected a dict of tensors; got a pickle without any");
  return contents;
}

}  // namespace permafrost
