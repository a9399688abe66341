# Real servers that the doctor makes, and every command of its page.
real_server=(xdirector doctor --real-server --vip 192.0.2.100 --listen 0s)

finds "${real_server[@]}"
cure '192.0.2.100 is not on lo'
"${real_server[@]}"
systemctl is-active --quiet xdirector-real-server
systemctl is-enabled --quiet xdirector-real-server
fact what the doctor says makes a real server
xdirector real-server install --vip 192.0.2.100 | grep -q 'ran already'
xdirector real-server install --vip 2001:db8::100,192.0.2.100
on_lo 192.0.2.100/32 && on_lo 2001:db8::100/128
since=$(systemctl show -P ActiveEnterTimestampMonotonic xdirector-real-server)
xdirector real-server install --vip 2001:db8::100,192.0.2.101
on_lo 192.0.2.101/32 && on_lo 2001:db8::100/128 && ! on_lo 192.0.2.100
[[ $since == "$(systemctl show -P ActiveEnterTimestampMonotonic xdirector-real-server)" ]]
fact another list is taken over without a restart
[[ $(sysctl -n net.ipv4.conf.all.arp_announce) == 2 ]]
xdirector real-server remove
! on_lo 192.0.2 && ! on_lo 2001 && [[ $(sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce) == $'0\n0' ]]
[[ ! -e /etc/systemd/system/xdirector-real-server.service ]]
! systemctl is-active --quiet xdirector-real-server
xdirector real-server remove | grep -q 'nothing to remove'
fact and it is undone

# Every command of the page; those that examine may find something.
while read -r command; do
	code=0
	bash -c "$command" >/run/found 2>&1 || code=$?
	case $command in
	*doctor*) [[ $code == [01] ]] && tail -n 1 /run/found | grep -qE '^(This box is fit|Nothing was found, but|[0-9]+ findings?: run)' ;;
	*) [[ $code == 0 ]] ;;
	esac
	fact "the page says: $command"
done < <(sed -n 's/^    \(xdirector [^#]*\).*/\1/p' "$XDIRECTOR_SOURCES/docs/doctor.md")
! on_lo 192.168.5.100 # the last one was remove
sysctl -qw net.ipv4.ip_forward=1
xdirector doctor --listen 0s >/run/found 2>&1 || true
sed -n '/^    1\. send/,/^$/s/^    \(1\. \)\{0,1\}//p' "$XDIRECTOR_SOURCES/docs/doctor.md" >/run/printed
[[ $(wc -l </run/printed) -ge 3 ]]
grep -A 2 'send_redirects of eth0' /run/found | sed 's/^[0-9]*\. //' | diff /run/printed - | cat
[[ -z $(grep -A 2 'send_redirects of eth0' /run/found | sed 's/^[0-9]*\. //' | diff <(grep . /run/printed) -) ]]
sysctl -qw net.ipv4.ip_forward=0
fact the page prints what comes out

fact that was all
