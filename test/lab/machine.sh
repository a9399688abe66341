# Number 1 of a lab's machine: $1 is its folder, $2 that of the sources.
set -e
mkdir -p "$1/own"
mount -t tmpfs own "$1/own"
for dir in /etc /usr /var/lib /var/cache /var/log "$2"; do
	own=$1/own/${dir//\//_}
	mkdir -p "$own" "$own.work"
	mount -t overlay -o "lowerdir=$dir,upperdir=$own,workdir=$own.work" overlay "$dir"
done
mount -t tmpfs run /run
mkdir -p /run/systemd/system
rm -rf /etc/xdirector /usr/bin/xdirector
cp "$1/systemctl" /usr/bin/systemctl
cat >/usr/bin/journalctl <<'END'
#!/bin/sh
# journalctl -u UNIT -n LINES
[ "$1" = -u ] || exit 0
exec tail -n "$4" "/run/$2.journal"
END
chmod 755 /usr/bin/journalctl
echo ready
# Whose parent has ended is a child of number 1.
while :; do sleep 3600 & wait $! || true; done
