#!/bin/sh
# Lay out a root for VirtualBox and hold it until stdin ends. Runs as the first process of a mount and a process
# namespace: all that is mounted here is gone, and all that runs in it is killed, when it ends.
#
#   enter.sh USR ROOT FOLDER LAUNCHER
#
# USR is unpacked from packages and stays as it is; ROOT is an empty folder to mount on; FOLDER is to be found under its own
# name inside; LAUNCHER takes the place of VBoxHeadless. Prints this process's id, as the host sees it.
set -eu
usr=$1 root=$2 folder=$3 launcher=$4
# Of /proc as the host has it: only a new one would show this process as 1.
read -r id _ </proc/self/stat

mount -t tmpfs -o mode=755 faultlab-virtualbox "$root"
cd "$root"
mkdir usr etc dev proc sys tmp run var root
chmod 1777 tmp
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$name"
done
mount --bind "$usr" usr
# Not allowed in some user namespaces; VirtualBox writes nothing there anyway.
mount -o remount,bind,ro usr 2>/dev/null || :
mount --bind "$launcher" usr/lib/virtualbox/VBoxHeadless
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
# VirtualBox names its sockets in /tmp after the user.
echo 'root:x:0:0:root:/root:/bin/false' >etc/passwd
echo 'root:x:0:' >etc/group
echo '127.0.0.1 localhost' >etc/hosts
mkdir -p ".$folder"
mount --bind "$folder" ".$folder"

echo "$id"
read -r _ || :
