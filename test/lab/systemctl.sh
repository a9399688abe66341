#!/bin/bash
# systemctl of a lab's machine: does with a unit file what systemd would do with its ExecStart, ExecStop and ExecReload lines.
set -e
die() { echo "systemctl: $*" >&2; exit 1; }
now= signal= verb= units=()
for word; do
	case $word in
		--now) now=1 ;;
		--signal=*) signal=${word#*=} ;;
		--kill-whom=main | --quiet | --no-reload | --no-block) ;;
		-*) die "$word is more than this machine knows" ;;
		*) if [[ $verb ]]; then units+=("${word%.service}"); else verb=$word; fi ;;
	esac
done
line() { sed -n "s/^$1=//p" "$file"; }
running() { [[ -e $run.pid ]] && kill -0 "$(<"$run.pid")" 2>/dev/null; }
readies() { grep -cs 'msg=ready' "$run.journal" || true; }
once() { [[ $(line Type) == oneshot ]] && while read -r command; do ${command#-}; done < <(line "$1"); }
start() {
	once ExecStart && return
	running && return
	mkdir -p "/run/$(line RuntimeDirectory)"
	local before
	before=$(readies)
	# shellcheck disable=SC2046 # words
	(setsid $(line ExecStart) >>"$run.journal" 2>&1 </dev/null & echo $! >"$run.pid"; wait $!; rm -f "$run.pid") >/dev/null 2>&1 &
	until running; do read -rt 0.02 <> <(:) || true; done
	# Type=notify: it is started when it says so.
	while running && [[ $(readies) == "$before" ]]; do read -rt 0.02 <> <(:) || true; done
	running || die "Job for $unit.service failed."
}
stop() {
	once ExecStop && return
	running || return 0
	kill "$(<"$run.pid")"
	while running; do read -rt 0.05 <> <(:) || true; done
}
[[ $verb == daemon-reload ]] && exit
for unit in "${units[@]}"; do
	file=/etc/systemd/system/$unit.service run=/run/$unit
	[[ -e $file ]] || die "Unit $unit.service not found."
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
