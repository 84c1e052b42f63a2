"""The unit that walks through the loops of a task, one step a cycle.

For each filter group, for each output pixel of a strip, over all taps and channel groups: a step
reads one word of each lane's feature buffer and one word of weights. Once begun, the steps of a
pixel run without a stop, so nothing behind them needs to be held.
"""

from enum import IntEnum

from amaranth import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib.data import StructLayout
from amaranth.lib.data import View as DataView

from .loaders import MapLoader, WeightLoader
from .sequencer import COUNT_BITS, Tasks
from .shape import BURST, FIELDS, SLOTS, Shape

EXTRA = 11  # cycles from a finished drain to the output buffer, rounded up


class Cause(IntEnum):
    """What the compute unit does with a cycle."""

    CONTROL = 0
    COMPUTE = 1
    INPUT = 2
    WEIGHTS = 3
    OUTPUT = 4


def step_layout(shape: Shape) -> StructLayout:
    """What goes down the pipeline with each step."""
    return StructLayout(
        {
            "first": 1,  # step of a pixel
            "last": 1,
            "capture": max(1, shape.pf // shape.pc),  # residual: which part this word is
            "part": max(1, (shape.parts - 1).bit_length()),  # which part of the words read
            # Residual: which PF channels of this word of PC are the filters' own.
            "third": max(1, (shape.pc // min(shape.pc, shape.pf) - 1).bit_length()),
            "slot": (SLOTS - 1).bit_length(),  # of the parameters
            "place": (2 * BURST - 1).bit_length(),  # in the output buffer's streams
            "ends": 1,  # the last pixel of a chunk
        }
    )


class Loop:
    """A counter from a limit, a register, down to 0, and whether it is there: a register, too."""

    def __init__(self, m: Module, name: str, limit: Signal) -> None:
        self.m, self.limit = m, limit
        self.count, self.ends = Signal.like(limit, name=name), Signal(name=f"{name}_ends")
        self.short = Signal(name=f"{name}_short")  # the limit is 0
        m.d.sync += self.short.eq(limit == 0)

    def reset(self) -> None:
        """Begin anew."""
        self.m.d.sync += [self.count.eq(self.limit), self.ends.eq(self.short)]

    def step(self) -> None:
        """Go on, or begin anew from the end."""
        self.m.d.sync += [self.count.eq(self.count - 1), self.ends.eq(self.count == 1)]
        with self.m.If(self.ends):
            self.reset()


class Compute(Elaboratable):
    """Walks through tasks. `step` is what happens in this cycle, `running` if anything does.

    The addresses go to the loaders' buffers. `inside` is, a cycle later, whether each lane's pixel
    is in the image. `half_freed`: the output buffer has room for another chunk.
    """

    def __init__(self, shape: Shape, tasks: Tasks, weights: WeightLoader, maps: MapLoader) -> None:
        self.shape, self.tasks, self.weights, self.maps = shape, tasks, weights, maps
        self.running = Signal()
        self.step: DataView = Signal(step_layout(shape))
        self.inside = Signal(shape.pv)
        self.half_freed = Signal()
        self.task = Signal(COUNT_BITS)
        self.cause = Signal(3)
        self.own = Signal(FIELDS["groups"])  # the filters' own channels: their channel group,
        self.third = Signal.like(self.step.third)  # and their part of it, PF of PC
        names = ["residual", "shared", "relu", "halve", "w_words", "fgs", "i_len", "groups"]
        names += ["kernel_w", "kernel_h", "out_w", "rows", "double", "in_w", "in_h", "pad", "y0"]
        self.fields = tasks.view(self.task, [*names, "lane_rows", "i_need"])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, f, step = self.shape, self.fields, self.step
        names = ("groups", "kernel_w", "kernel_h", "out_w", "rows", "fgs")
        cg, kx, ky, ox, oy, fg = (Loop(m, f"loop_{name}", f[name]) for name in names)
        # x and y are image coordinates of the step's tap, y from the strip's first row; x0 and y0
        # those of the pixel's first tap.
        across, down = signed(FIELDS["in_w"] + 1), FIELDS["in_h"] + 1
        x, x0 = Signal(across, name="x"), Signal(across, name="x0")
        y, y0 = Signal(down, name="y"), Signal(down, name="y0")
        bits = range(shape.strip)
        places = ("address", "at_tap", "at_line", "at_pixel", "at_row")
        address, tap, line, pixel, row = (Signal(bits, name=name) for name in places)
        jump = Signal(bits)  # from output row to output row
        stride = Signal(2)
        part = Signal(max(1, (shape.parts - 1).bit_length()))
        base = Signal.like(self.weights.address)
        word = Signal.like(self.weights.address)
        slot = Signal(range(SLOTS))
        half = Signal()
        edge = signed(FIELDS["y0"] + 1)
        lows = [Signal(edge, name=f"low_{v}") for v in range(shape.pv)]
        highs = [Signal(edge, name=f"high_{v}") for v in range(shape.pv)]
        lane = Signal(range(shape.pv + 1))
        # Whether the next pixel may start: the drain of the last one is over by the time that this
        # one's sums are there, the output buffer has room, and the rows that it needs are there.
        spacing = Signal(range(shape.drain + 1))
        spaced = Signal(init=1)
        free = Signal(2, init=2)
        room = Signal(init=1)
        place = Signal(range(2 * BURST))
        first_of_chunk = Signal(init=1)
        need = Signal(FIELDS["i_need"])
        rows_there = Signal()
        all_there = Signal()
        late = Signal()  # the pixel might have started before
        claims = Signal()
        claimed = Signal()
        begins = Signal()
        fresh = Signal()
        restart = Signal()  # the loops, in the first cycle of GROUP: a register, to be quick
        # What a start costs is booked in the cycle after, which `fresh` marks; until then `may`
        # is held back.
        following = (free - (fresh & claimed) + self.half_freed)[:2]
        countdown = Mux(fresh, max(0, shape.drain - 2), Mux(spacing == 0, 0, spacing - 1))
        may = spaced & (~fresh if shape.drain > 1 else 1)
        claimable = room & ~fresh
        complete = (self.maps.task ^ self.task)[:2].any()  # it is at most two ahead
        m.d.sync += [
            free.eq(following), room.eq(following != 0), fresh.eq(begins),
            spacing.eq(countdown), spaced.eq(countdown == 0), claimed.eq(claims),
            all_there.eq(complete), rows_there.eq(complete | (self.maps.front >= need)),
        ]  # fmt: skip
        pixel_ends = cg.ends & kx.ends & ky.ends
        chunk_ends = (place[:-1] == BURST - 1) | (ox.ends & oy.ends)
        m.d.comb += [
            step.first.eq(fresh), step.last.eq(pixel_ends), step.part.eq(part),
            step.slot.eq(slot), step.place.eq(place), step.ends.eq(chunk_ends),
            self.maps.address.eq(Cat(address, half)),
        ]  # fmt: skip
        later = Signal.like(word, name="word_later")  # as late as the features' copies
        m.d.sync += [later.eq(word), self.weights.address.eq(later)]
        index = self._captures(m, kx, ky)
        for v in range(shape.pv):
            m.d.sync += self.inside[v].eq(
                (x >= 0) & (x < f["in_w"]) & (y >= lows[v]) & (y < highs[v])
            )
        m.d.sync += [restart.eq(0), self.weights.freed.eq(0)]
        m.d.comb += self.weights.freed_words.eq(f["w_words"])
        with m.If(restart):
            start = Signal.like(address)
            m.d.comb += start.eq(-f["pad"])
            m.d.sync += [each.eq(start) for each in (address, tap, line, pixel, row)]
            m.d.sync += [x.eq(-f["pad"]), x0.eq(-f["pad"]), y.eq(0), y0.eq(0), part.eq(0)]
            m.d.sync += [index.eq(0), word.eq(base), first_of_chunk.eq(1)]
            for loop in (cg, kx, ky, ox, oy):
                loop.reset()
        with m.Elif(self.running):
            m.d.sync += [word.eq(word + 1), index.eq(index + 1), part.eq(part + 1)]
            with m.If(part == shape.parts - 1):
                m.d.sync += [address.eq(address + f["i_len"]), part.eq(0)]
            cg.step()
            with m.If(cg.ends):
                kx.step()
                m.d.sync += [index.eq(0), part.eq(0), x.eq(x + 1)]
                m.d.sync += [address.eq(tap + 1), tap.eq(tap + 1)]
                with m.If(f["shared"] | (kx.ends & ky.ends)):
                    m.d.sync += word.eq(base)
                with m.If(kx.ends):
                    ky.step()
                    m.d.sync += [y.eq(y + 1), x.eq(x0)]
                    m.d.sync += [e.eq(line + f["in_w"]) for e in (address, tap, line)]
            with m.If(pixel_ends):
                ox.step()
                m.d.sync += [e.eq(x0 + stride) for e in (x, x0)]
                m.d.sync += y.eq(y0)
                m.d.sync += [e.eq(pixel + stride) for e in (address, tap, line, pixel)]
                m.d.sync += [place.eq(place + 1), first_of_chunk.eq(chunk_ends)]
                with m.If(chunk_ends):
                    m.d.sync += place.eq(Mux(place[-1], 0, BURST))
                with m.If(ox.ends):
                    oy.step()
                    m.d.sync += need.eq(need + jump)
                    m.d.sync += [e.eq(-f["pad"]) for e in (x, x0)]
                    m.d.sync += [e.eq(y0 + stride) for e in (y, y0)]
                    m.d.sync += [e.eq(row + jump) for e in (address, tap, line, pixel, row)]
        wait = Signal(range(shape.latency + shape.drain + EXTRA + 1))
        m.d.comb += self.cause.eq(Cause.CONTROL)
        with m.FSM():
            with m.State("TASK"), m.If(f["there"]):
                m.d.sync += [lane.eq(0), half.eq(self.task[0])]
                m.d.sync += [self.own.eq(0), self.third.eq(0)]
                m.next = "LANES"
            with m.State("LANES"):
                top = f["y0"].as_signed()
                m.d.sync += [
                    stride.eq(1 + f["double"]), need.eq(f["i_need"]), lane.eq(lane + 1),
                    jump.eq(Mux(f["double"], f["in_w"] << 1, f["in_w"])),
                ]  # fmt: skip
                fg.reset()
                for v in range(shape.pv):
                    with m.If(lane == v):
                        if v == 0:
                            m.d.sync += [lows[0].eq(-top), highs[0].eq(f["in_h"] - top)]
                        else:
                            m.d.sync += lows[v].eq(lows[v - 1] - f["lane_rows"])
                            m.d.sync += highs[v].eq(highs[v - 1] - f["lane_rows"])
                with m.If(lane == shape.pv - 1):
                    m.d.sync += restart.eq(1)
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.sync += late.eq(0)
                with m.If(self.weights.there):
                    m.next = "HOLD"
                with m.Else():
                    m.d.comb += self.cause.eq(Cause.WEIGHTS)
            with m.State("ROW"):  # `rows_there` is of the new row only after a cycle
                m.d.comb += self.cause.eq(Cause.INPUT)
                m.next = "HOLD"
            with m.State("HOLD"):
                m.d.sync += late.eq(1)
                with m.If(~rows_there):
                    m.d.comb += self.cause.eq(Cause.INPUT)
                with m.Elif(late):
                    m.d.comb += self.cause.eq(Cause.OUTPUT)
                with m.If(rows_there & may & (claimable | ~first_of_chunk)):
                    m.d.comb += [begins.eq(1), claims.eq(first_of_chunk)]
                    m.d.sync += self.running.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [self.cause.eq(Cause.COMPUTE), claims.eq(chunk_ends)]
                with m.If(pixel_ends):
                    m.d.sync += [self.running.eq(0), late.eq(1)]
                    with m.If(ox.ends & oy.ends):
                        m.next = "FREE"
                    with m.Elif(ox.ends & ~all_there):
                        m.next = "ROW"
                    with m.Elif(may & (claimable | ~chunk_ends)):
                        m.d.comb += begins.eq(1)
                        m.d.sync += self.running.eq(1)
                    with m.Else():
                        m.next = "HOLD"
            with m.State("FREE"):
                m.d.sync += [self.weights.freed.eq(1), base.eq(base + f["w_words"])]
                m.d.sync += [slot.eq(slot + 1), need.eq(f["i_need"])]
                fg.step()
                m.next = "NEXT"
                with m.If(fg.ends):
                    m.d.sync += wait.eq(shape.latency + shape.drain + EXTRA)
                    m.next = "DRAIN"
            with m.State("NEXT"):  # whether the next group is there is known only after a cycle
                m.d.sync += restart.eq(1)
                m.next = "GROUP"
            with m.State("DRAIN"):  # the settings of this task are needed until its end
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.sync += [self.task.eq(self.task + 1)]
                    m.d.sync += self.maps.computed.eq(self.task + 1)
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.next = "TASK"
        return m

    def _captures(self, m: Module, kx: Loop, ky: Loop) -> Signal:
        """Say which steps read the residual: the filters' own channels at the centre tap. Return
        the index of the channel group, which the loops count."""
        shape, f, step = self.shape, self.fields, self.step
        captures = max(1, shape.pf // shape.pc)
        own, third = self.own, self.third
        index = Signal(FIELDS["groups"])
        sides = [(f[side] - f["pad"])[: FIELDS[side]] for side in ("kernel_w", "kernel_h")]
        centre = Signal(FIELDS["kernel_w"] + FIELDS["kernel_h"])
        m.d.sync += centre.eq(Cat(*sides))
        wanted = f["residual"] & (Cat(kx.count, ky.count) == centre)
        m.d.comb += step.third.eq(third)
        for i in range(captures):
            low = (captures - 1).bit_length()
            here = (index[low:] == own[low:]) & (index[:low] == i)
            m.d.comb += step.capture[i].eq(wanted & here)
        with m.If(self.weights.freed):
            if shape.pf >= shape.pc:
                m.d.sync += own.eq(own + captures)
            else:
                m.d.sync += third.eq(third + 1)
                with m.If(third == shape.pc // shape.pf - 1):
                    m.d.sync += [third.eq(0), own.eq(own + 1)]
        return index
