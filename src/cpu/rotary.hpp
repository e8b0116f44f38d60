// Rotary position embedding (RoFormer, arXiv 2104.09864) of rows on their way into a cache, and of all queries of a
// call before attention. Called by append and by the forward driver; kernels never see it.
#pragma once

#include <cstddef>

#include "base/problem.hpp"

namespace strobe::cpu {

/// Writes the `dim` elements of `from` to `to`, the first rotary_dim of them rotated by `position`, rounded to `type`.
/// Positions outside the tables take the nearest entry.
void rotate_row(const Problem& problem, const Buffers& buffers, std::int64_t position, DataType type, std::int64_t dim,
                const char* from, char* to);

/// Bytes that rotate_queries needs; 0 without rotary.
std::size_t rotated_query_bytes(const Problem& problem);

/// Writes every query in use, rotated, to `workspace` in the query's type, and returns where the rows are now. Query i
/// turns by its position p_i when causal or windowed, by the number of keys cached before this call otherwise.
Rows rotate_queries(const Problem& problem, const Buffers& buffers, Executor& executor, void* workspace);

}  // namespace strobe::cpu
