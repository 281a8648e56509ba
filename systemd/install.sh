#!/bin/sh
# install.sh DESTDIR PREFIX BIN_DIR: puts binaries, units and example configuration
# in place. May be run again: binaries and units are replaced, configuration is not.
set -eu
dest=${1?usage: install.sh DESTDIR PREFIX BIN_DIR} prefix=${2?} bin=${3?}
here=$(cd "$(dirname "$0")" && pwd)
put() { # MODE FILE TARGET
	mkdir -p "$(dirname "$dest$3")"
	cp "$2" "$dest$3.new"
	chmod "$1" "$dest$3.new"
	mv "$dest$3.new" "$dest$3"
	echo "installed $dest$3"
}
for b in rackpower rackpower-central; do put 0755 "$bin/$b" "$prefix/bin/$b"; done
units=/etc/systemd/system
for u in rackpower-agent.service rackpower-central.service rackpower-agent.socket rackpower-central.socket rackpower.target; do
	tmp=$(mktemp)
	sed "s#/usr/local/bin/#$prefix/bin/#" "$here/$u" > "$tmp"
	put 0644 "$tmp" "$units/$u"
	rm -f "$tmp"
done
put 0644 "$here/sysusers.d/rackpower.conf" /usr/lib/sysusers.d/rackpower.conf
put 0644 "$here/tmpfiles.d/rackpower.conf" /usr/lib/tmpfiles.d/rackpower.conf
for c in agent central; do
	if [ -e "$dest/etc/rackpower/$c.yaml" ]; then
		echo "kept $dest/etc/rackpower/$c.yaml"
	else
		put 0644 "$here/$c.yaml" "/etc/rackpower/$c.yaml"
	fi
done
if [ -z "$dest" ] && [ -d /run/systemd/system ]; then
	systemd-sysusers rackpower.conf
	systemd-tmpfiles --create rackpower.conf
	systemctl daemon-reload
	echo "next: edit /etc/rackpower/*.yaml, then systemctl enable --now rackpower-central.service rackpower-agent.service"
fi
