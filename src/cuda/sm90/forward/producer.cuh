// The producer: one thread, or a warp for keys in pages, that keeps the tensor copy engine busy. It waits until nobody
// reads a stage any more and asks for the next tile to be brought there; consumers hear of its arrival from the stage's
// barrier.
#pragma once

#include "cuda/sm90/forward/schedule.cuh"

namespace strobe::cuda::sm90 {

template <class C>
struct Producer {
  const ForwardParams& f;
  SharedMemory<C> memory;
  Task<C>* tasks;
  Ring<C::kTasks> task_ring;
  Ring<C::kQueryStages> query;
  Ring<C::kStages> keys, values;

  /// Of the warp, where a warp fetches pages.
  STROBE_DEVICE static bool leads() { return !C::kPaged || lane_index() == 0; }

  /// The part of a block of keys that this lane fetches: rows from `row` on of a page; none if `page` is negative.
  struct PageRows {
    int page, row;
  };
  STROBE_DEVICE int rows_of_page() const {
    const int size = f.attention.page_size;
    return asked_for<C::kCommonFeatures>(size > 0) ? smaller(size, C::kKeyBlock) : C::kKeyBlock;
  }
  STROBE_DEVICE PageRows page_rows(const Task<C>& task, int block) const {
    const AttentionParams& p = f.attention;
    const int rows = rows_of_page(), first = task.s.first_key + block * C::kKeyBlock + lane_index() * rows;
    if (lane_index() * rows >= C::kKeyBlock) return {-1, 0};
    if (!asked_for<C::kCommonFeatures>(p.page_size > 0)) return {task.s.cache_row, first};
    const int place = first / p.page_size;
    return {clamped(read_int(p.page_table, task.s.batch, smaller(place, p.pages_per_sequence - 1)), 0, p.pages - 1),
            first - place * p.page_size};
  }
  STROBE_DEVICE void load_pages(u32 to, const TensorMap& map, u32 barrier, const PageRows& rows, int head) const {
    if (leads()) ptx::mbarrier_arrive_expect_tx(barrier, C::kKeyBytes);
    __syncwarp();
    if (rows.page < 0) return;
    to += lane_index() * rows_of_page() * kPanelRowBytes;
#pragma unroll
    for (int panel = 0; panel < C::kPanels; ++panel) {
      ptx::cp_async_bulk_tensor_load(to + panel * C::kKeyBlock * kPanelRowBytes, map, barrier, panel * kPanel, rows.row,
                                     head, rows.page, ptx::kEvictLast);
    }
  }

  /// Rows [row, row + kRows) of one head, panel by panel.
  template <int kRows>
  STROBE_DEVICE void load(u32 to, const TensorMap& map, u32 barrier, int row, int head, int batch, u64 policy) const {
    ptx::mbarrier_arrive_expect_tx(barrier, kRows * C::kDim * 2);
#pragma unroll
    for (int panel = 0; panel < C::kPanels; ++panel) {
      ptx::cp_async_bulk_tensor_load(to + panel * kRows * kPanelRowBytes, map, barrier, panel * kPanel, row, head,
                                     batch, policy);
    }
  }

  /// Queries from `row` on, and heads from `head` on, of a tile that may be shared.
  STROBE_DEVICE void load_shared(u32 to, u32 barrier, int row, int head, int batch) const {
    const bool shared = heads_of_tile<C>(f) > 1;
    ptx::mbarrier_arrive_expect_tx(barrier, f.sharing.heads * f.sharing.queries * C::kDim * 2);
#pragma unroll
    for (int panel = 0; panel < C::kPanels; ++panel) {
      ptx::cp_async_bulk_tensor_load(to + panel * kWarpgroupRows * kPanelRowBytes, f.query, barrier, panel * kPanel,
                                     shared ? head : row, shared ? row : head, batch, ptx::kEvictFirst);
    }
  }

  /// The queries of consumers [first, last).
  STROBE_DEVICE void load_queries(const Task<C>& task, int first, int last) {
    for (int consumer = first; consumer < last; ++consumer) {
      wait_for(memory.query_empty(query.stage()), query.parity() ^ 1);
      if (leads()) {
        if constexpr (C::kSharesTiles) {
          load_shared(memory.query(query.stage()), memory.query_full(query.stage()),
                      task.s.first_query + task.rows[consumer].first_row, task.head,
                      f.attention.packed_queries ? 0 : task.s.batch);
        } else {
          load<kWarpgroupRows>(memory.query(query.stage()), f.query, memory.query_full(query.stage()),
                               task.s.first_query + task.rows[consumer].first_row, task.head,
                               f.attention.packed_queries ? 0 : task.s.batch, ptx::kEvictFirst);
        }
      }
      query.advance();
    }
  }

  STROBE_DEVICE void load_keys(const Task<C>& task, int block) {
    if constexpr (C::kPaged) {
      const PageRows rows = page_rows(task, block);  // is read while the stage is waited for
      wait_for(memory.keys_empty(keys.stage()), keys.parity() ^ 1);
      load_pages(memory.keys(keys.stage()), f.key, memory.keys_full(keys.stage()), rows, task.kv_head);
    } else {
      wait_for(memory.keys_empty(keys.stage()), keys.parity() ^ 1);
      load<C::kKeyBlock>(memory.keys(keys.stage()), f.key, memory.keys_full(keys.stage()),
                         task.s.first_key + block * C::kKeyBlock, task.kv_head, task.s.cache_row, ptx::kEvictLast);
    }
    keys.advance();
  }

  STROBE_DEVICE void load_values(const Task<C>& task, int block) {
    if constexpr (C::kPaged) {
      const PageRows rows = page_rows(task, block);
      wait_for(memory.values_empty(values.stage()), values.parity() ^ 1);
      load_pages(memory.values(values.stage()), f.value, memory.values_full(values.stage()), rows, task.kv_head);
    } else {
      wait_for(memory.values_empty(values.stage()), values.parity() ^ 1);
      load<C::kKeyBlock>(memory.values(values.stage()), f.value, memory.values_full(values.stage()),
                         task.s.first_key + block * C::kKeyBlock, task.kv_head, task.s.cache_row, ptx::kEvictLast);
    }
    values.advance();
  }

  /// So many blocks before a task's end the next one is asked for.
  static constexpr int kLastBlocks = C::kSurveys ? 8 : 2;

  /// The next task. Null if there is none.
  STROBE_DEVICE const Task<C>* open(int& stage) {
    wait_for(memory.task_full(task_ring.stage()), task_ring.parity());
    stage = task_ring.stage();
    const Task<C>& task = tasks[stage];
    if (!task.there) return nullptr;
    task_ring.advance();
    if (task.blocks() <= kLastBlocks) want_task();
    return &task;
  }
  STROBE_DEVICE void want_task() const {
    if (leads()) ptx::mbarrier_arrive(memory.task_wanted());
  }
  STROBE_DEVICE void close(int stage) const {
    if constexpr (C::kPaged) __syncwarp();  // all lanes have read it
    if (leads()) ptx::mbarrier_arrive(memory.task_empty(stage));
  }

  /// The first task from `task` on that has keys, with what its first product needs.
  STROBE_DEVICE const Task<C>* begin(const Task<C>* task, int& stage) {
    while (task != nullptr && task->blocks() == 0) {
      close(stage);
      task = open(stage);
    }
    if (task != nullptr) {
      load_queries(*task, 0, C::kConsumers);
      load_keys(*task, task->top);
    }
    return task;
  }

  /// Loads all blocks that a surveyed task visits but the first one's keys and the last one's values. Returns the last
  /// one.
  STROBE_DEVICE int visit(const Task<C>& task) {
    int block = task.top;
#pragma unroll 1
    for (int left = task.blocks(); left > 1; --left) {
      if (left == 1 + kLastBlocks) want_task();
      const int next = task.after(block);
      load_keys(task, next);
      load_values(task, block);
      block = next;
    }
    return block;
  }

  /// In the order in which stages come free: Q, K0, K1, V0, K2, V1, ..., and on to the next task, whose K0 is loaded
  /// before this task's last V. Queries come as early as there is room for them. If the next task has no keys, nobody
  /// waits for the one after it: there may be none before this task is done with.
  STROBE_DEVICE void run() {
    constexpr int kEarly = smaller(C::kQueryStages - C::kConsumers, C::kConsumers);
    int stage = 0, next_stage = 0;
    const Task<C>* task = begin(open(stage), stage);
    while (task != nullptr) {
      int last = 0;
      if constexpr (C::kSurveys) {
        last = visit(*task);
      } else {
        for (int block = task->top; block > task->end + 1; --block) {
          if (block == task->end + 1 + kLastBlocks) want_task();
          load_keys(*task, block - 1);
          load_values(*task, block);
        }
      }
      const Task<C>* next = open(next_stage);
      const bool follows = next != nullptr && next->blocks() > 0;
      if (follows) {
        load_queries(*next, 0, kEarly);
        load_keys(*next, next->top);
      }
      load_values(*task, C::kSurveys ? last : task->end + 1);
      close(stage);
      if (follows) {
        load_queries(*next, kEarly, C::kConsumers);
      } else {
        next = begin(next, next_stage);
      }
      task = next;
      stage = next_stage;
    }
  }
};

}  // namespace strobe::cuda::sm90
