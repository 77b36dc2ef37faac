#define PCRE2_CODE_UNIT_WIDTH 8

#include <google/protobuf/stubs/common.h>
#include <jpeglib.h>
#include <openssl/crypto.h>
#include <pcre2.h>
#include <png.h>

#include <CLI/Version.hpp>
#include <array>
#include <cstring>
#include <iomanip>
#include <iostream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/device/cpu_features.h"
#include "core/device/cuda.h"
#include "core/device/cuda_library.h"
#include "core/device/cudnn.h"
#include "generated_version.h"
#include "launch/bench/onednn.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/runtime.h"
#include "parallel/group/nccl/nccl_library.h"
#include "parallel/group/node/free_memory.h"

namespace permafrost {

namespace {

std::string pcre2_version() {
  std::array<char, 64> text{};
  pcre2_config(PCRE2_CONFIG_VERSION, text.data());
  return std::string(text.data()).substr(0, std::string(text.data()).find(' '));
}

std::string dotted(int packed, int base) {  // 3021012 with base 1000 -> 3.21.12
  return concat(packed / (base * base), ".", packed / base % base, ".", packed % base);
}

OrderedJson libraries() {
  return {{"oneDNN", bench::onednn_version()},
          {"Protobuf", dotted(GOOGLE_PROTOBUF_VERSION, 1000)},
          {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)},
          {"libjpeg-turbo", dotted(LIBJPEG_TURBO_VERSION_NUMBER, 1000)},
          {"libpng", png_get_libpng_ver(nullptr)},
          {"PCRE2", pcre2_version()},
          {"nlohmann-json",
           concat(NLOHMANN_JSON_VERSION_MAJOR, ".", NLOHMANN_JSON_VERSION_MINOR, ".", NLOHMANN_JSON_VERSION_PATCH)},
          {"CLI11", CLI11_VERSION},
          {"glog", PERMAFROST_GLOG_VERSION}};
}

/// CUDA's libraries that are opened when they are needed; its runtime is part of the program.
OrderedJson cuda_libraries() {
  OrderedJson json;
  for (const char* name : {"libcublasLt.so.13"}) {
    const cuda::LibraryPlace& place = cuda::find_library(name);
    json[name] = {{"path", place.handle ? OrderedJson(place.path) : OrderedJson()},
                  {"missing", place.handle ? OrderedJson() : OrderedJson(place.reason)}};
  }
  return json;
}

/// What ranks with a GPU each exchange through, or why they cannot. One rank needs none.
OrderedJson nccl() {
  const NcclFound& found = find_nccl();
  return {{"built", nccl_built()},
          {"version", found.version.empty() ? OrderedJson() : OrderedJson(found.version)},
          {"path", found.path.empty() ? OrderedJson() : OrderedJson(found.path)},
          {"missing", found.missing.empty() ? OrderedJson() : OrderedJson(found.missing)}};
}

/// What computes attention on GPUs beside the project's own kernels, or why nothing.
OrderedJson cudnn() {
  const cuda::CudnnFound& found = cuda::find_cudnn();
  const auto given = [](const std::string& text) { return text.empty() ? OrderedJson() : OrderedJson(text); };
  return {{"built", cuda::cudnn_built()},
          {"version", given(found.version)},
          {"path", given(found.path)},
          {"missing", given(found.missing)}};
}

/// What there is of GPUs, or why nothing.
OrderedJson gpus() {
  OrderedJson json;
  const std::string missing = cuda::why_unavailable();
  json["missing"] = missing.empty() ? OrderedJson() : OrderedJson(missing);
  if (!cuda::built()) return json;
  json["runtime"] = cuda::runtime_version();
  json["driver"] = missing.empty() ? OrderedJson(cuda::driver_version()) : OrderedJson();
  json["libraries"] = cuda_libraries();
  json["devices"] = OrderedJson::array();
  for (int device = 0; device < cuda::device_count(); ++device) {
    const cuda::DeviceInfo info = cuda::device_info(device);
    json["devices"].push_back({{"name", info.name},
                               {"compute_capability", concat(info.major, ".", info.minor)},
                               {"processors", info.processors},
                               {"memory_bytes", info.memory_bytes},
                               {"free_bytes", info.free_bytes}});
  }
  return json;
}

OrderedJson description(const Runtime& runtime, const Launcher& launcher) {
  const CpuFeatures& cpu = cpu_features();
  OrderedJson json;
  json["version"] = PERMAFROST_VERSION;
  json["commit"] = std::string(kCommit).empty() ? OrderedJson() : OrderedJson(kCommit);
  json["built"] = {{"type", PERMAFROST_BUILD_TYPE},
                   {"compiler", "g++ " __VERSION__},
                   {"mpi", PERMAFROST_HAS_MPI != 0},
                   {"cuda", cuda::built()},
                   {"sanitizers", PERMAFROST_SANITIZERS}};
  json["libraries"] = libraries();
  json["instruction_sets"] = {
      {"avx2", cpu.avx2}, {"avx512", cpu.avx512}, {"avx512_bf16", cpu.avx512_bf16}, {"amx_bf16", cpu.amx_bf16}};
  json["gpus"] = gpus();
  json["nccl"] = nccl();
  json["cudnn"] = cudnn();
  json["memory_bytes"] = memory_limit_bytes();
  json["cores"] = usable_cores();
  json["ranks"] = {{"world", runtime.size()},
                   {"on_this_node", runtime.ranks_on_node()},
                   {"threads_per_rank", runtime.pool.threads()},
                   {"launcher", launcher.name.empty() ? OrderedJson() : OrderedJson(launcher.name)},
                   {"mpi", runtime.mpi.empty() ? OrderedJson() : OrderedJson(runtime.mpi)}};
  return json;
}

std::string text_of(const OrderedJson& json) {
  const auto or_none = [](const OrderedJson& value, const char* none) {
    return value.is_null() ? none : value.get<std::string>();
  };
  std::string sets, libraries;
  for (const auto& [name, present] : json["instruction_sets"].items())
    if (present.get<bool>()) sets += (sets.empty() ? "" : " ") + name;
  for (const auto& [name, version] : json["libraries"].items())
    libraries += (libraries.empty() ? "" : ", ") + name + " " + version.get<std::string>();
  const OrderedJson& built = json["built"];
  const std::string sanitizers = built["sanitizers"].get<std::string>();
  const OrderedJson& ranks = json["ranks"];
  constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
  const double gib = json["memory_bytes"].get<double>() / kGib;
  const OrderedJson& gpus = json["gpus"];
  std::ostringstream out;
  out << "permafrost " << json["version"].get<std::string>() << ", commit " << or_none(json["commit"], "unknown")
      << "\n"
      << "built             " << built["type"].get<std::string>() << ", " << built["compiler"].get<std::string>()
      << ", MPI " << (built["mpi"].get<bool>() ? "yes" : "no") << ", CUDA "
      << (built["cuda"].get<bool>() ? gpus["runtime"].get<std::string>() : "no")
      << (sanitizers.empty() ? "" : ", sanitizers " + sanitizers) << "\n"
      << "libraries         " << libraries << "\n"
      << "instruction sets  " << (sets.empty() ? "none beyond the baseline" : sets) << "\n"
      << "gpus              ";
  if (!gpus["missing"].is_null()) out << "none: " << gpus["missing"].get<std::string>() << "\n";
  for (const OrderedJson& gpu : gpus.value("devices", OrderedJson::array()))
    out << (&gpu == &gpus["devices"].front() ? "" : std::string(18, ' ')) << gpu["name"].get<std::string>()
        << ", compute capability " << gpu["compute_capability"].get<std::string>() << ", " << std::fixed
        << std::setprecision(1) << gpu["free_bytes"].get<double>() / kGib << " of "
        << gpu["memory_bytes"].get<double>() / kGib << " GiB free, driver for CUDA "
        << gpus["driver"].get<std::string>() << "\n";
  const OrderedJson cuda_libraries = gpus.value("libraries", OrderedJson::object());
  bool first_library = true;
  for (const OrderedJson& place : cuda_libraries) {
    out << (first_library ? "CUDA's libraries  " : std::string(18, ' '))
        << (place["path"].is_null() ? place["missing"] : place["path"]).get<std::string>() << "\n";
    first_library = false;
  }
  for (const char* name : {"nccl", "cudnn"}) {
    const OrderedJson& library = json[name];
    out << name << std::string(18 - std::strlen(name), ' ');
    if (library["missing"].is_null())
      out << library["version"].get<std::string>() << " (" << library["path"].get<std::string>() << ")\n";
    else
      out << "none: " << library["missing"].get<std::string>() << "\n";
  }
  out << "memory            " << std::fixed << std::setprecision(1) << gib << " GiB\n"
      << "cores             " << json["cores"] << "\n"
      << "ranks             " << ranks["world"] << ", on this node " << ranks["on_this_node"] << ", threads per rank "
      << ranks["threads_per_rank"] << ", launcher " << or_none(ranks["launcher"], "none") << ", MPI "
      << or_none(ranks["mpi"], "not loaded (one rank needs none)") << "\n";
  return out.str();
}

}  // namespace

int run_info(const InfoOptions& options, const Launcher& launcher) {
  return run_ranks(launcher, {}, [&](Runtime& runtime) {
    if (!runtime.first()) return;
    const OrderedJson json = description(runtime, launcher);
    std::cout << (options.json ? json_text(json, 2) + "\n" : text_of(json)) << std::flush;
  });
}

}  // namespace permafrost
