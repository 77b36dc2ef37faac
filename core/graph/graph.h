#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/graph/op.h"
#include "core/weights/initializer.h"

namespace permafrost {

/// Handles into a Graph; indices into its tables.
struct Value {
  int index = -1;
};
struct Param {
  int index = -1;
};

enum class ValueRole : uint8_t {
  kInput,     ///< filled before each micro-batch (images, ids, weights of the loss)
  kComputed,  ///< output of an operation
  kState,     ///< persists between micro-batches, written by operations (statistics, caches)
};

struct ValueInfo {
  std::string name;  ///< scope path, e.g. "text.layers.3.out"
  TensorSpec spec;
  ValueRole role = ValueRole::kComputed;
  int producer = -1;          ///< operation, for kComputed
  bool checkpointed = false;  ///< kState only
  bool kept = false;          ///< readable behind the program, whatever else is kept
};

struct ParamInfo {
  std::string name;  ///< full published name behind the part prefix, e.g. "vision.blocks.0.norm1.weight"
  Shape shape;
  Initializer initializer;
  int unit = -1;  ///< the owner; other units borrow
};

struct OpInfo {
  std::unique_ptr<const Op> op;
  std::vector<int> inputs, outputs, params;
  int unit = -1;
  int state = -1;  ///< value of role kState that this operation writes, or -1
  std::string scope;
};

struct UnitInfo {
  std::string name;
};

/// A static description of one micro-batch's computation: no data, no memory, no device. Built once per shape by
/// functions that compose operations. The tables are in construction order, which is the order of execution.
class Graph {
 public:
  explicit Graph(DType compute) : compute_(compute) {}
  /// A graph with the parameters and units of another, for another program over the same weights: its units and
  /// parameters are looked up by name and never added. Errors of what follows: kInternal for a unit or parameter that
  /// `owner` lacks.
  static Graph sharing(const Graph& owner);
  Graph(Graph&&) = default;
  Graph& operator=(Graph&&) = default;

  /// dtype of computed activations: f32, bf16, or f16, which CUDA alone computes in.
  DType compute() const { return compute_; }

  /// Pushes a name onto the scope path until the guard dies: `auto scope = g.scope("blocks.3");`
  class Scope {
   public:
    Scope(Graph& graph, std::string_view name, bool unit);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Graph& graph_;
    size_t length_;
    int unit_;
  };
  Scope scope(std::string_view name) { return Scope(*this, name, false); }
  /// A scope that is also a unit: what is gathered together (a transformer block, an embedding, a head).
  Scope unit(std::string_view name) { return Scope(*this, name, true); }

  Value input(std::string_view name, const TensorSpec& spec);
  Value state(std::string_view name, const TensorSpec& spec, bool checkpointed);
  /// A parameter owned by the current unit. `name` is the full name. Asking again for the same name borrows it
  /// (the shape must agree).
  Param param(std::string_view name, const Shape& shape, const Initializer& initializer);

  /// Appends an operation; returns its first output. Throws ShapeMismatch with the scope in the message.
  Value apply(std::unique_ptr<const Op> op, std::vector<Value> inputs, std::vector<Param> params = {});
  /// Output `i` of the operation that produced `value`.
  Value output(Value value, size_t i) const;
  /// Copies `value` into a state.
  void write_state(Value state, Value value);
  /// Appends an operation whose only result is what it writes into a state, all of it or a part.
  void update_state(Value state, std::unique_ptr<const Op> op, std::vector<Value> inputs);

  /// Gives a value its public name: scope path + "." + name. Returns the value.
  Value name(Value value, std::string_view name);
  /// The value stays readable behind the program: a result. Returns the value.
  Value keep(Value value);
  /// The scalar (1) f64 that backward starts from.
  void set_loss(Value value);
  int loss() const { return loss_; }

  const TensorSpec& spec(Value value) const { return values_.at(static_cast<size_t>(value.index)).spec; }
  const std::vector<ValueInfo>& values() const { return values_; }
  const std::vector<ParamInfo>& params() const { return params_; }
  const std::vector<OpInfo>& ops() const { return ops_; }
  const std::vector<UnitInfo>& units() const { return units_; }

  /// Index of the value with this public name, or -1.
  int find_value(std::string_view name) const;
  int find_param(std::string_view name) const;
  OpSpecs specs_of(const OpInfo& op) const;

 private:
  std::string path(std::string_view name) const;
  int enter_unit(const std::string& name);
  int current_unit();

  DType compute_;
  std::string scope_;
  int unit_ = -1;
  int loss_ = -1;
  bool sharing_ = false;  // units and parameters are those of another graph
  std::vector<ValueInfo> values_;
  std::vector<ParamInfo> params_;
  std::vector<OpInfo> ops_;
  std::vector<UnitInfo> units_;
};

}  // namespace permafrost
