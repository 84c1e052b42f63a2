"""The whole engine: five units around one memory port."""

from amaranth import Elaboratable, Module, Signal
from amaranth.back import rtlil

from .compute import Compute
from .datapath import Datapath
from .loaders import MapLoader, WeightLoader
from .sequencer import COUNT_BITS, Arbiter, Port, Tasks
from .shape import Shape
from .writer import Writer


class Engine(Elaboratable):
    """Runs the tasks in memory from `start` to `done`. `cause` and `task` say what this cycle is
    spent on, for whoever counts."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.port = Port(shape)
        self.start = Signal()
        self.done = Signal()
        self.cause = Signal(3)
        self.task = Signal(COUNT_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, port = self.shape, self.port
        m.submodules.tasks = tasks = Tasks(shape)
        m.submodules.weights = weights = WeightLoader(shape, tasks)
        m.submodules.maps = maps = MapLoader(shape, tasks)
        m.submodules.compute = compute = Compute(shape, tasks, weights, maps)
        m.submodules.datapath = datapath = Datapath(shape, compute, weights, maps)
        m.submodules.writer = writer = Writer(shape, port, tasks, compute, datapath, maps)
        readers = [tasks.client, maps.client, weights.client]
        m.submodules.arbiter = arbiter = Arbiter(port, readers, writer.client)
        m.d.comb += [unit.data.eq(arbiter.data) for unit in (tasks, maps, weights)]
        m.d.comb += [
            tasks.start.eq(self.start),
            self.done.eq(tasks.done),
            self.cause.eq(compute.cause),
            self.task.eq(compute.task),
        ]
        return m

    def ports(self, watched: bool) -> dict[str, Signal]:
        """Return the signals at the engine's edge, by name; with `watched` the two for counting."""
        names = ("start", "done", "cause", "task")[: 4 if watched else 2]
        return {**vars(self.port), **{name: getattr(self, name) for name in names}}


def to_rtlil(shape: Shape, watched: bool = True) -> str:
    """Return the engine as RTLIL, the text that Yosys reads."""
    engine = Engine(shape)
    ports = {name: (signal, None) for name, signal in engine.ports(watched).items()}
    return str(rtlil.convert(engine, name="engine", ports=ports, emit_src=False))
