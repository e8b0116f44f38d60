// Calls of attention as they mostly are, past what calls of every kind need: a short call on a GPU costs the host
// little more than its launch, and Python's part should not be more than that.
#pragma once

#include <nanobind/nanobind.h>

namespace strobe::python {

/// strobe.attention in place of `general`, the Python function of this name, signature and documentation. Whatever is
/// unusual (arguments given otherwise, results that are not like query, errors) is left to that.
nanobind::object quick_attention(nanobind::handle general);

/// The result of strobe.torch.attention(*arguments, **options), or None where that has more to do than to call
/// Strobe: gradients to record, a mode or a transform to respect, a type to cast to, a seed to draw, an error to
/// report.
nanobind::object quick_torch_attention(const nanobind::tuple& arguments, const nanobind::dict& options);

}  // namespace strobe::python
