#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace permafrost {

/// What a GPU's maker says of it, and the machine that is assumed around it. Rates are per second and of one direction,
/// FLOPs dense (a multiply-add counts as two).
struct DeviceSpec {
  std::string_view name;    ///< as on the command line
  std::string_view title;   ///< "NVIDIA H200 SXM"
  std::string_view source;  ///< of the numbers
  double bf16_flops = 0, tf32_flops = 0, f32_flops = 0;
  int64_t memory_bytes = 0;  ///< as sold, in units of 10^9: cards report somewhat more
  double memory_bytes_per_s = 0;
  double nvlink_bytes_per_s = 0;   ///< to the other GPUs of its node
  double host_bytes_per_s = 0;     ///< PCIe, 16 lanes
  double network_bytes_per_s = 0;  ///< assumed: one network card for each GPU
};

std::span<const DeviceSpec> device_specs();
/// Errors: kConfig naming those that are known.
const DeviceSpec& device_spec(std::string_view name);

// What is attained of the numbers above. Assumptions, none of them measured by this program.

/// Large bf16 products reach 600 to 700 of 989 TFLOP/s on H100 and H200: power and clocks.
constexpr double kProductCeiling = 0.66;
/// Copies within the device's memory.
constexpr double kMemoryCeiling = 0.90;
/// What our products are to attain of that ceiling at the shapes of models, and other kernels of that of memory.
constexpr double kOfCeiling = 0.85;
/// Gathers over NVLink move 360 of 450 GB/s.
constexpr double kNvlinkAttained = 0.80;
constexpr double kNetworkAttained = 0.85;
/// Copies from pinned memory move 50 of 64 GB/s.
constexpr double kHostLinkAttained = 0.78;

/// How products of matrices are computed.
enum class Products : uint8_t { kF32, kTf32, kBF16 };
std::string_view to_string(Products products);

/// Measured on a card of the kind, instead of data sheet x fraction; 0: not measured.
struct MeasuredCeilings {
  double matmul_flops = 0;      ///< largest rate of any product with the dtype of the forecast
  double copy_bytes_per_s = 0;  ///< of a copy within the device's memory, bytes read and bytes written together
};

/// What a forecast counts with, per second; of links one direction.
struct Rates {
  std::string device;
  Products products = Products::kBF16;
  double peak_flops = 0;  ///< data sheet: what utilisation is relative to
  double product_flops = 0;
  double memory_bytes = 0;
  double node_link_bytes = 0, host_link_bytes = 0, network_bytes = 0;
  bool products_measured = false, memory_measured = false;  ///< the ceiling; else from the data sheet
};

Rates rates_of(const DeviceSpec& spec, Products products, const MeasuredCeilings& measured = {});

}  // namespace permafrost
