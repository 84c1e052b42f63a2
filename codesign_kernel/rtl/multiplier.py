"""The product of two int8 numbers, with registers before and behind it.

Synthesis puts `multiplier.v` in its place, which is the same in a DSP block: inference would leave
those registers outside, and the wires to and from the block are long.
"""

from amaranth import Elaboratable, Module, Signal, signed


class Multiplier(Elaboratable):
    """`p` is `a` x `b` of two cycles ago."""

    def __init__(self) -> None:
        self.a = Signal(signed(8))
        self.b = Signal(signed(8))
        self.p = Signal(signed(16), reset_less=True)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held_a = Signal(signed(8), reset_less=True)
        held_b = Signal(signed(8), reset_less=True)
        m.d.sync += [held_a.eq(self.a), held_b.eq(self.b), self.p.eq(held_a * held_b)]
        return m
