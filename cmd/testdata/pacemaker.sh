#!/bin/sh
# pacemaker.sh CLI LOG: in a mount and a network namespace of its own, runs Pacemaker's fencer
# alone, without a cluster, with CLI as the fence agent fence_rackpower.
set -e
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
ln -s "$1" /mnt/upper/fence_rackpower
mount -t overlay -o lowerdir=/usr/sbin,upperdir=/mnt/upper,workdir=/mnt/work overlay /usr/sbin
for dir in /dev/shm /run /var/log; do mount -t tmpfs tmpfs $dir; done
mkdir -m 0770 /run/crm
chown hacluster:haclient /run/crm
exec /usr/lib/pacemaker/pacemaker-fenced --stand-alone --logfile "$2"
