#include "launch/bench/timing.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/base/narrow.h"
#include "core/base/philox.h"
#include "core/device/cpu_features.h"
#include "launch/bench/peak_loops.h"
#include "launch/bench/quantile.h"

namespace permafrost::bench {

namespace {
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int64_t kSweepBytes = int64_t{6} << 20;  // per thread: more than a second-level cache
constexpr int kRound = 5, kMostSamples = 100;
constexpr double kEnough = 0.15;  // seconds of timed calls per side after which short calls stop
constexpr auto kOpenmpSpin = std::chrono::milliseconds(15);

template <typename Spin>
double peak(ThreadPool& pool, Spin spin) {
  constexpr int64_t kRounds = 200'000;
  double best = 0;
  for (int attempt = 0; attempt < 10; ++attempt) {
    double work = 0;  // of one round; every thread writes the same
    const auto start = Clock::now();
    pool.run(pool.threads(), [&](int64_t block, int) {
      const double round = spin(kRounds);
      if (block == 0) work = round;
    });
    best = std::max(best, work * kRounds * pool.threads() / seconds_since(start));
  }
  return best;
}
}  // namespace

Stopwatch::Stopwatch(ThreadPool& pool, int samples)
    : pool_(pool), samples_(samples), sweep_("bench sweep", kSweepBytes * pool.threads()) {}

void Stopwatch::sweep() {
  pool_.run(pool_.threads(), [&](int64_t block, int) {
    auto* words = reinterpret_cast<uint64_t*>(sweep_.data() + block * kSweepBytes);
    for (int64_t i = 0; i < kSweepBytes / 8; i += 8) words[i] += 1;
  });
}

void Stopwatch::wake(bool openmp) {
  if (openmp) {
    std::atomic<int> awake{0};
#pragma omp parallel
    awake.fetch_add(1);
  } else {
    pool_.run(pool_.threads(), [](int64_t, int) {});
  }
}

std::vector<double> Stopwatch::medians(const std::vector<Side>& sides) {
  std::vector<std::vector<double>> times(sides.size());
  double total = 0;
  for (int taken = 0; taken < samples_ ||
                      (taken < kMostSamples && samples_ >= 20 && total < kEnough * static_cast<double>(sides.size()));
       taken += kRound) {
    for (size_t s = 0; s < sides.size(); ++s) {
      if (pool_.threads() > 1 && s > 0 && sides[s - 1].openmp && !sides[s].openmp)
        std::this_thread::sleep_for(kOpenmpSpin);
      for (int i = 0; i < kRound; ++i) {
        sweep();
        wake(sides[s].openmp);
        const auto start = Clock::now();
        sides[s].call();
        times[s].push_back(seconds_since(start));
        total += times[s].back();
      }
    }
    if (pool_.threads() > 1 && sides.back().openmp) std::this_thread::sleep_for(kOpenmpSpin);
  }
  std::vector<double> result;
  for (auto& side : times) result.push_back(quantile(side, 0.5));
  return result;
}

void fill_uniform(const Tensor& tensor) {
  constexpr int64_t kPeriod = 8191;  // a prime: rows differ
  Random random(1, RandomPurpose::kSynthetic);
  const bool bf16 = tensor.dtype() == DType::kBF16;
  for (int64_t i = 0; i < tensor.elements(); ++i) {
    const float value = i < kPeriod ? 2.0f * random.next_float() - 1.0f : 0.0f;
    if (bf16)
      tensor.data<bfloat16>()[i] = i < kPeriod ? bfloat16(value) : tensor.data<bfloat16>()[i - kPeriod];
    else
      tensor.data<float>()[i] = i < kPeriod ? value : tensor.data<float>()[i - kPeriod];
  }
}

void set_openmp_threads(int threads) { omp_set_num_threads(threads); }

double copy_bandwidth(ThreadPool& pool, Stopwatch& watch, int64_t bytes) {
  constexpr int64_t kPiece = 64 << 10;  // short enough for memcpy to use plain stores
  const int64_t half = bytes / 2;
  const Buffer from("bench copy source", half), to("bench copy target", half);
  std::memset(from.data(), 1, narrow<size_t>(half));
  std::memset(to.data(), 2, narrow<size_t>(half));
  const auto copy = [&] {
    pool.run(div_up(half, kPiece), [&](int64_t piece, int) {
      const int64_t begin = piece * kPiece;
      std::memcpy(to.data() + begin, from.data() + begin, narrow<size_t>(std::min(kPiece, half - begin)));
    });
  };
  return static_cast<double>(2 * half) / watch.medians({{copy, false}})[0];
}

double peak_bf16(ThreadPool& pool) { return cpu_features().amx_bf16 ? peak(pool, spin_tiles_amx) : 0.0; }
double peak_f32(ThreadPool& pool) { return cpu_features().avx512 ? peak(pool, spin_fma_avx512) : 0.0; }

}  // namespace permafrost::bench
