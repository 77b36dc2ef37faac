"""Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): known answers, and more made by a plain implementation."""
from store import save_json

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)

KNOWN = [  # published with Random123 (kat_vectors, philox4x32 10)
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]
MORE = [((1, 0, 0, 0), (0, 0)), ((0, 1, 0, 0), (0, 0)), ((0, 0, 1, 0), (0, 0)), ((0, 0, 0, 1), (0, 0)), ((0, 0, 0, 0), (1, 0)), ((0, 0, 0, 0), (0, 1)),
        ((MASK, 0, MASK, 0), (42, 0)), ((7, 11, 13, 17), (19, 23)), ((0x80000000, 0x7FFFFFFF, 1, MASK), (0x80000000, 1))]


def philox4x32(counter, key, rounds=10):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        low, high = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (high >> 32) ^ c1 ^ k0, high & MASK, (low >> 32) ^ c3 ^ k1, low & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def make_philox():
    for counter, key, out in KNOWN:
        assert philox4x32(counter, key) == out
    vectors = KNOWN + [(counter, key, philox4x32(counter, key)) for counter, key in MORE]
    save_json("philox", {"vectors": [{"counter": list(c), "key": list(k), "out": list(o)} for c, k, o in vectors]})
