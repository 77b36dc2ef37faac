#include "parallel/plan/device_specs.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"

namespace permafrost {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

// One H200 (driver 580.159.04, CUDA 13.0, cuBLASLt 13.1): products of bf16 781 TFLOP/s, of TF32 418, of f32 51; a copy
// 4,228 GB/s.
constexpr Ceilings kOfH200{.bf16 = 0.79, .tf32 = 0.84, .f32 = 0.76, .memory = 0.88, .measured = true};
constexpr Ceilings kAsOfH200{
    .bf16 = kOfH200.bf16, .tf32 = kOfH200.tf32, .f32 = kOfH200.f32, .memory = kOfH200.memory, .measured = false};
constexpr Ceilings kAssumed;

// NVLink: the sheets give both directions together (900 and 600 GB/s). PCIe: Gen5 and Gen4, 16 lanes.
constexpr std::array<DeviceSpec, 3> kSpecs{{
    {"h200", "NVIDIA H200 SXM", "NVIDIA H200 data sheet (SXM); network of 400 Gb/s for each GPU assumed", 989.4 * kTera,
     494.7 * kTera, 67 * kTera, 141'000'000'000, 4800 * kGiga, 450 * kGiga, 64 * kGiga, 50 * kGiga, kOfH200},
    {"h100", "NVIDIA H100 SXM", "NVIDIA H100 data sheet (SXM); network of 400 Gb/s for each GPU assumed", 989.4 * kTera,
     494.7 * kTera, 67 * kTera, 80'000'000'000, 3350 * kGiga, 450 * kGiga, 64 * kGiga, 50 * kGiga, kAsOfH200},
    {"a100", "NVIDIA A100 SXM 80GB", "NVIDIA A100 data sheet (SXM 80GB); network of 200 Gb/s for each GPU assumed",
     312 * kTera, 156 * kTera, 19.5 * kTera, 80'000'000'000, 2039 * kGiga, 300 * kGiga, 32 * kGiga, 25 * kGiga,
     kAssumed},
}};

}  // namespace

std::span<const DeviceSpec> device_specs() { return kSpecs; }

const DeviceSpec& device_spec(std::string_view name) {
  const auto found = std::ranges::find(kSpecs, name, &DeviceSpec::name);
  if (found != kSpecs.end()) return *found;
  std::string known;
  for (const DeviceSpec& spec : kSpecs) known.append(known.empty() ? "" : ", ").append(spec.name);
  fail(ErrorKind::kConfig, "plan: a known device (", known, ") was expected; got '", name, "' [param=--device]");
}

std::string_view to_string(Products products) {
  switch (products) {
    case Products::kF32:
      return "f32";
    case Products::kTf32:
      return "tf32";
    case Products::kBF16:
      return "bf16";
  }
  return "?";
}

Rates rates_of(const DeviceSpec& spec, Products products, const MeasuredCeilings& measured) {
  Rates rates;
  rates.device = spec.title;
  rates.products = products;
  rates.peak_flops = products == Products::kF32    ? spec.f32_flops
                     : products == Products::kTf32 ? spec.tf32_flops
                                                   : spec.bf16_flops;
  rates.product_ceiling = products == Products::kF32    ? spec.ceilings.f32
                          : products == Products::kTf32 ? spec.ceilings.tf32
                                                        : spec.ceilings.bf16;
  rates.memory_ceiling = spec.ceilings.memory;
  rates.ceilings_known = spec.ceilings.measured;
  rates.products_measured = measured.matmul_flops > 0;
  rates.memory_measured = measured.copy_bytes_per_s > 0;
  rates.product_flops =
      kOfCeiling * (rates.products_measured ? measured.matmul_flops : rates.product_ceiling * rates.peak_flops);
  rates.memory_bytes =
      kOfCeiling * (rates.memory_measured ? measured.copy_bytes_per_s : rates.memory_ceiling * spec.memory_bytes_per_s);
  rates.node_link_bytes = kNvlinkAttained * spec.nvlink_bytes_per_s;
  rates.host_link_bytes = kHostLinkAttained * spec.host_bytes_per_s;
  rates.network_bytes = kNetworkAttained * spec.network_bytes_per_s;
  return rates;
}

}  // namespace permafrost
