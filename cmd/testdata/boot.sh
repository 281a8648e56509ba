#!/bin/bash
# boot.sh DIR SOURCE: a machine of its own for a test. systemd is the first process of its
# namespaces, on a copy (overlay) of this machine's root that lasts over its reboots, with
# SOURCE at /src. DIR/init has the process id of the first process; it is booted again for
# as long as it reboots and DIR/stop is missing. Wants root, cgroup2 and overlayfs.
set -eu
dir=$1 source=$2
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -n "$groups" ] || { echo "no cgroup2 is mounted"; exit 77; }
group=$groups/rptest-$$
mkdir "$group"
disk=$dir/disk
mkdir "$disk"
mount -t tmpfs tmpfs "$disk"
mkdir "$disk"/{upper,work,root,units}
end() {
	while [ -s "$group/cgroup.procs" ]; do sleep 0.1; done
	find "$group" -depth -type d -exec rmdir {} \;
}
trap end EXIT

machine='
set -eu
disk=$1 source=$2 root=$1/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"          # the settings of the kernel are not for it
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for one in null zero full random urandom tty; do
	touch "$root/dev/$one"
	mount --bind "/dev/$one" "$root/dev/$one"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$disk/units" "$root/etc/systemd/system"   # none of this machine'"'"'s own
mkdir -p "$root/src"
mount --bind "$source" "$root/src"
ip link set lo up
cd "$root"
mkdir -p .before
pivot_root . .before                               # a chroot may not make user namespaces
umount -l /.before
mount --make-rshared /                             # credentials come to services as mounts
exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0
'
while [ ! -e "$dir/stop" ]; do
	(
		echo "$BASHPID" > "$group/cgroup.procs"
		exec unshare --mount --propagation private --cgroup --uts --ipc --net --pid --fork --kill-child=KILL \
			bash -c "$machine" machine "$disk" "$source"
	) &
	unshared=$!
	init=
	while kill -0 "$unshared" 2>/dev/null; do
		init=$(cut -d " " -f 1 "/proc/$unshared/task/$unshared/children" 2>/dev/null || true)
		if [ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2>/dev/null)" = systemd ]; then break; fi
		sleep 0.05
	done
	echo "$init" > "$dir/init.new"
	mv "$dir/init.new" "$dir/init"
	wait "$unshared" || true
done
