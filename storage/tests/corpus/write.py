#!/usr/bin/env python3
"""Writes logs as docs/format.md draws them, good and bad ones, and beside each what is to be read from it.

Written from that page alone, with nothing of Flotilla's code: where the two disagree, one of them is wrong. Needs only the
standard library. `write.py DIR` makes a folder for every case, with its segments and `expected.json`.
"""

import json
import os
import struct
import sys
import zlib

BLOCK = 4096
SEGMENT = 16 * BLOCK
CLUSTER, NODE, CORE = 0xC1, 2, 0
ENTRY, STATE, MARK, REPAIR = 1, 2, 3, 4
ALL = (1 << 64) - 1


def padded(data, unit):
    return data + bytes(-len(data) % unit)


def record(kind, group, index=0, term=0, payload=b"", schema=0):
    head = struct.pack("<QQQIHBB", group, index, term, len(payload), schema, kind, 0)
    return padded(head + payload, 16)


def entry(group, index, term=1, payload=b"payload"):
    return record(ENTRY, group, index, term, payload, 7)


def state(group, term, vote=0, commit=0):
    return record(STATE, group, commit, term, struct.pack("<I", vote))


def mark(group, index, term=1):
    return record(MARK, group, index, term, struct.pack("<Q", 5))


def repair(group, start, flags, frames=()):
    lost = b"".join(struct.pack("<QQ", *pair) for pair in frames)
    return record(REPAIR, group, start, 0, struct.pack("<I", flags) + lost)


def touched(records):
    groups = votes = 0
    for it in records:
        bit = 1 << struct.unpack_from("<Q", it)[0] % 64
        groups |= bit
        if it[30] == STATE:
            votes |= bit
    return groups, votes


class Frame:
    """Where a frame is."""

    def __init__(self, file, offset, head, length, lsn):
        self.file, self.offset, self.head, self.length, self.lsn = file, offset, head, length, lsn


class Writer:
    """A log in memory: file number -> bytes."""

    def __init__(self):
        self.files = {}
        self.file, self.epoch, self.offset = 0, 0, SEGMENT
        self.lsn, self.crc, self.before = 0, 0, (0, 0)
        self.oldest = 1
        self.frames = []

    def segment(self, skip=0, file=None, **other):
        """Takes a segment into use."""
        last_epoch, self.epoch = self.epoch, self.epoch + 1 + skip
        self.file = file or max(self.files, default=0) + 1
        image = self.files.setdefault(self.file, bytearray(SEGMENT))
        get = other.get
        head = struct.pack(
            "<4sHHQIIQQQQQI", b"SEG1", get("version", 2), CORE, get("cluster", CLUSTER), NODE, self.crc, self.file,
            self.epoch, self.lsn, self.oldest, last_epoch, 0)
        image[:72] = head + struct.pack("<I", zlib.crc32(head))
        self.offset = BLOCK
        return self

    def frame(self, *records, durable=None, slack=0):
        """Writes the next frame; `durable`: how far it vouches, all before it if nothing is said."""
        payload = b"".join(records)
        blocks = [payload[at:at + BLOCK] for at in range(0, len(payload), BLOCK)]
        sums = b"".join(struct.pack("<I", zlib.crc32(block)) for block in blocks)
        length = 88 + len(sums)
        length += -length % 16 + 16 * slack
        self.lsn += 1
        durable = self.lsn - 1 if durable is None else durable
        mine, crc_before = touched(records), self.crc

        def head(own):
            fixed = struct.pack(
                "<4sHHQQQIIIIQQQQQ", b"FRM1", 2, length, self.epoch, self.lsn, durable, len(payload), len(records),
                crc_before, own, self.oldest, *mine, *self.before)
            return (fixed + sums).ljust(length, b"\0")

        self.crc = zlib.crc32(head(0))
        image = padded(head(self.crc) + payload, BLOCK)
        assert self.offset + len(image) <= SEGMENT, "the case writes too much"
        self.files[self.file][self.offset:self.offset + len(image)] = image
        self.frames.append(Frame(self.file, self.offset, length, len(image), self.lsn))
        self.before = mine
        self.offset += len(image)
        return self

    def spoil(self, lsn, where):
        """Flips a bit of a frame: of its header, or of its payload."""
        frame = self.frames[lsn - 1]
        at = frame.offset + (20 if where == "header" else frame.head + 40)
        self.files[frame.file][at] ^= 4
        return self

    def zero(self, lsn, start=0, end=None):
        """As if these bytes of a frame had never got to the disk."""
        frame = self.frames[lsn - 1]
        end = frame.length if end is None else end
        self.files[frame.file][frame.offset + start:frame.offset + end] = bytes(end - start)
        return self


def group(entries=None, snapshot=None, term=None, vote=0, commit=0, damage=None, terms=None):
    """What is expected of a group. `entries`: the first and the last; `damage`: (from, seen, vote lost)."""
    return {"entries": entries, "snapshot": snapshot, "term": term, "vote": vote, "commit": commit, "damage": damage,
            "terms": terms}


CASES = {}


def case(name, log, last=0, groups=None, cut=None, holes=(), error=None):
    """`cut`: (file, offset, lsn); `holes`: (file, offset, first, last)."""
    assert name not in CASES, name
    CASES[name] = (dict(log.files), {
        "cluster": CLUSTER, "node": NODE, "core": CORE, "error": error, "last": last, "cut": cut,
        "holes": [list(hole) for hole in holes], "groups": {str(number): it for number, it in (groups or {}).items()},
    })


def three():
    """Three frames: both groups, group 2, group 1."""
    log = Writer().segment()
    log.frame(state(1, 1, 2), entry(1, 1), state(2, 1, 3), entry(2, 1))
    return log.frame(entry(2, 2), entry(2, 3)).frame(entry(1, 2))


WHOLE = {1: group([1, 2], term=1, vote=2), 2: group([1, 3], term=1, vote=3)}


def good():
    case("nothing", Writer())
    spare = Writer()
    spare.files[1] = bytearray(SEGMENT)
    case("a spare", spare)
    case("a segment without a frame", Writer().segment())
    case("three frames", three(), 3, WHOLE)
    case("a watermark", three().frame(), 4, WHOLE)
    case("a header longer than it must be", Writer().segment().frame(entry(1, 1), slack=7).frame(entry(1, 2)), 2,
         {1: group([1, 2])})
    big = bytes(range(256)) * 60
    case("payloads of several blocks", Writer().segment().frame(entry(1, 1, 1, big), entry(1, 2)).frame(entry(1, 3)), 2,
         {1: group([1, 3])})
    case("a payload of exactly a block", Writer().segment().frame(entry(1, 1, 1, bytes(BLOCK - 32))).frame(entry(1, 2)),
         2, {1: group([1, 2])})
    replaced = Writer().segment().frame(*[entry(1, index) for index in range(1, 6)]).frame(entry(1, 3, 2))
    case("a later leader's entry takes the place of three", replaced, 2, {1: group([1, 3], terms=[1, 1, 2])})
    marked = Writer().segment().frame(*[entry(1, index) for index in range(1, 6)], state(1, 1, 0, 4)).frame(mark(1, 3))
    case("a snapshot mark", marked, 2, {1: group([4, 5], 3, term=1, commit=4)})
    case("a mark of all", three().frame(mark(1, 2)), 4, WHOLE | {1: group(None, 2, term=1, vote=2)})
    case("everything given up", three().frame(mark(1, 0)), 4, WHOLE | {1: group(None, term=1, vote=2)})
    case("a damage that is mended", three().frame(repair(1, 3, 3)).frame(repair(1, 0, 0)), 5, WHOLE)
    case("a damage that isn't", three().frame(repair(1, 3, 3)), 4,
         WHOLE | {1: group([1, 2], term=1, vote=2, damage=[3, None, True])})
    case("many groups", Writer().segment().frame(*[entry(number, 1) for number in range(1, 100)]), 1,
         {number: group([1, 1]) for number in range(1, 100)})


def many_segments():
    log = three().segment()
    log.frame(entry(1, 3)).segment(skip=2).frame(entry(2, 4)).frame(entry(1, 4))
    case("three segments, epochs left out", log, 6, {
        1: group([1, 4], term=1, vote=2), 2: group([1, 4], term=1, vote=3)})
    # The first segment isn't needed any more, and what is in it doesn't matter.
    log = three().segment()
    log.frame(state(1, 1, 2), state(2, 1, 3), mark(1, 2), mark(2, 3))
    log.oldest = 2
    log.frame(entry(1, 3))
    log.files[1][BLOCK:] = b"\xff" * (SEGMENT - BLOCK)
    released = {1: group([3, 3], 2, term=1, vote=2), 2: group(None, 3, term=1, vote=3)}
    case("a released segment full of nonsense", log, 5, released)
    del log.files[1]
    case("a released segment that is gone", log, 5, released)
    # It is taken into use again: what is behind its new frames is of an earlier epoch.
    log = three().segment()
    log.frame(state(1, 1, 2), state(2, 1, 3), mark(1, 2), mark(2, 3))
    log.oldest = 2
    log.frame(entry(1, 3)).segment(file=1).frame(entry(1, 4))
    case("a segment used again", log, 6, {1: group([3, 4], 2, term=1, vote=2), 2: group(None, 3, term=1, vote=3)})
    # A cut left frames behind: the next life went on in a new segment.
    log = three()
    log.frame(entry(1, 3), durable=2).spoil(3, "payload")
    log.lsn, log.crc, log.before = 2, zlib.crc32(bytes(log.files[1][2 * BLOCK:2 * BLOCK + 44]) + bytes(4) + bytes(
        log.files[1][2 * BLOCK + 48:2 * BLOCK + log.frames[1].head])), (4, 0)
    log.segment().frame(entry(1, 2, 5))
    case("leftovers of an earlier cut", log, 3, WHOLE | {1: group([1, 2], term=1, vote=2, terms=[1, 5])})


def torn():
    def tail():
        log = Writer().segment().frame(entry(1, 1))
        return log.frame(entry(1, 2, 1, b"x" * 9000))

    length = tail().frames[1].length
    for sector in range(length // 512):
        # What is zeros anyway is no loss.
        is_lost = any(tail().files[1][2 * BLOCK + sector * 512:2 * BLOCK + sector * 512 + 512])
        log = tail().zero(2, sector * 512, sector * 512 + 512)
        if not is_lost:
            case(f"torn, nothing but padding lost {sector}", log, 2, {1: group([1, 2])})
            continue
        # With the header gone, nothing says that anything was there.
        cut = None if sector == 0 else [1, 2 * BLOCK, 2]
        case(f"torn, sector {sector} lost", log, 1, {1: group([1, 1])}, cut)
    for sectors in range(1, length // 512):
        log = tail().zero(2, sectors * 512)
        whole = not any(tail().files[1][2 * BLOCK + sectors * 512:2 * BLOCK + length])
        case(f"torn, only the first {sectors} sectors", log, 2 if whole else 1, {1: group([1, 2 if whole else 1])},
             None if whole else [1, 2 * BLOCK, 2])
    log = Writer().segment().frame(entry(1, 1)).frame(entry(1, 2), durable=1).frame(entry(1, 3), durable=1)
    log.spoil(2, "header")
    case("torn, a later frame in flight was faster", log, 1, {1: group([1, 1])}, [1, 2 * BLOCK, 2])
    log = Writer().segment().frame(entry(1, 1)).segment().frame(entry(1, 2))
    log.files[2][:BLOCK] = bytes(BLOCK)
    case("torn, a segment's header and its first frame", log, 1, {1: group([1, 1])})
    log = Writer().segment().frame(entry(1, 1)).segment().frame(entry(1, 2)).zero(2)
    case("torn, a segment's first frame", log, 1, {1: group([1, 1])})


def damaged():
    case("damaged, a payload", three().frame().spoil(2, "payload"), 4,
         WHOLE | {2: group([1, 1], term=1, vote=3, damage=[2, None, False])}, holes=[(1, 2 * BLOCK, 2, 2)])
    case("damaged, a header; the next frame tells whose", three().frame().spoil(2, "header"), 4,
         WHOLE | {2: group([1, 1], term=1, vote=3, damage=[2, None, False])}, holes=[(1, 2 * BLOCK, 2, 2)])
    case("damaged, the last frame but the watermark", three().frame().spoil(3, "payload"), 4,
         WHOLE | {1: group([1, 1], term=1, vote=2, damage=[2, None, False])}, holes=[(1, 3 * BLOCK, 3, 3)])
    case("damaged, the first frame with the votes", three().frame().spoil(1, "payload"), 4, {
        1: group(None, damage=[1, 2, True]), 2: group(None, damage=[1, 2, True])}, holes=[(1, BLOCK, 1, 1)])
    log = Writer().segment().frame(state(1, 1, 2), entry(1, 1), state(2, 1, 3), entry(2, 1))
    log.frame(entry(2, 2)).frame(entry(2, 3)).frame(entry(1, 2)).frame().spoil(2, "header").spoil(3, "header")
    case("damaged, two headers: every group may be concerned", log, 5, {
        1: group([1, 1], term=1, vote=2, damage=[2, 2, True]), 2: group([1, 1], term=1, vote=3, damage=[2, None, True])},
        holes=[(1, 2 * BLOCK, 2, 3)])
    case("damaged, the end of a segment with a successor", three().segment().frame(entry(2, 4)).spoil(3, "payload"), 4,
         {1: group([1, 1], term=1, vote=2, damage=[2, None, False]), 2: group([1, 4], term=1, vote=3)},
         holes=[(1, 3 * BLOCK, 3, 3)])
    case("damaged, that end's header: the successor's first frame tells whose",
         three().segment().frame(entry(2, 4)).spoil(3, "header"), 4,
         {1: group([1, 1], term=1, vote=2, damage=[2, None, False]), 2: group([1, 4], term=1, vote=3)},
         holes=[(1, 3 * BLOCK, 3, 3)])
    log = three().segment().frame(entry(1, 3)).frame(entry(1, 4))
    log.files[2][30] ^= 1
    case("damaged, a segment's header; its frames tell", log, 5, WHOLE | {1: group([1, 4], term=1, vote=2)},
         holes=[(2, 0, 4, 3)])
    log = three().spoil(2, "payload").frame(repair(2, 2, 1, [(2, 2)])).frame(entry(2, 2, 3)).frame(repair(2, 0, 0))
    case("damaged and mended since", log, 6, WHOLE | {2: group([1, 2], term=1, vote=3, terms=[1, 3])},
         holes=[(1, 2 * BLOCK, 2, 2)])
    log = three().frame(state(2, 9, 1, 3)).frame().spoil(2, "payload")
    case("damaged, then a vote that counts and a commit that doesn't", log, 5,
         WHOLE | {2: group([1, 1], term=9, vote=1, damage=[2, None, False])}, holes=[(1, 2 * BLOCK, 2, 2)])
    log = three().frame(mark(2, 3)).frame(entry(2, 4)).frame().spoil(2, "payload")
    case("damaged, then a snapshot that covers it", log, 6,
         WHOLE | {2: group(None, 3, term=1, vote=3, damage=[4, 4, False])}, holes=[(1, 2 * BLOCK, 2, 2)])


def refused():
    log = three().segment().frame(entry(1, 3)).segment().frame(entry(1, 4))
    del log.files[2]
    case("refused, a segment is missing", log, error="missing")
    case("refused, another cluster's", three().segment(cluster=5).frame(entry(1, 3)), error="foreign")
    case("refused, another version's", three().segment(version=3).frame(entry(1, 3)), error="version")
    case("refused, an entry that can't follow", three().frame(entry(1, 9)), error="corrupt")
    case("refused, a record of an unknown kind", three().frame(record(9, 1)), error="corrupt")


def main(folder):
    for part in (good, many_segments, torn, damaged, refused):
        part()
    for name, (files, expected) in CASES.items():
        where = os.path.join(folder, name.replace(" ", "-").replace(",", "").replace(";", "").replace(":", ""))
        os.makedirs(where)
        for number, image in files.items():
            with open(os.path.join(where, f"segment-{number:016x}.log"), "wb") as out:
                out.write(image)
        with open(os.path.join(where, "expected.json"), "w", encoding="utf-8") as out:
            json.dump({"name": name} | expected, out)
    print(len(CASES))


if __name__ == "__main__":
    main(sys.argv[1])
