"""The arbiter of the memory port: how much it asks for before anything has come."""

import random
from collections import deque
from typing import Any

import pytest
from amaranth import ResetInserter, Signal
from amaranth.sim import Simulator

from codesign_kernel.accelerator import Accelerator
from codesign_kernel.protocol import READ_LATENCY
from codesign_kernel.rtl.sequencer import Arbiter, Client, Port
from codesign_kernel.rtl.shape import BURST, READS, Shape


@pytest.mark.parametrize(("ready", "comes"), [(1.0, 0.0), (1.0, 1.0), (0.7, 0.9), (0.9, 0.3)])
def test_no_more_reads_are_under_way_than_is_said(ready: float, comes: float) -> None:
    """A memory that takes a command, and gives a beat, with these probabilities in a cycle."""
    rng, port = random.Random(0), Port(Shape(Accelerator.parse("4x4x1w8f8")))
    writer, *readers = (Client() for _ in range(4))
    under_way: deque[list[int]] = deque()  # the first cycle in which a beat may come, beats left
    counts = []

    async def memory(ctx: Any) -> None:
        for reader in readers:
            ctx.set(reader.valid, 1)
            ctx.set(reader.length, BURST)
        for cycle in range(3000):
            ctx.set(port.ready, rng.random() < ready)
            beat = bool(under_way) and cycle >= under_way[0][0] and rng.random() < comes
            ctx.set(port.read_valid, beat)
            if beat:
                under_way[0][1] -= 1
                if under_way[0][1] == 0:
                    under_way.popleft()
            if ctx.get(port.valid & port.ready):
                under_way.append([cycle + READ_LATENCY, ctx.get(port.length)])
            counts.append(len(under_way))
            await ctx.tick()

    simulator = Simulator(Arbiter(port, readers, writer))
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory)
    simulator.run()
    assert max(counts) == READS


@pytest.mark.parametrize("held", [True, False])
def test_beats_after_a_reset_are_nobody_s_only_while_it_lasts(held: bool) -> None:
    reset, port = Signal(), Port(Shape(Accelerator.parse("4x4x1w8f8")))
    writer, *readers = (Client() for _ in range(4))
    taken = 0

    async def memory(ctx: Any) -> None:
        nonlocal taken
        for reader in readers:
            ctx.set(reader.valid, 1)
            ctx.set(reader.length, BURST)
        ctx.set(port.ready, 1)
        await ctx.tick().repeat(100)
        for reader in readers:
            ctx.set(reader.valid, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, held)
        ctx.set(port.read_valid, 1)
        for _ in range(READS * BURST):
            await ctx.tick()
            taken += sum(ctx.get(reader.beat) for reader in readers)

    simulator = Simulator(ResetInserter(reset)(Arbiter(port, readers, writer)))
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory)
    simulator.run()
    assert (taken == 0) == held
