#define FASTANISO_VECTOR_BYTES 32
#define FASTANISO_NAME "avx2"
#define FASTANISO_KERNELS kernels_avx2
#include "kernels.inl"
