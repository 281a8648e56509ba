#!/bin/sh
# install.sh DESTDIR PREFIX BIN_DIR [PACKAGE...]: puts binaries, units and example configuration
# in place; PACKAGE is rackpower (command line and agent) or rackpower-central, without one both.
# May be run again: binaries and units are replaced, configuration is not. The packages are made
# of what this installs below PREFIX /usr.
set -eu
dest=${1?usage: install.sh DESTDIR PREFIX BIN_DIR [PACKAGE...]} prefix=${2?} bin=${3?}
shift 3
[ $# -gt 0 ] || set -- rackpower rackpower-central
here=$(cd "$(dirname "$0")" && pwd)
units=/etc/systemd/system
[ "$prefix" != /usr ] || units=/usr/lib/systemd/system
put() { # MODE FILE TARGET
	mkdir -p "$(dirname "$dest$3")"
	cp "$2" "$dest$3.new"
	chmod "$1" "$dest$3.new"
	mv "$dest$3.new" "$dest$3"
	echo "installed $dest$3"
}
unit() {
	tmp=$(mktemp)
	sed "s#/usr/local/bin/#$prefix/bin/#" "$here/$1" > "$tmp"
	put 0644 "$tmp" "$units/$1"
	rm -f "$tmp"
}
config() {
	if [ -e "$dest/etc/rackpower/$1" ]; then
		echo "kept $dest/etc/rackpower/$1"
	else
		put 0644 "$here/$1" "/etc/rackpower/$1"
	fi
}
for package; do
	put 0755 "$bin/$package" "$prefix/bin/$package"
	daemon=${package#rackpower-}
	if [ "$package" = rackpower ]; then
		daemon=agent
		unit rackpower.target
		put 0644 "$here/sysusers.d/rackpower.conf" /usr/lib/sysusers.d/rackpower.conf
		put 0644 "$here/tmpfiles.d/rackpower.conf" /usr/lib/tmpfiles.d/rackpower.conf
		mkdir -p "$dest$prefix/sbin"
		ln -sfn ../bin/rackpower "$dest$prefix/sbin/fence_rackpower" # where Pacemaker looks, below /usr
	fi
	unit "rackpower-$daemon.service"
	unit "rackpower-$daemon.socket"
	config "$daemon.yaml"
done
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
	systemd-sysusers rackpower.conf
	systemd-tmpfiles --create rackpower.conf
	systemctl daemon-reload
	echo "next: edit /etc/rackpower/*.yaml, then systemctl enable --now rackpower-central.service rackpower-agent.service"
fi
