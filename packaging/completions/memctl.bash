# bash completion for memctl(1).
# Commands, options, columns and what an argument is come from memctl's own help, names from the daemon: nothing is
# listed twice, and what a newer memctl has is completed too.
# The functions share _memctl's variables; they start no programs but memctl, so that a key press costs little.

# Of a help text: commands, columns, and options, an array by name and letter whose values are the arguments.
_memctl_read_help() {
	local line part=
	columns=()
	while IFS= read -r line; do
		if [[ $line != ' '* ]]; then
			[[ $line == *: || $line == Columns* ]] && part=${line%%[: ]*}
		elif [[ $line == '  -'* ]]; then
			[[ $line =~ ^'  '(-(.), )?(--[a-z-]+)(\[=([A-Z]+)\]| ([A-Z][^ ]*))?('  '|$) ]] || continue
			# of "--color[=WHEN]" the value is no word of its own, and may be given or not
			options[${BASH_REMATCH[3]}]=${BASH_REMATCH[6]}
			[[ ${BASH_REMATCH[2]} ]] && options[-${BASH_REMATCH[2]}]=${BASH_REMATCH[6]}
		elif [[ $part == Columns && ${line:4:1} != ' ' ]]; then
			line=${line:4}
			columns+=("${line%% *}")
		elif [[ $part == Commands && ${line:2:1} != ' ' ]]; then
			[[ $line =~ ^'  '([a-z][a-z-]*(' '[a-z][a-z-]*)?)(' '|$) ]] && commands+=("${BASH_REMATCH[1]}")
		fi
	done <<<"$help"
}

# Whether an option takes the next word; a long one may be abbreviated.
_memctl_takes_word() {
	local name
	[[ $1 == -* ]] || return 1
	if [[ -v options[$1] ]]; then
		[[ ${options[$1]} ]]
		return
	fi
	for name in "${!options[@]}"; do
		[[ $1 == --?* && $name == "$1"* && ${options[$name]} ]] && return 0
	done
	return 1
}

# Sets words, those before the current one that are no options and no values, and socket.
_memctl_read_words() {
	local i word
	words=() socket=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $word == -- ]]; then
			words+=("${COMP_WORDS[@]:i + 1:COMP_CWORD - i - 1}")
			return
		elif [[ $word == = ]]; then
			((i++))
		elif [[ $word == -?* ]]; then
			[[ $word == --socket ]] && socket=(--socket "${COMP_WORDS[i + 1]}")
			[[ ${COMP_WORDS[i + 1]} != = ]] && _memctl_takes_word "$word" && ((i++))
		else
			words+=("$word")
		fi
	done
}

# Those of the commands, of which this word is the first; without a word all first words.
_memctl_list_commands() {
	local c
	for c in "${commands[@]}"; do
		if [[ ! $1 ]]; then
			[[ " ${list[*]} " == *" ${c%% *} "* ]] || list+=("${c%% *}")
		elif [[ $c == "$1 "* ]]; then
			list+=("${c#* }")
		fi
	done
}

# The first cells of a table, of those rows whose last cell is $1 (empty: of all).
_memctl_list_table() {
	local want=$1 line
	shift
	while read -r line; do
		[[ ! $want || ${line##*[[:space:]]} == "$want" ]] && list+=("$prefix${line%%[[:space:]]*}")
	done < <("$program" "${socket[@]}" "$@" --raw --noheadings 2>/dev/null)
}

# The values of an option.
_memctl_list_values() {
	case $1 in
	--color) list=(auto always never) ;;
	--shares) list=(low normal high) ;;
	--level) list=(error warning notice info) ;;
	--units) list=(MiB GiB KiB B auto) ;;
	--sort) list=("${columns[@]}") ;;
	--at) list=(10m 1h 1d) ;;
	--vm) _memctl_list_table '' vm list -o NAME ;;
	--sharing)
		local prefix=group:
		_memctl_list_table no share groups -o GROUP,PRIVATE
		list+=(off zero vm)
		;;
	--stall-budget | --balloon-max) list=(default) ;;
	--reservation | --limit) list=(none) ;;
	--since | --until) list=(10m 1h 1d) ;;
	--step) list=(1s 10s 1m 1h auto) ;;
	--level) list=(error warning notice info) ;;
	esac
}

# What may stand at the place of the next word that is no option, by the usage line of the command's help.
_memctl_list_arguments() {
	local usage=${help%%$'\n'*} places=() place
	usage=${usage#"Usage: memctl ${command[*]} "}
	read -ra places <<<"${usage%\[OPTIONS\]}"
	place=${places[${#words[@]} - ${#command[@]}]}
	case "${command[0]} $place" in
	help\ *) ((${#words[@]} < 3)) && _memctl_list_commands "${words[1]}" ;;
	*\ VM | *\ \[VM*) _memctl_list_table '' vm list -o NAME ;;
	*\ \[EVENT\]) _memctl_list_table '' explain-event -o EVENT ;;
	*\ \[SETTING) _memctl_list_table yes config show -o SETTING,LIVE ;;
	esac
}

_memctl() {
	local program=${1:-memctl} current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local words=() socket=() command=() commands=() columns=() list=() prefix='' help word
	local -A options=()
	COMPREPLY=()
	[[ $current == = ]] && current=''
	[[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}

	help=$("$program" help 2>/dev/null)
	_memctl_read_help
	_memctl_read_words
	for word in "${commands[@]}"; do
		[[ $word == "${words[0]}" ]] && command=("${words[0]}")
		[[ $word == "${words[0]} ${words[1]}" ]] && command=("${words[@]:0:2}")
	done
	if ((${#command[@]})); then
		help=$("$program" help "${command[@]}" 2>/dev/null)
		options=()
		_memctl_read_help
		_memctl_read_words
	fi

	# the emulator's own line
	if [[ ${command[0]} == run && $previous == -- ]]; then
		mapfile -t COMPREPLY < <(compgen -c -- "$current")
		return
	elif [[ (${command[0]} == run && ${#words[@]} -gt 1) || ${options[${previous:- }]} =~ ^(FILE|PATH|DIR)$ ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
	elif [[ $previous == -o || $previous == --output || $previous == --columns ]]; then
		# the last of COL,COL
		[[ $current == *,* ]] && prefix=${current%,*},
		[[ $current == +* && -z $prefix ]] && prefix=+
		list=("${columns[@]/#/"$prefix"}")
	elif [[ $previous == --color ]] || _memctl_takes_word "$previous"; then
		_memctl_list_values "$previous"
	elif [[ $current == -* ]]; then
		list=("${!options[@]}")
	elif ((${#command[@]})); then
		_memctl_list_arguments
	elif ((${#words[@]} < 2)); then
		_memctl_list_commands "${words[0]}"
	fi
	for word in "${list[@]}"; do
		[[ $word == "$current"* ]] && COMPREPLY+=("$word")
	done
}
complete -F _memctl memctl
