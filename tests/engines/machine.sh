#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Becomes a systemd that is the first process of namespaces of its own, with dbus, machined
# and the journal, and writes a line when they run:  sh machine.sh CGROUP FIFO
# CGROUP is a directory of cgroup2, which becomes the machine's whole tree.
# Run it by unshare(1) with namespaces of mount, PID, UTS, IPC and network.  What is mounted
# here is seen here only, and nothing but the host's processors, memory and clock are shared.
set -eu

if [ $# = 2 ]; then
	# The namespace's root is the cgroup in which its maker is.
	echo 0 >"$1/cgroup.procs"
	exec unshare --cgroup sh "$0" "$@" again
fi
fifo=$2
shipped=/usr/lib/systemd

mount -t proc -o nosuid,nodev,noexec proc /proc
# It would lift the whole machine's fs.file-max.  Read-only until it has tried: a /proc that
# has something mounted in it lets no container of a user namespace have one.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup

mount -t tmpfs -o mode=755 tmpfs /run
own=/run/machine
mkdir -p $own/etc $own/work $own/units $own/generators $own/dev /run/lock
mount -t overlay -o lowerdir=/etc,upperdir=$own/etc,workdir=$own/work overlay /etc
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
rm -f /etc/machine-id
echo 5d2e8f1b0c9a4f6e8b7d3a1c2e4f6a80 >/etc/machine-id
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p /var/lib/machines

mount -t tmpfs -o mode=755 tmpfs $own/dev
for name in null zero full random urandom tty fuse; do
	[ -e /dev/$name ] || continue
	: >$own/dev/$name
	mount --bind /dev/$name $own/dev/$name
done
mkdir $own/dev/pts $own/dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts $own/dev/pts
ln -s pts/ptmx $own/dev/ptmx
ln -s /proc/self/fd $own/dev/fd
mount -t tmpfs -o mode=1777 tmpfs $own/dev/shm
mount --rbind $own/dev /dev

# Only the units that are meant: what else the host has would set up the host.
for name in dbus.service dbus.socket machine.slice machines.target shutdown.target \
	systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket \
	systemd-machined.service dbus-org.freedesktop.machine1.service systemd-nspawn@.service; do
	cp -a $shipped/system/$name $own/units
done
for name in sysinit basic sockets; do
	printf '[Unit]\nDefaultDependencies=no\n' >$own/units/$name.target
done
cat >$own/units/ready.service <<END
[Unit]
Requires=systemd-journald.service dbus.service systemd-machined.service
After=systemd-journald.service dbus.service systemd-machined.service
[Service]
Type=oneshot
ExecStart=/bin/umount --lazy /proc/sys
ExecStart=/bin/sh -c "echo ready >$fifo"
END
mount --bind $own/units $shipped/system
# The one generator that is meant makes quadlets.
for name in "$shipped"/system-generators/podman-*; do
	[ ! -e "$name" ] || cp -L "$name" $own/generators
done
mount --bind $own/generators $shipped/system-generators

exec env -i container=machine PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	$shipped/systemd --system --unit=ready.service --show-status=no
