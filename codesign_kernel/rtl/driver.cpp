// Runs a compiled engine against a model of external memory, and counts where the cycles go.
// Usage: engine INPUT OUTPUT LIMIT LATENCY GAP REFRESH_EVERY REFRESH_CYCLES
// Reads the memory from INPUT, writes it to OUTPUT when the engine is done. Prints a line
// "cycles N beats READ WRITTEN", then for each task its number and the cycles by cause.
#include "engine.h"
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

constexpr size_t DEPTH = 4; // commands that the memory controller takes ahead

struct Command {
  bool write;
  uint64_t address, ready;
  unsigned left;
};

int main(int count, char **words) {
  if (count != 8) return 2;
  const uint64_t limit = strtoull(words[3], nullptr, 10), latency = strtoull(words[4], nullptr, 10);
  const uint64_t gap = strtoull(words[5], nullptr, 10), every = strtoull(words[6], nullptr, 10);
  const uint64_t pause = strtoull(words[7], nullptr, 10);
  FILE *file = fopen(words[1], "rb");
  if (!file) return 3;
  std::vector<uint8_t> memory;
  uint8_t block[65536];
  for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
    memory.insert(memory.end(), block, block + n);
  fclose(file);

  cxxrtl_design::p_engine top;
  using Data = decltype(top.p_read__data);
  constexpr size_t chunks = Data::chunks, size = Data::bits / 8;
  std::deque<Command> queue;
  std::map<unsigned, std::array<uint64_t, 8>> spent;
  uint64_t cycle = 0, free_at = 0, refresh = every, reads = 0, writes = 0;
  std::array<uint64_t, 8> *row = nullptr;
  unsigned task = ~0u;
  top.p_start.set<bool>(true);
  for (; cycle < limit; cycle++) {
    // No input depends on an output of the same cycle, and all outputs follow from registers. So
    // one evaluation a cycle is enough: with the clock risen it gives this cycle's outputs, and
    // what the registers will be; only `commit` makes them so.
    const bool ready = queue.size() < DEPTH;
    if (every && cycle >= refresh && free_at <= cycle) {
      refresh += every;
      free_at = cycle + pause;
    }
    Command *now = !queue.empty() && free_at <= cycle ? &queue.front() : nullptr;
    uint8_t *place = nullptr;
    if (now) {
      if ((now->address + 1) * size > memory.size()) return 4;
      place = &memory[now->address * size];
    }
    const bool reading = now && !now->write && now->ready <= cycle;
    const bool writing = now && now->write;
    if (reading)
      for (size_t i = 0; i < chunks; i++) memcpy(&top.p_read__data.data[i], place + 4 * i, 4);
    top.p_ready.set<bool>(ready);
    top.p_read__valid.set<bool>(reading);
    top.p_write__ready.set<bool>(writing);
    top.p_clk.set<bool>(true);
    top.prev_p_clk.set<bool>(false);
    if (!top.eval()) return 7;
    const bool wrote = writing && top.p_write__valid.get<bool>();
    if (wrote) {
      const unsigned mask = top.p_write__mask.get<unsigned>();
      for (size_t i = 0; i < size; i++)
        if (mask >> i & 1) place[i] = top.p_write__data.data[i / 4] >> 8 * (i % 4);
    }
    reads += reading;
    writes += wrote;
    if (reading || wrote) {
      now->address++;
      if (--now->left == 0) {
        queue.pop_front();
        free_at = cycle + 1 + gap;
      }
    }
    if (ready && top.p_valid.get<bool>())
      queue.push_back({top.p_write.get<bool>(), top.p_address.get<uint32_t>(), cycle + latency,
                       top.p_length.get<unsigned>()});
    if (top.p_task.get<unsigned>() != task) {
      task = top.p_task.get<unsigned>();
      row = &spent[task];
    }
    (*row)[top.p_cause.get<unsigned>()]++;
    if (top.p_done.get<bool>()) break;
    top.commit();
    top.p_start.set<bool>(false);
  }
  if (cycle >= limit) return 5;
  file = fopen(words[2], "wb");
  if (!file || fwrite(memory.data(), 1, memory.size(), file) != memory.size() || fclose(file))
    return 6;
  printf("cycles %lu beats %lu %lu\n", (unsigned long)(cycle + 1), (unsigned long)reads,
         (unsigned long)writes);
  for (const auto &[which, causes] : spent) {
    printf("%u", which);
    for (int i = 0; i < 5; i++) printf(" %lu", (unsigned long)causes[i]);
    printf("\n");
  }
}
