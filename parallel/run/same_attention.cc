#include "parallel/run/same_attention.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/base/sha256.h"

namespace permafrost {

namespace {

constexpr std::string_view kAttentionTag = "attention's libraries";

/// Pieces end in a zero byte: what a library says may contain anything else.
void add_piece(std::string& text, const std::string& piece) { (text += piece.c_str()) += '\0'; }

/// Whether all ranks have the same text.
bool are_alike(Group& world, const std::string& text) {
  const std::string digest = sha256(text.data(), text.size());
  int64_t number = 0;
  std::memcpy(&number, digest.data(), sizeof number);
  std::array mine{number, ~number};  // the largest of the second is the complement of the least of the first
  std::array<int64_t, 2> largest{};
  world
      .all_reduce(flat(std::span<int64_t>(mine)), flat(std::span<int64_t>(largest)), ReduceOp::kMax,
                  StreamView::caller(), kAttentionTag)
      .wait();
  return largest[0] == ~largest[1];
}

/// By rank.
std::vector<std::string> texts_of_ranks(Group& world, std::string mine) {
  std::vector<int64_t> sizes(static_cast<size_t>(world.size()));
  int64_t size = std::ssize(mine);
  world.all_gather(flat(std::span(&size, 1)), flat(std::span(sizes)), {}, StreamView::caller(), kAttentionTag).wait();
  int64_t bytes = 0;
  for (int64_t of_rank : sizes) bytes += of_rank;
  std::string all(static_cast<size_t>(bytes), '\0');
  world
      .all_gather(Tensor(mine.data(), DType::kU8, Shape{size}), Tensor(all.data(), DType::kU8, Shape{bytes}), sizes,
                  StreamView::caller(), kAttentionTag)
      .wait();
  std::vector<std::string> texts;
  for (size_t at = 0; int64_t of_rank : sizes) {
    texts.push_back(all.substr(at, static_cast<size_t>(of_rank)));
    at += static_cast<size_t>(of_rank);
  }
  return texts;
}

/// What one rank does with a call.
struct OnRank {
  int rank = 0;
  std::string library, refusal;
};

/// By call, ranks ascending.
std::map<std::string, std::vector<OnRank>> by_call(const std::vector<std::string>& texts) {
  std::map<std::string, std::vector<OnRank>> calls;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    size_t at = 0;
    const auto next = [&] {
      const std::string piece = texts[rank].c_str() + at;
      at += piece.size() + 1;
      return piece;
    };
    while (at < texts[rank].size()) {
      const std::string call = next(), library = next();
      calls[call].push_back({static_cast<int>(rank), library, next()});
    }
  }
  return calls;
}

std::string str(const OnRank& one) {
  if (!one.library.empty()) return concat(one.library, " on rank ", one.rank);
  return concat("own kernels on rank ", one.rank, " (", one.refusal, ")");
}

}  // namespace

void require_same_attention(Group& world, std::span<const AttentionChoice> mine) {
  if (world.size() == 1) return;
  std::string choices, reasons;
  for (const AttentionChoice& choice : mine) {
    for (std::string* text : {&choices, &reasons}) add_piece(*text, choice.call), add_piece(*text, choice.library);
    add_piece(reasons, choice.refusal);
  }
  if (are_alike(world, choices)) return;
  std::string first;
  int differing = 0;
  for (const auto& [call, ranks] : by_call(texts_of_ranks(world, reasons))) {
    const auto taken = std::ranges::find_if(ranks, [](const OnRank& one) { return !one.library.empty(); });
    if (taken == ranks.end()) continue;
    const auto other = std::ranges::find_if(ranks, [&](const OnRank& one) { return one.library != taken->library; });
    if (other == ranks.end()) continue;
    if (differing++ == 0) first = concat(call, ": ", str(*taken), ", ", str(*other));
  }
  if (differing == 0) return;
  fail(ErrorKind::kConfig,
       "attention: all ranks must compute a call by the same library, or bits would depend on their number; got ",
       first, differing > 1 ? concat("; and so ", differing - 1, " more") : "",
       ". Ways out: the same cuDNN, completely installed, on all machines, or parallel.attention=OWN");
}

void require_same_attention(Group& world, const Context& context) {
  if (context.device.kind == DeviceKind::kCuda) require_same_attention(world, attention_choices(context));
}

}  // namespace permafrost
