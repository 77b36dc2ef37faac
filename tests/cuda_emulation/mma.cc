// The product of small matrices that a warp makes together.
#include "tests/cuda_emulation/cuda_runtime.h"

void cuda_emulation::multiply_add(const float (&a)[16][16], const float (&b)[16][8], float (&c)[16][8]) {
  using Row = float __attribute__((vector_size(32)));  // its elements at once where the machine has such registers
  Row sums, row;
  for (int i = 0; i < 16; ++i) {
    std::memcpy(&sums, c[i], sizeof(sums));
    for (int k = 0; k < 16; ++k) {
      std::memcpy(&row, b[k], sizeof(row));
      sums += a[i][k] * row;
    }
    std::memcpy(c[i], &sums, sizeof(sums));
  }
}
