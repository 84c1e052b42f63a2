"""What whoever joins the engine to a memory has to know, in words: its ports, and their rules."""

from .rtl.shape import ADDRESS_BITS, BURST, READS, TASK_BITS, Shape

READ_LATENCY = 3  # cycles from a command to its first beat, at least: sooner, the engine hangs


def protocol(shape: Shape) -> str:
    """Return the ports of an engine and the protocol of its memory port, as text."""
    bits, size, task = shape.port_bits, shape.port_bytes, TASK_BITS // 8
    return f"""\
Ports of the module `engine`. All are synchronous to the rising edge of clk.
  clk, rst      in   clock; reset, active high, for one cycle or more while start is low
  start         in   high for one cycle: run the program
  done          out  high from the end of a run to the next start: then all is written
  valid         out  a command is there: write, address and length stay as they are until ready
  ready         in   the memory takes the command in this cycle
  write         out  1: it writes, 0: it reads
  address       out  {ADDRESS_BITS} bits: its first beat; a beat is {size} bytes, the byte 0 of \
memory in bits 0 to 7
  length        out  {BURST.bit_length()} bits: its beats, 1 to {BURST}, at rising addresses
  read_data     in   {bits} bits
  read_valid    in   read_data is the next beat that was asked for
  write_data    out  {bits} bits
  write_mask    out  {size} bits: the bytes of write_data to write; others stay
  write_valid   out  write_data is the next beat to write
  write_ready   in   the memory takes it in this cycle

Rules of the memory
- A command is taken in a cycle in which valid and ready are both high.
- Beats of reads come in the order of their commands, a cycle each in which read_valid is high, with
  or without gaps. The engine takes each at once: it cannot make the memory wait, and has up to
  {READS} reads under way, that is {READS * BURST} beats.
- The first beat of a read comes {READ_LATENCY} cycles after the cycle of its command or later. If \
it comes
  sooner, the engine hangs.
- A beat is written in a cycle in which write_valid and write_ready are both high. Beats come in the
  order of the write commands, and may be offered before their command is taken: write_ready must
  be low until then.
- A read whose command is taken after a beat was written sees that beat.
- A command begins at any beat, and may cross a boundary of 4 KiB: a bridge to AXI has to split it.
- All addresses, in tasks too, count from beat 0: add a base outside the engine.
- A reset ends a run at once: it may take a command back, and leave a write without its last beats.
  No beat of a read from before may come after it, for the next run would take it as its own: reset
  the memory's side as well, or hold rst until the last such beat has come.

A run
- A program is program.bin of a folder that `codesign export` writes of a design on this engine. It
  is the whole memory of a run, maps included. At beat 0 begin its tasks, of {task} bytes each, that
  the engine reads until one says that it is the last; weights and maps are where the tasks say.
- The engine writes maps only, so a program stays in memory: for another image, write that and start
  again, without a reset.
- A map of C channels, height H and width W is kept in planes of {size} channels, plane after plane,
  in each row after row, pixel after pixel, a beat each. Channel c of a pixel is byte c mod {size}
  of the beat (c div {size}) x H x W + row x W + column, counted from where the map begins. All are
  int8; channels that fill up the last plane are 0.
"""
