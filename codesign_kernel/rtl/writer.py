"""The unit that writes finished pixels from the output buffer to memory, in bursts."""

from amaranth import Elaboratable, Module, Mux, Signal, signed

from .compute import Compute
from .datapath import Datapath
from .loaders import MapLoader
from .sequencer import COUNT_BITS, Client, Port, Tasks
from .shape import ADDRESS_BITS, BURST, FIELDS, Shape


class Writer(Elaboratable):
    """Writes chunk after chunk: of each stream a burst of up to BURST pixels of one plane."""

    def __init__(self, shape: Shape, port: Port, tasks: Tasks, compute: Compute,
                 datapath: Datapath, maps: MapLoader) -> None:  # fmt: skip
        self.shape, self.port, self.tasks = shape, port, tasks
        self.compute, self.datapath, self.maps = compute, datapath, maps
        self.client = Client()
        self.task = Signal(COUNT_BITS)
        names = ["o_addr", "o_pitch", "o_planes", "o_strip", "o_valid", "fgs"]
        self.fields = tasks.view(self.task, names)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, client, task = self.shape, self.client, self.fields
        per_lane = shape.pf // shape.out_bytes  # planes of one lane in one filter group
        shares = shape.port_bytes // shape.out_bytes  # filter groups that share a plane
        m.d.comb += [self.tasks.written.eq(self.task), self.maps.written.eq(self.task)]
        ready = Signal(2)
        taken = Signal()
        m.d.sync += ready.eq(ready + self.datapath.chunk - taken)
        m.d.comb += self.compute.half_freed.eq(taken)
        fg = Signal(FIELDS["fgs"])
        plane = Signal(FIELDS["o_planes"])
        share = Signal(range(max(2, shares)), name="third")  # as in the RTLIL that was measured
        rest = Signal(FIELDS["o_strip"])  # pixels of the strip from this chunk on
        group = Signal(ADDRESS_BITS)  # the beats where the filter group, chunk and lane begin
        chunk = Signal(ADDRESS_BITS)
        lane_at = Signal(ADDRESS_BITS)
        lane = Signal(range(shape.pv))
        sub = Signal(range(max(2, per_lane)))
        half = Signal()
        size = Signal.like(client.length)
        left = Signal(signed(FIELDS["o_valid"] + 2))
        left_chunk = Signal.like(left)
        current = Signal.like(plane)
        final = Signal()  # this is the strip's last chunk
        unused = Signal()  # this stream is beyond the map
        sent = self._send(m, half, lane * per_lane + sub, share, shares)
        with m.FSM():
            with m.State("TASK"), m.If(task["there"]):
                m.d.sync += [fg.eq(task["fgs"]), plane.eq(0), share.eq(0), group.eq(task["o_addr"])]
                m.next = "STRIP"
            with m.State("STRIP"):
                m.d.sync += [
                    rest.eq(task["o_strip"]), left_chunk.eq(task["o_valid"]), chunk.eq(group)
                ]  # fmt: skip
                m.next = "CHUNK"
            with m.State("CHUNK"), m.If(ready != 0):
                m.d.sync += [
                    size.eq(Mux(rest < BURST, rest, BURST)), final.eq(rest <= BURST),
                    lane.eq(0), sub.eq(0), current.eq(plane), left.eq(left_chunk),
                    lane_at.eq(chunk), client.address.eq(chunk),
                ]  # fmt: skip
                m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += [
                    client.length.eq(Mux(left < size, left, size)),
                    unused.eq((left <= 0) | (current > task["o_planes"])),
                ]
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += client.valid.eq(~unused)
                m.next = "ASK"
                with m.If(unused):
                    m.next = "STREAM"
            with m.State("ASK"), m.If(client.ready):
                m.d.sync += client.valid.eq(0)
                m.next = "SEND"
            with m.State("SEND"), m.If(sent):
                m.next = "STREAM"
            with m.State("STREAM"):
                m.d.sync += [sub.eq(sub + 1), current.eq(current + 1)]
                m.d.sync += client.address.eq(client.address + task["o_pitch"])
                m.next = "SIZE"
                with m.If(sub == per_lane - 1):
                    beyond = lane_at + task["o_strip"]
                    m.d.sync += [sub.eq(0), current.eq(plane), lane.eq(lane + 1)]
                    m.d.sync += [client.address.eq(beyond), lane_at.eq(beyond)]
                    m.d.sync += left.eq(left - task["o_strip"])
                    with m.If(lane == shape.pv - 1):
                        m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += taken.eq(1)
                m.d.sync += [half.eq(~half), chunk.eq(chunk + BURST), rest.eq(rest - BURST)]
                m.d.sync += left_chunk.eq(left_chunk - BURST)
                m.next = "CHUNK"
                with m.If(final):
                    m.d.sync += fg.eq(fg - 1)
                    m.next = "STRIP"
                    if per_lane > 1 or shares == 1:
                        m.d.sync += plane.eq(plane + per_lane)
                        m.d.sync += group.eq(group + task["o_pitch"] * per_lane)
                    else:
                        m.d.sync += share.eq(share + 1)
                        with m.If(share == shares - 1):
                            m.d.sync += [share.eq(0), plane.eq(plane + 1)]
                            m.d.sync += group.eq(group + task["o_pitch"])
                    with m.If(fg == 0):
                        m.next = "END"
            with m.State("END"), m.If(~self.port.write_valid):
                m.d.sync += self.task.eq(self.task + 1)
                m.next = "SETTLE"
            with m.State("SETTLE"):
                m.next = "TASK"
        return m

    def _send(self, m: Module, half: Signal, stream: object, share: Signal,
              shares: int) -> Signal:  # fmt: skip
        """Move the beats of a granted command from the output buffer to the port, through a
        register. Return whether the last one is in it."""
        shape, port, client = self.shape, self.port, self.client
        left = Signal.like(client.length)
        at = Signal(range(BURST))
        sent = Signal()
        base = Signal(range(2 * shape.streams))
        m.d.sync += [sent.eq(0), base.eq(half * shape.streams + stream)]
        m.d.comb += self.datapath.out_address.eq((base << len(at)) | at)
        with m.If(port.write_ready):
            m.d.sync += port.write_valid.eq(0)
        with m.If(client.ready):
            m.d.sync += [left.eq(client.length), at.eq(0)]
        with m.Elif((left != 0) & (~port.write_valid | port.write_ready)):
            m.d.sync += [
                port.write_valid.eq(1), port.write_data.eq(self.datapath.out.replicate(shares)),
                left.eq(left - 1), at.eq(at + 1), sent.eq(left == 1),
            ]  # fmt: skip
            for i in range(shares):
                part = port.write_mask[i * shape.out_bytes : (i + 1) * shape.out_bytes]
                m.d.sync += part.eq((share == i).replicate(shape.out_bytes))
        return sent
