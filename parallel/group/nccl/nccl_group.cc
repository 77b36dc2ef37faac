#include "parallel/group/nccl/nccl_group.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <iomanip>
#include <sstream>
#include <utility>

#include "core/base/check.h"
#include "core/device/cuda.h"
#include "parallel/group/nccl/native_nccl_group.h"
#include "parallel/group/nccl/nccl_memory.h"

namespace permafrost {
namespace {

/// How a step went on a rank, as it goes over the host group.
struct Outcome {
  ErrorKind kind{};
  bool failed = false;
  std::array<char, 503> text{};
};

std::string mebibytes(int64_t bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << static_cast<double>(bytes) / (1 << 20) << " MiB";
  return out.str();
}

/// `body`, or what it throws.
template <typename Body>
std::optional<Error> error_in(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    return Error(ErrorKind::kInternal, error.what());
  }
  return std::nullopt;
}

}  // namespace

void agree_on_success(Group& host, std::string_view what, const std::optional<Error>& mine) {
  Outcome own;
  if (mine) {
    own.failed = true;
    own.kind = mine->kind();
    const std::string_view text = mine->what();
    std::copy_n(text.begin(), std::min(text.size(), own.text.size() - 1), own.text.begin());
  }
  std::vector<Outcome> all(static_cast<size_t>(host.size()));
  constexpr auto kBytes = static_cast<int64_t>(sizeof(Outcome));
  host.all_gather(Tensor(&own, DType::kU8, Shape({kBytes})),
                  Tensor(all.data(), DType::kU8, Shape({kBytes * host.size()})), {}, StreamView::caller(), what)
      .wait();
  // Of a rank that waited in vain for the others the words say least.
  const auto blame = [&](bool with_timeouts) {
    return std::ranges::find_if(
        all, [&](const Outcome& o) { return o.failed && (with_timeouts || o.kind != ErrorKind::kTimeout); });
  };
  auto first = blame(false);
  if (first == all.end()) first = blame(true);
  if (first == all.end()) return;
  std::string failed, rest;
  for (size_t r = 0; r < all.size(); ++r) {
    std::string& list = all[r].failed ? failed : rest;
    list += (list.empty() ? "" : " ") + concat(r);
  }
  fail(first->kind, what, ": all ranks must succeed; got failures on rank ", failed,
       rest.empty() ? "" : concat(" (not on ", rest, ")"), "; rank ", first - all.begin(), ": ", first->text.data());
}

NativeNcclGroup::NativeNcclGroup(std::shared_ptr<NcclWorld> world, Group& host, std::unique_ptr<Group> owned_host,
                                 Stream& stream, std::string name)
    : world_(std::move(world)),
      owned_host_(std::move(owned_host)),
      host_(host),
      stream_(stream),
      name_(std::move(name)),
      rank_(host.rank()),
      size_(host.size()),
      exceptions_(std::uncaught_exceptions()),
      begins_(static_cast<size_t>(host.size()) + 1) {
  if (size_ > 1) connect();
}

// Each step is agreed on before the next, or ranks that succeeded would wait for those that did not.
void NativeNcclGroup::connect() {
  const std::string who = concat("nccl '", name_, "'");
  struct Id {
    ncclUniqueId id{};
  } id;
  agree_on_success(host_, who + ": preparing", error_in([&] {
                     communicator_ = std::make_shared<NcclCommunicator>(*world_, name_, rank_, size_);
                     barrier_word_ = Buffer(who + " barrier", sizeof(int32_t), world_->device);
                     workspace_ = Buffer(who + " workspace", world_->options.workspace_bytes, world_->device);
                     if (rank_ != 0) return;
                     const NcclApi& api = communicator_->api();
                     const ncclResult_t result = api.GetUniqueId(&id.id);
                     if (result != ncclSuccess) fail(ErrorKind::kPeer, "ncclGetUniqueId: ", api.GetErrorString(result));
                   }));
  host_
      .broadcast(Tensor(&id, DType::kU8, Shape({static_cast<int64_t>(sizeof id)})), 0, StreamView::caller(),
                 "id of a communicator")
      .wait();
  agree_on_success(host_, who + ": joining",
                   error_in([&] { communicator_->join(id.id, world_->options.copy_engines); }));
  world_->add(communicator_);
}

NativeNcclGroup::~NativeNcclGroup() {
  if (!communicator_) return;
  if (std::uncaught_exceptions() > exceptions_) {  // the other ranks are elsewhere
    world_->remove(*communicator_);
    communicator_->abort();
  } else {
    communicator_->close();
  }
}

// How waits spend their time is NCCL's choice.
std::unique_ptr<Group> NativeNcclGroup::split(int color, int key, std::string_view tag, Waiting waiting) {
  if (const auto failure = async_error()) throw Error(*failure);
  std::unique_ptr<Group> part = host_.split(color, key, tag, waiting);
  if (!part) return nullptr;
  Group& part_host = *part;
  return std::make_unique<NativeNcclGroup>(world_, part_host, std::move(part), stream_, concat(name_, "/", tag));
}

void NativeNcclGroup::register_memory(std::byte* memory, int64_t bytes) {
  if (const auto failure = async_error()) throw Error(*failure);
  PERMAFROST_CHECK(bytes > 0 && is_nccl_memory(memory, bytes), "nccl '", name_, "': memory to register must come from ",
                   "nccl_memory; got ", bytes, " bytes that do not");
  if (!communicator_) {
    not_registered_ = "one rank needs it not";
    return;
  }
  std::vector<int64_t> sizes(static_cast<size_t>(size_));
  host_.all_gather(flat(std::span(&bytes, 1)), flat(std::span(sizes)), {}, StreamView::caller(), "sizes of windows")
      .wait();
  const auto other = std::ranges::find_if(sizes, [&](int64_t size) { return size != sizes.front(); });
  PERMAFROST_CHECK(other == sizes.end(), "nccl '", name_, "': all ranks must register as much; got ", sizes.front(),
                   " bytes on rank 0 and ", *other, " on rank ", other - sizes.begin());
  if (communicator_->register_window(memory, bytes)) {
    registered_bytes_ += bytes;
    ++windows_;
  } else {
    not_registered_ = "NCCL offers no windows here (it needs GPUs that reach each other's memory)";
  }
}

std::string NativeNcclGroup::describe() const {
  std::string text = concat("nccl '", name_, "': ", size_, size_ == 1 ? " rank" : " ranks");
  if (communicator_) {
    const NcclFound& found = find_nccl();
    text += concat(", NCCL ", found.version, " (", found.path, "), workspace ", mebibytes(workspace_.bytes()),
                   world_->options.copy_engines ? ", copy engines where NCCL can" : "");
  }
  text += windows_ == 0 ? ", no memory registered"
                        : concat(", registered ", mebibytes(registered_bytes_), " in ", windows_,
                                 windows_ == 1 ? " window" : " windows", ", symmetric where NCCL can");
  if (!not_registered_.empty()) text += concat("; not registered: ", not_registered_);
  return text;
}

std::unique_ptr<NcclGroup> make_nccl_group(Group& host, Stream& stream, const NcclOptions& options) {
  const Device device = stream.device();
  PERMAFROST_CHECK(device.kind == DeviceKind::kCuda, "nccl '", options.name,
                   "': the stream must be of a CUDA device; got one of the CPU");
  PERMAFROST_CHECK(options.workspace_bytes >= 0, "nccl '", options.name,
                   "': workspace_bytes must not be negative; got ", options.workspace_bytes);
  if (host.size() > 1) {
    const GpuFacts facts = options.facts ? *options.facts : gpu_facts(device, options.cublaslt);
    check_same_gpus(host, facts);
    if (const auto why = why_no_nccl(host, facts))
      fail(ErrorKind::kConfig, "nccl '", options.name, "': NCCL must be usable by all ranks; got ", *why);
  }
  auto world = std::make_shared<NcclWorld>(host, options, device);
  return std::make_unique<NativeNcclGroup>(std::move(world), host, nullptr, stream, options.name);
}

}  // namespace permafrost
