#include "core/kernels/linear_product.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "core/base/narrow.h"
#include "core/kernels/linear_cpu.h"

namespace permafrost {

namespace {
constexpr int64_t kAlign = 64;
constexpr int64_t kSharedBytes = int64_t{8} << 20;  // packed A at a time, where A is packed whole
constexpr int64_t kSumBytes = int64_t{512} << 10;   // unfinished C of one thread
constexpr int64_t kChunkRows = 64;                  // C is cut in multiples of this many rows
constexpr int64_t kRowBytes = int64_t{512} << 10;   // of A: blocks of rows at a time
constexpr int64_t kPieces = 32;                     // wanted pieces of C: enough to share evenly
constexpr int64_t kCutColumns = 256;                // columns of a group where B is cut along R, at most
constexpr int64_t kCutPieces = 4;                   // and wanted pieces of C
constexpr int64_t kPanelsAtATime = 8;  // of A, packed together: whole cache lines where its rows lie across
constexpr int64_t kNarrowBytes = int64_t{96} << 10;  // of B in a narrow group
constexpr int64_t kNearBytes = int64_t{900} << 10;   // of A: it stays in the second-level cache beside a narrow group

/// How a product is cut. Columns are cut into groups, whose part of B a thread packs and keeps in its second-level
/// cache, rows into chunks; a chunk of a group is a piece, computed by one thread. R is cut into parts if B needs it.
struct ProductPlan {
  int64_t group = 0, groups = 0, chunk = 0, part = 0, parts = 0;
  int64_t packed_from = 0;  ///< rows of A from here on are packed beforehand, for all threads
  int64_t slab = 0;         ///< rows of A packed at a time
  int64_t panel_bytes = 0;  ///< of one packed panel of A
  int64_t block_rows = 0, block_width = 0;
  bool in_place = false;  ///< B is not packed
  bool near = false;      ///< A stays in cache; groups are narrow, and it is the next group's B that is asked for ahead
  int64_t counter_bytes = 0, shared_bytes = 0, a_bytes = 0, b_bytes = 0, c_bytes = 0, block_bytes = 0;
  int64_t thread_bytes() const { return b_bytes + c_bytes + 2 * block_bytes + a_bytes; }
};

/// R is cut into parts. B is packed again for every chunk and A read again for every group, so both are as large as
/// their sums allow, but for enough pieces to share.
void cut_terms(const Product& p, const ProductEngine& e, int64_t terms, ProductPlan& plan) {
  plan.group = std::min(round_up(p.j, e.group_j), round_up(kCutColumns, e.group_j));
  const int64_t rows = kSumBytes / (plan.group * 4) / kChunkRows * kChunkRows;
  while (plan.group > e.group_j && div_up(p.j, plan.group) * div_up(p.i, rows) < kCutPieces) plan.group -= e.group_j;
  plan.groups = div_up(p.j, plan.group);
  plan.part = std::max(e.r_step, e.b_bytes / (plan.group * e.element_bytes) / e.r_step * e.r_step);
  plan.parts = div_up(terms, plan.part);
  plan.part = round_up(div_up(terms, plan.parts), e.r_step);
  plan.parts = div_up(terms, plan.part);
}

void plan_columns(const Product& p, const ProductEngine& e, ProductPlan& plan) {
  const int64_t terms = round_up(std::max<int64_t>(p.r, 1), e.r_step);
  const int64_t narrow = round_up(std::min(p.j, e.narrow_j), e.group_j);
  plan.in_place = e.reads_b_in_place(p);
  plan.near = plan.in_place || (!e.copies_a && p.i * terms * e.element_bytes <= kNearBytes);
  if (plan.near && (plan.in_place || terms * e.group_j * e.element_bytes <= e.b_bytes)) {
    plan.part = terms;
    plan.parts = 1;
    const int64_t fitting = kNarrowBytes / (terms * e.element_bytes) / e.group_j * e.group_j;
    plan.group = plan.in_place ? 2 * e.group_j : std::clamp(fitting, e.group_j, round_up(p.j, e.group_j));
    plan.groups = div_up(p.j, plan.group);
    return;
  }
  plan.near = false;
  if (terms * narrow * e.element_bytes > e.b_bytes) return cut_terms(p, e, terms, plan);
  plan.part = terms;
  plan.parts = 1;
  const int64_t fitting = std::max(e.group_j, e.b_bytes / (plan.part * e.element_bytes) / e.group_j * e.group_j);
  // Few rows leave few pieces: narrower groups then; but not as narrow where A is copied for each of them.
  const int64_t row_pieces = std::max<int64_t>(1, std::min(kPieces, p.i / (4 * kChunkRows)));
  const int64_t wanted = !e.copies_a ? kPieces / 2 : p.i <= e.panel_i ? kPieces / 4 : kPieces / 8;
  plan.groups = std::max(div_up(p.j, fitting), std::min(div_up(p.j, e.group_j), div_up(wanted, row_pieces)));
  plan.group = round_up(div_up(p.j, plan.groups), e.group_j);
  plan.groups = div_up(p.j, plan.group);
}

ProductPlan make_plan(const Product& p, const ProductEngine& e) {
  ProductPlan plan;
  plan_columns(p, e, plan);
  plan.panel_bytes = round_up(p.r, e.r_step) * e.panel_i * e.element_bytes;
  plan.packed_from = e.must_pack_a(p) ? 0 : p.i / e.row_step * e.row_step / e.panel_i * e.panel_i;
  if (plan.packed_from + e.panel_i > p.i && p.i % e.row_step == 0 && !e.must_pack_a(p)) plan.packed_from = p.i;
  const bool copies_a = e.copies_a && !e.must_pack_a(p);
  if (copies_a) plan.packed_from = round_up(p.i, e.panel_i);
  plan.slab = round_up(p.i, kChunkRows);
  if (plan.packed_from == 0) {
    const int64_t fitting = kSharedBytes / std::max<int64_t>(plan.panel_bytes / e.panel_i, 1) / kChunkRows * kChunkRows;
    plan.slab = std::clamp(fitting, kChunkRows, plan.slab);
  }
  plan.chunk = round_up(div_up(plan.slab, div_up(kPieces, plan.groups)), kChunkRows);
  // The rows in use and those asked for lie beside the packed part of B.
  plan.block_rows = e.block_i;
  if (!e.copies_a && 2 * e.block_i * plan.part * e.element_bytes > kRowBytes) plan.block_rows = e.block_i / 2;
  plan.block_width = std::min(e.block_j, round_up(plan.group, 16));
  if (plan.parts > 1) {
    const int64_t fitting = kSumBytes / (plan.group * 4) / kChunkRows * kChunkRows;
    plan.chunk = std::clamp(fitting, kChunkRows, plan.slab);
    plan.chunk = round_up(div_up(plan.slab, div_up(plan.slab, plan.chunk)), kChunkRows);
  }
  plan.block_bytes = round_up(plan.block_rows * plan.block_width * 4, kAlign);
  plan.c_bytes = plan.parts == 1 ? 0
                                 : (div_up(plan.chunk, plan.block_rows) + 1) * div_up(plan.group, plan.block_width) *
                                       plan.block_bytes;
  if (!plan.in_place)
    plan.b_bytes = round_up(round_up(plan.part, e.r_step) * round_up(plan.group, e.panel_j) * e.element_bytes, kAlign);
  if (copies_a) plan.a_bytes = round_up(plan.part, e.r_step) * e.panel_i * e.element_bytes;
  plan.counter_bytes = plan.groups * kAlign;
  const int64_t packed_rows = plan.packed_from == 0 ? plan.slab : std::max<int64_t>(0, p.i - plan.packed_from);
  plan.shared_bytes = round_up(div_up(packed_rows, e.panel_i) * plan.panel_bytes, kAlign);
  return plan;
}

class ProductRun {
 public:
  ProductRun(const Product& product, const ProductEngine& engine, std::byte* workspace)
      : p_(product), e_(engine), plan_(make_plan(product, engine)) {
    const auto raw = reinterpret_cast<uintptr_t>(workspace);
    counters_ = workspace + ((raw + kAlign - 1) / kAlign * kAlign - raw);
    shared_ = counters_ + plan_.counter_bytes;
    scratch_ = shared_ + plan_.shared_bytes;
  }

  void run(ThreadPool& pool) {
    for (int64_t slab = 0; slab < p_.i; slab += plan_.slab) {
      slab_begin_ = slab;
      slab_end_ = std::min(p_.i, slab + plan_.slab);
      pack_rows(pool);
      chunks_ = div_up(slab_end_ - slab_begin_, plan_.chunk);
      for (int64_t g = 0; g < plan_.groups; ++g) new (counters_ + g * kAlign) std::atomic<int64_t>(0);
      const int threads = pool.threads();
      pool.run(threads, [&](int64_t turn, int thread) { take_pieces(turn * plan_.groups / threads, thread); });
    }
  }

 private:
  /// What a thread has in hand.
  struct Turn {
    std::byte* scratch = nullptr;
    int64_t buffer = 0;     ///< which of its two blocks is free
    ProductBlock finished;  ///< computed, but not stored yet
    bool waiting = false;   ///< whether there is one
    // What lies in scratch: which group of B, the copy of which rows of A. -1: none.
    int64_t packed_group = -1, copied_i0 = -1;
  };

  std::atomic<int64_t>& counter(int64_t group) {
    return *std::launder(reinterpret_cast<std::atomic<int64_t>*>(counters_ + group * kAlign));
  }

  int64_t first_packed_row() const { return std::max(plan_.packed_from, slab_begin_); }

  void pack_rows(ThreadPool& pool) {
    const int64_t first = first_packed_row() / e_.panel_i;
    const int64_t panels = div_up(slab_end_, e_.panel_i) - first;
    pool.run(div_up(panels, kPanelsAtATime), [&](int64_t block, int) {
      const int64_t panel = block * kPanelsAtATime, count = std::min(kPanelsAtATime, panels - panel);
      e_.pack_a(p_, first + panel, count, shared_ + panel * plan_.panel_bytes);
    });
  }

  /// Every thread begins at a group of its own and then helps with the others: B is packed anew as seldom as can be.
  void take_pieces(int64_t start, int thread) {
    e_.begin();
    Turn own;
    own.scratch = scratch_ + thread * plan_.thread_bytes();
    for (int64_t turn = 0; turn < plan_.groups; ++turn) {
      const int64_t group = (start + turn) % plan_.groups;
      while (true) {
        const int64_t chunk = counter(group).fetch_add(1, std::memory_order_relaxed);
        if (chunk >= chunks_) break;
        const int64_t next = turn + 1 < plan_.groups ? (group + 1) % plan_.groups : -1;
        compute_piece(group, chunk, next, own);
        own.packed_group = group;
      }
    }
    store_waiting(own);
    e_.end();
  }

  void compute_piece(int64_t group, int64_t chunk, int64_t next_group, Turn& own) {
    const int64_t i0 = slab_begin_ + chunk * plan_.chunk, i1 = std::min(slab_end_, i0 + plan_.chunk);
    const int64_t j0 = group * plan_.group, columns = std::min(plan_.group, p_.j - j0);
    for (int64_t part = 0; part < plan_.parts; ++part) {
      const int64_t r0 = part * plan_.part, r1 = std::min(p_.r, r0 + plan_.part);
      const bool fresh = !plan_.in_place && (own.packed_group != group || plan_.parts > 1);
      const bool meanwhile = fresh && e_.packs_meanwhile(p_, plan_.near);
      if (fresh && !meanwhile) e_.pack_b(p_, j0, columns, r0, r1, own.scratch);
      int64_t count = 0;
      for (int64_t i = i0; i < i1;) {
        const int64_t end =
            std::min(i + plan_.block_rows, i < plan_.packed_from ? std::min(i1, plan_.packed_from) : i1);
        for (int64_t j = 0; j < columns; j += plan_.block_width, ++count) {
          ProductBlock block{.i0 = i,
                             .rows = end - i,
                             .j0 = j0 + j,
                             .columns = std::min(plan_.block_width, columns - j),
                             .r0 = r0,
                             .r1 = r1,
                             .packed_b = packed_b(own.scratch, j, r1 - r0),
                             .pack_b = meanwhile && i == i0,
                             .first = part == 0,
                             .ahead = plan_.near ? next_columns(next_group, i) : next_rows(i, i1, j, columns, r0)};
          if (block.j0 + block.columns == j0 + columns) block.next_rows = std::min(plan_.block_rows, i1 - end);
          if (plan_.a_bytes > 0) assign_copy(block, j0 + columns, own);
          compute_block(block, count, part + 1 == plan_.parts, own);
        }
        i = end;
      }
    }
  }

  std::byte* packed_b(std::byte* scratch, int64_t j, int64_t terms) const {
    return plan_.in_place ? nullptr : scratch + j * round_up(terms, e_.r_step) * e_.element_bytes;
  }

  /// The copy of a panel of A is filled for the first columns; the last ones leave the next panel there.
  void assign_copy(ProductBlock& block, int64_t group_end, Turn& own) const {
    const bool first = block.j0 % plan_.group == 0, last = block.j0 + block.columns == group_end;
    if (first && last && block.columns <= e_.panel_j) return;
    block.copy_a = own.scratch + plan_.b_bytes + plan_.c_bytes + 2 * plan_.block_bytes;
    block.pack_a = first && own.copied_i0 != block.i0;
    own.copied_i0 =
        plan_.parts > 1 && block.next_rows == 0 ? -1 : block.i0 + (last && block.next_rows > 0 ? block.rows : 0);
  }

  static const std::byte* element(const ProductOperand& m, int64_t outer, int64_t r) {
    return static_cast<const std::byte*>(m.data) +
           (m.r_contiguous ? outer * m.ld + r : r * m.ld + outer) * size_of(m.dtype);
  }

  /// The rows of A behind this block, in shares for each block beside it.
  ProductAhead next_rows(int64_t i, int64_t i_end, int64_t j, int64_t columns, int64_t r0) const {
    const int64_t next = i + plan_.block_rows, size = size_of(p_.a.dtype);
    if (e_.ahead_terms == 0 || next >= std::min(i_end, first_packed_row())) return {};
    return share(
        {element(p_.a, next, r0), p_.a.ld * size, e_.ahead_terms * size, std::min(i_end - next, plan_.block_rows)},
        j / plan_.block_width, div_up(columns, plan_.block_width));
  }

  /// The next group's B, in shares for each block of rows.
  ProductAhead next_columns(int64_t group, int64_t i) const {
    if (e_.ahead_terms == 0 || plan_.in_place || group < 0) return {};
    const int64_t j = group * plan_.group, columns = std::min(plan_.group, p_.j - j),
                  row = p_.b.ld * size_of(p_.b.dtype);
    const std::byte* data = element(p_.b, j, 0);
    const int64_t size = size_of(p_.b.dtype), block = i / plan_.block_rows, blocks = div_up(p_.i, plan_.block_rows);
    if (p_.b.r_contiguous) return share({data, row, e_.ahead_terms * size, columns}, block, blocks);
    return share({data, row, e_.ahead_terms * row, e_.ahead_terms, div_up(columns * size, kAlign)}, block, blocks);
  }

  static ProductAhead share(ProductAhead all, int64_t part, int64_t parts) {
    const int64_t begin = all.rows * part / parts;
    all.rows = all.rows * (part + 1) / parts - begin;
    all.data += begin * all.row_bytes;
    return all;
  }

  /// True when blocks can be summed up where they belong: nothing is left to do to them.
  bool is_final(const ProductBlock& block) const {
    const ProductOutput& out = p_.out;
    return out.dtype == DType::kF32 && !out.bias && !out.pre && out.activation == Activation::kNone && !out.add &&
           !out.transposed && block.rows % e_.row_step == 0 && block.columns % 16 == 0;
  }

  void compute_block(ProductBlock block, int64_t index, bool last, Turn& turn) {
    std::byte* sums = turn.scratch + plan_.b_bytes;
    std::byte* own = sums + plan_.c_bytes;
    const bool final = is_final(block);
    block.c = final ? static_cast<float*>(p_.out.y) + block.i0 * p_.out.ld + block.j0
                    : reinterpret_cast<float*>(plan_.parts == 1 ? own + turn.buffer * plan_.block_bytes
                                                                : sums + index * plan_.block_bytes);
    block.ldc = final ? p_.out.ld : plan_.block_width;
    block.last = last;
    const int64_t packed_row = first_packed_row();
    if (block.i0 >= packed_row) block.packed_a = shared_ + (block.i0 - packed_row) / e_.panel_i * plan_.panel_bytes;
    if (turn.waiting && turn.finished.c == block.c) store_waiting(turn);
    if (turn.waiting) block.finished = &turn.finished;
    e_.multiply(p_, block);
    turn.waiting = false;
    if (!last || final) return;
    turn.finished = block;
    turn.waiting = true;
    if (!e_.stores_meanwhile || p_.out.transposed) return store_waiting(turn);
    turn.buffer = 1 - turn.buffer;
  }

  void store_waiting(Turn& turn) {
    if (!turn.waiting) return;
    turn.waiting = false;
    std::byte* own = turn.scratch + plan_.b_bytes + plan_.c_bytes;
    e_.store(p_, turn.finished, reinterpret_cast<float*>(own + plan_.block_bytes));
  }

  const Product& p_;
  const ProductEngine& e_;
  ProductPlan plan_;
  std::byte *counters_ = nullptr, *shared_ = nullptr, *scratch_ = nullptr;
  int64_t slab_begin_ = 0, slab_end_ = 0, chunks_ = 0;
};
}  // namespace

void run_product(ThreadPool& pool, const Product& product, const ProductEngine& engine, std::byte* workspace) {
  if (product.i == 0 || product.j == 0) return;
  ProductRun(product, engine, workspace).run(pool);
}

int64_t product_workspace_bytes(const Product& product, const ProductEngine& engine, int threads) {
  if (product.i == 0 || product.j == 0) return 0;
  const ProductPlan plan = make_plan(product, engine);
  return kAlign + plan.counter_bytes + plan.shared_bytes + threads * plan.thread_bytes();
}

}  // namespace permafrost
