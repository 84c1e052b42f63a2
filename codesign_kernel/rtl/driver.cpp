// Runs a compiled engine against a model of external memory, and counts where the cycles go.
// Usage: engine INPUT OUTPUT LIMIT LATENCY GAP REFRESH_EVERY REFRESH_CYCLES
// Reads the memory from INPUT, writes it to OUTPUT when the engine is done. Prints a line
// "cycles N beats READ WRITTEN flips F of B in S", then for each task its number and the cycles by
// cause. F of the B flip-flops changed in S cycles, one in SAMPLE of all.
#include "model.h"
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>

constexpr size_t DEPTH = 4;     // commands that the memory controller takes ahead
constexpr uint64_t SAMPLE = 29; // prime to the lengths of the engine's loops
constexpr uint64_t QUIET = 1 << 22; // cycles without a beat, more than any chunk of pixels takes

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

  Model model;
  constexpr size_t size = Model::bytes;
  std::deque<Command> queue;
  std::map<unsigned, std::array<uint64_t, 8>> spent;
  uint64_t cycle = 0, free_at = 0, refresh = every, reads = 0, writes = 0, flips = 0, samples = 0;
  uint64_t moved = 0;
  std::array<uint64_t, 8> *row = nullptr;
  unsigned task = ~0u;
  for (; cycle < limit; cycle++) {
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
    if (!model.settle(cycle == 0, ready, reading ? place : nullptr, writing)) return 7;
    const Outputs out = model.outputs();
    const bool wrote = writing && out.write_valid;
    if (wrote) {
      uint8_t data[size];
      model.written(data);
      for (size_t i = 0; i < size; i++)
        if (out.mask >> i & 1) place[i] = data[i];
    }
    reads += reading;
    writes += wrote;
    if (cycle - moved > QUIET) return 8;
    if (reading || wrote) {
      moved = cycle;
      now->address++;
      if (--now->left == 0) {
        queue.pop_front();
        free_at = cycle + 1 + gap;
      }
    }
    if (ready && out.valid) queue.push_back({out.write, out.address, cycle + latency, out.length});
    if (out.task != task) {
      task = out.task;
      row = &spent[task];
    }
    (*row)[out.cause]++;
    if (out.done) break;
    if (cycle % SAMPLE == 0) {
      flips += model.flips();
      samples++;
    } else
      model.clock();
  }
  if (cycle >= limit) return 5;
  file = fopen(words[2], "wb");
  if (!file || fwrite(memory.data(), 1, memory.size(), file) != memory.size() || fclose(file))
    return 6;
  printf("cycles %lu beats %lu %lu flips %lu of %zu in %lu\n", (unsigned long)(cycle + 1),
         (unsigned long)reads, (unsigned long)writes, (unsigned long)flips, model.flip_flops(),
         (unsigned long)samples);
  for (const auto &[which, causes] : spent) {
    printf("%u", which);
    for (int i = 0; i < 5; i++) printf(" %lu", (unsigned long)causes[i]);
    printf("\n");
  }
}
