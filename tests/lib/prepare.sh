# To be sourced by the commands that people type in a fresh clone (tests/run, tests/bench/run, packaging/demo):
# install what is missing on Debian.  Fast when nothing is; everything it says goes to stderr.
#
#	. "$tree/tests/lib/prepare.sh"
#	prepare_host			# what every build and test needs
#	prepare_host clang setpriv:util-linux	# and more: a command that is its package's name, or command:package
#
# Sets MEMCTL_INSTALLED=1 if something was installed, so that existing build directories are configured again.

prepare_missing_packages()
{
	local pair

	# command:package
	for pair in gcc:gcc g++:g++ meson:meson ninja:ninja-build pkg-config:pkg-config python3:python3 scdoc:scdoc "$@"; do
		command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
	done
	[ -e /usr/include/stdio.h ] || echo libc6-dev
	# without it meson would install libraries into lib64, where nobody looks on Debian
	if command -v dpkg >/dev/null && ! command -v dpkg-architecture >/dev/null; then
		echo dpkg-dev
	fi
	[ -e /usr/include/linux/userfaultfd.h ] || echo linux-libc-dev
	# pkg-config name:package; the last four are optional features of the build
	local libraries="libevent_core:libevent-dev jansson:libjansson-dev libzstd:libzstd-dev sqlite3:libsqlite3-dev
		inih:libinih-dev libxxhash:libxxhash-dev libseccomp:libseccomp-dev smartcols:libsmartcols-dev ncursesw:libncurses-dev
		unicorn:libunicorn-dev"
	if command -v pkg-config >/dev/null; then
		for pair in $libraries; do
			pkg-config --exists "${pair%%:*}" || echo "${pair##*:}"
		done
	else
		for pair in $libraries; do
			echo "${pair##*:}"
		done
	fi
}

prepare_host()
{
	local more=() missing

	while [ $# -gt 0 ]; do
		case "$1" in
		*:*) more+=("$1") ;;
		*) more+=("$1:$1") ;;
		esac
		shift
	done
	missing=$(prepare_missing_packages "${more[@]}" | sort -u | tr '\n' ' ')
	missing=${missing% }
	[ -n "$missing" ] || return 0
	if ! command -v apt-get >/dev/null; then
		echo "Missing (by their Debian names): $missing" >&2
		return 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "Missing packages. As root: apt-get install --no-install-recommends $missing" >&2
		return 1
	fi
	echo "Installing $missing" >&2
	# a bare machine has no package lists, or old ones
	DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 </dev/null || true
	# shellcheck disable=SC2086 # one word a package
	if ! DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing >&2 </dev/null; then
		echo "Could not install $missing" >&2
		return 1
	fi
	export MEMCTL_INSTALLED=1
}
