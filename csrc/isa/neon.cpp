#define FASTANISO_VECTOR_BYTES 16
#define FASTANISO_NAME "neon"
#define FASTANISO_KERNELS kernels_neon
#include "kernels.inl"
