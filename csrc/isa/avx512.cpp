#define FASTANISO_VECTOR_BYTES 64
#define FASTANISO_NAME "avx512"
#define FASTANISO_KERNELS kernels_avx512
#include "kernels.inl"
