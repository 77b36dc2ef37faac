// The product of small matrices that a warp makes together.
#include "tests/cuda_emulation/cuda_runtime.h"

void cuda_emulation::multiply_add(const float (&a)[16][16], const float (&b)[16][8], float (&c)[16][8]) {
  for (int i = 0; i < 16; ++i) {
    float sums[8];
    for (int j = 0; j < 8; ++j) sums[j] = c[i][j];
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 8; ++j) sums[j] += a[i][k] * b[k][j];
    for (int j = 0; j < 8; ++j) c[i][j] = sums[j];
  }
}
