"""Multipliers, adder trees and accumulators, and the requantisation of finished pixels.

A sum of int8 products and a bias becomes int8 again, in one rounding (Jacob et al., CVPR 2018,
section 2.2, with the accumulator shifted first so that one 18 x 18 multiplier is enough):

    t = saturate18((sum + bias) >> shift)
    y = saturate8((t * multiplier + (residual << (FRACTION - halve)) + half) >> FRACTION)

and with `relu` no less than 0.
"""

from amaranth import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory

from .compute import Compute, step_layout
from .loaders import MapLoader, WeightLoader
from .multiplier import Multiplier
from .shape import BURST, FANOUT, FRACTION, MULTIPLIER_BITS, SHIFT_BITS, Shape


def clamp(value: Signal, bits: int) -> object:
    """Return `value` saturated to a signed number of that many bits."""
    fits = (value[bits - 1 :] == 0) | value[bits - 1 :].all()
    edge = Cat((~value[-1]).replicate(bits - 1), value[-1])
    return Mux(fits, value[:bits], edge).as_signed()


class Datapath(Elaboratable):
    """From the steps of the compute unit to beats in the output buffer.

    The output buffer has two halves of BURST pixels, for each stream: a lane's pixels of one
    plane. `out` follows `out_address` (half, stream, pixel) at once. `chunk`: a half is full.
    """

    def __init__(
        self, shape: Shape, compute: Compute, weights: WeightLoader, maps: MapLoader
    ) -> None:
        self.shape, self.compute, self.weights, self.maps = shape, compute, weights, maps
        self.out_address = Signal(range(2 * shape.streams * BURST))
        self.out = Signal(shape.out_bytes * 8)
        self.chunk = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, compute = self.shape, self.compute
        tags = [compute.step]
        valid = [compute.running]
        for stage in range(shape.latency):
            tag, on = Signal(step_layout(shape), name=f"tag_{stage}"), Signal(name=f"on_{stage}")
            m.d.sync += [tag.eq(tags[-1]), on.eq(valid[-1])]
            tags.append(tag)
            valid.append(on)
        # Cycle 1: the feature buffer's words are there. Cycle 2: they are in a register, for block
        # RAM is slow. Cycle 3: they are masked. Cycle 4: they are copied, for one register cannot
        # be near to all multipliers; the weights are in a register, too. The name `copy` keeps
        # synthesis from merging the copies; see shape.SYNTHESIS.
        weights = Signal(shape.pf * shape.pc * 8)
        m.d.sync += weights.eq(self.weights.word)
        sums, residuals = [], []
        for v in range(shape.pv):
            read = Signal.like(self.maps.words[v], name=f"read_{v}")
            inside = Signal(name=f"inside_{v}")
            m.d.sync += [read.eq(self.maps.words[v]), inside.eq(compute.inside[v])]
            chosen = read
            if shape.parts > 1:
                chosen = read.word_select(tags[2].part, shape.pc * 8)
            features = Signal(shape.pc * 8, name=f"features_{v}")
            m.d.sync += features.eq(Mux(inside, chosen, 0))
            delayed = features
            for stage in range(shape.latency - 3):
                later = Signal.like(features, name=f"features_{v}_{stage}")
                m.d.sync += later.eq(delayed)
                delayed = later
            residuals.append(self._captured(m, v, delayed, tags[-1], valid[-1]))
            copies = []
            for i in range(-(-shape.pf // FANOUT)):
                copies.append(Signal.like(features, name=f"copy_{v}_{i}"))
                m.d.sync += copies[-1].eq(features)
            for f in range(shape.pf):
                near = copies[f // FANOUT]
                sums.append(self._sum(m, f, v, weights, near, tags[-1], valid[-1]))
        self._drain(m, sums, residuals, tags[-1], valid[-1])
        return m

    def _sum(self, m: Module, f: int, v: int, weights: Signal, features: Signal,
             tag: object, on: Signal) -> Signal:  # fmt: skip
        """Products in cycle 6, then a tree of registered adders, then the accumulator."""
        shape = self.shape
        terms = []
        for c in range(shape.pc):
            m.submodules[f"multiply_{f}_{c}_{v}"] = multiplier = Multiplier()
            m.d.comb += multiplier.a.eq(weights.word_select(f * shape.pc + c, 8))
            m.d.comb += multiplier.b.eq(features.word_select(c, 8))
            terms.append(multiplier.p)
        while len(terms) > 1:
            pairs = list(zip(terms[::2], terms[1::2], strict=True))
            name = f"tree_{f}_{v}"
            terms = [Signal(signed(len(a) + 1), name=name) for a, _ in pairs]
            m.d.sync += [t.eq(a + b) for t, (a, b) in zip(terms, pairs, strict=True)]
        # One cycle after the tag's, so that the choice of the addend is a register.
        term, first = Signal(signed(32), name=f"term_{f}_{v}"), Signal(name=f"first_{f}_{v}")
        total = Signal(signed(32), name=f"sum_{f}_{v}")
        m.d.comb += [term.eq(terms[0]), first.eq(tag.first)]  # type: ignore[attr-defined]
        with m.If(on):
            m.d.sync += total.eq(Mux(first, 0, total) + term)
        return total

    def _captured(self, m: Module, v: int, word: Signal, tag: object, on: Signal) -> Signal:
        """The residual's PF channels of a lane, of the words that the tags say."""
        shape = self.shape
        kept = Signal(shape.pf * 8, name=f"residual_{v}")
        capture, third = tag.capture, tag.third  # type: ignore[attr-defined]
        if shape.pf >= shape.pc:
            for i in range(shape.pf // shape.pc):
                with m.If(on & capture[i]):
                    m.d.sync += kept.word_select(i, shape.pc * 8).eq(word)
        else:
            with m.If(on & capture[0]):
                m.d.sync += kept.eq(word.word_select(third, shape.pf * 8))
        return kept

    def _drain(self, m: Module, sums: list[Signal], residuals: list[Signal], tag: object,
               on: Signal) -> None:  # fmt: skip
        """Take over finished sums and requantise PO of them a cycle."""
        shape, po = self.shape, self.shape.po
        finished = Signal()
        slot = Signal.like(tag.slot)  # type: ignore[attr-defined]
        place = Signal.like(tag.place)  # type: ignore[attr-defined]
        ends = Signal()
        m.d.sync += finished.eq(on & tag.last)  # type: ignore[attr-defined]
        m.d.sync += [slot.eq(tag.slot), place.eq(tag.place)]  # type: ignore[attr-defined]
        m.d.sync += ends.eq(tag.ends)  # type: ignore[attr-defined]
        shadow = Signal(32 * shape.pf * shape.pv)
        added = Signal(8 * shape.pf * shape.pv)
        turn = Signal(range(shape.drain))
        busy = Signal()
        row = Signal.like(slot)
        where = Signal.like(place)
        closes = Signal()
        with m.If(finished):
            m.d.sync += [shadow.eq(Cat(*sums)), added.eq(Cat(*residuals)), busy.eq(1)]
            m.d.sync += [turn.eq(0), row.eq(slot), where.eq(place), closes.eq(ends)]
        with m.Elif(busy):
            m.d.sync += [shadow.eq(shadow >> 32 * po), added.eq(added >> 8 * po)]
            m.d.sync += turn.eq(turn + 1)
            with m.If(turn == shape.drain - 1):
                m.d.sync += busy.eq(0)
        per_slot = shape.pf // po
        m.d.comb += self.weights.param_address.eq(row * per_slot + turn % per_slot)
        # Stages: 1 and 2 parameters arrive, 3 biased, 4 shifted, 5 saturated, 6 product, 7 rounded,
        # 8 saturated.
        steps = 8
        ons, turns, wheres, closing = [busy], [turn], [where], [closes]
        for i in range(steps):
            signals = [Signal.like(line[-1], name=f"drain_{i}_{k}")
                       for k, line in enumerate((ons, turns, wheres, closing))]  # fmt: skip
            for line, signal in zip((ons, turns, wheres, closing), signals, strict=True):
                m.d.sync += signal.eq(line[-1])
                line.append(signal)
        results = [self._requantise(m, i, shadow, added) for i in range(po)]
        # Collect bytes to beats, and beats to the output buffer.
        per_beat = shape.out_bytes // po
        beat = Signal(shape.out_bytes * 8)
        gathered = Signal.like(beat)
        m.d.comb += gathered.eq(Cat(beat, *results)[8 * po :])
        per_lane = shape.pf // shape.out_bytes
        memory = Memory(shape=shape.out_bytes * 8, depth=2 * shape.streams * BURST, init=[])
        m.submodules.out = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        now, pixel = turns[-1], wheres[-1]
        stream = now // per_beat  # lanes outer, planes inner, as in the shadow
        m.d.comb += [
            write.addr.eq((pixel[-1] * shape.streams + stream) * BURST + pixel[:-1]),
            write.data.eq(gathered),
            write.en.eq(ons[-1] & (now % per_beat == per_beat - 1)),
            read.addr.eq(self.out_address),
            self.out.eq(read.data),
        ]
        assert shape.streams == shape.pv * per_lane
        with m.If(ons[-1]):
            m.d.sync += beat.eq(gathered)
        m.d.sync += self.chunk.eq(ons[-1] & (now == shape.drain - 1) & closing[-1])

    def _requantise(self, m: Module, i: int, shadow: Signal, added: Signal) -> Signal:
        """Return one byte, `steps` cycles after its sum is at the shadow's end."""
        compute = self.compute

        def register(bits: int, name: str, value: object) -> Signal:
            signal = Signal(signed(bits), name=f"{name}_{i}")
            m.d.sync += signal.eq(value)
            return signal

        head, residual = shadow.word_select(i, 32).as_signed(), added.word_select(i, 8).as_signed()
        for stage in range(2):
            head = register(32, f"head_{stage}", head)
            residual = register(8, f"residual_{stage}", residual)
        params = self.weights.params[i]
        bias = params[:32].as_signed()
        multiplier = params[32 : 32 + MULTIPLIER_BITS]
        shift = params[32 + MULTIPLIER_BITS :]
        biased = register(32, "biased", head + bias)
        shifts = Signal(SHIFT_BITS, name=f"shift_{i}")
        m.d.sync += shifts.eq(shift)
        shifted = register(32, "shifted", biased >> shifts)
        short = register(18, "short", clamp(shifted, 18))
        for stage in range(3):
            multiplier = register(MULTIPLIER_BITS + 1, f"multiplier_{stage}", multiplier)
        product = register(36, "product", short * multiplier)
        for stage in range(2, 5):
            residual = register(8, f"residual_{stage}", residual)
        extra = register(36, "extra", Mux(
            compute.fields["residual"], ((residual << FRACTION) >> compute.fields["halve"]), 0
        ) + (1 << FRACTION - 1))  # fmt: skip
        whole = register(37 - FRACTION, "whole", (product + extra) >> FRACTION)
        byte = Signal(8, name=f"byte_{i}")
        m.d.sync += byte.eq(Mux(compute.fields["relu"] & whole[-1], 0, clamp(whole, 8)))
        return byte
