"""The units that bring weights and feature maps into the on-chip buffers, ahead of their use."""

from amaranth import Cat, Elaboratable, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory

from .sequencer import COUNT_BITS, Bursts, Tasks
from .shape import BEAT_BITS, FIELDS, MULTIPLIER_BITS, SHIFT_BITS, SLOTS, Shape

GROUP_BITS = FIELDS["fgs"]
PARAM_BITS = 32 + MULTIPLIER_BITS + SHIFT_BITS  # the rest of the 64 is not stored


class WeightLoader(Elaboratable):
    """Fills the weight buffer, a ring of words of PF x PC bytes, and the parameters' slots.

    A filter group is asked for once the ring has room for all of it. `there`: the oldest group is
    complete; the reader says with `freed` that it is through with it, of `freed_words` words.
    `word` follows `address` a cycle later, `params` `param_address` two.
    """

    def __init__(self, shape: Shape, tasks: Tasks) -> None:
        self.shape, self.tasks = shape, tasks
        self.bursts = Bursts(BEAT_BITS)
        self.client = self.bursts.client
        self.data = Signal(shape.port_bits)
        self.there = Signal()
        self.freed = Signal()
        self.freed_words = Signal(FIELDS["w_words"])
        self.address = Signal(range(shape.weight_words))
        self.word = Signal(shape.pf * shape.pc * 8)
        self.param_address = Signal(range(SLOTS * shape.pf // shape.po))
        self.params = [Signal(PARAM_BITS, name=f"params_{i}") for i in range(shape.po)]
        self.task = Signal(COUNT_BITS)
        self.fields = tasks.view(self.task, ["w_addr", "w_words", "fgs"])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        m.submodules.bursts = bursts = self.bursts
        # Ask: group after group.
        words = Signal(FIELDS["w_words"])
        left_groups = Signal(GROUP_BITS)
        beats = Signal(BEAT_BITS)
        room = Signal(range(shape.weight_words + 1), init=shape.weight_words)
        held = Signal(GROUP_BITS)  # groups asked for and not yet freed
        fits = Signal()
        take = Signal()
        given = Signal(range(shape.weight_words + 1))
        place = Signal.like(bursts.address)
        m.d.sync += [
            fits.eq((words <= room) & (held < SLOTS - 2)),
            beats.eq(words * shape.word_beats + shape.pf * shape.param_beats),
        ]
        m.d.comb += [bursts.address.eq(place), bursts.count.eq(beats), bursts.begin.eq(take)]
        with m.FSM():
            with m.State("TASK"), m.If(self.fields["there"]):
                m.d.sync += [
                    words.eq(self.fields["w_words"]),
                    left_groups.eq(self.fields["fgs"]),
                    place.eq(self.fields["w_addr"]),
                    self.task.eq(self.task + 1),
                ]
                m.next = "SETTLE"
            with m.State("SETTLE"):  # `fits` is up to date only after a cycle
                m.next = "GROUP"
            with m.State("GROUP"), m.If(fits):
                m.d.comb += take.eq(1)
                m.next = "ASK"
            with m.State("ASK"), m.If(bursts.idle):
                m.d.sync += [place.eq(place + beats), left_groups.eq(left_groups - 1)]
                m.next = "GROUP"
                with m.If(left_groups == 0):
                    m.next = "TASK"
        m.d.sync += held.eq(held + take - self.freed)
        # A cycle late, which the states above allow: the two terms are known from registers.
        m.d.sync += given.eq(Mux(self.freed, self.freed_words, 0) - Mux(take, words, 0))
        m.d.sync += room.eq(room + given)
        self._receive(m)
        return m

    def _receive(self, m: Module) -> None:
        """Store beats: of each group first the parameters, then the words."""
        shape, client, data = self.shape, self.client, self.data
        param = Signal(range(shape.pf))
        in_params = Signal(init=1)
        half = Signal(range(max(2, shape.param_beats)))
        slot = Signal(range(SLOTS))
        row = Signal(range(shape.weight_words))
        place = Signal(range(max(2, shape.word_beats)))
        low = Signal(32)
        per_slot = shape.pf // shape.po
        for i, out in enumerate(self.params):
            memory = Memory(shape=PARAM_BITS, depth=SLOTS * per_slot, init=[])
            m.submodules[f"params_{i}"] = memory
            write, read = memory.write_port(), memory.read_port()
            whole = data if shape.param_beats == 1 else Cat(low, data)
            m.d.comb += [
                write.addr.eq(slot * per_slot + param // shape.po),
                write.data.eq(whole),
                write.en.eq(client.beat & in_params & (param % shape.po == i)
                            & (half == shape.param_beats - 1)),
                read.addr.eq(self.param_address), read.en.eq(1),
            ]  # fmt: skip
            m.d.sync += out.eq(read.data)
        for i in range(shape.word_beats):
            memory = Memory(shape=shape.port_bits, depth=shape.weight_words, init=[])
            m.submodules[f"words_{i}"] = memory
            write, read = memory.write_port(), memory.read_port()
            part = self.word[i * shape.port_bits : (i + 1) * shape.port_bits]
            m.d.comb += [
                write.addr.eq(row), write.data.eq(data),
                write.en.eq(client.beat & ~in_params & (place == i)),
                read.addr.eq(self.address), part.eq(read.data), read.en.eq(1),
            ]  # fmt: skip
        groups = Signal(GROUP_BITS)
        arrived = Signal()
        m.d.sync += arrived.eq(client.last)
        following = (groups + arrived - self.freed)[:GROUP_BITS]
        m.d.sync += [groups.eq(following), self.there.eq(following != 0)]
        m.d.sync += client.lazy.eq(following[1:] != 0)  # there is one beyond the one in use
        with m.If(client.beat & in_params):
            m.d.sync += low.eq(data)
            with m.If(half == shape.param_beats - 1):
                m.d.sync += [half.eq(0), param.eq(param + 1)]
                with m.If(param == shape.pf - 1):
                    m.d.sync += [param.eq(0), in_params.eq(0)]
            with m.Else():
                m.d.sync += half.eq(half + 1)
        with m.If(client.beat & ~in_params):
            m.d.sync += place.eq(place + 1)
            with m.If(place == shape.word_beats - 1):
                m.d.sync += [place.eq(0), row.eq(row + 1)]
        with m.If(client.last):
            m.d.sync += [in_params.eq(1), slot.eq(slot + 1)]


class MapLoader(Elaboratable):
    """Fills the feature buffer: two halves, task after task in turn. Each lane has its own banks.

    `task` counts the tasks that are there; of the one under way, `front` pixels of lane 0 are
    (chunk after chunk of rows, of all planes). A task is begun once `computed` says that its half
    is free and, where the map is what earlier tasks write, `written` that they have. Reads take a
    cycle: `words` (a lane each, PC bytes x parts) follow `address`, of which bit -1 is the half.
    """

    def __init__(self, shape: Shape, tasks: Tasks) -> None:
        self.shape, self.tasks = shape, tasks
        self.bursts = Bursts(FIELDS["i_chunk"])
        self.client = self.bursts.client
        self.data = Signal(shape.port_bits)
        self.task = Signal(COUNT_BITS)
        self.front = Signal(FIELDS["i_need"])
        self.computed = Signal(COUNT_BITS)
        self.written = Signal(COUNT_BITS)
        self.address = Signal(range(2 * shape.strip))
        width = shape.banks * shape.port_bits
        self.words = [Signal(width, name=f"words_{v}") for v in range(shape.pv)]
        names = ["i_addr", "i_pitch", "i_planes", "i_chunk", "i_chunks", "i_rest", "i_first"]
        self.fields = tasks.view(self.task, [*names, "i_step", "i_len", "wait"])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, f = self.shape, self.fields
        m.submodules.bursts = bursts = self.bursts
        ready = Signal()
        ahead = (self.task - self.computed)[:COUNT_BITS]
        m.d.sync += ready.eq(f["there"] & (ahead < 2) & (~f["wait"] | (self.written == self.task)))
        planes = Signal(FIELDS["i_planes"])
        chunks = Signal(FIELDS["i_chunks"])
        size = Signal(FIELDS["i_chunk"])
        at = Signal.like(bursts.address)
        row = Signal.like(bursts.address)
        places = signed(FIELDS["i_first"] + 1)  # before a strip, in it or behind it
        firsts = [Signal(places, name=f"first_{v}") for v in range(shape.pv)]
        lane = Signal(range(shape.pv + 1))
        finished = Signal()
        last_plane = Signal()
        last_chunk = Signal()
        m.d.sync += [last_plane.eq(planes == 0), last_chunk.eq(chunks == 0)]
        begun = Signal()  # reset what receives
        m.d.comb += [bursts.address.eq(at), bursts.count.eq(size)]
        # What is done in a state is told from a register: the long counters are far from the FSM.
        loading = Signal()
        asked = Signal()
        m.d.sync += [loading.eq(0), bursts.begin.eq(0)]
        with m.If(loading):
            m.d.sync += [
                at.eq(f["i_addr"]), row.eq(f["i_addr"]),
                planes.eq(f["i_planes"]), chunks.eq(f["i_chunks"]),
                size.eq(f["i_chunk"]), firsts[0].eq(f["i_first"]),
            ]  # fmt: skip
        with m.If(asked & bursts.idle):
            m.d.sync += [at.eq(at + f["i_pitch"]), planes.eq(planes - 1), asked.eq(0)]
            with m.If(last_plane):
                m.d.sync += [row.eq(row + size), planes.eq(f["i_planes"])]
                m.d.sync += chunks.eq(chunks - 1)
        with m.FSM():
            with m.State("TASK"), m.If(ready):
                m.d.sync += [loading.eq(1), lane.eq(1)]
                m.next = "LOAD"
            with m.State("LOAD"):
                m.next = "LANES"
            with m.State("LANES"):
                for v in range(1, shape.pv):
                    with m.If(lane == v):
                        m.d.sync += firsts[v].eq(firsts[v - 1] - f["i_step"])
                m.d.sync += lane.eq(lane + 1)
                with m.If(lane == shape.pv):
                    m.d.comb += begun.eq(1)
                    m.next = "CHUNK"
            with m.State("CHUNK"):
                with m.If(last_chunk):
                    m.d.sync += size.eq(f["i_rest"])
                m.next = "PLANE"
            with m.State("PLANE"):
                m.d.sync += bursts.begin.eq(1)
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += asked.eq(1)
                m.next = "ASK"
            with m.State("ASK"), m.If(bursts.idle):
                m.next = "PLANE"
                with m.If(last_plane):
                    m.next = "ROW"
                    with m.If(last_chunk):
                        m.next = "ARRIVE"
            with m.State("ROW"):
                m.d.sync += at.eq(row)
                m.next = "CHUNK"
            with m.State("ARRIVE"), m.If(finished):
                m.d.sync += [self.task.eq(self.task + 1), self.front.eq(0)]
                m.next = "SETTLE"
            with m.State("SETTLE"):  # `ready` is of the next task only after two cycles
                m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "TASK"
        self._receive(m, firsts, begun, finished)
        return m

    def _receive(self, m: Module, firsts: list[Signal], begun: Signal, finished: Signal) -> None:
        """Store beats. A lane stores the pixels that are in its strip: halos are in two."""
        shape, f, client = self.shape, self.fields, self.client
        half = self.task[0]
        data = Signal(shape.port_bits)
        planes = Signal(FIELDS["i_planes"])
        chunks = Signal(FIELDS["i_chunks"])
        bank = Signal(range(max(2, shape.banks)))
        offset = Signal(range(shape.strip))
        counts = [Signal.like(first, name=f"count_{v}") for v, first in enumerate(firsts)]
        last_plane = Signal()
        last_chunk = Signal()
        m.d.sync += [last_plane.eq(planes == 0), last_chunk.eq(chunks == 0)]
        m.d.sync += data.eq(self.data)
        for v, count in enumerate(counts):
            place = Signal(range(shape.strip))
            wanted = Signal(shape.banks)
            inside = (count >= 0) & (count < f["i_len"])
            m.d.sync += place.eq(offset + count)
            for i in range(shape.banks):
                m.d.sync += wanted[i].eq(client.beat & inside & (bank == i))
                memory = Memory(shape=shape.port_bits, depth=2 * shape.strip, init=[])
                m.submodules[f"lane_{v}_{i}"] = memory
                write, read = memory.write_port(), memory.read_port()
                part = self.words[v][i * shape.port_bits : (i + 1) * shape.port_bits]
                m.d.comb += [
                    write.addr.eq(Cat(place, half)), write.data.eq(data),
                    write.en.eq(wanted[i]), read.addr.eq(self.address),
                    part.eq(read.data), read.en.eq(1),
                ]  # fmt: skip
        with m.If(client.beat):
            m.d.sync += [count.eq(count + 1) for count in counts]
        with m.If(client.last):
            m.d.sync += [count.eq(first) for count, first in zip(counts, firsts, strict=True)]
            m.d.sync += [planes.eq(planes - 1), bank.eq(bank + 1)]
            with m.If(bank == shape.banks - 1):
                m.d.sync += [bank.eq(0), offset.eq(offset + f["i_len"])]
            with m.If(last_plane):  # the next beat begins a chunk
                m.d.sync += [planes.eq(f["i_planes"]), bank.eq(0), offset.eq(0)]
                m.d.sync += [chunks.eq(chunks - 1), finished.eq(last_chunk)]
                m.d.sync += self.front.eq(self.front + f["i_chunk"])
                for count, first in zip(counts, firsts, strict=True):
                    m.d.sync += [each.eq(first + f["i_chunk"]) for each in (count, first)]
        with m.If(begun):
            m.d.sync += [planes.eq(f["i_planes"]), chunks.eq(f["i_chunks"])]
            m.d.sync += [bank.eq(0), offset.eq(0), finished.eq(0), self.front.eq(f["i_first"])]
            m.d.sync += [count.eq(first) for count, first in zip(counts, firsts, strict=True)]
