/* Causal attention from C99, with a plan that explains itself and an error that names its argument. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "strobe/strobe.h"

enum { kLength = 64, kHeads = 2, kDim = 32, kElements = kLength * kHeads * kDim };

static float q[kElements], k[kElements], v[kElements], o[kElements], lse[kHeads * kLength];

static int failed(const char* what) {
  fprintf(stderr, "%s: %s\n", what, strobe_last_error());
  return EXIT_FAILURE;
}

int main(void) {
  const int64_t shape[4] = {1, kLength, kHeads, kDim}, lse_shape[3] = {1, kHeads, kLength};
  strobe_attention attention = STROBE_INIT(strobe_attention);
  strobe_forward_outputs outputs = STROBE_INIT(strobe_forward_outputs);
  strobe_plan* plan = NULL;
  float error = 0;
  int i;

  /* All scores are zero, so every row is the mean of the values that it sees, and its LSE the logarithm of their count.
   */
  for (i = 0; i < kElements; ++i) v[i] = (float)(i / (kHeads * kDim));
  attention.query = strobe_contiguous(q, STROBE_FLOAT32, 4, shape);
  attention.key = strobe_contiguous(k, STROBE_FLOAT32, 4, shape);
  attention.value = strobe_contiguous(v, STROBE_FLOAT32, 4, shape);
  attention.causal = 1;
  outputs.output = strobe_contiguous(o, STROBE_FLOAT32, 4, shape);
  outputs.lse = strobe_contiguous(lse, STROBE_FLOAT32, 3, lse_shape);

  if (strobe_plan_forward(&attention, &outputs, NULL, &plan) != STROBE_OK) return failed("plan");
  printf("Strobe %s: %s, %s\n", strobe_version(), strobe_plan_kernel(plan), strobe_plan_why(plan));
  if (strobe_plan_run_forward(plan, &attention, &outputs, NULL) != STROBE_OK) return failed("run");
  strobe_plan_destroy(plan);

  for (i = 0; i < kLength; ++i) {
    error = fmaxf(error, fabsf(o[i * kHeads * kDim] - 0.5f * (float)i));
    error = fmaxf(error, fabsf(lse[i] - logf((float)(i + 1))));
  }
  printf("largest error %.1e\n", error);

  attention.key.dtype = STROBE_FLOAT16;
  if (strobe_forward(&attention, &outputs, NULL) != STROBE_INVALID_ARGUMENT) return EXIT_FAILURE;
  printf("and a mistake: %s\n", strobe_last_error());
  return error < 1e-4f ? EXIT_SUCCESS : EXIT_FAILURE;
}
