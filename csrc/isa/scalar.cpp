#define FASTANISO_VECTOR_BYTES 16
#define FASTANISO_NAME "scalar"
#define FASTANISO_KERNELS kernels_scalar
#include "kernels.inl"
