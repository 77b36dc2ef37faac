#include "core/weights/pickle_calls.h"

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/base/utf8.h"
#include "core/weights/torch_dtypes.h"

namespace permafrost {

namespace {

using Kind = PickleValue::Kind;
using Arguments = std::vector<const PickleValue*>;

constexpr std::string_view kTensorV2 = "torch._utils _rebuild_tensor_v2", kTensorV3 = "torch._utils _rebuild_tensor_v3",
                           kParameter = "torch._utils _rebuild_parameter",
                           kFromType = "torch._tensor _rebuild_from_type_v2", kOrderedDict = "collections OrderedDict",
                           kCounter = "collections Counter", kSize = "torch Size", kDevice = "torch device",
                           kEncode = "_codecs encode", kNumpyDtype = "numpy dtype",
                           kNumpyScalar = "numpy.core.multiarray scalar",
                           kNumpyScalar2 = "numpy._core.multiarray scalar";
constexpr std::string_view kKnownGlobals[] = {
    kTensorV2,
    kTensorV3,
    kParameter,
    kFromType,
    kOrderedDict,
    kCounter,
    kSize,
    kDevice,
    kEncode,
    kNumpyDtype,
    kNumpyScalar,
    kNumpyScalar2,
    // Types of storages and tensors, named, never called, as dtypes are (see kTorchDTypes).
    "torch UntypedStorage",
    "torch.storage UntypedStorage",
    "torch.storage TypedStorage",
    "torch Tensor",
    "torch.nn.parameter Parameter",
};

bool is(const PickleValue* value, Kind kind) { return value->kind == kind; }

bool is_whole_numbers(const PickleValue* value) {
  return is(value, Kind::kTuple) &&
         std::ranges::all_of(value->items, [](const PickleValue* item) { return is(item, Kind::kInt); });
}

/// (storage, offset, size, stride, requires_grad, hooks [, dtype] [, metadata])
bool tensor(const Arguments& arguments, bool with_dtype, PickleValue& result) {
  const size_t least = with_dtype ? 7 : 6;
  if (arguments.size() < least || arguments.size() > least + 1 || !is(arguments[0], Kind::kStorage) ||
      !is(arguments[1], Kind::kInt) || !is_whole_numbers(arguments[2]) || !is_whole_numbers(arguments[3]))
    return false;
  if (with_dtype && !is(arguments[6], Kind::kGlobal)) return false;
  result.kind = Kind::kTensor;
  result.items.assign(arguments.begin(), arguments.begin() + 4);
  if (with_dtype) result.items.push_back(arguments[6]);
  return true;
}

/// (items) or nothing: a list or tuple of pairs, or a dict.
bool dict(const Arguments& arguments, PickleValue& result) {
  result.kind = Kind::kDict;
  if (arguments.empty()) return true;
  if (arguments.size() > 1) return false;
  if (is(arguments[0], Kind::kDict)) {
    result.items = arguments[0]->items;
    return true;
  }
  if (!is(arguments[0], Kind::kList) && !is(arguments[0], Kind::kTuple)) return false;
  for (const PickleValue* pair : arguments[0]->items) {
    if ((!is(pair, Kind::kTuple) && !is(pair, Kind::kList)) || pair->items.size() != 2) return false;
    result.items.insert(result.items.end(), pair->items.begin(), pair->items.end());
  }
  return true;
}

/// Text of characters up to 255 as the bytes they stand for: what protocol 2 has for bytes.
bool encode(const Arguments& arguments, PickleValue& result) {
  if (arguments.size() != 2 || !is(arguments[0], Kind::kString) || !is(arguments[1], Kind::kString) ||
      arguments[1]->text != "latin1")
    return false;
  result.kind = Kind::kBytes;
  const std::string& text = arguments[0]->text;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = next_utf8(text, i);
    if (!step.valid || step.code_point > 0xff) return false;
    result.text.push_back(static_cast<char>(step.code_point));
    i += step.bytes;
  }
  return true;
}

bool numpy_dtype(const Arguments& arguments, PickleValue& result) {
  if (arguments.empty() || !is(arguments[0], Kind::kString)) return false;
  result.kind = Kind::kOther;
  result.text = "numpy " + arguments[0]->text;
  return true;
}

template <typename T>
T from_bytes(const std::string& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

/// (dtype, bytes): numbers of 4 and 8 bytes become numbers, anything else stays unknown.
bool numpy_scalar(const Arguments& arguments, PickleValue& result) {
  if (arguments.size() != 2 || !is(arguments[0], Kind::kOther) || !is(arguments[1], Kind::kBytes)) return false;
  const std::string &dtype = arguments[0]->text, &bytes = arguments[1]->text;
  if (dtype == "numpy f8" && bytes.size() == 8) {
    result.kind = Kind::kFloat;
    result.real = from_bytes<double>(bytes);
  } else if (dtype == "numpy f4" && bytes.size() == 4) {
    result.kind = Kind::kFloat;
    result.real = static_cast<double>(from_bytes<float>(bytes));
  } else if (dtype == "numpy i8" && bytes.size() == 8) {
    result.kind = Kind::kInt;
    result.integer = from_bytes<int64_t>(bytes);
  } else {
    result.kind = Kind::kOther;
    result.text = "a scalar of " + dtype;
  }
  return true;
}

/// (tensor, requires_grad, hooks)
bool parameter(const Arguments& arguments, PickleValue& result) {
  if (arguments.empty() || !is(arguments[0], Kind::kTensor)) return false;
  result = *arguments[0];
  return true;
}

bool understood(const std::string& function, const Arguments& arguments, PickleValue& result);

/// (function, type, arguments, attributes): a tensor with attributes of its own, which are of no use.
bool from_type(const Arguments& arguments, PickleValue& result) {
  if (arguments.size() != 4 || !is(arguments[0], Kind::kGlobal) || !is(arguments[2], Kind::kTuple)) return false;
  const std::string& function = arguments[0]->text;
  return (function == kTensorV2 || function == kTensorV3 || function == kParameter) &&
         understood(function, arguments[2]->items, result);
}

bool understood(const std::string& function, const Arguments& arguments, PickleValue& result) {
  if (function == kTensorV2 || function == kTensorV3) return tensor(arguments, function == kTensorV3, result);
  if (function == kParameter) return parameter(arguments, result);
  if (function == kFromType) return from_type(arguments, result);
  if (function == kOrderedDict || function == kCounter) return dict(arguments, result);
  if (function == kEncode) return encode(arguments, result);
  if (function == kNumpyDtype) return numpy_dtype(arguments, result);
  if (function == kNumpyScalar || function == kNumpyScalar2) return numpy_scalar(arguments, result);
  if (function == kSize) {
    if (arguments.size() != 1 || !is_whole_numbers(arguments[0])) return false;
    result = *arguments[0];
    return true;
  }
  if (function == kDevice) {
    result.kind = Kind::kOther;
    result.text = "a device";
    return true;
  }
  return false;
}

std::string python_name(std::string global) {
  std::ranges::replace(global, ' ', '.');
  return global;
}

}  // namespace

bool is_known_global(std::string_view module_and_name) {
  return find_torch_dtype(module_and_name) ||
         std::ranges::find(kKnownGlobals, module_and_name) != std::end(kKnownGlobals);
}

std::string understand_call(const std::string& function, const Arguments& arguments, PickleValue& result) {
  if (understood(function, arguments, result)) return "";
  return concat("a call of ", python_name(function), " with arguments that tensors do not have (nothing was executed)");
}

std::string understand_storage(const PickleValue& id, PickleValue& storage) {
  const Arguments& parts = id.items;
  if (id.kind != Kind::kTuple || parts.size() < 5 || !is(parts[0], Kind::kString) || parts[0]->text != "storage" ||
      !is(parts[1], Kind::kGlobal) || !is(parts[2], Kind::kString) || !is(parts[4], Kind::kInt) ||
      parts[4]->integer < 0)
    return "a persistent id that is no storage";
  storage.items.assign(parts.begin() + 1, parts.begin() + 5);
  return "";
}

}  // namespace permafrost
