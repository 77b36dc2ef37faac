#include "core/weights/torch_pickle.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"
#include "core/weights/torch_dtypes.h"

namespace permafrost {

namespace {

std::string_view storage_type(DType dtype) {
  const auto* known = std::ranges::find(kTorchDTypes, safetensors_name(dtype), &TorchDType::word);
  if (known == std::end(kTorchDTypes) || known->storage.empty())
    fail(ErrorKind::kInvalidArgument, "torch_pickle: no storage of ", to_string(dtype));
  return known->storage;
}

class PickleWriter {
 public:
  std::string take() { return std::move(text_); }

  PickleWriter& op(std::string_view opcodes) {
    text_ += opcodes;
    return *this;
  }
  PickleWriter& number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_.push_back(static_cast<char>(value >> (8 * i) & 0xffu));
    return *this;
  }
  PickleWriter& string(std::string_view value) { return op("X").number(value.size(), 4).op(value); }
  PickleWriter& integer(int64_t value) {
    if (value >= INT32_MIN && value <= INT32_MAX) return op("J").number(static_cast<uint64_t>(value), 4);
    return op("\x8a\x08").number(static_cast<uint64_t>(value), 8);
  }
  PickleWriter& real(double value) {
    const auto bits = std::bit_cast<uint64_t>(value);
    op("G");
    for (int i = 7; i >= 0; --i) text_.push_back(static_cast<char>(bits >> (8 * i) & 0xffu));
    return *this;
  }
  PickleWriter& ordered_dict() { return op("ccollections\nOrderedDict\n)R"); }

  void json(const Json& value) {
    if (value.is_boolean()) {
      op(value.get<bool>() ? "\x88" : "\x89");
    } else if (value.is_number_integer()) {
      integer(value.get<int64_t>());
    } else if (value.is_number()) {
      real(value.get<double>());
    } else if (value.is_string()) {
      string(value.get<std::string>());
    } else if (value.is_array()) {
      op("](");
      for (const Json& element : value) json(element);
      op("e");
    } else if (value.is_object()) {
      op("}(");
      for (const auto& [key, element] : value.items()) {
        string(key);
        json(element);
      }
      op("u");
    } else {
      op("N");
    }
  }

  void tensor(const TensorSpec& spec, size_t storage) {
    op("ctorch._utils\n_rebuild_tensor_v2\n((").string("storage");
    op("ctorch\n").op(storage_type(spec.dtype)).op("\n");
    string(std::to_string(storage)).string("cpu").integer(spec.shape.elements()).op("tQ").integer(0);
    op("(");
    for (const int64_t extent : spec.shape.dims()) integer(extent);
    op("t(");
    for (int i = 0; i < spec.shape.rank(); ++i) {
      int64_t stride = 1;
      for (int j = i + 1; j < spec.shape.rank(); ++j)
        if (spec.shape.elements() > 0)
          stride *= spec.shape[j];  // those of empty tensors mean nothing, and could overflow
      integer(stride);
    }
    op("t\x89").ordered_dict().op("tR");
  }

 private:
  std::string text_;
};

}  // namespace

std::string torch_pickle(const std::vector<TensorDeclaration>& tensors, const Json& others) {
  PERMAFROST_CHECK(others.is_object(), "torch_pickle: further entries must be an object; got ", others.type_name());
  PickleWriter writer;
  writer.op("\x80\x02}(").string("model").ordered_dict().op("(");
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.string(tensors[i].name);
    writer.tensor(tensors[i].spec, i);
  }
  writer.op("u");
  for (const auto& [key, value] : others.items()) {
    writer.string(key);
    writer.json(value);
  }
  return writer.op("u.").take();
}

}  // namespace permafrost
