#include "data/shards/hdf5_file.h"

#include <hdf5.h>

#include <mutex>

#include "core/base/check.h"

namespace permafrost {

namespace {

/// Every call of the library is made under this lock.
std::recursive_mutex& hdf5_lock() {
  static std::recursive_mutex lock;
  return lock;
}
using Lock = std::lock_guard<std::recursive_mutex>;

template <herr_t (*Close)(hid_t)>
struct Hdf5Traits {
  using Type = hid_t;
  static Type null() { return -1; }
  static void close(Type id) noexcept {
    const Lock lock(hdf5_lock());
    Close(id);
  }
};
using DatasetId = Handle<Hdf5Traits<H5Dclose>>;
using GroupId = Handle<Hdf5Traits<H5Gclose>>;
using SpaceId = Handle<Hdf5Traits<H5Sclose>>;
using TypeId = Handle<Hdf5Traits<H5Tclose>>;
using AttributeId = Handle<Hdf5Traits<H5Aclose>>;
using PropertyId = Handle<Hdf5Traits<H5Pclose>>;

/// What the library's innermost function said about the last error.
std::string last_error() {
  std::string message = "an error without words";
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned depth, const H5E_error2_t* error, void* out) -> herr_t {
        if (depth == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &message);
  return message;
}

/// Ends with a message when `result` is negative, as all failures of the library are.
template <typename Result>
Result require(Result result, ErrorKind kind, const std::string& what, const std::filesystem::path& path,
               const std::string& name = "") {
  if (result >= 0) return result;
  fail(kind, "shard: ", what, " is expected; got '", last_error(), "' [file=", path.string(),
       name.empty() ? "" : ", name=" + name, "]");
}

struct NumberTypes {
  hid_t stored, native;
};
NumberTypes types_of(Hdf5Number number) {
  switch (number) {
    case Hdf5Number::kU8:
      return {H5T_STD_U8LE, H5T_NATIVE_UINT8};
    case Hdf5Number::kI32:
      return {H5T_STD_I32LE, H5T_NATIVE_INT32};
    case Hdf5Number::kU32:
      return {H5T_STD_U32LE, H5T_NATIVE_UINT32};
    case Hdf5Number::kI64:
      return {H5T_STD_I64LE, H5T_NATIVE_INT64};
    case Hdf5Number::kU64:
      return {H5T_STD_U64LE, H5T_NATIVE_UINT64};
    case Hdf5Number::kF32:
      break;
  }
  return {H5T_IEEE_F32LE, H5T_NATIVE_FLOAT};
}

PropertyId access_properties(const std::filesystem::path& path) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors become messages of ours
  PropertyId access(require(H5Pcreate(H5P_FILE_ACCESS), ErrorKind::kInternal, "a property list", path));
  // The newest layout of 1.10 has checksums over everything that is not data.
  H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_file_locking(access.get(), 0, 1);  // many ranks read, and some file systems cannot lock
  return access;
}

DatasetId open_dataset_id(hid_t file, const std::string& name, const std::filesystem::path& path) {
  return DatasetId(require(H5Dopen2(file, name.c_str(), H5P_DEFAULT), ErrorKind::kData, "the dataset", path, name));
}

AttributeId open_attribute(hid_t file, const std::string& name, const std::filesystem::path& path) {
  return AttributeId(require(H5Aopen(file, name.c_str(), H5P_DEFAULT), ErrorKind::kData, "the attribute", path, name));
}

}  // namespace

void Hdf5FileTraits::close(Type id) noexcept {
  const Lock lock(hdf5_lock());
  H5Fclose(id);
}

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Lock lock(hdf5_lock());
  Hdf5File file(path);
  const PropertyId access = access_properties(path);
  const PropertyId creation(require(H5Pcreate(H5P_FILE_CREATE), ErrorKind::kInternal, "a property list", path));
  H5Pset_obj_track_times(creation.get(), 0);
  file.file_ = Handle<Hdf5FileTraits>(require(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()),
                                              ErrorKind::kStorage, "a file that can be made", path));
  return file;
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const Lock lock(hdf5_lock());
  Hdf5File file(path);
  const PropertyId access = access_properties(path);
  file.file_ = Handle<Hdf5FileTraits>(
      require(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), ErrorKind::kData, "a complete HDF5 file", path));
  return file;
}

void Hdf5File::close() {
  const Lock lock(hdf5_lock());
  require(H5Fflush(file_.get(), H5F_SCOPE_GLOBAL), ErrorKind::kStorage, "room to write", path_);
  require(H5Fclose(file_.release()), ErrorKind::kStorage, "room to write", path_);
}

/// The group in the name of a dataset. Made by itself, since one made on the way would store the time.
void Hdf5File::make_group(const std::string& dataset) {
  const std::string name = dataset.substr(0, dataset.find('/'));
  if (name == dataset || H5Lexists(file_.get(), name.c_str(), H5P_DEFAULT) > 0) return;
  const PropertyId creation(require(H5Pcreate(H5P_GROUP_CREATE), ErrorKind::kInternal, "a property list", path_));
  H5Pset_obj_track_times(creation.get(), 0);
  const GroupId group(require(H5Gcreate2(file_.get(), name.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
                              ErrorKind::kStorage, "room for a group", path_, name));
}

void Hdf5File::write_values(const std::string& name, Hdf5Number number, const void* values, int64_t count) {
  const Lock lock(hdf5_lock());
  const hsize_t extent = static_cast<hsize_t>(count);
  const SpaceId space(
      require(H5Screate_simple(1, &extent, nullptr), ErrorKind::kInternal, "a data space", path_, name));
  make_group(name);
  const PropertyId creation(require(H5Pcreate(H5P_DATASET_CREATE), ErrorKind::kInternal, "a property list", path_));
  H5Pset_obj_track_times(creation.get(), 0);
  H5Pset_layout(creation.get(), H5D_CONTIGUOUS);
  const NumberTypes types = types_of(number);
  const DatasetId dataset(require(
      H5Dcreate2(file_.get(), name.c_str(), types.stored, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
      ErrorKind::kStorage, "room for a dataset", path_, name));
  if (count == 0) return;
  require(H5Dwrite(dataset.get(), types.native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), ErrorKind::kStorage,
          "room for a dataset", path_, name);
}

void Hdf5File::write_attribute(const std::string& name, const std::string& value) {
  const Lock lock(hdf5_lock());
  const TypeId type(require(H5Tcopy(H5T_C_S1), ErrorKind::kInternal, "a type", path_, name));
  H5Tset_size(type.get(), value.size() + 1);
  const SpaceId space(require(H5Screate(H5S_SCALAR), ErrorKind::kInternal, "a data space", path_, name));
  const AttributeId attribute(
      require(H5Acreate2(file_.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
              ErrorKind::kStorage, "room for an attribute", path_, name));
  require(H5Awrite(attribute.get(), type.get(), value.c_str()), ErrorKind::kStorage, "room for an attribute", path_,
          name);
}

void Hdf5File::write_attribute(const std::string& name, int64_t value) {
  const Lock lock(hdf5_lock());
  const SpaceId space(require(H5Screate(H5S_SCALAR), ErrorKind::kInternal, "a data space", path_, name));
  const AttributeId attribute(
      require(H5Acreate2(file_.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
              ErrorKind::kStorage, "room for an attribute", path_, name));
  require(H5Awrite(attribute.get(), H5T_NATIVE_INT64, &value), ErrorKind::kStorage, "room for an attribute", path_,
          name);
}

bool Hdf5File::has(const std::string& dataset) const {
  const Lock lock(hdf5_lock());
  for (size_t slash = dataset.find('/'); slash != std::string::npos; slash = dataset.find('/', slash + 1))
    if (H5Lexists(file_.get(), dataset.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) return false;
  return H5Lexists(file_.get(), dataset.c_str(), H5P_DEFAULT) > 0;
}

int64_t Hdf5File::elements(const std::string& name) const {
  const Lock lock(hdf5_lock());
  const DatasetId dataset = open_dataset_id(file_.get(), name, path_);
  const SpaceId space(require(H5Dget_space(dataset.get()), ErrorKind::kData, "a data space", path_, name));
  if (H5Sget_simple_extent_ndims(space.get()) != 1)
    fail(ErrorKind::kData, "shard: a dataset of one dimension is expected; got ",
         H5Sget_simple_extent_ndims(space.get()), " [file=", path_.string(), ", name=", name, "]");
  const int64_t count = require(static_cast<int64_t>(H5Sget_simple_extent_npoints(space.get())), ErrorKind::kData,
                                "a data space", path_, name);
  // A size that is not backed by the file would ask for any amount of memory.
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path_));
  if (count > bytes)
    fail(ErrorKind::kData, "shard: at most the ", bytes, " bytes of the file are expected; got ", count,
         " elements [file=", path_.string(), ", name=", name, "]");
  return count;
}

void Hdf5File::read_values(const std::string& name, Hdf5Number number, void* values) const {
  const Lock lock(hdf5_lock());
  const DatasetId dataset = open_dataset_id(file_.get(), name, path_);
  const TypeId type(require(H5Dget_type(dataset.get()), ErrorKind::kData, "a type", path_, name));
  const NumberTypes types = types_of(number);
  if (H5Tequal(type.get(), types.stored) <= 0)
    fail(ErrorKind::kData, "shard: numbers of the type of this layout are expected; got others [file=", path_.string(),
         ", name=", name, "]");
  require(H5Dread(dataset.get(), types.native, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), ErrorKind::kData,
          "a dataset that can be read", path_, name);
}

std::string Hdf5File::text_attribute(const std::string& name) const {
  const Lock lock(hdf5_lock());
  const AttributeId attribute = open_attribute(file_.get(), name, path_);
  const TypeId type(require(H5Aget_type(attribute.get()), ErrorKind::kData, "a type", path_, name));
  constexpr size_t kMost = 1 << 16;
  const size_t size = H5Tget_size(type.get());
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 || size > kMost)
    fail(ErrorKind::kData, "shard: a text of fixed length is expected; got something else [file=", path_.string(),
         ", name=", name, "]");
  std::string value(size, '\0');
  require(H5Aread(attribute.get(), type.get(), value.data()), ErrorKind::kData, "an attribute that can be read", path_,
          name);
  return value.c_str();  // up to the first zero
}

int64_t Hdf5File::number_attribute(const std::string& name) const {
  const Lock lock(hdf5_lock());
  const AttributeId attribute = open_attribute(file_.get(), name, path_);
  const SpaceId space(require(H5Aget_space(attribute.get()), ErrorKind::kData, "a data space", path_, name));
  if (H5Sget_simple_extent_npoints(space.get()) != 1)
    fail(ErrorKind::kData, "shard: one number is expected; got ", H5Sget_simple_extent_npoints(space.get()),
         " [file=", path_.string(), ", name=", name, "]");
  int64_t value = 0;
  require(H5Aread(attribute.get(), H5T_NATIVE_INT64, &value), ErrorKind::kData, "an attribute that can be read", path_,
          name);
  return value;
}

int64_t Hdf5File::offset_of(const std::string& name) const {
  const Lock lock(hdf5_lock());
  const int64_t count = elements(name);
  if (count == 0) return -1;
  const DatasetId dataset = open_dataset_id(file_.get(), name, path_);
  const haddr_t offset = H5Dget_offset(dataset.get());
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path_));
  if (offset == HADDR_UNDEF || static_cast<int64_t>(offset) > bytes - count)
    fail(ErrorKind::kData, "shard: bytes that lie one behind the other in the file are expected; got another layout ",
         "[file=", path_.string(), ", name=", name, "]");
  return static_cast<int64_t>(offset);
}

}  // namespace permafrost
