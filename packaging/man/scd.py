"""Plain text, as it stands in our sources, as scdoc(5)."""
import re

SPECIAL = re.compile(r"([\\*_#|\[\]<>~`])")


def escape(text):
    return SPECIAL.sub(r"\\\1", text)


def words(text):
    """A sentence: `memctl vm show` and names of functions are bold, sections of a manual are as they are."""
    out = []
    for i, piece in enumerate(re.split(r"`([^`]*)`", text)):
        if i % 2:
            out.append("*%s*" % escape(piece))
        else:
            plain = re.sub(r"\b(memctl(?:\\_[a-z]+)+)\(\)", r"*\1*()", escape(piece))
            out.append(re.sub(r"(?<!\w)\\\*(\w+)\\\*(?!\w)", r"_\1_", plain))  # *word*: stressed
    text = "".join(out)
    return "\\" + text if text.startswith("-") else text


def sentence(text):
    """With a capital, unless it begins with a list of words to be typed, or with a name of ours."""
    text = text.strip()
    if not re.match(r"[\w-]+, (?!or\b)[\w-]+,|memctl", text):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", ":", "?")) else text + "."


def literal(text):
    return ["```", *text.expandtabs(8).split("\n"), "```", ""]


def paragraphs(lines):
    """Blocks between empty lines; what is indented by a tab is printed as it is."""
    out, block, code = [], [], []

    def end_block():
        if block:
            out.extend(_block(block))
            block.clear()

    def end_code():
        if code:
            out.extend(literal("\n".join(line[1:] for line in code).rstrip()))
            code.clear()

    for line in lines:
        if line.startswith("\t"):
            end_block()
            code.append(line)
        elif line.strip():
            end_code()
            block.append(line)
        else:
            end_block()
            if code:
                code.append("\t")
    end_block()
    end_code()
    return out


def _block(lines):
    """Lines that belong together: sentences, with a list in them where lines begin with a dash, or with a name and three
    spaces."""
    out, text, listed = [], [], []

    def end_text():
        if text:
            out.extend([words(" ".join(t.strip() for t in text)), ""])
            text.clear()

    def end_list():
        if listed:
            for item in listed:
                out.append("- " + " ".join(item))
            out.append("")
            listed.clear()

    for line in lines:
        dash = re.match(r"\s*- +(.*)", line)
        pair = re.match(r" {2,}(\w[\w|, -]*?|kind \"\w+\":) {2,}(\S.*)", line) or re.match(r"  (\w+): (\S.*)", line)
        if dash or pair:
            end_text()
            listed.append([words(dash[1])] if dash else ["*%s*: " % escape(pair[1].rstrip(":")) + words(pair[2])])
        elif listed and re.match(r" {2,}", line):
            listed[-1].append(words(line.strip()))
        else:
            end_list()
            text.append(line)
    end_text()
    end_list()
    return out
