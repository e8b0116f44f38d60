/* Strobe in C99: exact attention on strided tensors, forward and backward. docs/options.md says what every option
 * means; the C++ API (attention.hpp) has the same names.
 *
 * Every struct but strobe_tensor begins with its size, and zero in any other field means "not given" or the default:
 *   strobe_attention attention = STROBE_INIT(strobe_attention);
 * Fields are only ever added at the end, so programs keep working with later libraries.
 */
#ifndef STROBE_STROBE_H
#define STROBE_STROBE_H

#include <stddef.h>
#include <stdint.h>

#if defined(STROBE_SHARED) && defined(_WIN32)
#define STROBE_C_API __declspec(dllimport)
#elif defined(__GNUC__)
#define STROBE_C_API __attribute__((visibility("default")))
#else
#define STROBE_C_API
#endif

#ifdef __cplusplus
template <typename Struct>
inline Struct strobe_initial() {
  Struct initial = {};
  initial.struct_size = sizeof(Struct);
  return initial;
}
#define STROBE_INIT(type) strobe_initial<type>()
extern "C" {
#else
#define STROBE_INIT(type) \
  { .struct_size = sizeof(type) }
#endif

/* Errors */

/* What every call returns. */
typedef int32_t strobe_status;
enum {
  STROBE_OK = 0,
  STROBE_INVALID_ARGUMENT = 1, /* an argument breaks a rule; nothing was written */
  STROBE_UNSUPPORTED = 2,      /* a valid request that no kernel on this machine serves */
  STROBE_OUT_OF_MEMORY = 3,
  STROBE_INTERNAL = 4
};

/* The last failure on this thread as a sentence, and its three facts. They last until the next failure on the thread;
 * "" before the first. Calls that succeed leave them alone. */
STROBE_C_API const char* strobe_last_error(void);
STROBE_C_API const char* strobe_last_error_argument(void);
STROBE_C_API const char* strobe_last_error_was(void);
STROBE_C_API const char* strobe_last_error_must_be(void);

/* "0.1.0" */
STROBE_C_API const char* strobe_version(void);

/* Tensors */

enum {
  STROBE_FLOAT32 = 0,
  STROBE_FLOAT16 = 1,
  STROBE_BFLOAT16 = 2,
  STROBE_FLOAT8_E4M3 = 3,
  STROBE_FLOAT8_E5M2 = 4,
  STROBE_INT32 = 5,
  STROBE_BOOL = 6 /* one byte, zero is false */
};

#define STROBE_MAX_RANK 5

/* A view of the caller's memory; strides count elements. All zero: not given. This layout never changes. */
typedef struct strobe_tensor {
  void* data;
  int32_t dtype;
  int32_t rank;
  int64_t shape[STROBE_MAX_RANK];
  int64_t strides[STROBE_MAX_RANK];
} strobe_tensor;

/* A row-major view with the first `rank` of the sizes; rank 1 to 5, otherwise not given. */
STROBE_C_API strobe_tensor strobe_contiguous(const void* data, int32_t dtype, int32_t rank, const int64_t* shape);

/* Executors */

/* Who runs the chunks of a call. NULL stands for the library's own pool (STROBE_NUM_THREADS). */
typedef struct strobe_executor strobe_executor;

/* body(context, chunk, worker): worker is in [0, concurrency), and no two chunks run at once with the same worker. */
typedef void (*strobe_body)(void* context, int64_t chunk, int32_t worker);

/* A thread pool of the caller's. Functions may be called from any thread and must not throw or longjmp. */
typedef struct strobe_executor_functions {
  size_t struct_size;
  void* user;
  int32_t (*concurrency)(void* user); /* at least 1 */
  /* Runs body for every chunk in [0, chunks), in any order, and returns when all are done. */
  void (*parallel_for)(void* user, int64_t chunks, double nanoseconds_per_chunk, strobe_body body, void* context);
} strobe_executor_functions;

STROBE_C_API strobe_status strobe_executor_create(const strobe_executor_functions* functions,
                                                  strobe_executor** executor);
/* `threads` threads, the caller counted in. */
STROBE_C_API strobe_status strobe_thread_pool_create(int32_t threads, strobe_executor** executor);
/* How many chunks run at once; of the library's own pool for NULL. */
STROBE_C_API int32_t strobe_executor_concurrency(const strobe_executor* executor);
/* NULL is allowed. No call may be using it. */
STROBE_C_API void strobe_executor_destroy(strobe_executor* executor);

/* Devices */

enum { STROBE_CPU = 0, STROBE_CUDA = 1 }; /* device_kind */

/* How many CUDA devices calls can run on; 0 also without a driver. */
STROBE_C_API int32_t strobe_cuda_device_count(void);
/* One line about a device, cut to text_bytes with its end; an error that names what is missing if there is no such
 * device. */
STROBE_C_API strobe_status strobe_describe_device(int32_t device_kind, int32_t device_index, char* text,
                                                  size_t text_bytes);

/* How to run a call. NULL instead of a pointer to it means the defaults.
 * On CUDA all tensors' data lie in device memory, index tensors too (whose contents are the caller's promise: the host
 * does not read them); calls put kernels on the stream and return. Nothing synchronises. */
typedef struct strobe_execution {
  size_t struct_size;
  strobe_executor* executor; /* CPU */
  void* workspace;           /* of the device; NULL: found for the call; otherwise aligned to 64 bytes (CUDA: 256) */
  size_t workspace_bytes;    /* at least strobe_plan_workspace_bytes when workspace is given */
  int32_t device_kind;
  int32_t device_index; /* of a GPU, as CUDA counts them in this process */
  void* stream;         /* CUDA: cudaStream_t or CUstream of the device; NULL: the default stream */
} strobe_execution;

/* Attention */

enum { STROBE_BOTTOM_RIGHT = 0, STROBE_TOP_LEFT = 1 };            /* alignment */
enum { STROBE_ROTARY_INTERLEAVED = 0, STROBE_ROTARY_HALVES = 1 }; /* rotary_style */

/* One problem. Only query, key and value are required. Flags are false when zero. */
typedef struct strobe_attention {
  size_t struct_size;
  strobe_tensor query; /* [batch, query_length, query_heads, head_dim]; packed [total_queries, query_heads, head_dim] */
  strobe_tensor key;   /* [batch, key_length, kv_heads, head_dim]; packed [total_keys, kv_heads, head_dim];
                          cache [cache_batch, capacity, kv_heads, head_dim], paged [pages, page_size, ...] */
  strobe_tensor value; /* as key, with value_dim */

  /* Lengths, int32. */
  strobe_tensor query_offsets, key_offsets; /* [batch + 1] prefix sums: packed */
  strobe_tensor query_lengths, key_lengths; /* [batch] rows in use */

  /* Scores. */
  int32_t has_scale; /* 0: scale is 1 / sqrt(head_dim) */
  float scale;
  float softcap;              /* c > 0: s = c tanh(s / c) */
  strobe_tensor bias;         /* [batch|1, query_heads|1, query_length|1, key_length|1] float32 or query's type */
  strobe_tensor alibi_slopes; /* [query_heads] or [batch, query_heads] float32 */
  strobe_tensor sink;         /* [query_heads] float32 */

  /* Visibility: the conjunction of whatever is given. */
  int32_t causal;
  int32_t has_window_left, has_window_right; /* 0: no bound on that side */
  int32_t alignment;
  int64_t window_left, window_right; /* p_i - left <= j <= p_i + right */
  int64_t prefix_length;
  strobe_tensor prefix_lengths;  /* [batch] int32, instead of prefix_length */
  strobe_tensor query_documents; /* [batch, query_length] or [total_queries] int32 */
  strobe_tensor key_documents;   /* [batch, key_length] or [total_keys] int32; not given: query_documents serves both */
  strobe_tensor mask;            /* [batch|1, query_heads|1, query_length|1, key_length|1] bool, true is visible */
  strobe_tensor block_mask;      /* [batch|1, query_heads|1, tiles of queries, tiles of keys] bool */
  int64_t block_rows, block_columns;

  /* Dropout. */
  float dropout;            /* in [0, 1) */
  int32_t nondeterministic; /* backward may give other bits when run twice */
  uint64_t dropout_seed, dropout_offset;

  /* Caches. */
  strobe_tensor cache_batch_index;      /* [batch] int32 */
  strobe_tensor page_table;             /* [batch, pages_per_sequence] int32 */
  strobe_tensor new_key, new_value;     /* [batch, new_length, kv_heads, head_dim | value_dim], appended first */
  strobe_tensor rotary_cos, rotary_sin; /* [positions, rotary_dim / 2] float32 or query's type */
  int32_t rotary_style;

  /* Speed, never meaning. */
  int32_t splits; /* workers that share the keys of one query; 0 chooses */
  int32_t batch_invariant;
  int32_t reserved; /* 0 */

  strobe_tensor query_descale, key_descale, value_descale; /* float8: [1] or [batch, kv_heads] float32 */
} strobe_attention;

typedef struct strobe_forward_outputs {
  size_t struct_size;
  strobe_tensor output; /* as query, with value_dim; query's type or float32 (float8: any wider float) */
  strobe_tensor lse;    /* optional; [batch, query_heads, query_length] or [query_heads, total_queries] float32 */
} strobe_forward_outputs;

typedef struct strobe_backward_inputs {
  size_t struct_size;
  strobe_tensor output, lse; /* what forward wrote */
  strobe_tensor grad_output; /* as output */
  strobe_tensor grad_lse;    /* optional, as lse */
} strobe_backward_inputs;

/* Each is optional; at least one must be given. In the inputs' shapes, in their type or float32. */
typedef struct strobe_gradients {
  size_t struct_size;
  strobe_tensor query, key, value;
  strobe_tensor bias; /* broadcast axes are summed */
  strobe_tensor sink; /* [query_heads] float32 */
} strobe_gradients;

STROBE_C_API strobe_status strobe_forward(const strobe_attention* attention, const strobe_forward_outputs* outputs,
                                          const strobe_execution* execution);
/* Caches, rotary and float8 have no gradient and are refused. */
STROBE_C_API strobe_status strobe_backward(const strobe_attention* attention, const strobe_backward_inputs* inputs,
                                           const strobe_gradients* gradients, const strobe_execution* execution);
/* Writes new_key and new_value into the cache without attending. Query is not used. */
STROBE_C_API strobe_status strobe_append(const strobe_attention* attention, const strobe_execution* execution);

/* The result over the union of disjoint key sets. outputs [splits, batch, query_length, query_heads, value_dim],
 * lses [splits, batch, query_heads, query_length] float32; packed [splits, total_queries, query_heads, value_dim] and
 * [splits, query_heads, total_queries]. */
STROBE_C_API strobe_status strobe_merge(const strobe_tensor* outputs, const strobe_tensor* lses,
                                        const strobe_forward_outputs* merged, const strobe_execution* execution);

/* softmax along one axis (negative: from the end) of tensors of the same shape, rank 1 to 5, any strides. */
STROBE_C_API strobe_status strobe_softmax(const strobe_tensor* input, const strobe_tensor* output, int32_t axis,
                                          const strobe_execution* execution);
STROBE_C_API strobe_status strobe_softmax_backward(const strobe_tensor* output, const strobe_tensor* grad_output,
                                                   const strobe_tensor* grad_input, int32_t axis,
                                                   const strobe_execution* execution);

/* Plans */

/* What will run for a problem. Immutable, shareable between threads. Data pointers may be NULL when planning, which
 * looks at the execution's executor and device only. On CUDA the plan's kernels are loaded, compiled if need be. */
typedef struct strobe_plan strobe_plan;

STROBE_C_API strobe_status strobe_plan_forward(const strobe_attention* attention, const strobe_forward_outputs* outputs,
                                               const strobe_execution* execution, strobe_plan** plan);
STROBE_C_API strobe_status strobe_plan_backward(const strobe_attention* attention, const strobe_backward_inputs* inputs,
                                                const strobe_gradients* gradients, const strobe_execution* execution,
                                                strobe_plan** plan);
/* The strings live as long as the plan. */
STROBE_C_API const char* strobe_plan_kernel(const strobe_plan* plan);  /* "cpu.forward.avx512", "cuda.sm80.forward" */
STROBE_C_API const char* strobe_plan_why(const strobe_plan* plan);     /* one sentence: why this kernel */
STROBE_C_API const char* strobe_plan_explain(const strobe_plan* plan); /* several lines; NULL if memory runs out */
STROBE_C_API size_t strobe_plan_workspace_bytes(const strobe_plan* plan);
STROBE_C_API int64_t strobe_plan_split_keys(const strobe_plan* plan); /* keys per split; 0: keys are not split */
STROBE_C_API int32_t strobe_plan_key_block(const strobe_plan* plan);  /* keys per block of the main loop */
STROBE_C_API int32_t strobe_plan_query_tile(const strobe_plan* plan); /* query rows per tile */
/* The problem must be the planned one but for data pointers and their contents. */
STROBE_C_API strobe_status strobe_plan_run_forward(const strobe_plan* plan, const strobe_attention* attention,
                                                   const strobe_forward_outputs* outputs,
                                                   const strobe_execution* execution);
STROBE_C_API strobe_status strobe_plan_run_backward(const strobe_plan* plan, const strobe_attention* attention,
                                                    const strobe_backward_inputs* inputs,
                                                    const strobe_gradients* gradients,
                                                    const strobe_execution* execution);
/* NULL is allowed. */
STROBE_C_API void strobe_plan_destroy(strobe_plan* plan);

#ifdef __cplusplus
}
#endif

#endif
