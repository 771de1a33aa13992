/* What a Caffe built with CUDA asks of CUDA to train LeNets, on a machine without a GPU.

   A device whose memory is apart from the host's as far as anyone can tell: it is filled with NaN
   when it is given out, and a kernel or a copy that is handed the other side's memory ends the
   process. Kernels are known by their names; they and cuBLAS are computed here, one thread after
   the other, in float32. Compiled once for each library (RUNTIME, BLAS, RANDOM), under its name.

   How often each kernel ran, and how many copies there were, is written to the file
   $CUDA_STAND_IN_COUNTS at the end. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAIL(...) (fprintf(stderr, "cuda stand-in: " __VA_ARGS__), fputc('\n', stderr), abort())

#ifdef RUNTIME
typedef struct { unsigned x, y, z; } dim3;
typedef struct { char *start; size_t size; } Block;
static Block *blocks;
static int block_count;

static int on_device(const void *address) {
  for (int i = 0; i < block_count; i++) {
    const char *start = blocks[i].start;
    if (start && (char *)address >= start && (char *)address < start + blocks[i].size) return 1;
  }
  return 0;
}

int cudaMalloc(void **address, size_t size) {
  char *start = malloc(size ? size : 1);
  memset(start, 0xff, size); /* float32 NaN */
  int place = 0;
  while (place < block_count && blocks[place].start) place++;
  if (place == block_count) blocks = realloc(blocks, ++block_count * sizeof *blocks);
  blocks[place] = (Block){start, size ? size : 1};
  *address = start;
  return 0;
}

int cudaFree(void *address) {
  for (int i = 0; i < block_count; i++)
    if (address && blocks[i].start == address) {
      free(address);
      blocks[i].start = NULL;
    }
  return 0;
}

int cudaMallocHost(void **address, size_t size) { return !(*address = malloc(size ? size : 1)); }
int cudaFreeHost(void *address) { return free(address), 0; }

static int copies[2]; /* to the device, to the host */

int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  copies[0] += on_device(to) && !on_device(from);
  copies[1] += !on_device(to) && on_device(from);
  /* 0 host to host, 1 to the device, 2 from it, 3 on it, 4 as the addresses say */
  int to_device = kind == 1 || kind == 3;
  if (kind != 4 && on_device(to) != to_device) FAIL("copy %d to the wrong side", kind);
  if (kind != 4 && on_device(from) != (kind >= 2)) FAIL("copy %d from the wrong side", kind);
  return memmove(to, from, size), 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  return (void)stream, cudaMemcpy(to, from, size, kind);
}
int cudaMemset(void *to, int value, size_t size) {
  if (size && !on_device(to)) FAIL("set memory of the host");
  return memset(to, value, size), 0;
}

int cudaGetDevice(int *device) { return *device = 0; }
int cudaSetDevice(int device) { return device ? 101 : 0; }
int cudaGetDeviceCount(int *count) { return *count = 1, 0; }
int cudaGetDeviceProperties(void *properties, int device) {
  return (void)device, memset(properties, 0, 256), 0;
}
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
const char *cudaGetErrorString(int error) { return error ? "an error" : "no error"; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
  return (void)flags, *stream = NULL, 0;
}
int cudaStreamDestroy(void *stream) { return (void)stream, 0; }
int cudaStreamSynchronize(void *stream) { return (void)stream, 0; }
int cudaEventCreate(void **event) { return *event = NULL, 0; }
int cudaEventDestroy(void *event) { return (void)event, 0; }
int cudaEventRecord(void *event, void *stream) { return (void)event, (void)stream, 0; }
int cudaEventSynchronize(void *event) { return (void)event, 0; }
int cudaEventElapsedTime(float *ms, void *a, void *b) { return (void)a, (void)b, *ms = 0, 0; }

/* The arguments of a kernel, as nvcc hands them over: an address for each. */
#define INT(i) (*(int *)arguments[i])
#define FLAG(i) (*(char *)arguments[i])
#define REAL(i) (*(float *)arguments[i])
#define READ(i) ((const float *)device(*(void **)arguments[i]))
#define WRITE(i) ((float *)device(*(void **)arguments[i]))
#define EACH(i, count) for (int i = 0, end_##i = (count); i < end_##i; i++)

static void *device(void *address) {
  if (!on_device(address)) FAIL("a kernel was given memory of the host");
  return address;
}

static void multiply(void **arguments) {
  const float *a = READ(1), *b = READ(2);
  float *out = WRITE(3);
  EACH(i, INT(0)) out[i] = a[i] * b[i];
}

static void fill(void **arguments) {
  float *out = WRITE(2);
  EACH(i, INT(0)) out[i] = REAL(1);
}

static void sgd(void **arguments) {
  float *gradient = WRITE(1), *history = WRITE(2);
  EACH(i, INT(0)) gradient[i] = history[i] = REAL(3) * history[i] + REAL(4) * gradient[i];
}

static void relu(void **arguments) {
  const float *in = READ(1);
  float *out = WRITE(2);
  EACH(i, INT(0)) out[i] = in[i] > 0 ? in[i] : in[i] * REAL(3);
}

static void relu_back(void **arguments) {
  const float *top = READ(1), *in = READ(2);
  float *out = WRITE(3);
  EACH(i, INT(0)) out[i] = in[i] > 0 ? top[i] : top[i] * REAL(4);
}

static void largest(void **arguments) { /* of the channels of each place */
  const float *in = READ(3);
  float *out = WRITE(4);
  EACH(n, INT(0)) EACH(s, INT(2)) {
    float found = -FLT_MAX;
    EACH(c, INT(1)) found = fmaxf(found, in[(n * INT(1) + c) * INT(2) + s]);
    out[n * INT(2) + s] = found;
  }
}

static void sum(void **arguments) {
  const float *in = READ(3);
  float *out = WRITE(4);
  EACH(n, INT(0)) EACH(s, INT(2)) {
    float found = 0;
    EACH(c, INT(1)) found += in[(n * INT(1) + c) * INT(2) + s];
    out[n * INT(2) + s] = found;
  }
}

static void subtract(void **arguments) {
  const float *of_place = READ(4);
  float *data = WRITE(5);
  EACH(i, INT(0)) data[i] -= of_place[i / (INT(2) * INT(3)) * INT(3) + i % INT(3)];
}

static void divide(void **arguments) {
  const float *of_place = READ(4);
  float *data = WRITE(5);
  EACH(i, INT(0)) data[i] /= of_place[i / (INT(2) * INT(3)) * INT(3) + i % INT(3)];
}

static void exponential(void **arguments) {
  const float *in = READ(1);
  float *out = WRITE(2);
  EACH(i, INT(0)) out[i] = expf(in[i]);
}

static void softmax_loss(void **arguments) {
  const float *probability = READ(1), *label = READ(2);
  float *loss = WRITE(3), *counts = WRITE(9);
  if (FLAG(7) || INT(6) != 1) FAIL("ignore_label and maps are not known here");
  EACH(n, INT(0)) {
    loss[n] = -logf(fmaxf(probability[n * INT(5) + (int)label[n]], FLT_MIN));
    counts[n] = 1;
  }
}

static void softmax_loss_back(void **arguments) {
  const float *label = READ(2);
  float *gradient = WRITE(3), *counts = WRITE(9);
  if (FLAG(7) || INT(6) != 1) FAIL("ignore_label and maps are not known here");
  EACH(n, INT(0)) {
    gradient[n * INT(5) + (int)label[n]] -= 1;
    counts[n] = 1;
  }
}

static void accuracy(void **arguments) {
  const float *scores = READ(1), *label = READ(2);
  float *right = WRITE(3), *counts = WRITE(11);
  EACH(n, INT(0)) {
    int others = -1;
    EACH(c, INT(7)) others += scores[n * INT(5) + c] >= scores[n * INT(5) + (int)label[n]];
    right[n] = others < INT(8);
    counts[n] = 1;
  }
}

/* Calls OF(place in the image or -1, place in the columns) for each element of the columns. */
#define EACH_COLUMN(channels, height, width, first, OF)                                     \
  EACH(c, channels) EACH(i, INT(first)) EACH(j, INT(first + 1))                             \
  EACH(h, INT(first + 8)) EACH(w, INT(first + 9)) {                                         \
    int y = h * INT(first + 4) - INT(first + 2) + i * INT(first + 6);                       \
    int x = w * INT(first + 5) - INT(first + 3) + j * INT(first + 7);                       \
    int inside = y >= 0 && x >= 0 && y < height && x < width;                               \
    int image = inside ? (c * height + y) * width + x : -1;                                 \
    int row = (c * INT(first) + i) * INT(first + 1) + j;                                    \
    int column = (row * INT(first + 8) + h) * INT(first + 9) + w;                           \
    OF                                                                                      \
  }

static void to_columns(void **arguments) {
  const float *in = READ(1);
  float *out = WRITE(14);
  int channels = INT(0) / (INT(12) * INT(13));
  EACH_COLUMN(channels, INT(2), INT(3), 4, out[column] = image < 0 ? 0 : in[image];)
}

static void from_columns(void **arguments) {
  const float *in = READ(1);
  float *out = WRITE(15);
  EACH(i, INT(0)) out[i] = 0;
  EACH_COLUMN(INT(4), INT(2), INT(3), 5, if (image >= 0) out[image] += in[column];)
}

static void max_pool(void **arguments) {
  const float *in = READ(1);
  float *out = WRITE(14);
  int *places = device(*(void **)arguments[15]);
  int height = INT(4), width = INT(5), rows = INT(6), columns = INT(7);
  EACH(i, INT(0)) {
    const float *map = in + i / (rows * columns) * height * width;
    int y = i / columns % rows * INT(10) - INT(12), x = i % columns * INT(11) - INT(13);
    out[i] = -FLT_MAX;
    for (int h = y < 0 ? 0 : y; h < y + INT(8) && h < height; h++)
      for (int w = x < 0 ? 0 : x; w < x + INT(9) && w < width; w++)
        if (map[h * width + w] > out[i]) out[i] = map[places[i] = h * width + w];
  }
}

static void max_pool_back(void **arguments) {
  const float *top = READ(1);
  const int *places = device(*(void **)arguments[2]);
  float *out = WRITE(16);
  int pooled = INT(8) * INT(9);
  EACH(i, INT(0)) out[i] = 0;
  EACH(i, INT(4) * INT(5) * pooled)
    out[i / pooled * INT(6) * INT(7) + places[i]] += top[i];
}

static struct { const char *name; void (*run)(void **); int count; } kernels[] = {
  {"10mul_kernelIf", multiply, 0}, {"10set_kernelIf", fill, 0}, {"9SGDUpdateIf", sgd, 0},
  {"11ReLUForwardIf", relu, 0}, {"12ReLUBackwardIf", relu_back, 0},
  {"18kernel_channel_maxIf", largest, 0}, {"23kernel_channel_subtractIf", subtract, 0},
  {"10kernel_expIf", exponential, 0}, {"18kernel_channel_sumIf", sum, 0},
  {"18kernel_channel_divIf", divide, 0}, {"21SoftmaxLossForwardGPUIf", softmax_loss, 0},
  {"22SoftmaxLossBackwardGPUIf", softmax_loss_back, 0}, {"18AccuracyForwardGPUIf", accuracy, 0},
  {"17im2col_gpu_kernelIf", to_columns, 0}, {"17col2im_gpu_kernelIf", from_columns, 0},
  {"14MaxPoolForwardIf", max_pool, 0}, {"15MaxPoolBackwardIf", max_pool_back, 0},
};
#define KERNELS ((int)(sizeof kernels / sizeof *kernels))

static struct { const void *stub; const char *name; } registered[4096];
static int registered_count;

void **__cudaRegisterFatBinary(void *binary) { return (void **)binary; }
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
void __cudaRegisterVar(void) {}
void __cudaRegisterFunction(void **handle, const void *stub, char *name) {
  (void)handle;
  if (registered_count == 4096) FAIL("too many kernels");
  registered[registered_count].stub = stub;
  registered[registered_count++].name = name;
}

static dim3 grid, block;
unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t shared, void *stream) {
  return (void)shared, (void)stream, grid = g, block = b, 0;
}
int __cudaPopCallConfiguration(dim3 *g, dim3 *b, size_t *shared, void **stream) {
  return *g = grid, *b = block, *shared = 0, *stream = NULL, 0;
}

int cudaLaunchKernel(const void *stub, dim3 g, dim3 b, void **arguments, size_t shared, void *on) {
  (void)g, (void)b, (void)shared, (void)on;
  const char *name = "an unregistered one";
  for (int i = 0; i < registered_count; i++)
    if (registered[i].stub == stub) name = registered[i].name;
  for (int i = 0; i < KERNELS; i++)
    if (strstr(name, kernels[i].name)) {
      kernels[i].count++;
      return kernels[i].run(arguments), 0;
    }
  FAIL("no kernel %s here", name);
  return 1;
}

__attribute__((destructor)) static void write_counts(void) {
  const char *path = getenv("CUDA_STAND_IN_COUNTS");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  for (int i = 0; i < KERNELS; i++) fprintf(file, "%s %d\n", kernels[i].name, kernels[i].count);
  fprintf(file, "to-device %d\nto-host %d\n", copies[0], copies[1]);
  fclose(file);
}
#endif

#ifdef BLAS
int cublasCreate_v2(void **handle) { return *handle = &handle, 0; }
int cublasDestroy_v2(void *handle) { return (void)handle, 0; }
int cublasSetStream_v2(void *handle, void *stream) { return (void)handle, (void)stream, 0; }
int cublasGetStream_v2(void *handle, void **stream) { return (void)handle, *stream = NULL, 0; }

/* Column by column, as cuBLAS has it. */
int cublasSgemm_v2(void *handle, int ta, int tb, int m, int n, int k, const float *alpha,
                   const float *a, int lda, const float *b, int ldb, const float *beta, float *c,
                   int ldc) {
  (void)handle;
  float *row = malloc(m * sizeof *row);
  for (int j = 0; j < n; j++) {
    memset(row, 0, m * sizeof *row);
    for (int l = 0; l < k; l++) {
      float factor = tb ? b[l * ldb + j] : b[j * ldb + l];
      if (ta)
        for (int i = 0; i < m; i++) row[i] += factor * a[i * lda + l];
      else
        for (int i = 0; i < m; i++) row[i] += factor * a[l * lda + i];
    }
    for (int i = 0; i < m; i++) /* with beta 0 what is in c does not count, NaN or not */
      c[j * ldc + i] = *alpha * row[i] + (*beta == 0 ? 0 : *beta * c[j * ldc + i]);
  }
  return free(row), 0;
}

int cublasSgemv_v2(void *handle, int t, int m, int n, const float *alpha, const float *a, int lda,
                   const float *x, int incx, const float *beta, float *y, int incy) {
  (void)handle;
  for (int i = 0; i < (t ? n : m); i++) {
    float found = 0;
    for (int l = 0; l < (t ? m : n); l++)
      found += x[l * incx] * (t ? a[i * lda + l] : a[l * lda + i]);
    y[i * incy] = *alpha * found + (*beta == 0 ? 0 : *beta * y[i * incy]);
  }
  return 0;
}

int cublasSaxpy_v2(void *handle, int n, const float *alpha, const float *x, int incx, float *y,
                   int incy) {
  for (int i = 0; i < n; i++) y[i * incy] += *alpha * x[i * incx];
  return (void)handle, 0;
}
int cublasSscal_v2(void *handle, int n, const float *alpha, float *x, int incx) {
  for (int i = 0; i < n; i++) x[i * incx] *= *alpha;
  return (void)handle, 0;
}
int cublasScopy_v2(void *handle, int n, const float *x, int incx, float *y, int incy) {
  for (int i = 0; i < n; i++) y[i * incy] = x[i * incx];
  return (void)handle, 0;
}
int cublasSasum_v2(void *handle, int n, const float *x, int incx, float *result) {
  *result = 0;
  for (int i = 0; i < n; i++) *result += fabsf(x[i * incx]);
  return (void)handle, 0;
}
int cublasSdot_v2(void *handle, int n, const float *x, int incx, const float *y, int incy,
                  float *result) {
  *result = 0;
  for (int i = 0; i < n; i++) *result += x[i * incx] * y[i * incy];
  return (void)handle, 0;
}
#define NOT_HERE(name) int name(void) { FAIL(#name " is not here"); return 1; }
NOT_HERE(cublasDasum_v2) NOT_HERE(cublasDaxpy_v2) NOT_HERE(cublasDcopy_v2) NOT_HERE(cublasDdot_v2)
NOT_HERE(cublasDgemm_v2) NOT_HERE(cublasDgemv_v2) NOT_HERE(cublasDscal_v2)
#endif

#ifdef RANDOM
#define NOT_HERE(name) int name(void) { FAIL(#name " is not here"); return 1; }
int curandCreateGenerator(void **generator, int kind) {
  return (void)kind, *generator = &generator, 0;
}
int curandDestroyGenerator(void *generator) { return (void)generator, 0; }
int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) {
  return (void)generator, (void)seed, 0;
}
int curandSetGeneratorOffset(void *generator, unsigned long long offset) {
  return (void)generator, (void)offset, 0;
}
NOT_HERE(curandGenerate) NOT_HERE(curandGenerateNormal) NOT_HERE(curandGenerateNormalDouble)
NOT_HERE(curandGenerateUniform) NOT_HERE(curandGenerateUniformDouble)
#endif
