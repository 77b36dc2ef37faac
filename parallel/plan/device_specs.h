#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace permafrost {

/// Which part of its data sheet a card reaches by itself: large products of matrices, a copy within its memory.
struct Ceilings {
  double bf16 = 0.66, tf32 = 0.66, f32 = 0.66;  ///< large bf16 products are said to reach 600 to 700 of 989 TFLOP/s
  double memory = 0.90;
  bool measured = false;  ///< by this program on a card of the kind; else assumed
};

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
  Ceilings ceilings;
};

std::span<const DeviceSpec> device_specs();
/// Errors: kConfig naming those that are known.
const DeviceSpec& device_spec(std::string_view name);

// What else is attained of the numbers above. Assumptions, none of them measured by this program.

/// What our products are to attain of their ceiling at the shapes of models, and other kernels of that of memory.
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
  bool products_measured = false, memory_measured = false;  ///< the ceiling was given; else from the data sheet
  double product_ceiling = 0, memory_ceiling = 0;           ///< of the data sheet, where it is from there, ...
  bool ceilings_known = false;                              ///< ... as measured on a card of the kind; else assumed
};

Rates rates_of(const DeviceSpec& spec, Products products, const MeasuredCeilings& measured = {});

}  // namespace permafrost
