#include "core/weights/zip_views.h"

#include "core/base/narrow.h"

namespace permafrost {

namespace {
constexpr int64_t kLongRowBytes = 4096;
constexpr int64_t kMoreThanTensor = int64_t{16} << 20;
}  // namespace

void ZipViews::read(const ZipView& view, int64_t byte_offset, std::span<std::byte> out) const {
  const auto bytes = static_cast<int64_t>(out.size());
  if (view.view.contiguous()) return archive_->read(*view.member, view.begin + byte_offset, out);
  const int64_t first = byte_offset / view.item, end = (byte_offset + bytes + view.item - 1) / view.item;
  if (byte_offset % view.item == 0 && bytes % view.item == 0)
    return read_elements(view, first, end - first, out.data());
  Bytes whole(narrow<size_t>((end - first) * view.item));  // the slice cuts elements
  read_elements(view, first, end - first, whole.data());
  std::memcpy(out.data(), whole.data() + (byte_offset - first * view.item), out.size());
}

void ZipViews::read_elements(const ZipView& view, int64_t first, int64_t count, std::byte* out) const {
  const int64_t item = view.item, all = view.view.elements() * item;
  if (view.view.run() * item < kLongRowBytes && view.view.extent() * item <= all + kMoreThanTensor) {
    view.view.gather(loaded(view)->data(), item, first, count, out);
    if (first + count == view.view.elements()) forget(view);  // whoever reads in order is done with it
    return;
  }
  view.view.for_each_row(first, count, [&](int64_t place, int64_t n, int64_t stride) {
    const int64_t pieces = stride == 1 ? 1 : n, piece = stride == 1 ? n * item : item;
    for (int64_t i = 0; i < pieces; ++i, out += piece)
      archive_->read(*view.member, view.begin + (place + i * stride) * item, {out, narrow<size_t>(piece)});
  });
}

void ZipViews::forget(const ZipView& view) const {
  const std::lock_guard lock(mutex_);
  if (loaded_view_ != &view) return;
  loaded_view_ = nullptr;
  loaded_.reset();
}

std::shared_ptr<const ZipViews::Bytes> ZipViews::loaded(const ZipView& view) const {
  const std::lock_guard lock(mutex_);
  if (loaded_view_ == &view) return loaded_;
  loaded_view_ = nullptr;
  loaded_.reset();  // before the next one is loaded: two only while another thread still reads from this one
  auto bytes = std::make_shared<Bytes>(narrow<size_t>(view.view.extent() * view.item));
  archive_->read(*view.member, view.begin, *bytes);
  loaded_ = bytes;
  loaded_view_ = &view;
  return bytes;
}

}  // namespace permafrost
