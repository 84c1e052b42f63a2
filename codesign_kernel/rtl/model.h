// The engine as a simulator gives it: as CXXRTL does, or, where VERILATOR is defined, Verilator.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

struct Outputs {
  bool valid, write, write_valid, done;
  unsigned length, mask, cause, task;
  uint64_t address;
};

#ifdef VERILATOR

#include "Vengine.h"

struct Model {
  Vengine top;
  static constexpr size_t bytes = sizeof top.read_data;

  bool settle(bool start, bool ready, const uint8_t *read, bool write) {
    top.start = start, top.ready = ready, top.read_valid = read != nullptr, top.write_ready = write;
    if (read) memcpy(&top.read_data, read, bytes);
    top.clk = 0;
    top.eval();
    return true;
  }
  Outputs outputs() {
    return {bool(top.valid), bool(top.write), bool(top.write_valid), bool(top.done),
            top.length, top.write_mask, top.cause, top.task, top.address};
  }
  void written(uint8_t *place) { memcpy(place, &top.write_data, bytes); }
  void clock() {
    top.clk = 1;
    top.eval();
  }
  size_t flip_flops() { return 0; } // what flips is counted by CXXRTL's names
  unsigned flips() {
    clock();
    return 0;
  }
};

#else

#include "engine.h"

struct Model {
  cxxrtl_design::p_engine top;
  using Data = decltype(top.p_read__data);
  static constexpr size_t chunks = Data::chunks, bytes = Data::bits / 8;
  std::vector<cxxrtl::debug_item> registers;

  Model() {
    cxxrtl::debug_items items;
    top.debug_info(&items, nullptr, "");
    for (auto &[name, parts] : items.table)
      for (auto &part : parts) // those of the multipliers are a part of the DSP block
        if (name.rfind("datapath multiply_", 0) && part.type == cxxrtl::debug_item::WIRE && part.flags & cxxrtl::debug_item::DRIVEN_SYNC)
          registers.push_back(part);
  }
  // No input depends on an output of the same cycle, and all outputs follow from registers. So one
  // evaluation a cycle is enough: with the clock risen it gives this cycle's outputs, and what the
  // registers will be; only `clock` makes them so.
  bool settle(bool start, bool ready, const uint8_t *read, bool write) {
    top.p_start.set<bool>(start);
    top.p_ready.set<bool>(ready);
    top.p_read__valid.set<bool>(read != nullptr);
    if (read)
      for (size_t i = 0; i < chunks; i++) memcpy(&top.p_read__data.data[i], read + 4 * i, 4);
    top.p_write__ready.set<bool>(write);
    top.p_clk.set<bool>(true);
    top.prev_p_clk.set<bool>(false);
    return top.eval();
  }
  Outputs outputs() {
    return {top.p_valid.get<bool>(), top.p_write.get<bool>(), top.p_write__valid.get<bool>(),
            top.p_done.get<bool>(), top.p_length.get<unsigned>(), top.p_write__mask.get<unsigned>(),
            top.p_cause.get<unsigned>(), top.p_task.get<unsigned>(), top.p_address.get<uint32_t>()};
  }
  void written(uint8_t *place) {
    for (size_t i = 0; i < chunks; i++) memcpy(place + 4 * i, &top.p_write__data.data[i], 4);
  }
  void clock() { top.commit(); }
  size_t flip_flops() {
    size_t bits = 0;
    for (auto &part : registers) bits += part.width;
    return bits;
  }
  unsigned flips() { // a clock, and how many flip-flops change with it
    unsigned count = 0;
    for (auto &part : registers)
      for (size_t k = 0; k < (part.width + 31) / 32; k++)
        count += __builtin_popcount(part.curr[k] ^ part.next[k]);
    clock();
    return count;
  }
};

#endif
