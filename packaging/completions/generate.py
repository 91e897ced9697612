#!/usr/bin/env python3
"""The completions of zsh and fish, from what memctl says of itself (`memctl --json help`): commands, options, columns, and what
each stands for.  Names are asked of the daemon when a key is pressed.

    generate.py --memctl PROGRAM zsh|fish

memctl.bash asks memctl's help for the same at each key press; these two show descriptions, which takes tables."""
import json
import re
import subprocess
import sys

# What the value of an option may be: words, and a table whose first column has more of them.  Others: files, if the
# argument is called so.
VALUES = {
    "color": ["auto", "always", "never"], "shares": ["low", "normal", "high"], "level": ["error", "warning", "notice", "info"],
    "units": ["MiB", "GiB", "KiB", "B", "auto"],
    "sharing": ["off", "zero", "vm"], "stall-budget": ["default"], "balloon-max": ["default"], "reservation": ["none"],
    "limit": ["none"], "since": ["10m", "1h", "1d"], "until": ["10m", "1h", "1d"], "at": ["10m", "1h", "1d"],
    "step": ["1s", "10s", "1m", "1h", "auto"],
}
TABLES = {"vm": "vms", "sharing": "groups"}
FILES = ("FILE", "PATH", "DIR")
# the first argument of a command, by its usage
ARGUMENTS = {"VM": "vms", "[VM]": "vms", "[EVENT]": "events", "[SETTING": "settings", "[COMMAND]": "commands"}
# table: prefix, last cell that a row must have ("": any), the question
QUESTIONS = {
    "vms": ("", "", "vm list -o NAME"), "groups": ("group:", "no", "share groups -o GROUP,PRIVATE"),
    "events": ("", "", "explain-event -o EVENT"), "settings": ("", "yes", "config show -o SETTING,LIVE"),
}
HELP = [("help", "h", "what there is, or a command's own help"), ("version", "V", "the version")]


def brief(text):
    """What fits beside a word: the first clause."""
    return re.split(r"[:;(]|\. ", text.replace("`", ""))[0].strip()


def quote(text):
    return "'%s'" % text.replace("'", "'\\''")


def fish_quote(text):
    return "'%s'" % text.replace("\\", "\\\\").replace("'", "\\'")


def options_of(command):
    """[(name, letter or None, argument or None, help)]; "[WHEN]" takes its value behind = only."""
    found = [(o["name"], o["letter"], o["argument"], brief(o["help"])) for o in command["options"]]
    return found + [(name, letter, None, text) for name, letter, text in HELP]


def takers(commands):
    """The options that take the next word, as they are typed."""
    found = set()
    for c in commands:
        for name, letter, argument, _ in options_of(c):
            if argument and not argument.startswith("["):
                found |= {"--" + name} | ({"-" + letter} if letter else set())
    return sorted(found)


def first_words(commands):
    """[(word, description)]"""
    groups = {}
    for c in commands:
        word, _, second = c["name"].partition(" ")
        groups.setdefault(word, []).append((second, brief(c["summary"])))
    return [(w, rows[0][1] if not rows[0][0] else ", ".join(s for s, _ in rows)) for w, rows in groups.items()]


def second_words(commands):
    """[(first, second, description)]"""
    return [(*c["name"].split(), brief(c["summary"])) for c in commands if " " in c["name"]]


def kind_of(name, argument):
    """columns, files, or the words and the table of its values."""
    if argument.startswith("COL"):
        return "columns", [], None
    if name in VALUES or name in TABLES:
        return "values", VALUES.get(name, []), TABLES.get(name)
    return ("files" if argument in FILES else "values"), [], None


# ---- zsh

ZSH = r"""#compdef memctl
# zsh completion for memctl(1), made by packaging/completions/generate.py.

# The first cells of a table, of those rows whose last cell is $2 (empty: of all), with $1 before them.
_memctl_table() {
	local prefix=$1 want=$2 line
	shift 2
	for line in ${(f)"$(_call_program memctl ${(q)program} ${(q)socket} "$@" --raw --noheadings 2>/dev/null)"}; do
		[[ -z $want || ${line##*[[:space:]]} == $want ]] && values+=("$prefix${line%%[[:space:]]*}")
	done
}

_memctl_ask() {
	case $1 in
%(questions)s
	esac
}

# The tables of a command: options ("--name:what it is"), columns, and what its first argument is.
_memctl_tables() {
	options=() columns=() argument=
	case $1 in
%(tables)s
	esac
}

# What may follow the option $1.
_memctl_values() {
	local -a values
	case $1 in
%(values)s
	esac
	(($#values)) && compadd -a values
}

_memctl_columns() {
	compset -P '*,' || compset -P '+'
	_describe -t columns column columns
}

_memctl() {
	local program=${words[1]} current=${words[CURRENT]} previous=${words[CURRENT - 1]} command= argument= word
	local -a given parts socket options columns values takes verbs
	local -i i at=0
	takes=(%(takes)s)
	for ((i = 2; i < CURRENT; i++)); do
		word=${words[i]}
		if [[ $word == -- ]]; then
			at=$((i + 1))
			break
		elif ((${takes[(Ie)$word]})); then
			[[ $word == --socket ]] && socket=(--socket ${(Q)words[i + 1]})
			((i++))
		elif [[ $word == --socket=* ]]; then
			socket=($word)
		elif [[ $word != -?* ]]; then
			given+=($word)
			# with run the emulator's own line begins at the first word that is no option
			[[ ${given[1]} == run && $#given -gt 1 ]] && at=$i && break
		fi
	done
	[[ ${given[1]} == run && $at -gt 0 ]] && {
		words=("${(@)words[at,-1]}")
		CURRENT=$((CURRENT - at + 1))
		_normal
		return
	}
	case "${given[1]} ${given[2]}" in
%(pairs)s
	esac
	case ${given[1]} in
	%(singles)s) command=${given[1]} ;;
	esac
	_memctl_tables "$command"
	parts=(${=command})

	if [[ $current == --*=* ]]; then
		compset -P '*='
		_memctl_values "${current%%%%=*}" "$command"
	elif ((${takes[(Ie)$previous]})); then
		_memctl_values $previous "$command"
	elif [[ $current == -* ]]; then
		_describe -o -t options option options
	elif [[ -n $command ]]; then
		if [[ $argument == commands ]]; then
			(($#given < 3)) && _memctl_commands "${given[2]}"
		elif (($#given == $#parts)); then
			[[ -n $argument ]] && { _memctl_ask $argument; compadd -a values }
		fi
	elif (($#given < 2)); then
		_memctl_commands "${given[1]}"
	fi
}

_memctl_commands() {
	case $1 in
	'') verbs=(
%(first)s
		) ;;
%(second)s
	*) return ;;
	esac
	_describe -t commands command verbs
}

if [[ $funcstack[1] == _memctl ]]; then
	_memctl "$@"
else
	compdef _memctl memctl
fi
"""


def described(word, text):
    return quote("%s:%s" % (word.replace(":", "\\:"), text))


def zsh_tables(command):
    rows = []
    for name, letter, _, text in options_of(command) if command else [(n, l, None, t) for n, l, t in HELP]:
        rows += [described("--" + name, text)] + ([described("-" + letter, text)] if letter else [])
    out = "\t%s) options=(\n\t\t%s\n\t\t)" % (quote(command["name"] if command else ""), "\n\t\t".join(rows))
    if command and command["columns"]:
        out += "\n\t\tcolumns=(\n\t\t%s\n\t\t)" % "\n\t\t".join(described(c["name"], brief(c["help"])) for c in command["columns"])
    argument = ARGUMENTS.get((command or {"arguments": ""})["arguments"].split(" ")[0])
    return out + ("\n\t\targument=%s" % argument if argument else "") + " ;;"


def without_command(commands):
    """What every command takes, before it is known which one."""
    return {"name": "", "arguments": "", "columns": [], "options": [o for o in commands[0]["options"] if o["class"] == "all"]}


def options_by_value(commands):
    """{(kind, words, table): [names as typed]} of all options that have a value; -o twice, where commands differ."""
    found = {}
    for c in commands:
        for name, letter, argument, _ in options_of(c):
            if argument:
                kind, words, table = kind_of(name, argument.strip("[]"))
                names = found.setdefault((kind, tuple(words), table), {})
                for typed in ["--" + name] + (["-" + letter] if letter else []):
                    names.setdefault(typed, []).append(c["name"])
    return found


def zsh_values(commands):
    """Cases of option, then command: one name may be columns here and a file there."""
    how = {"files": lambda words, table: "_files", "columns": lambda words, table: "_memctl_columns",
           "values": lambda words, table: "; ".join((["values=(%s)" % " ".join(words)] if words else []) +
                                                    (["_memctl_ask %s" % table] if table else [])) or ":"}
    by_name = {}
    for (kind, words, table), names in options_by_value(commands).items():
        for typed, of in names.items():
            by_name.setdefault(typed, []).append((how[kind](words, table), of))
    rows = []
    for typed, ways in sorted(by_name.items()):
        if len(ways) == 1:
            rows.append("\t%s) %s ;;" % (typed, ways[0][0]))
        else:
            rows.append("\t%s) case $2 in %s esac ;;" % (typed, " ".join(
                "%s) %s ;;" % ("|".join(quote(c) for c in of), way) for way, of in ways)))
    return "\n".join(rows)


def zsh(commands):
    seconds = second_words(commands)
    return ZSH % {
        "questions": "\n".join("\t%s) _memctl_table %s %s %s ;;" % (name, quote(prefix), quote(want), question)
                               for name, (prefix, want, question) in QUESTIONS.items()),
        "tables": "\n".join([zsh_tables(without_command(commands))] + [zsh_tables(c) for c in commands]),
        "values": zsh_values(commands),
        "takes": " ".join(takers(commands)),
        "pairs": "\t%s) command=\"${given[1]} ${given[2]}\" ;;" % "|".join(quote("%s %s" % (a, b)) for a, b, _ in seconds),
        "singles": "|".join(c["name"] for c in commands if " " not in c["name"]),
        "first": "\n".join("\t\t" + described(w, t) for w, t in first_words(commands)),
        "second": "\n".join("\t%s) verbs=(\n%s\n\t\t) ;;" % (first, "\n".join(
            "\t\t" + described(b, t) for a, b, t in seconds if a == first)) for first in sorted({a for a, _, _ in seconds})),
    }


# ---- fish

FISH = r"""# fish completion for memctl(1), made by packaging/completions/generate.py.

# $__memctl_words: those before the cursor that are no options and no values; read once a key press, whose conditions all ask.
function __memctl_read
    set -l tokens (commandline -opc)
    set -l line (string join \x1f -- $tokens)
    test "$line" = "$__memctl_line"; and return
    set -g __memctl_line $line
    set -g __memctl_words
    set -l skip no
    for token in $tokens[2..]
        if test $skip = yes
            set skip no
            continue
        end
        switch $token
            case --
                return
            case %(takes)s
                set skip yes
            case '-*'
            case '*'
                set -a __memctl_words $token
        end
    end
end

# Whether they are these and nothing else / begin with these.
function __memctl_at
    __memctl_read
    test "$__memctl_words" = "$argv"
end

function __memctl_in
    __memctl_read
    test "$__memctl_words[1..$(count $argv)]" = "$argv"
end

# With run the emulator's own line begins behind --, or at the first word that is no option.
function __memctl_emulator
    __memctl_in run; or return 1
    contains -- -- (commandline -opc); or test (count $__memctl_words) -gt 1
end

function __memctl_complete_emulator
    set -l tokens (commandline -opc)
    set -l at (contains -i -- -- $tokens)
    or set at (math (contains -i -- $__memctl_words[2] $tokens) - 1)
    set -l line (string escape -- $tokens[(math $at + 1)..] (commandline -ct))
    test -n (commandline -ct); or set line[-1] ''
    complete -C (string join ' ' -- $line)
end

# The first cells of a table, of those rows whose last cell is $argv[2] (empty: of all), with $argv[1] before them.
function __memctl_table
    set -l tokens (commandline -opc)
    set -l socket
    set -l at (contains -i -- --socket $tokens)
    and set socket --socket $tokens[(math $at + 1)]
    for line in ($tokens[1] $socket $argv[3..] --raw --noheadings 2>/dev/null)
        set -l cells (string split ' ' -- $line)
        test -z "$argv[2]"; or test "$cells[-1]" = "$argv[2]"; and echo $argv[1]$cells[1]
    end
end
%(questions)s
# The last of COL,COL.
function __memctl_columns
    set -l begun (string match -r '^(?:.*,|\+)' -- (commandline -ct))
    or set begun ''
    for row in $argv
        echo $begun$row
    end
end

complete -c memctl -e
complete -c memctl -f
complete -c memctl -n __memctl_emulator -a '(__memctl_complete_emulator)'
%(lines)s
"""


def fish_option(condition, name, letter, argument, text, columns):
    words = ["complete -c memctl -n %s -l %s" % (fish_quote(condition), name)]
    if letter:
        words.append("-s " + letter)
    if argument:
        kind, values, table = kind_of(name, argument.strip("[]"))
        # an optional value stands behind = only
        words.append(("-r" if kind == "files" else "-x") if not argument.startswith("[") else "")
        if kind == "columns":
            words.append("-a %s" % fish_quote("(__memctl_columns %s)" % " ".join(
                fish_quote("%s\t%s" % (c["name"], brief(c["help"]))) for c in columns)))
        elif kind == "files":
            words.append("-F")
        else:
            offered = " ".join([*values, "(__memctl_%s)" % table if table else ""]).strip()
            words.append("-a %s" % fish_quote(offered) if offered else "")
    return " ".join(w for w in words if w) + " -d %s" % fish_quote(text)


def fish(commands):
    lines = []

    def offer(at, word, text=""):
        lines.append("complete -c memctl -n %s -a %s" % (fish_quote(at), word) + (" -d " + fish_quote(text) if text else ""))
    for word, text in first_words(commands):
        for at in ("__memctl_at", "__memctl_at help"):
            offer(at, word, text)
    for first, second, text in second_words(commands):
        for at in ("__memctl_at " + first, "__memctl_at help " + first):
            offer(at, second, text)
    groups = sorted({first for first, _, _ in second_words(commands)})
    for c in [without_command(commands)] + commands:
        conditions = {"": "; or ".join(["__memctl_at"] + ["__memctl_at " + g for g in groups]),
                      "run": "__memctl_in run; and not __memctl_emulator"}
        condition = conditions.get(c["name"], "__memctl_in " + c["name"])
        for name, letter, argument, text in options_of(c):
            lines.append(fish_option(condition, name, letter, argument, text, c["columns"]))
        table = ARGUMENTS.get(c["arguments"].split(" ")[0])
        if table in QUESTIONS:
            offer("__memctl_at " + c["name"], "'(__memctl_%s)'" % table)
    return FISH % {
        "takes": " ".join(takers(commands)),
        "questions": "".join("function __memctl_%s\n    __memctl_table %s %s %s\nend\n" % (
            name, fish_quote(prefix), fish_quote(want), question) for name, (prefix, want, question) in QUESTIONS.items()),
        "lines": "\n".join(lines),
    }


def main():
    if len(sys.argv) != 4 or sys.argv[1] != "--memctl" or sys.argv[3] not in ("zsh", "fish"):
        sys.exit(__doc__)
    about = json.loads(subprocess.run([sys.argv[2], "--json", "help"], capture_output=True, text=True, check=True).stdout)
    sys.stdout.write({"zsh": zsh, "fish": fish}[sys.argv[3]](about["commands"]))


if __name__ == "__main__":
    main()
