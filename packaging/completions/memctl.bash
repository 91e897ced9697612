# bash completion for memctl(1).
# Commands, options and columns come from memctl's own help, names from the daemon, so nothing is listed twice.

_memctl_commands() {
	memctl help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]\+\( [a-z-]\+\)\?\).*/\1/p'
}

# The words of the line that are no options and no values of options.
_memctl_words() {
	local i word skip=
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $skip ]]; then
			skip=
		elif [[ $word == -[owc] || $word =~ ^--(socket|timeout|rate|reservation|limit|shares|balloon-max|sharing|stall-budget)$ ]]; then
			skip=1
		elif [[ $word != -* ]]; then
			printf '%s\n' "$word"
		fi
	done
}

_memctl() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words list=
	mapfile -t words < <(_memctl_words)
	COMPREPLY=()
	case $previous in
	--socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	-o)
		list=$(memctl help "${words[@]:0:2}" 2>/dev/null || memctl help "${words[0]}" 2>/dev/null)
		list=$(sed -n 's/^  [* ] \([A-Z%][^ ]*\) .*/\1/p' <<<"$list")
		;;
	--shares) list='low normal high' ;;
	--sharing) list='off zero vm group:' ;;
	--stall-budget | --balloon-max) list='default' ;;
	--reservation | --limit) list='none' ;;
	--timeout | --rate | -w | -c) return ;;
	*)
		case "$current:${words[*]}" in
		-*:run*) list=$(memctl help run 2>/dev/null | sed -n '/^The VM:/,/^$/s/^  \(--.*\)/\1/p' | grep -o -e '--[a-z-]*') ;;
		-*:vm\ set*) list='--reservation --limit --shares --balloon-max --sharing --stall-budget' ;;
		-*:vm\ page-in*) list='--rate --wait --stop' ;;
		-*) list='--json --socket --timeout --raw --noheadings --bytes --force --wait --help -o -w -c' ;;
		*:) list=$(_memctl_commands | cut -d' ' -f1 | sort -u) ;;
		*:vm | *:config | *:share | *:daemon | *:help\ vm | *:help\ config | *:help\ share | *:help\ daemon)
			list=$(_memctl_commands | sed -n "s/^${words[-1]} //p")
			;;
		*:help) list=$(_memctl_commands | cut -d' ' -f1 | sort -u) ;;
		*:vm\ show | *:vm\ set | *:vm\ page-in | *:vm\ rm | *:vm\ release | *:explain | *:vm\ pmap | *:share\ top | *:share\ scan | *:stat | *:audit)
			list=$(memctl vm list --raw --noheadings -o NAME 2>/dev/null)
			;;
		*:tune) list=$(memctl config show --raw --noheadings -o SETTING,LIVE 2>/dev/null | sed -n 's/[[:space:]]yes$//p') ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$list" -- "$current")
}
complete -F _memctl memctl
