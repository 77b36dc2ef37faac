#include "core/weights/torch_archive.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "core/base/check.h"
#include "core/weights/torch_contents.h"
#include "core/weights/torch_dtypes.h"

namespace permafrost {

namespace {

constexpr std::string_view kPickle = "data.pkl";

const ZipMember* find_pickle(const ZipArchive& archive) {
  for (const ZipMember& member : archive.members())
    if (member.name == kPickle || member.name.ends_with("/data.pkl")) return &member;
  return nullptr;
}

const StoredDType* dtype_of(const std::string& global) {
  const TorchDType* known = find_torch_dtype(global);
  return known ? find_stored_dtype(known->word) : nullptr;
}

/// From descriptions in the pickle to places in the archive.
class TensorPlacer {
 public:
  TensorPlacer(const ZipArchive& archive, std::string prefix) : archive_(archive), prefix_(std::move(prefix)) {}

  std::pair<StoredTensor, ZipView> place(const std::string& name, const PickleValue& value) {
    name_ = &name;
    const PickleValue& storage = *value.items[0];
    const std::string& type = value.items.size() > 4 ? value.items[4]->text : storage.items[0]->text;
    const StoredDType* dtype = dtype_of(type);
    if (!dtype) refuse("a known dtype", type);
    const int64_t item = dtype->bits / 8, offset = value.items[1]->integer;
    const ZipMember* member = archive_.find(prefix_ + "data/" + storage.items[1]->text);
    if (!member)
      refuse("its storage in the archive", concat("no member '", prefix_, "data/", storage.items[1]->text, "'"));
    // An untyped storage counts bytes, any other one elements of its own type.
    const StoredDType* of_storage = dtype_of(storage.items[0]->text);
    int64_t bytes = 0;
    if (__builtin_mul_overflow(storage.items[3]->integer, of_storage ? of_storage->bits / 8 : 1, &bytes) ||
        bytes != member->bytes)
      refuse(concat("a storage of ", member->bytes, " bytes, as '", member->name, "' has"),
             concat(storage.items[3]->integer, " elements"));
    const Shape shape = shape_of(value);
    const std::optional<int64_t> tensor_bytes = stored_bytes(shape, dtype->bits);
    if (!tensor_bytes || *tensor_bytes > bytes)
      refuse(concat("at most the ", bytes, " bytes of its storage"), concat("shape ", shape, " ", dtype->name));
    require_within(shape, strides_, offset, bytes / item);
    ZipView view{member, offset * item, item, StridedView(shape, strides_)};
    return {{name, std::string(dtype->name), dtype->dtype, shape, member->data_begin + view.begin, *tensor_bytes},
            view};
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    fail(ErrorKind::kWeights, archive_.path(), ": tensor '", *name_, "': expected ", expected, "; got ", got);
  }

  Shape shape_of(const PickleValue& value) {
    const auto &extents = value.items[2]->items, &strides = value.items[3]->items;
    if (extents.size() != strides.size() || extents.size() > Shape::kMaxRank)
      refuse(concat("at most ", Shape::kMaxRank, " axes, each with a stride"),
             concat(extents.size(), " axes and ", strides.size(), " strides"));
    std::vector<int64_t> sizes;
    strides_.clear();
    for (size_t i = 0; i < extents.size(); ++i) {
      sizes.push_back(extents[i]->integer);
      strides_.push_back(strides[i]->integer);
      if (sizes.back() < 0 || strides_.back() < 0)
        refuse("extents and strides of 0 and up", concat(sizes.back(), " and ", strides_.back()));
    }
    return Shape(std::span<const int64_t>(sizes));
  }

  void require_within(const Shape& shape, const std::vector<int64_t>& strides, int64_t offset,
                      int64_t available) const {
    int64_t end = offset;
    bool sound = offset >= 0 && offset <= available;
    if (shape.elements() > 0) {
      for (int i = 0; i < shape.rank() && sound; ++i) {
        int64_t reach = 0;
        sound = !__builtin_mul_overflow(shape[i] - 1, strides[static_cast<size_t>(i)], &reach) &&
                !__builtin_add_overflow(end, reach, &end);
      }
      sound = sound && end < available;
    }
    if (!sound)
      refuse(concat("elements within the ", available, " of its storage"),
             concat("shape ", shape, " from element ", offset));
  }

  const ZipArchive& archive_;
  std::string prefix_;
  const std::string* name_ = nullptr;
  std::vector<int64_t> strides_;
};

void require_readable(const ZipArchive& archive, const std::string& prefix) {
  if (archive.find(prefix + "constants.pkl"))
    fail(ErrorKind::kWeights, archive.path(),
         ": expected tensors that torch.save wrote; got a TorchScript program (save its state_dict() instead)");
  const ZipMember* order = archive.find(prefix + "byteorder");
  const std::string text = order ? archive.read_whole(*order, 16) : "little";
  if (text != "little")
    fail(ErrorKind::kWeights, archive.path(), ": expected little-endian tensors; got byte order '", text, "'");
}

}  // namespace

bool is_torch_archive(const ZipArchive& archive) { return find_pickle(archive) != nullptr; }

TorchArchive::TorchArchive(std::unique_ptr<ZipArchive> zip) : views_(std::move(zip)) {
  const ZipArchive& archive = views_.archive();
  const ZipMember* pickle_member = find_pickle(archive);
  if (!pickle_member) fail(ErrorKind::kWeights, archive.path(), ": expected a PyTorch archive; got none with data.pkl");
  const std::string prefix = pickle_member->name.substr(0, pickle_member->name.size() - kPickle.size());
  require_readable(archive, prefix);
  const Pickle pickle = read_pickle(archive.path(), archive.read_whole(*pickle_member, kMaxPickleBytes));
  TorchContents contents = torch_contents(archive.path(), pickle);
  TensorPlacer placer(archive, prefix);
  std::vector<StoredTensor> tensors;
  for (const auto& [name, value] : contents.tensors) {
    auto [tensor, view] = placer.place(name, *value);
    tensor.number = places_.size();
    places_.push_back(std::move(view));
    tensors.push_back(std::move(tensor));
  }
  std::ranges::sort(tensors, [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.file_offset, a.name) < std::tie(b.file_offset, b.name);
  });
  describe(archive.path(), archive.file_bytes(), std::move(tensors), std::move(contents.metadata));
}

void TorchArchive::read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const {
  views_.read(places_[tensor.number], byte_offset, out);
}

}  // namespace permafrost
