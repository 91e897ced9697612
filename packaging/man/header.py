"""memctl.h as the manual that it is: its sections, each with items of (comment, declarations)."""
import re

FUNCTION = re.compile(r"\b(memctl_\w+)\s*\(")


def comment_lines(comment):
    """The lines of a comment without its stars; tabs are kept, they mark what is to be printed as it is."""
    body = comment[2:-2]
    return [re.sub(r"^\s*\* ?", "", line).rstrip() for line in body.split("\n")]


def declarations(text):
    """(end, declaration) of what ends at the outermost level; the text holds comments of members."""
    depth, begun = 0, 0
    inside = False
    for i, c in enumerate(text):
        if text.startswith("/*", i):
            inside = True
        elif text.startswith("*/", i - 1) and inside:
            inside = False
        elif not inside and c in "{(":
            depth += 1
        elif not inside and c in "})":
            depth -= 1
        elif not inside and c == ";" and not depth:
            # a comment behind it on its line belongs to it
            rest = re.match(r"[ \t]*/\*.*?\*/", text[i + 1:], re.S)
            end = i + 1 + (rest.end() if rest else 0)
            yield begun, text[begun:end].strip()
            begun = end


class Item:
    """One or more declarations under one comment."""

    def __init__(self, comment, code):
        self.comment, self.code = comment, code

    def functions(self):
        return [FUNCTION.search(d)[1] for d in self.code if d.startswith("MEMCTL_API")]


def items(text):
    """The declarations of a section, with the comments that stand before them."""
    found, comment = [], []
    position = 0
    while position < len(text):
        rest = text[position:]
        blank = re.match(r"\s+", rest)
        if blank:
            position += blank.end()
            continue
        if rest.startswith("/*"):
            end = rest.index("*/") + 2
            comment = comment_lines(rest[:end])
            position += end
            continue
        if rest.startswith("#"):
            line = rest.split("\n", 1)[0]
            if line.startswith("#define MEMCTL_") and "MEMCTL_API" not in line and "MEMCTL_H" not in line:
                found.append(Item(comment, [line]))
            position += len(line)
            comment = []
            continue
        if rest.startswith(('extern "C" {', "}")):
            position += len(rest.split("\n", 1)[0])
            continue
        end, declaration = next(((b, d) for b, d in declarations(rest)), (None, None))
        if declaration is None:
            break
        position += rest.index(declaration) + len(declaration)
        # one right below another shares its comment
        if found and not comment and text[:position - len(declaration)].endswith(";\n"):
            found[-1].code.append(declaration)
        else:
            found.append(Item(comment, [declaration]))
        comment = []
    return found


def read(path):
    """(lines of the head comment, [(title, items)]); the first section's title is None."""
    with open(path) as f:
        text = f.read()
    head = re.match(r"/\*.*?\*/", text, re.S)
    body = text[head.end():]
    pieces = re.split(r"^/\* ---- (.*?) ---- \*/$", body, flags=re.M)
    return comment_lines(head[0]), [(title, items(piece)) for title, piece in zip([None] + pieces[1::2], pieces[0::2])]
