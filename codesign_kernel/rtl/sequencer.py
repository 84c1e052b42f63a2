"""Memory traffic of the tasks: the port's arbiter, bursts, and the reader of task descriptors."""

from amaranth import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory

from .shape import ADDRESS_BITS, BURST, FIELDS, QUEUE, READS, TASK_BITS, Shape

LENGTH_BITS = BURST.bit_length()
COUNT_BITS = 12  # of tasks; only differences count, so that counters may wrap


class Port:
    """The memory port. A command reads or writes `length` beats; reads return in order, the first
    beat 3 cycles after its command or later: `Arbiter` would not know yet whose it is. All rules
    are in `../protocol.py`."""

    def __init__(self, shape: Shape) -> None:
        self.valid = Signal()
        self.ready = Signal()
        self.write = Signal()
        self.address = Signal(ADDRESS_BITS)
        self.length = Signal(LENGTH_BITS)
        self.write_data = Signal(shape.port_bits)
        self.write_mask = Signal(shape.port_bytes)
        self.write_valid = Signal()
        self.write_ready = Signal()
        self.read_data = Signal(shape.port_bits)
        self.read_valid = Signal()


class Client:
    """One unit's wish for a command: granted in the cycle in which both flags are set.

    `beat`: a beat that this client has read is in the arbiter's `data`; `last`: and it ends a
    command that was asked for with `final`. `lazy`: this can wait until no reads are under way.
    """

    def __init__(self) -> None:
        self.valid = Signal()
        self.lazy = Signal()
        self.ready = Signal()
        self.address = Signal(ADDRESS_BITS)
        self.length = Signal(LENGTH_BITS)
        self.final = Signal()
        self.beat = Signal()
        self.last = Signal()


class Bursts(Elaboratable):
    """Asks for `count` beats from `address` on, in bursts, after `begin`. `idle`: all granted."""

    def __init__(self, bits: int) -> None:
        self.client = Client()
        self.begin = Signal()
        self.idle = Signal()
        self.address = Signal(ADDRESS_BITS)
        self.count = Signal(bits)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        client = self.client
        left = Signal.like(self.count)
        short = Signal()
        m.d.comb += short.eq(left <= BURST)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += self.idle.eq(1)
                with m.If(self.begin):
                    m.d.sync += self.idle.eq(0)
                    m.d.sync += [client.address.eq(self.address), left.eq(self.count)]
                    m.next = "SPLIT"
            with m.State("SPLIT"):
                m.d.sync += [
                    client.valid.eq(1), client.final.eq(short), left.eq(left - BURST),
                    client.length.eq(Mux(short, left, BURST)),
                ]  # fmt: skip
                m.next = "ASK"
            with m.State("ASK"), m.If(client.ready):
                m.d.sync += [client.valid.eq(0), client.address.eq(client.address + BURST)]
                m.next = "SPLIT"
                with m.If(client.final):
                    m.next = "IDLE"
        return m


class Arbiter(Elaboratable):
    """Grants the port to the first client that asks: the writer, then `readers` in order. `data`
    is the beat read, a cycle after it is on the port."""

    def __init__(self, port: Port, readers: list[Client], writer: Client) -> None:
        self.port, self.readers, self.writer = port, readers, writer
        self.data = Signal.like(port.read_data)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port, clients = self.port, [self.writer, *self.readers]
        width = LENGTH_BITS + 1 + len(self.readers)
        m.submodules.returning = returning = SyncFIFOBuffered(width=width, depth=READS + 2)
        may_read = Signal()  # one whose beats come is out of `returning`, one not yet in its level
        quiet = Signal()  # the memory has no more than one command to go on with
        m.d.sync += [may_read.eq(returning.level < READS - 2), returning.w_en.eq(0)]
        m.d.sync += quiet.eq(returning.level == 0)
        # In turn: choose a client, take over its command, wait until the memory has it. The last
        # two readers take turns, so that neither starves the other.
        asks = [self.writer.valid]
        asks += [each.valid & may_read & (quiet | ~each.lazy) for each in self.readers]
        grant = Signal(len(clients))
        other = Signal()
        with m.If(~port.valid & ~grant.any()):
            free: Value = Const(1)
            for which in range(len(clients)):
                blocked = (asks[-1] & other) if which == len(clients) - 2 else Const(0)
                m.d.sync += grant[which].eq(asks[which] & free & ~blocked)
                free = free & (~asks[which] | blocked)
        with m.If(port.ready):
            m.d.sync += port.valid.eq(0)
        for which, client in enumerate(clients):
            reads = which > 0
            m.d.comb += client.ready.eq(grant[which])
            with m.If(grant[which]):
                who = Const(1 << which - 1, len(self.readers)) if reads else 0
                m.d.sync += returning.w_data.eq(Cat(client.length, client.final, who))
                m.d.sync += [
                    grant.eq(0),
                    returning.w_en.eq(reads),
                    port.valid.eq(1),
                    port.write.eq(not reads),
                    port.address.eq(client.address),
                    port.length.eq(client.length),
                ]
                if which >= len(clients) - 2:
                    m.d.sync += other.eq(which == len(clients) - 2)
        # Beats that return belong to the oldest read, until all of its beats are there.
        there = Signal()
        ends = Signal()
        left = Signal(LENGTH_BITS)
        final = Signal()
        who = Signal(len(self.readers))
        m.d.sync += self.data.eq(port.read_data)
        for which, client in enumerate(self.readers):
            m.d.sync += client.beat.eq(port.read_valid & who[which])
            m.d.sync += client.last.eq(port.read_valid & who[which] & ends & final)
        with m.If(port.read_valid):
            m.d.sync += [left.eq(left - 1), ends.eq(left == 2)]
        with m.If(~there | (port.read_valid & ends)):
            length = returning.r_data[:LENGTH_BITS]
            m.d.comb += returning.r_en.eq(1)
            m.d.sync += [there.eq(returning.r_rdy), left.eq(length), ends.eq(length == 1)]
            m.d.sync += Cat(final, who).eq(returning.r_data[LENGTH_BITS:])
        return m


class Tasks(Elaboratable):
    """Reads descriptors from beat 0 on, up to QUEUE tasks ahead of the last one written.

    `read` counts the tasks read. `view(count, names)` gives fields of the task of that number.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.client = Client()
        self.data = Signal(shape.port_bits)
        self.start = Signal()
        self.done = Signal()
        self.read = Signal(COUNT_BITS)
        self.written = Signal(COUNT_BITS)
        self._views: list[tuple[Signal, dict[str, Signal]]] = []

    def view(self, count: Signal, names: list[str]) -> dict[str, Signal]:
        """Return registers that follow `count` a cycle later: the task's fields, and `there`:
        whether the task has been read."""
        fields = {name: Signal(FIELDS[name], name=f"task_{name}") for name in names}
        fields["there"] = Signal(name="task_there")
        self._views.append((count, dict(fields)))
        return fields

    def elaborate(self, platform: object) -> Module:
        m = Module()
        client, beats = self.client, TASK_BITS // self.shape.port_bits
        assert beats <= BURST, "a task is read by one command"
        places, place = {}, 0
        for name, bits in FIELDS.items():
            places[name] = slice(place, place + bits)
            place += bits
        word = Signal(TASK_BITS)
        count = Signal(COUNT_BITS)
        arrived = Signal()
        for which, (number, fields) in enumerate(self._views):
            there = fields.pop("there")
            # The last bits tell tasks apart of which no more than QUEUE are on their way.
            m.d.sync += there.eq((number ^ self.read)[: QUEUE.bit_length()].any())
            width = sum(len(signal) for signal in fields.values())
            memory = Memory(shape=width, depth=QUEUE, init=[])
            m.submodules[f"view_{which}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(arrived),
                write.addr.eq(count),
                write.data.eq(Cat(*(word[places[name]] for name in fields))),
                read.addr.eq(number),
            ]
            m.d.sync += Cat(*fields.values()).eq(read.data)
        m.d.sync += self.read.eq(count)  # when the registers of the views have it, too
        m.d.comb += [client.length.eq(beats), client.final.eq(1)]
        ended = Signal(init=1)
        running = Signal()
        room = Signal()
        m.d.sync += room.eq((count - self.written)[:COUNT_BITS] < QUEUE - 1)
        m.d.sync += arrived.eq(client.last)
        with m.FSM():
            with m.State("ASK"), m.If(room & ~ended):
                m.d.sync += client.valid.eq(1)
                m.next = "GRANT"
            with m.State("GRANT"), m.If(client.ready):
                m.d.sync += [client.valid.eq(0), client.address.eq(client.address + beats)]
                m.next = "ARRIVE"
            with m.State("ARRIVE"), m.If(arrived):
                m.d.sync += [count.eq(count + 1), ended.eq(word[places["last"]])]
                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.next = "ASK"
        with m.If(client.beat):
            m.d.sync += word.eq(Cat(word[self.shape.port_bits :], self.data))
        with m.If(self.start):
            m.d.sync += [ended.eq(0), client.address.eq(0), running.eq(1), self.done.eq(0)]
        over = Signal()
        m.d.sync += over.eq(running & ended & (self.written == count))
        with m.If(over & ~self.start):
            m.d.sync += [self.done.eq(1), running.eq(0)]
        return m
