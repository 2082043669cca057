r"""Lines of displayed LaTeX that fit the page: how wide a formula sets, and where one that is too wide is broken.

Widths are estimates from Computer Modern at 10 pt, good to a few per cent. A line breaks, in this order of preference, before relations and
signs outside brackets, between factors, inside its widest bracket (whose \left and \right become \Bigl and \Bigr, which may stand on two
lines), and inside fractions, roots and exponentials, which are then written as products and powers of brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PAGE = 472.0  # width of the text of a document, in points: A4 with margins of 2.2 cm
LISTS = (0.0, 25.0, 47.0, 65.7, 82.7)  # what nested lists take from it
FULL = 0.985  # of the room, estimated: a line above it is broken
GOAL = 0.97  # of the room, estimated: what its parts may have
QUAD, QUAD_TEX = 10.0, r"\quad "

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL)
_SCRIPT = re.compile(r"\s*([_^])")
_SIZES = {r"\left", r"\right", r"\middle"} | {rf"\{size}{side}" for size in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r")}
_OPENING = {r"\left", r"\bigl", r"\Bigl", r"\biggl", r"\Biggl"}
_CLOSING = {r"\right", r"\bigr", r"\Bigr", r"\biggr", r"\Biggr"}
_RELATIONS = {"=", "<", ">"} | {rf"\{name}" for name in ("sim", "to", "leftarrow", "le", "leq", "ge", "geq", "ne", "neq", "approx", "propto", "in")}
_SIGNS = {"+", "-", r"\pm", r"\mp"}
_BINARY = {*_SIGNS, "*", r"\cdot", r"\times", r"\circ", r"\otimes", r"\odot"}
_OPERATORS = {r"\sum": (14.4, 10.6), r"\prod": (12.8, 9.4), r"\int": (10.0, 6.4), r"\lim": (13.9, 13.9)}
_FUNCTIONS = {rf"\{name}" for name in ("exp", "log", "ln", "sin", "cos", "tan", "sinh", "cosh", "tanh", "cot", "max", "min", "det")}
_SPACES = {r"\,": 1.7, r"\:": 2.2, r"\;": 2.8, r"\ ": 3.3, r"\!": -1.7, r"\quad": 10.0, r"\qquad": 20.0}
_NO_WIDTH = {r"\limits", r"\nolimits", r"\displaystyle", r"\textstyle", r"\mathbf", r"\mathcal", r"\mathbb", r"\boldsymbol", "&"}
_ACCENTS = {rf"\{name}" for name in ("dot", "ddot", "dddot", "hat", "tilde", "bar", "widehat", "widetilde", "overline", "vec")}
_TEXTS = {r"\text", r"\operatorname", r"\mathrm", r"\textrm", r"\operatorname*"}
_WIDTHS = {
    **dict.fromkeys("0123456789", 5.0), **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ", 7.6), **dict.fromkeys("abcdeghknopqrsuvxyz", 5.0),
    "S": 6.7, "I": 5.0, "J": 6.5, "M": 10.8, "W": 10.8, "i": 3.4, "j": 4.7, "l": 3.2, "t": 3.6, "f": 5.9, "m": 8.8, "w": 7.4, "x": 5.7, "n": 6.0, "h": 5.8,
    "u": 5.7, "(": 3.9, ")": 3.9, "[": 2.8, "]": 2.8, ",": 4.4, ";": 4.4, ".": 2.8, "'": 2.8, "|": 2.8, "!": 2.8, "/": 5.0,
    r"\{": 5.0, r"\}": 5.0, r"\ell": 4.2, r"\infty": 10.0, r"\dots": 13.4, r"\ldots": 13.4, r"\cdots": 13.4, r"\top": 7.8, r"\varphi": 6.5,
    r"\psi": 6.9, r"\omega": 6.5, r"\Delta": 8.3, r"\Phi": 7.2, r"\Psi": 7.8, r"\Sigma": 7.8, r"\lVert": 5.0, r"\rVert": 5.0, r"\Vert": 5.0,
    r"\langle": 3.9, r"\rangle": 3.9, r"\vert": 2.8, r"\lvert": 2.8, r"\rvert": 2.8, r"\nabla": 8.3, r"\eta": 5.3, r"\mu": 6.0, r"\nu": 5.4,
    r"\alpha": 6.4, r"\kappa": 5.8, r"\chi": 6.3, r"\epsilon": 4.1, r"\varepsilon": 4.7, r"\delta": 4.8, r"\zeta": 4.8, r"\tau": 5.0, r"\perp": 7.8,
}  # fmt: skip
_STYLE = (1.0, 1.0, 0.8, 0.68)  # display, text, script, script of a script


@dataclass(frozen=True)
class Atom:
    """A piece of a formula that is set as one: a sign, a group, a fraction, a delimiter; its scripts belong to it.

    Attributes:
        tex: as written.
        head: the sign or command that it starts with; "{" for a group, "(" and ")" for delimiters of any kind.
        start: where it stands in the formula.
        width: in points.
        pieces: the arguments, in braces where they were.
    """

    tex: str
    head: str
    start: int
    width: float
    pieces: tuple[str, ...] = ()
    scripts: tuple[str, str] = ("", "")


def width(tex: str, style: int = 0) -> float:
    """Width of a formula in points, about."""
    return sum(atom.width for atom in atoms(tex, style))


def atoms(tex: str, style: int = 0) -> list[Atom]:
    """A formula in its pieces; spaces are pieces of no width."""
    found: list[Atom] = []
    place, before = 0, ""
    while place < len(tex):
        atom = _atom(tex, place, style, before)
        found.append(atom)
        place += len(atom.tex)
        if not atom.head.isspace():
            before = atom.head
    return found


def _atom(tex: str, start: int, style: int, before: str) -> Atom:
    match = _TOKEN.match(tex, start)
    head = match.group() if match else tex[start]
    end, scale = start + len(head), _STYLE[style]
    pieces: list[str] = []

    def argument(place: int) -> tuple[str, int]:
        stop = _argument_end(tex, place)
        pieces.append(tex[place:stop].strip())
        return pieces[-1], stop

    if head.isspace() or head in _NO_WIDTH:
        return Atom(head, head, start, 0.0)
    if head == "{":
        end = _group_end(tex, start)
        pieces.append(tex[start + 1 : end - 1])
        size = width(pieces[0], style)
    elif head in (r"\frac", r"\tfrac", r"\dfrac", r"\binom"):
        inner = 2 if head == r"\tfrac" else min(style + 1, 3)
        top, end = argument(end)
        bottom, end = argument(end)
        size = max(width(top, inner), width(bottom, inner)) + 2.4
    elif head == r"\sqrt":
        if tex.startswith("[", end):
            end = tex.index("]", end) + 1
        inside, end = argument(end)
        size = width(inside, style) + 9 * scale
    elif head in _ACCENTS:
        inside, end = argument(end)
        size = width(inside, style)
    elif head in _TEXTS:
        inside, end = argument(end)
        size = (4.7 * len(inside.strip("{}")) + 1.7 * (head != r"\text")) * scale
    elif head in _SIZES:
        end = _argument_end(tex, end)
        if head in (r"\left", r"\right"):  # both at the left one, whose size its contents tell
            large = 0.0 if head == r"\right" else 14.8 if re.search(r"\\(frac|sum|prod|int)", _between(tex, end)) else 7.8
        else:
            large = 4.6 if head.startswith(r"\big") else 6.0
        size = large * scale
        head = "(" if head in _OPENING else ")" if head in _CLOSING else "delimiter"
    elif head == r"\substack":
        inside, end = argument(end)
        size = max(width(row, style) for row in inside[1:-1].split(r"\\"))
    elif head == r"\begin":
        name, _ = argument(end)
        end = tex.find(rf"\end{name}", end) + len(rf"\end{name}")
        rows = tex[start:end].removeprefix(rf"\begin{name}").removesuffix(rf"\end{name}").split(r"\\")
        size = max(sum(width(cell, 1) for cell in row.split("&")) + QUAD * row.count("&") for row in rows) + 12
    elif head in _OPERATORS:
        size = _OPERATORS[head][min(style, 1)] * scale
    elif head in _SPACES:
        return Atom(head, head, start, _SPACES[head] * scale)
    elif head in _FUNCTIONS:
        size = (5 * (len(head) - 1) + 1.7) * scale
    elif head in _RELATIONS:
        size = (7.8 + 5.6 * (style < 2)) * scale
    elif head in _BINARY:
        unary = before in ("", "(", ",", *_BINARY, *_RELATIONS)
        size = ((2.8 if head == r"\cdot" else 7.8) + 4.4 * (style < 2) * (not unary)) * scale
    else:
        size = _WIDTHS.get(head, 5.5) * scale
        head = {"[": "(", "]": ")"}.get(head, head)
    scripts = {"_": "", "^": ""}
    while (mark := _SCRIPT.match(tex, end)) and head not in _BINARY:
        stop = _argument_end(tex, mark.end())
        scripts[mark.group(1)] += tex[mark.end() : stop].strip()
        end = stop
    if any(scripts.values()):
        under = max(width(part, min(max(style + 1, 2), 3)) for part in scripts.values())
        stacked = head in (r"\sum", r"\prod", r"\lim") and style == 0
        size = max(size, under) if stacked else size + under + 0.5
    if head in _OPERATORS:
        size += 1.7 * (style < 2) * (1 + (before not in ("", "(", *_BINARY, *_RELATIONS)))
    return Atom(tex[start:end], head, start, size, tuple(pieces), (scripts["_"], scripts["^"]))


def _between(tex: str, start: int) -> str:
    """What stands between the \\left that ends at `start` and its \\right."""
    depth = 1
    for match in re.compile(r"\\(left|right)(?![a-zA-Z])").finditer(tex, start):
        depth += 1 if match.group(1) == "left" else -1
        if depth == 0:
            return tex[start : match.start()]
    return tex[start:]


def _group_end(tex: str, start: int) -> int:
    """Behind the } that belongs to the { at `start`."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(tex, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.end()
    return len(tex)


def _argument_end(tex: str, start: int) -> int:
    """Behind the argument that begins at `start`: a group, a sign, or a command with the group that belongs to it."""
    while start < len(tex) and tex[start].isspace():
        start += 1
    match = _TOKEN.match(tex, start)
    if match is None:
        return len(tex)
    if match.group() == "{":
        return _group_end(tex, start)
    return _argument_end(tex, match.end()) if match.group() in _ACCENTS | _TEXTS else match.end()


# ---- rows of an align* environment ----------------------------------------------------------------------------------------


def line_width(depth: int) -> float:
    """Width of a line inside `depth` lists."""
    return PAGE - LISTS[min(depth, len(LISTS) - 1)]


def fitted(body: str, depth: int = 0) -> str:
    """The rows of an align* environment inside `depth` lists, those that are too wide in more rows; a body that fits stays as it is."""
    page = line_width(depth)
    rows = [_sides(row) for row in _rows(body)]
    widths = [(width(left), width(right)) for left, right in rows]
    if sum(map(max, zip(*widths, strict=True))) <= FULL * page:
        return body
    page *= GOAL
    short = max((left for left, _ in widths if left <= page / 3), default=0.0)
    found: list[str] = []
    rest = ""  # of the row before, where this one goes on with it
    for place, ((left, right), (wide, _)) in enumerate(zip(rows, widths, strict=True)):
        if rest:
            right, rest = f"\\quad {rest} {right.removeprefix(QUAD_TEX)}", ""
        if wide > short:
            lines = broken(left.strip(), page - short - QUAD, page - short)
            lines += broken(right, page - short - QUAD)
            if len(lines) > 1 and width(lines[-2]) + width(lines[-1]) <= page - short - QUAD:
                lines[-2:] = [f"{lines[-2]} {lines[-1]}"]
            left = ""
        else:
            further = right.startswith(QUAD_TEX)
            lines = broken(right.removeprefix(QUAD_TEX), page - short - QUAD, page - short - QUAD * further)
            lines[0] = QUAD_TEX * further + lines[0]
        if len(lines) > 1 and place + 1 < len(rows) and re.match(r"\\quad [-+] ", rows[place + 1][1]):
            rest = lines.pop()
        found += [left + "&" + lines[0], *(f"&{QUAD_TEX}{line}" for line in lines[1:])]
    return " \\\\\n".join(found)


def _rows(body: str) -> list[str]:
    """Cut at the ends of rows, not inside matrices and cases."""
    found: list[str] = []
    for part in body.split(" \\\\\n"):
        if found and found[-1].count(r"\begin{") > found[-1].count(r"\end{"):
            found[-1] += " \\\\\n" + part
        else:
            found.append(part)
    return found


def _sides(row: str) -> tuple[str, str]:
    """What stands before and behind a row's alignment point."""
    for atom in atoms(row):
        if atom.tex == "&":
            return row[: atom.start], row[atom.start + 1 :]
    return "", row


# ---- breaking ---------------------------------------------------------------------------------------------------------


def broken(tex: str, room: float, first: float | None = None) -> list[str]:
    r"""A formula in lines of at most `room` points where it can be broken; the first one may have another room, the others begin with \quad."""
    first = room if first is None else first
    if width(tex) <= first:
        return [tex]
    lines: list[str] = []
    for term in terms(tex):
        left = (first if len(lines) <= 1 else room) - (width(lines[-1]) if lines else 0.0)
        if lines and width(term) <= left:
            lines[-1] += (" " if not lines[-1].endswith(" ") else "") + term
            continue
        here = room if lines else first
        if width(term) <= here:
            lines.append(term)
        else:
            lines += _broken_term(term, room, here)
    return lines


def terms(tex: str) -> list[str]:
    """Cut before relations and signs, behind commas and at quads that stand outside brackets."""
    found, start, before = [], 0, ""
    for atom, depth in _nested(tex):
        if depth == 0 and atom.head in (r"\quad", r"\qquad"):
            found.append(tex[start : atom.start])
            start, before = atom.start + len(atom.tex), ""
        elif depth == 0 and (atom.head in _RELATIONS or (atom.head in _SIGNS and before not in ("", "(", ",", *_BINARY, *_RELATIONS))):
            found.append(tex[start : atom.start])
            start = atom.start
        elif depth == 0 and atom.head == ",":
            found.append(tex[start : atom.start + len(atom.tex)])
            start = atom.start + len(atom.tex)
        if not atom.head.isspace():
            before = atom.head
    return [part for part in (part.strip() for part in [*found, tex[start:]]) if part]


def _nested(tex: str) -> Iterator[tuple[Atom, int]]:
    """The pieces with the number of brackets around them that both open and close in `tex`."""
    pieces = atoms(tex)
    pairs = _pairs(pieces)
    closing = set(pairs.values())
    depth = 0
    for place, atom in enumerate(pieces):
        depth -= place in closing
        yield atom, depth
        depth += place in pairs


def _pairs(pieces: list[Atom]) -> dict[int, int]:
    """Places of the brackets that open, with those of their partners."""
    stack: list[int] = []
    found: dict[int, int] = {}
    for place, atom in enumerate(pieces):
        if atom.head == "(":
            stack.append(place)
        elif atom.head == ")" and stack:
            found[stack.pop()] = place
    return found


def _broken_term(term: str, room: float, first: float) -> list[str]:
    """A term without signs outside brackets: between its factors if each has a line's room, else inside its widest piece."""
    factors = _factors(term)
    if len(factors) > 1 and max(map(width, factors)) <= room - QUAD:
        lines = [factors[0]]
        for factor in factors[1:]:
            if width(lines[-1]) + width(factor) <= (first if len(lines) == 1 else room):
                lines[-1] += " " + factor
            else:
                lines.append(r"\cdot " + factor)
        return lines
    pieces = atoms(term)
    pairs = _pairs(pieces)
    outer = [(opened, closed) for opened, closed in pairs.items() if not any(a < opened and closed < b for a, b in pairs.items())]
    outer = [(a, b) for a, b in outer if not any(atom.head == r"\begin" for atom in pieces[a:b])]
    spans = [(*span, sum(atom.width for atom in pieces[span[0] : span[1] + 1])) for span in outer]
    covered = {place for opened, closed in outer for place in range(opened, closed + 1)}
    spans += [(place, place, atom.width) for place, atom in enumerate(pieces) if place not in covered and _opened(atom) is not None]
    if not spans:
        return [term]
    opened, closed, _ = max(spans, key=lambda span: span[2])
    before, after = (term[: pieces[opened].start], term[pieces[closed].start + len(pieces[closed].tex) :])
    if opened == closed:
        return broken(before + str(_opened(pieces[opened])) + after, room, first)
    start, end = (_resized(pieces[place].tex) for place in (opened, closed))
    inside = term[pieces[opened].start + len(pieces[opened].tex) : pieces[closed].start].strip()
    head, ahead = before + start + " " * start[-1].isalpha(), list[str]()
    if width(head) > first / 2 and len(_factors(before)) > 1 and before.endswith(" "):
        ahead, head, first = broken(before.strip(), room, first), r"\cdot " + start, room
    lines = broken(inside, room, first - width(head))
    lines[0] = head + lines[0]
    free = next((atom.start for atom, depth in _nested(after) if depth == 0 and (atom.head.isspace() or atom.head == r"\,")), len(after))
    lines[-1] += end + after[:free]
    rest = re.sub(r"^(\s|\\,)+", "", after[free:]).strip()
    if rest and (width(lines[-1]) + width(rest) <= room or atoms(rest)[0].head in (")", ",", *_BINARY)):
        lines[-1] += " " + rest
    elif rest:
        lines += broken(r"\cdot " + rest, room)
    return [*ahead, *lines]


def _opened(atom: Atom) -> str | None:
    """A fraction, root, exponential or group as brackets, between which it can be broken; None for other pieces."""
    below, above = atom.scripts
    if atom.width < 5 * QUAD:
        return None
    if atom.head == r"\frac":
        top, bottom = (piece[1:-1] if piece.startswith("{") else piece for piece in atom.pieces)
        if width(bottom) <= width(top):
            return rf"\frac{{1}}{{{bottom}}} {_bracketed(top)}"
        return ("" if top == "1" else _bracketed(top) + " ") + rf"\Bigl[{bottom}\Bigr]^{{-1}}"
    if atom.head == r"\sqrt" and not below + above:
        return rf"\Bigl[{atom.pieces[0][1:-1]}\Bigr]^{{1/2}}"
    if atom.head == "e" and above and not below:
        return rf"\exp\Bigl({above[1:-1]}\Bigr)"
    if atom.head == "{" and not below + above and atom.pieces[0].startswith((r"\left", r"\bigl", r"\Bigl")):
        return atom.pieces[0]
    return None


def _bracketed(tex: str) -> str:
    return rf"\Bigl[{tex}\Bigr]" if len(terms(tex)) > 1 else tex


def _resized(delimiter: str) -> str:
    r"""\left( as \Bigl(; other sizes as they are."""
    return re.sub(r"^\\(left|right)\s*", lambda match: r"\Bigl" if match.group(1) == "left" else r"\Bigr", delimiter)


def _factors(term: str) -> list[str]:
    """Cut at spaces between factors, not behind signs, sums and names of functions; a sign stays with what follows it."""
    found, start, before, space = [], 0, "", False
    for atom, depth in _nested(term):
        if atom.head.isspace() or atom.head == r"\,":
            space = True
            continue
        free = depth == 0 and atom.head not in (*_BINARY, *_RELATIONS, ")", "delimiter", "'", ",")
        if space and free and before and before not in (*_BINARY, *_RELATIONS, *_OPERATORS, *_FUNCTIONS, "(", r"\operatorname"):
            found.append(term[start : atom.start])
            start = atom.start
        space, before = False, atom.head
    parts = [re.sub(r"(\s|\\,)+$", "", part).strip() for part in [*found, term[start:]]]
    return [part for part in parts if part]
