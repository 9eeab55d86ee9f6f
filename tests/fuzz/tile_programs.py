# SPDX-License-Identifier: Apache-2.0
"""Writes random tile programs, each twice in one walk: as MLIR and as Python on NumPy arrays.

Memory and most tiles are i32, whose arithmetic wraps; f32 tiles hold small integers (tile_ops). Loads and stores share
one memory, so that a load kept for later must survive the stores in between. Not here: transcendental functions,
halves and store_codes (tests/unit/codegen).
"""

import random

import numpy as np
import tile_ops

WORDS, CODES = 4096, 64  # of the memory; tokens and channels of the page of codes
LAYOUTS = {  # of 64 tokens by 64 channels
    2: ["[ch.2 ch.0 ch.1 ch.3 tok.0 tok.1 tok.2 tok.3] tok:4 ch:4", "[tok.0 tok.1 tok.2 tok.3] tok:4 ch:64"],
    3: [
        "2:[tok.2 tok.3 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:4 + "
        "1:[tok.2 tok.3 tok.4 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:2",
        "1:[ch.0 tok.0] ch:32 tok:32 + 2:[tok.0 ch.0 ch.1] tok:32 ch:16",
    ],
    4: ["[ch.2 ch.0 ch.1 tok.0 tok.1 tok.2 tok.3] tok:4 ch:8", "[tok.2 tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:8"],
    8: ["[tok.0 tok.1 ch.0 ch.1 ch.2 ch.3] ch:4 tok:16", "[ch.0 ch.1] ch:16 tok:64"],
}
SIZES = [1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48]


class Program:
    """The walk. Values are (name, element, shape); `visible` are those of the enclosing blocks."""

    def __init__(self, seed):
        self.rng, self.mlir, self.python, self.visible = random.Random(seed), [], [], []
        self.count, self.depth = 0, 0
        for _ in range(4):
            self.load()
        self.statements(14)
        for value in self.rng.sample(self.visible, min(4, len(self.visible))):
            self.store(value)
        args = "%m: !kvq_tile.ptr<i32>, %p: !kvq_tile.ptr<i8>, %t: i64, %w: i64"
        head = [f"  %c{i} = arith.constant {i} : index" for i in (0, 1)]
        head += [f"  %{i} = arith.index_cast %{i[0]} : i64 to index" for i in ("trips", "which")]
        attributes = "kvq_tile.kernel"
        if self.rng.random() < 0.5:
            rows, vectors = self.rng.choice([(1, 1), (3, 2), (8, 4)])
            schedule = f"tile_tokens = 16, rows = {rows}, vectors = {vectors}, prefetch = 0"
            attributes += f", kvq_tile.schedule = #kvq_tile.schedule<{schedule}>"
        lines = [f"func.func @f({args}) attributes {{{attributes}}} {{", *head, *self.mlir, "  return", "}"]
        self.text, self.source = "\n".join(lines) + "\n", "\n".join(self.python)

    def interpret(self, m, p, trips, which):
        """Runs it on a memory, a page of codes, the trip count of loops and a number to branch on."""
        scope = {"m": m, "p": p, "trips": trips, "which": which, "np": np, "i32": np.int32, **vars(tile_ops)}
        with np.errstate(over="ignore"):
            exec(self.source, scope)

    # ---- writing

    def line(self, mlir, python=None):
        if mlir:
            self.mlir.append("  " * (self.depth + 1) + mlir)
        if python:
            self.python.append(" " * self.depth + python.replace("#", "_result"))

    def unique(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def type(self, element, shape):
        return f"tensor<{'x'.join(map(str, shape))}x{element}>" if shape else element

    def value(self, element, shape, mlir, python):
        """Writes `%name = mlir` and `name = python`."""
        made = (self.unique("v"), element, tuple(shape))
        self.line(f"%{made[0]} = {mlir}", f"{made[0]} = {python}")
        self.visible.append(made)
        return made

    def typed(self, value):
        return self.type(value[1], value[2])

    def pick(self, element="i32", shape=None, rank=None):
        """A visible value like that, made where there is none."""
        found = [
            v
            for v in self.visible
            if v[1] == element and v[2] and shape in (None, v[2]) and rank in (None, len(v[2]))
        ]
        if found and self.rng.random() < 0.9:
            return self.rng.choice(found[-8:] if self.rng.random() < 0.7 else found)
        shape = shape or self.shape(rank)
        if element == "f32":
            return self.to_float(self.pick("i32", shape))
        return self.load(shape) if self.rng.random() < 0.7 else self.fresh(shape)

    def shape(self, rank=None):
        rank = rank or self.rng.choice([1, 2, 2, 2, 3])
        shape = [self.rng.choice(SIZES if rank < 3 else SIZES[:7]) for _ in range(rank)]
        return tuple(shape) if np.prod(shape) <= 1024 else self.shape(rank)

    # ---- statements

    def statements(self, count):
        kinds = [self.binary] * 5 + [self.select] * 2 + [self.broadcast] * 3 + [self.reduce] * 2 + [self.product] * 3
        kinds += [self.load, self.fresh, self.loop, self.loop, self.branch, self.floats, self.codes]
        kinds += [lambda: self.store(self.pick())]
        for _ in range(count):
            self.rng.choice(kinds)()

    def offset(self, words):
        name, at = self.unique("at"), self.rng.randrange(0, WORDS - words)
        self.line(f"%{name} = arith.constant {at} : index", f"{name} = {at}")
        return name

    def load(self, shape=None):
        shape = shape or self.shape(self.rng.choice([1, 2]))
        if len(shape) == 3:
            return self.fresh(shape)
        if len(shape) == 1:
            at = self.offset(shape[0])
            return self.value("i32", shape, f"kvq_tile.load %m[%{at}] : !kvq_tile.ptr<i32>, index -> "
                              f"{self.type('i32', shape)}", f"m[{at}:{at} + {shape[0]}].copy()")  # fmt: skip
        rows, stride = shape[0], self.rng.choice([1, 7, 16])
        at, name = self.offset(rows * stride + shape[1]), self.unique("rows")
        offsets = f"tensor<{rows}xindex>"
        for line in (f"i = kvq_tile.iota : {offsets}", f"s = arith.constant dense<{stride}> : {offsets}",
                     f"b = tensor.splat %{at} : {offsets}", f"m = arith.muli %{name}i, %{name}s : {offsets}",
                     f"a = arith.addi %{name}m, %{name}b : {offsets}"):  # fmt: skip
            self.line(f"%{name}{line}")
        loaded = f"m[{at} + np.arange({rows})[:, None] * {stride} + np.arange({shape[1]})]"
        mask, mask_type = "", ""
        if self.rng.random() < 0.4:
            self.line(f"%{name}w = tensor.splat %which : {offsets}")
            self.line(f"%{name}k = arith.cmpi ule, %{name}i, %{name}w : {offsets}")
            mask, mask_type = f" mask %{name}k", f", tensor<{rows}xi1>"
            loaded += f" * (np.arange({rows})[:, None] <= which).astype(i32)"
        return self.value("i32", shape, f"kvq_tile.load %m[%{name}a]{mask} : !kvq_tile.ptr<i32>, "
                          f"{offsets}{mask_type} -> {self.type('i32', shape)}", loaded)  # fmt: skip

    def store(self, value):
        if value[1] == "f32":
            value = self.value("i32", value[2], f"arith.fptosi %{value[0]} : {self.typed(value)} to "
                               f"{self.type('i32', value[2])}", f"np.asarray({value[0]}).astype(i32)")  # fmt: skip
        while len(value[2]) > 1:
            value = self.reduce(value)
        at, words = self.offset(1 + sum(value[2])), value[2][0] if value[2] else 1
        self.line(f"kvq_tile.store %{value[0]}, %m[%{at}] : {self.typed(value)}, !kvq_tile.ptr<i32>, index",
                  f"m[{at}:{at} + {words}] = {value[0]}")  # fmt: skip

    def fresh(self, shape=None):
        shape = shape or self.shape()
        kind, type = self.rng.choice(["dense", "splat", "iota"]), self.type("i32", shape)
        if kind == "iota" and len(shape) == 1:
            return self.value("i32", shape, f"kvq_tile.iota : {type}", f"np.arange({shape[0]}, dtype=i32)")
        if kind == "dense" and np.prod(shape) <= 64:
            values = np.array([self.rng.randrange(-9, 9) for _ in range(int(np.prod(shape)))]).reshape(shape).tolist()
            return self.value("i32", shape, f"arith.constant dense<{values}> : {type}", f"np.array({values}, i32)")
        scalar = self.scalar()
        return self.value("i32", shape, f"tensor.splat %{scalar[0]} : {type}", f"np.full({shape}, {scalar[0]}, i32)")

    def binary(self):
        a = self.pick()
        b, type = self.pick(shape=a[2]), self.typed(a)
        op, python = self.rng.choice(
            [("addi", "{} + {}"), ("subi", "{} - {}"), ("muli", "{} * {}"), ("xori", "{} ^ {}"), ("andi", "{} & {}"),
             ("maxsi", "np.maximum({}, {})"), ("minsi", "np.minimum({}, {})")])  # fmt: skip
        return self.value("i32", a[2], f"arith.{op} %{a[0]}, %{b[0]} : {type}", python.format(a[0], b[0]))

    def select(self):
        a = self.pick(self.rng.choice(["i32", "i32", "f32"]))
        b, c, d = self.pick(a[1], a[2]), self.pick(shape=a[2]), self.pick(shape=a[2])
        masks = self.type("i1", a[2])
        if self.rng.random() < 0.3:  # a mask of a constant
            values = [self.rng.choice(["true", "false"]) for _ in range(a[2][-1])]
            row = f"dense<[{', '.join(values)}]> : tensor<{len(values)}xi1>"
            python = [v == "true" for v in values]
            mask = self.value("i1", (), f"arith.constant {row}", f"np.array({python})")
            self.visible.pop()
            last = len(a[2]) - 1
            mask = self.value("i1", (), f"kvq_tile.broadcast %{mask[0]} dims [{last}] : tensor<{len(values)}xi1> -> "
                              f"{masks}", f"spread({mask[0]}, {a[2]}, [{last}])")  # fmt: skip
        else:
            mask = self.value("i1", (), f"arith.cmpi slt, %{c[0]}, %{d[0]} : {self.typed(c)}", f"{c[0]} < {d[0]}")
        self.visible.pop()
        return self.value(a[1], a[2], f"arith.select %{mask[0]}, %{a[0]}, %{b[0]} : {masks}, {self.typed(a)}",
                          f"np.where({mask[0]}, {a[0]}, {b[0]})")  # fmt: skip

    def broadcast(self):
        shape = self.shape()
        dims = sorted(self.rng.sample(range(len(shape)), self.rng.randint(1, len(shape))))
        source = [self.rng.choice([d for d in range(1, shape[i] + 1) if shape[i] % d == 0]) for i in dims]
        a = self.pick(shape=tuple(source))
        return self.value("i32", shape, f"kvq_tile.broadcast %{a[0]} dims {dims} : {self.typed(a)} -> "
                          f"{self.type('i32', shape)}", f"spread({a[0]}, {shape}, {dims})")  # fmt: skip

    def reduce(self, a=None):
        a = a or self.pick(self.rng.choice(["i32", "i32", "f32"]))
        dim = self.rng.randrange(len(a[2]))
        shape = a[2][:dim] + a[2][dim + 1 :]
        kind, function = self.rng.choice([("max", "np.max"), ("min", "np.min"), ("add", "np.sum")])
        python = f"{function}({a[0]}, axis={dim})"
        if kind == "add":
            sizes = f"np.sum(np.abs({a[0]}))"
            python = f"np.sum({a[0]}, axis={dim}, dtype=i32)" if a[1] == "i32" else f"exact({python}, {sizes})"
        return self.value(a[1], shape, f"kvq_tile.reduce {kind} %{a[0]} dim {dim} : {self.typed(a)} -> "
                          f"{self.type(a[1], shape)}", python)  # fmt: skip

    def to_float(self, a, mask=7):
        """The low bits of an i32 tile as f32."""
        type, name = self.typed(a), self.unique("low")
        self.line(f"%{name}c = arith.constant dense<{mask}> : {type}")
        self.line(f"%{name} = arith.andi %{a[0]}, %{name}c : {type}", f"{name} = {a[0]} & {mask}")
        return self.value("f32", a[2], f"arith.sitofp %{name} : {type} to {self.type('f32', a[2])}",
                          f"{name}.astype(np.float64)")  # fmt: skip

    def floats(self):
        a = self.pick("f32")
        b = self.pick("f32", a[2])
        op, python = self.rng.choice([("addf", "+"), ("subf", "-"), ("mulf", "*")])
        return self.value("f32", a[2], f"arith.{op} %{a[0]}, %{b[0]} : {self.typed(a)}",
                          f"exact({a[0]} {python} {b[0]})")  # fmt: skip

    def codes(self):
        """The page, or a part of it, as packed codes; unpacked, dequantized or in a product."""
        bits = self.rng.choice([2, 3, 4, 8])
        layout = self.rng.choice(LAYOUTS[bits])
        tokens, channels = self.rng.choice([16, 32, 64]), self.rng.choice([16, 32, 64])
        t, c = self.rng.randrange(CODES // tokens) * tokens, self.rng.randrange(CODES // channels) * channels
        type, name = f'tensor<{tokens}x{channels}xi{bits}, #kvq_tile.layout<"{layout}">>', self.unique("codes")
        self.line(f"%{name}t = arith.constant {t} : index")
        self.line(f"%{name}c = arith.constant {c} : index")
        python = f"unpack(p, {bits}, {layout!r})[{t}:{t + tokens}, {c}:{c + channels}]"
        self.line(f"%{name} = kvq_tile.codes %p[%{name}t, %{name}c] : !kvq_tile.ptr<i8> -> {type}",
                  f"{name} = {python}")  # fmt: skip
        shape, kind = (tokens, channels), self.rng.choice(["unpack", "dequantize", "dot", "dot"])
        if kind == "unpack":
            return self.value("i32", shape, f"kvq_tile.unpack %{name} : {type} -> {self.type('i32', shape)}", name)
        if kind == "dot":
            return self.product((name, None, shape), type)
        axis = self.rng.choice([0, 1])
        groups = self.rng.choice([g for g in (1, 2, 4, 8, 16) if shape[axis] % g == 0])
        s = self.pick("f32", (groups, shape[1 - axis]))
        m = self.pick("f32", s[2])
        length, turned = shape[axis] // groups, ".T" if axis else ""
        wide = [f"np.repeat({v[0]}, {length}, axis=0){turned}" for v in (s, m)]
        kind = ["channel", "token"][axis]
        return self.value("f32", shape, f'kvq_tile.dequantize %{name}, %{s[0]}, %{m[0]} axis "{kind}" : {type}, '
                          f"{self.typed(s)} -> {self.type('f32', shape)}",
                          f"exact({name} * {wide[0]} + {wide[1]}, "
                          f"np.abs({name} * {wide[0]}) + np.abs({wide[1]}))")  # fmt: skip

    def product(self, x=None, x_type=None):
        x = x or self.pick("f32", rank=2)
        contract, rows = self.rng.choice([0, 1]), self.rng.choice([1, 2, 3, 4, 9])
        c, n = x[2][contract], x[2][1 - contract]
        sets = self.rng.choice([0] + [s for s in (1, 2, 3, 4, 8) if n % s == 0])
        if sets:
            values, scales = self.pick("f32", (rows, c)), self.pick("f32", (sets, c))
            coeff = self.value("f32", (sets, rows, c), f"kvq_tile.coeff %{values[0]}, %{scales[0]} : "
                               f"{self.typed(values)}, {self.typed(scales)} -> {self.type('f32', (sets, rows, c))}",
                               f"exact({values[0]}[None] * {scales[0]}[:, None])")  # fmt: skip
        else:
            coeff = self.pick("f32", (rows, c))
        acc, scale = self.pick("f32", (rows, n)), None
        if self.rng.random() < 0.4:
            groups = self.rng.choice([g for g in (1, 2, 3, 4, rows) if c % g == 0])
            scale = self.pick("f32", (groups, n))
        extra, extra_type = (f" scale %{scale[0]}", f", {self.typed(scale)}") if scale else ("", "")
        return self.value("f32", (rows, n), f"kvq_tile.dot %{x[0]}, %{coeff[0]} acc %{acc[0]}{extra} contract "
                          f"{contract} : {x_type or self.typed(x)}, {self.typed(coeff)}{extra_type} -> "
                          f"{self.type('f32', (rows, n))}",
                          f"dot({x[0]}, {coeff[0]}, {acc[0]}, {scale and scale[0]}, {contract})")  # fmt: skip

    # ---- regions

    def body(self, count, wanted):
        """Statements of a block, then values of the wanted types."""
        outer = list(self.visible)
        self.depth += 1
        self.line(None, "pass")
        self.statements(count)
        yielded = [self.pick(e, s) if s else self.scalar() for e, s in wanted]
        self.visible = outer
        return yielded

    def scalar(self):
        scalars = [v for v in self.visible if v[1] == "i32" and not v[2]]
        return self.rng.choice(scalars) if scalars else self.reduce(self.pick(rank=1))

    def carried(self):
        inits = [self.pick(self.rng.choice(["i32", "f32"])) for _ in range(self.rng.randint(1, 3))]
        if self.rng.random() < 0.5:  # two of one type may change places
            inits.append(self.pick(*inits[0][1:]))
        if self.rng.random() < 0.3:
            inits.append(self.scalar())
        return inits

    def results(self, name, types):
        for i, (element, shape) in enumerate(types):
            self.line(None, f"{name}#{i} = {name}_{i}")
            self.visible.append((f"{name}#{i}", element, shape))

    def end(self, yielded, types, name, mlir, python=None):
        """The yield of a block and what follows the block."""
        targets = "".join(f"{name}_{i}, " for i in range(len(types)))
        self.line(f"scf.yield {', '.join('%' + v[0] for v in yielded)} : {', '.join(self.type(*t) for t in types)}",
                  f"{targets}= {''.join(v[0] + ', ' for v in yielded)}")  # fmt: skip
        self.depth -= 1
        self.line(mlir, python)

    def loop(self):
        if self.depth > 1:
            return
        inits, name = self.carried(), self.unique("loop")
        types, fixed = [v[1:] for v in inits], self.rng.choice(["%trips", "%which", "%c1"])
        signature = ", ".join(self.type(*t) for t in types)
        args = ", ".join(f"%{name}_{i} = %{v[0]}" for i, v in enumerate(inits))
        for i, v in enumerate(inits):
            self.line(None, f"{name}_{i} = {v[0]}")
        self.line(f"%{name}:{len(inits)} = scf.for %{name}iv = %c0 to {fixed} step %c1 iter_args({args}) -> "
                  f"({signature}) {{", f"for {name}iv in range({fixed.strip('%c')}):")  # fmt: skip
        outer = list(self.visible)
        self.visible += [(f"{name}_{i}", *t) for i, t in enumerate(types)]
        yielded = self.body(self.rng.randint(1, 5), types)
        self.visible = outer
        self.end(yielded, types, name, "}")
        self.results(name, types)

    def branch(self):
        if self.depth > 1:
            return
        types, name = [v[1:] for v in self.carried()], self.unique("if")
        bound = self.rng.randrange(4)
        self.line(f"%{name}b = arith.constant {bound} : index")
        self.line(f"%{name}c = arith.cmpi ult, %which, %{name}b : index")
        signature = ", ".join(self.type(*t) for t in types)
        self.line(f"%{name}:{len(types)} = scf.if %{name}c -> ({signature}) {{", f"if which < {bound}:")
        for word in ("else:", None):
            yielded = self.body(self.rng.randint(0, 4), types)
            self.end(yielded, types, name, "} else {" if word else "}", word)
        self.results(name, types)
