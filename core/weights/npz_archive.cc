#include "core/weights/npz_archive.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>

#include "core/base/check.h"

namespace permafrost {

namespace {

constexpr std::string_view kSuffix = ".npy", kMagic{"\x93NUMPY", 6};
constexpr int64_t kMaxHeaderBytes = 64 << 10;

struct NumpyDType {
  std::string_view descr, word;
};
constexpr NumpyDType kNumpyDTypes[] = {
    {"<f4", "F32"},  {"<f2", "F16"}, {"<f8", "F64"}, {"<i8", "I64"}, {"<i4", "I32"}, {"|u1", "U8"},
    {"|b1", "BOOL"}, {"|i1", "I8"},  {"<i2", "I16"}, {"<u2", "U16"}, {"<u4", "U32"}, {"<u8", "U64"},
};

class HeaderText {
 public:
  explicit HeaderText(std::string_view text) : text_(text) {}

  bool accept(std::string_view word) {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n')) text_.remove_prefix(1);
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  bool quoted(std::string& out) {
    if (!accept("'")) return false;
    const size_t end = text_.find('\'');
    if (end == std::string_view::npos) return false;
    out = text_.substr(0, end);
    text_.remove_prefix(end + 1);
    return true;
  }
  bool integer(int64_t& out) {
    accept("");
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), out);
    if (error != std::errc() || out < 0) return false;
    text_.remove_prefix(static_cast<size_t>(end - text_.data()));
    return true;
  }
  bool at_end() {
    accept("");
    return text_.empty();
  }

 private:
  std::string_view text_;
};

bool parse_shape(HeaderText& text, std::vector<int64_t>& extents) {
  if (!text.accept("(")) return false;
  while (!text.accept(")")) {
    int64_t extent = 0;
    if (!text.integer(extent)) return false;
    extents.push_back(extent);
    if (!text.accept(",")) return text.accept(")");
  }
  return true;
}

/// Reads and checks the description of one member.
class NpyReader {
 public:
  NpyReader(const ZipArchive& archive, const ZipMember& member) : archive_(archive), member_(member) {}

  std::pair<StoredTensor, ZipView> read() {
    const NpyHeader header = read_header();
    const auto* known = std::ranges::find(kNumpyDTypes, header.descr, &NumpyDType::descr);
    if (known == std::end(kNumpyDTypes))
      refuse("a little-endian number type of up to 8 bytes",
             concat("'", header.descr, "'",
                    header.descr.find('O') != std::string::npos ? " (Python objects, which are pickles)" : ""));
    if (header.extents.size() > Shape::kMaxRank)
      refuse(concat("at most ", Shape::kMaxRank, " axes"), concat(header.extents.size()));
    const StoredDType* dtype = find_stored_dtype(known->word);
    const Shape shape{std::span<const int64_t>(header.extents)};
    const std::optional<int64_t> bytes = stored_bytes(shape, dtype->bits);
    if (!bytes || *bytes != member_.bytes - data_begin_)
      refuse(concat(shape, " ", dtype->name, " as its header says"),
             concat(member_.bytes - data_begin_, " bytes of data"));
    const ZipView view{&member_, data_begin_, dtype->bits / 8,
                       StridedView(shape, strides(shape, header.fortran_order))};
    return {{member_.name.substr(0, member_.name.size() - kSuffix.size()), std::string(dtype->name), dtype->dtype,
             shape, member_.data_begin + (member_.deflated ? 0 : data_begin_), *bytes},
            view};
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    fail(ErrorKind::kWeights, archive_.path(), ": array '", member_.name, "': expected ", expected, "; got ", got);
  }

  std::string text(int64_t offset, int64_t bytes) const {
    if (bytes > member_.bytes - offset) refuse("a whole header", concat(member_.bytes, " bytes"));
    std::string result(static_cast<size_t>(bytes), '\0');
    archive_.read(member_, offset, std::as_writable_bytes(std::span(result)));
    return result;
  }

  NpyHeader read_header() {
    const std::string start = text(0, 10);
    const int version = start[6];
    if (!start.starts_with(kMagic) || version < 1 || version > 3)
      refuse("a .npy array of version 1 to 3", "something else");
    uint32_t bytes = 0;
    std::memcpy(&bytes, start.data() + 8, 2);
    data_begin_ = 10;
    if (version > 1) {
      const std::string upper = text(10, 2);
      std::memcpy(reinterpret_cast<char*>(&bytes) + 2, upper.data(), 2);
      data_begin_ = 12;
    }
    if (bytes > kMaxHeaderBytes) refuse(concat("a header of at most ", kMaxHeaderBytes, " bytes"), concat(bytes));
    NpyHeader header;
    const std::string words = text(data_begin_, bytes);
    if (!parse_npy_header(words, header))
      refuse("a header of descr, fortran_order and shape", concat("'", words.substr(0, 80), "'"));
    data_begin_ += bytes;
    return header;
  }

  static std::vector<int64_t> strides(const Shape& shape, bool fortran_order) {
    std::vector<int64_t> result(static_cast<size_t>(shape.rank()));
    int64_t stride = 1;
    for (int i = 0; i < shape.rank(); ++i) {
      const int axis = fortran_order ? i : shape.rank() - 1 - i;
      result[static_cast<size_t>(axis)] = stride;
      if (shape.elements() > 0) stride *= shape[axis];
    }
    return result;
  }

  const ZipArchive& archive_;
  const ZipMember& member_;
  int64_t data_begin_ = 0;
};

}  // namespace

bool parse_npy_header(std::string_view words, NpyHeader& header) {
  HeaderText text(words);
  bool descr = false, order = false, shape = false;
  if (!text.accept("{")) return false;
  while (!text.accept("}")) {
    std::string key;
    if (!text.quoted(key) || !text.accept(":")) return false;
    if (key == "descr" && !descr) {
      descr = text.quoted(header.descr);
      if (!descr) return false;
    } else if (key == "fortran_order" && !order) {
      header.fortran_order = text.accept("True");
      order = header.fortran_order || text.accept("False");
      if (!order) return false;
    } else if (key == "shape" && !shape) {
      shape = parse_shape(text, header.extents);
      if (!shape) return false;
    } else {
      return false;
    }
    if (!text.accept(",")) {
      if (!text.accept("}")) return false;
      break;
    }
  }
  return descr && order && shape && text.at_end();
}

bool is_npz_archive(const ZipArchive& archive) {
  return !archive.members().empty() &&
         std::ranges::all_of(archive.members(), [](const ZipMember& member) { return member.name.ends_with(kSuffix); });
}

NpzArchive::NpzArchive(std::unique_ptr<ZipArchive> zip) : views_(std::move(zip)) {
  const ZipArchive& archive = views_.archive();
  std::vector<StoredTensor> tensors;
  for (const ZipMember& member : archive.members()) {
    auto [tensor, view] = NpyReader(archive, member).read();
    tensor.number = places_.size();
    places_.push_back(std::move(view));
    tensors.push_back(std::move(tensor));
  }
  describe(archive.path(), archive.file_bytes(), std::move(tensors), {});
}

void NpzArchive::read_bytes(const StoredTensor& tensor, int64_t byte_offset, std::span<std::byte> out) const {
  const ZipView& view = places_[tensor.number];
  if (byte_offset == 0 && !view.member->deflated) {
    std::vector<std::byte> header(static_cast<size_t>(view.begin));  // the crc32 is of the whole member
    views_.archive().read(*view.member, 0, header);
  }
  views_.read(view, byte_offset, out);
}

}  // namespace permafrost
