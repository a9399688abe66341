#!/bin/bash
# systemctl of a lab's machine: does with a unit file what systemd would do with its commands, its user and that one's rights.
set -e
die() { echo "systemctl: $*" >&2; exit 1; }
now= signal= verb= units=()
for word; do
	case $word in
		--now) now=1 ;;
		--signal=*) signal=${word#*=} ;;
		--kill-whom=main | --quiet | --no-reload | --no-block | -p | --value) ;;
		-*) die "$word is more than this machine knows" ;;
		*) if [[ $verb ]]; then units+=("${word%.service}"); else verb=$word; fi ;;
	esac
done
line() { sed -n "s/^$1=//p" "$file"; }
running() { [[ -e $run.pid ]] && kill -0 "$(<"$run.pid")" 2>/dev/null; }
# whose prints the file of a unit: an administrator's goes before a package's.
whose() { ls "/etc/systemd/system/$1" "/usr/lib/systemd/system/$1" 2>/dev/null | head -n 1; }
readies() { grep -cs 'msg=ready' "$run.journal" || true; }
once() { [[ $(line Type) == oneshot ]] && while read -r command; do ${command#-}; done < <(line "$1"); }
# as prints what comes before a command, so that it is run as the unit's user with nothing but the unit's rights.
as() {
	[[ $(line User) ]] || return 0
	local caps
	caps=$(line AmbientCapabilities | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
	echo "setpriv --reuid $(line User) --regid $(line Group) --init-groups --no-new-privs --inh-caps -all,$caps --ambient-caps -all,$caps --bounding-set -all,$caps"
}
start() {
	once ExecStart && return
	running && return
	local wanted before command
	: >>"$run.journal" # where there is none, none is counted
	for wanted in $(line Wants); do
		[[ $wanted == *.mount ]] || continue
		(
			file=$(whose "$wanted")
			mkdir -p "$(line Where)"
			mountpoint -q "$(line Where)" || mount -t "$(line Type)" -o "$(line Options)" "$(line What)" "$(line Where)"
		)
	done
	mkdir -p "/run/$(line RuntimeDirectory)"
	while read -r command; do ${command#+}; done < <(line ExecStartPre)
	before=$(readies)
	# shellcheck disable=SC2046 # words
	(setsid $(as) $(line ExecStart) >>"$run.journal" 2>&1 </dev/null & echo $! >"$run.pid"; wait $!; rm -f "$run.pid") >/dev/null 2>&1 &
	until running; do read -rt 0.02 <> <(:) || true; done
	# Type=notify: it is started when it says so.
	while running && [[ $(line Type) == notify && $(readies) == "$before" ]]; do read -rt 0.02 <> <(:) || true; done
	running || die "Job for $unit.service failed."
}
stop() {
	once ExecStop && return
	running || return 0
	kill "$(<"$run.pid")"
	while running; do read -rt 0.05 <> <(:) || true; done
}
[[ $verb == daemon-reload ]] && exit
if [[ $verb == show && ${units[0]} == MainPID ]]; then
	cat "/run/${units[1]}.pid" 2>/dev/null || echo 0
	exit
fi
for unit in "${units[@]}"; do
	file=$(whose "$unit.service") run=/run/$unit
	[[ $file ]] || die "Unit $unit.service not found."
	case $verb in
		enable) if [[ $now ]]; then start; fi ;;
		disable) if [[ $now ]]; then stop; fi ;;
		start) start ;;
		stop) stop ;;
		restart) stop; start ;;
		reload-or-restart) once ExecStart || die "$verb is not for this unit" ;;
		reload) MAINPID=$(<"$run.pid"); eval "$(line ExecReload)" ;;
		kill) kill -s "${signal:-TERM}" "$(<"$run.pid")" ;;
		is-active) if running; then echo active; else echo inactive; exit 3; fi ;;
		*) die "$verb is more than this machine knows" ;;
	esac
done
