"""The engine's sizes, and the task descriptor that the compiler writes and the engine reads.

A feature map in memory is a list of planes; a plane holds all pixels, row by row, of as many
channels as the memory port has bytes: one beat of the port is one pixel of one plane.
"""

from dataclasses import dataclass
from pathlib import Path

from ..accelerator import Accelerator
from ..errors import InputError, choice

FANOUT = 4  # filters that share a copy of the features
BURST = 16  # beats of one memory command at most: a power of two, and no less than a task's
ADDRESS_BITS = 28  # of a beat
READS = 14  # read commands at most of which beats are still to come
BEAT_BITS = 20  # of the number of beats in a filter group
QUEUE = 8  # tasks that the sequencer reads ahead
PARAM_BYTES = 8  # of one filter: bias, multiplier, shift
SLOTS = 32  # filter groups whose parameters are kept, a power of two
TASK_BITS = 512
FRACTION = 22  # bits behind the point of a product of accumulator and multiplier
MULTIPLIER_BITS, SHIFT_BITS = 17, 4

# What Yosys is told before synthesis. The buffers are never read where they are being written (a
# half or a word is filled before it is said to be there), so no logic need see to that. Copies of
# a register are equal, and stay apart.
MULTIPLIER = Path(__file__).with_name("multiplier.v")
SYNTHESIS = (
    "hierarchy -top engine",
    "setparam -set COLLISION_X_MASK 1'1 engine.weights/t:$memrd_v2 engine.maps/t:$memrd_v2",
    "chtype -set multiplier engine.datapath/t:engine.datapath.multiply_*",
    "proc",
    "setattr -set keep 1 engine.datapath/w:copy_* %ci1:+$dff[Q] engine.datapath/t:$dff %i",
    f'techmap -map "{MULTIPLIER}"',
)

# One task is one tile of one layer. Pixels are counted along rows; a lane is one of the PV
# pixels computed at once: each lane has a strip of the tile's rows to itself.
FIELDS: dict[str, int] = {
    "last": 1,  # no task follows
    "wait": 1,  # the input map is the output of the tasks before this one
    "residual": 1,  # the input pixel is added to the output
    "shared": 1,  # all taps have the same weights: pooling and classifier in one
    "relu": 1,
    "halve": 3,  # the residual is divided by two this often
    "w_addr": ADDRESS_BITS,  # weights: the filter groups one after another
    "w_words": 14,  # words of PF x PC weights in a group
    "fgs": 12,  # filter groups, less one
    "i_addr": ADDRESS_BITS,  # first beat of the input to load
    "i_pitch": 20,  # beats from plane to plane in memory
    "i_planes": 10,  # planes, less one
    "i_chunk": 11,  # pixels of a plane to load at a time: whole rows
    "i_chunks": 10,  # chunks, less one
    "i_rest": 11,  # pixels of the last chunk
    "i_first": 16,  # where the first pixel goes in the strip of lane 0
    "i_step": 16,  # pixels from lane to lane
    "i_len": 16,  # pixels of a plane in one strip
    "i_need": 16,  # pixels of lane 0 that the first output row must have
    "groups": 10,  # channel groups, less one
    "kernel_w": 6,  # taps, less one
    "kernel_h": 6,
    "out_w": 10,  # output pixels in a row, less one
    "rows": 10,  # output rows of a strip, less one
    "double": 1,  # stride 2
    "in_w": 10,
    "in_h": 10,
    "pad": 3,
    "y0": 12,  # image row of the first row in lane 0's strip, signed
    "lane_rows": 10,  # image rows from lane to lane
    "o_addr": ADDRESS_BITS,  # first beat of the output
    "o_pitch": 20,
    "o_planes": 10,
    "o_strip": 16,  # pixels of a strip
    "o_valid": 16,  # pixels of the tile
}
assert sum(FIELDS.values()) <= TASK_BITS
# The most that these fields can say.
SIDE = (1 << FIELDS["in_h"]) - 1  # pixels of a map's side, and image rows from lane to lane
TAPS = 1 << FIELDS["kernel_h"]  # of a kernel's side, or of a pooled map's
PIXELS = (1 << FIELDS["i_need"]) - 1  # of a plane, in the rows that a tile reads
WORDS = (1 << FIELDS["w_words"]) - 1  # of weights in a filter group
BEATS = (1 << BEAT_BITS) - 1  # of a filter group: its parameters and its words
PLANES, DEPTH, GROUPS = (1 << FIELDS[name] for name in ("i_planes", "groups", "fgs"))


def pack(values: dict[str, int], port_bytes: int) -> bytes:
    """Return a task as the engine reads it, 64 bytes. Raises InputError if a value has no room."""
    word, place = 0, 0
    for name, bits in FIELDS.items():
        value = values[name]
        low, high = (-(1 << bits - 1), 1 << bits - 1) if name == "y0" else (0, 1 << bits)
        if not low <= value < high:
            raise InputError(
                f"{name} of a task is {value}, but the engine holds only {low} to {high - 1}."
            )
        word |= (value & ((1 << bits) - 1)) << place
        place += bits
    assert TASK_BITS // 8 % port_bytes == 0
    return word.to_bytes(TASK_BITS // 8, "little")


@dataclass(frozen=True)
class Shape:
    """Sizes that follow from an accelerator and the width of its memory port.

    Raises InputError if the engine cannot be built so.
    """

    accelerator: Accelerator
    port_bits: int = 64

    def __post_init__(self) -> None:
        acc = self.accelerator
        choice("memory port of the engine in bits", self.port_bits, (32, 64, 128))
        for field in ("pf", "pc", "pv", "weight_kib", "feature_kib"):
            value = getattr(acc, field)
            if value & (value - 1):
                raise InputError(f"{field} of {acc} is {value}, but must be a power of two.")
        if self.pf * self.pc < self.port_bytes:
            raise InputError(
                f"PF x PC of {acc} is {self.pf * self.pc}, but must be at least the "
                f"{self.port_bytes} bytes of the memory port."
            )
        if self.weight_words < 16 or self.strip < 64:
            raise InputError(f"the buffers of {acc} are too small for its lanes.")

    @property
    def pf(self) -> int:
        """Filters at once."""
        return self.accelerator.pf

    @property
    def pc(self) -> int:
        """Channels at once."""
        return self.accelerator.pc

    @property
    def pv(self) -> int:
        """Pixels at once."""
        return self.accelerator.pv

    @property
    def port_bytes(self) -> int:
        """Bytes of one beat, and channels of one plane."""
        return self.port_bits // 8

    @property
    def pins(self) -> int:
        """Bits of all ports: ten of one bit, a command's address and length, data and mask."""
        return 10 + ADDRESS_BITS + BURST.bit_length() + 2 * self.port_bits + self.port_bytes

    @property
    def out_bytes(self) -> int:
        """Bytes of one output beat: a plane's channels, or all PF filters if they are fewer."""
        return min(self.pf, self.port_bytes)

    @property
    def po(self) -> int:
        """Results requantised in one cycle: a quarter of those computed at once."""
        return min(self.out_bytes, max(1, self.pf * self.pv // 4))

    @property
    def drain(self) -> int:
        """Cycles that requantising the results of one step takes."""
        return self.pf * self.pv // self.po

    @property
    def banks(self) -> int:
        """Planes that are read at once."""
        return max(1, self.pc // self.port_bytes)

    @property
    def parts(self) -> int:
        """Channel groups in one plane."""
        return max(1, self.port_bytes // self.pc)

    @property
    def weight_words(self) -> int:
        """Words of PF x PC weights in the weight buffer, a ring."""
        return self.accelerator.weight_kib * 1024 // (self.pf * self.pc)

    @property
    def word_beats(self) -> int:
        """Beats of one word of weights."""
        return self.pf * self.pc // self.port_bytes

    @property
    def strip(self) -> int:
        """Pixels x planes of one lane in one of the two halves of the feature buffer."""
        per_lane = self.accelerator.feature_kib * 1024 // (2 * self.pv)
        return per_lane // (self.banks * self.port_bytes)

    @property
    def streams(self) -> int:
        """Output planes and lanes written side by side."""
        return self.pv * self.pf // self.out_bytes

    @property
    def param_beats(self) -> int:
        """Beats that the parameters of one filter take."""
        return max(1, PARAM_BYTES // self.port_bytes)

    def group_beats(self, words: int) -> int:
        """Beats of a filter group of that many words of weights."""
        return words * self.word_beats + self.pf * self.param_beats

    @property
    def most_channels(self) -> int:
        """Channels of a layer that a task has room for."""
        return min(PLANES * self.port_bytes, DEPTH * self.pc)

    @property
    def most_filters(self) -> int:
        """Filters of a layer that a task has room for."""
        return min(PLANES * self.port_bytes, GROUPS * self.pf)

    @property
    def latency(self) -> int:
        """Cycles from a step of the loops to its sum in the accumulators."""
        return 6 + (self.pc - 1).bit_length()
