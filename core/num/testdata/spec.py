# SPDX-License-Identifier: Apache-2.0
"""§6.8 to §6.14 of docs/spec/numerics.md in numpy, written from that page.

Coefficients and constants are read from its tables. Functions take and give
arrays of fp32 (np.float32) or int64 holding int32.
"""

import pathlib
import re

import numpy as np

F, D = np.float32, np.float64
TEXT = (pathlib.Path(__file__).resolve().parents[3] / "docs/spec/numerics.md").read_text()


def number(s):
    return F(float.fromhex(s))


def tables():
    lines = TEXT[TEXT.index("| T | exp |"):].split("\n\n")[0].splitlines()
    names = [c.strip() for c in lines[0].strip("|").split("|")][1:]
    result = {n: [] for n in names}
    for line in lines[2:]:
        for name, cell in zip(names, line.strip("|").split("|")[1:]):
            if cell.strip():
                result[name].append(number(cell.strip()))
    return result


def constants():
    result = {}
    for line in TEXT[TEXT.index("| Constant | Value"):].split("\n\n")[0].splitlines()[2:]:
        names, values = line.strip("|").split("|")[:2]
        for name, value in zip(names.split(","), values.split(",")):
            result[name.strip()] = number(value.strip())
    return result


T, C = tables(), constants()
LOG2E, LN2H, LN2L, C1H, C1L, C3H, C3L, SQRT2, MAGIC = (
    C[n] for n in "LOG2E LN2H LN2L C1H C1L C3H C3L SQRT2 MAGIC".split())


def fma(a, b, c):
    a, b, c = np.broadcast_arrays(F(a), F(b), F(c))
    p, z = a.astype(D) * b.astype(D), c.astype(D)
    s = p + z
    t = s - p
    e = (p - (s - t)) + (z - t)
    u = s.view(np.int64)
    odd = (e != 0) & np.isfinite(e) & (u & 1 == 0)
    return (u + np.where(odd, np.where((e > 0) == (s > 0), 1, -1), 0)).view(D).astype(F)


def poly(name, x):
    p = T[name][0]
    for c in T[name][1:]:
        p = fma(p, x, c)
    return p


def mn(x, y):
    return np.where(np.isnan(x) | np.isnan(y), F(np.nan), np.where((x < y) | (x == y) & np.signbit(x), x, y)).astype(F)


def mx(x, y):
    return np.where(np.isnan(x) | np.isnan(y), F(np.nan), np.where((x > y) | (x == y) & ~np.signbit(x), x, y)).astype(F)


def E(h, l):
    h = np.where(np.isnan(h), F(0), h)  # the caller replaces what comes of NaN
    h = mn(mx(h, F(-128)), F(128))
    k = fma(h, LOG2E, MAGIC) - MAGIC
    r = fma(k, -LN2H, h)
    r = fma(k, -LN2L, r)
    return poly("exp", r + l), k.astype(np.int64)


def scale(y, n):
    half = np.floor_divide(n, 2)
    return (y * np.ldexp(F(1), half).astype(F)) * np.ldexp(F(1), n - half).astype(F)


def function(f):
    def g(x):
        return np.where(np.isnan(x), F(np.nan), f(x)).astype(F)
    return g


@function
def exp(x):
    return scale(*E(x, F(0)))


@function
def log(x):
    tiny = x < F(2.0**-126)
    scaled = np.where(tiny, x * F(2.0**23), x).astype(F)
    d = scaled.view(np.int32).astype(np.int64) - 0x3F3504F3
    k = (np.where(tiny, -23, 0) + np.floor_divide(d, 1 << 23)).astype(F)
    f = (np.mod(d, 1 << 23) + 0x3F3504F3).astype(np.int32).view(F) - F(1)
    y = (poly("log", f) * (f * f)) * f
    y = fma(k, LN2L, y)
    y = fma(F(-0.5) * f, f, y)
    y = fma(k, LN2H, f + y)
    y = np.where(x == 0, F(-np.inf), np.where(x == np.inf, F(np.inf), y))
    return np.where(x < 0, F(np.nan), y)


@function
def tanh(x):
    a = mn(np.abs(x), F(10))
    z = a * a
    small = fma(poly("tanh", z) * z, a, a)
    large = F(1) - F(2) / (scale(*E(F(2) * a, F(0))) + F(1))
    return np.copysign(np.where(a < F(0.625), small, large), x)


def L(y, h, l):
    p, n = E(h, l)
    below = scale((y * p) / (F(1) + scale(p, n)), n)
    return np.where(h < 0, below, y / (F(1) + scale(*E(-h, -l))))


sigmoid = function(lambda x: L(F(1), x, F(0)))
silu = function(lambda x: L(mx(x, F(-128)), x, F(0)))


@function
def gelu_tanh(x):
    c = mn(mx(x, F(-12)), F(12))
    s = c * c
    sl = fma(c, c, -s)
    p = C3H * s
    pl = fma(C3H, s, -p)
    v = C1H + p
    t = v - C1H
    vl = (C1H - (v - t)) + (p - t)
    vl = vl + fma(C3H, sl, pl)
    vl = vl + fma(C3L, s, C1L)
    h = c * v
    l = fma(c, vl, fma(c, v, -h))
    return L(mx(x, F(-12)), h, l)


def tail(t, h, l):
    w = F(1) / (t + F(4))
    u = fma(F(-8), w, F(1))
    p, n = E(h, l)
    return p * (w * poly("tail", u)), n


@function
def gelu(x):
    t = mn(np.abs(x), F(14.5))
    s = t * t
    sl = fma(t, t, -s)
    p, n = tail(t, F(-0.5) * s, F(-0.5) * sl)
    large = np.where(x < 0, scale(-t * p, n), x * (F(1) - scale(p, n)))
    return np.where(t < 1, x * fma(poly("normal", s), x, F(0.5)), large)


@function
def erf(x):
    a = mn(np.abs(x), F(4))
    s = a * a
    sl = fma(a, a, -s)
    y = np.where(a < 1, fma(poly("erf", s), a, a), fma(F(-2), scale(*tail(SQRT2 * a, -s, -sl)), F(1)))
    return np.copysign(y, x)


def reciprocal(x):
    return F(1) / x


def rsqrt(x):
    return F(1) / np.sqrt(x)


def hard_sigmoid(x):
    return mn(mx(x + F(3), F(0)), F(6)) / F(6)


def hard_swish(x):
    return mx(x, F(-3)) * hard_sigmoid(x)


def combine(s):
    for n in (8, 4, 2, 1):
        s = s[:n] + s[n:]
    return s[0]


def rows(x):  # groups of 16, the last one filled with None
    for i in range(0, len(x), 16):
        yield x[i:i + 16]


def total(x):
    s = np.zeros(16, F)
    for row in rows(x):
        s[:len(row)] += row
    return combine(s)


def squares(x, c):
    s = np.zeros(16, F)
    for row in rows(x):
        d = row - c
        s[:len(row)] = fma(d, d, s[:len(row)])
    return combine(s)


def softmax(x):
    e = exp(x - np.max(x))
    return e * (F(1) / total(e))


def layer_norm(x, gain, bias, epsilon):
    mean = total(x) / F(len(x))
    r = rsqrt(squares(x, mean) / F(len(x)) + epsilon)
    return fma((x - mean) * r, gain, bias)


def rms_norm(x, gain, epsilon):
    return (x * rsqrt(squares(x, F(0)) / F(len(x)) + epsilon)) * gain


def wrap(x):
    return (x + 2**31) % 2**32 - 2**31


def one_rounding(x, q, s):
    return (x * q + (1 << (s - 1))) >> s


def mulhigh(a, b):
    return np.minimum((a * b + (1 << 30)) >> 31, 2**31 - 1)


def divpow2(v, n):
    return np.sign(v) * ((np.abs(v) + ((1 << n) >> 1)) >> n)


def two_roundings(x, q, s):
    return np.where(s <= 31, mulhigh(wrap(x << np.maximum(31 - s, 0)), q),
                    divpow2(mulhigh(x, q), np.maximum(s - 31, 0)))
