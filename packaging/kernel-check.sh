#!/usr/bin/env bash
# Boots a Debian kernel under qemu and runs the server on it: doctor, QoS 1 with fsync to a virtio disk, kill -9, a power
# cut, a graceful stop. This is what the operator guide's "Linux 6.1 or later" rests on.
#
#   packaging/kernel-check.sh BINARY [KERNEL-PACKAGE]      e.g. target/release/postroad linux-image-6.1.0-56-cloud-amd64
#
# Needs the Debian packages qemu-system-x86, busybox-static, cpio, e2fsprogs and mosquitto-clients; the kernel's is fetched
# by apt-get, not installed. Without a package named it takes what linux-image-cloud-amd64 stands for. No root is needed.
# The processor is emulated, so that it runs anywhere and on any kernel; ACCELERATOR=kvm is faster.
set -euo pipefail

binary=$(realpath "${1:?usage: kernel-check.sh BINARY [KERNEL-PACKAGE]}")
package=${2:-$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')}
MESSAGES=20
BOOT_SECONDS_MAX=900
ACCELERATOR=${ACCELERATOR:-tcg}

for tool in qemu-system-x86_64 busybox cpio mkfs.ext4 mosquitto_pub mosquitto_sub apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || PATH=$PATH:/sbin:/usr/sbin command -v "$tool" >/dev/null ||
    { echo "$tool is missing; the head of this file names the packages" >&2; exit 1; }
done

work=$(mktemp -d)
chmod 755 "$work" # apt-get fetches as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q "$package" >/dev/null 2>&1
dpkg-deb -x "$package"_*.deb kernel
kernel=$(echo kernel/boot/vmlinuz-*)
modules=$(echo kernel/lib/modules/*/kernel)

# The root: busybox, the server, the clients, the libraries that they name, and the modules of the disk.
mkdir -p root/{bin,dev,proc,sys,tmp,data,modules,etc}
cp "$(command -v busybox)" root/bin/busybox
cp "$binary" root/bin/postroad
cp "$(command -v mosquitto_pub)" "$(command -v mosquitto_sub)" root/bin/
ldd root/bin/postroad root/bin/mosquitto_pub root/bin/mosquitto_sub | grep -oE '/[^ ]+\.so[^ ]*' | sort -u |
  while read -r library; do install -D "$library" "root$library"; done
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  find "$modules" -name "$module.ko*" -exec cp {} root/modules/ \;
done
echo 'root:x:0:0:root:/:/bin/sh' >root/etc/passwd

cat >root/init <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev 2>/dev/null; mount -t tmpfs none /tmp
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  [ -e /modules/\$module.ko ] && insmod /modules/\$module.ko
done
ifconfig lo up
phase=\$(sed 's/.*phase=\([a-z]*\).*/\1/' /proc/cmdline)
mount -t ext4 /dev/vda /data && /bin/busybox sh /check \$phase || echo "check failed: \$phase"
# Without a sync and without a word to anybody: for the server this is the power cut.
reboot -f
INIT
cat >root/check <<CHECK
set -e
count=$MESSAGES
CHECK
cat >>root/check <<'CHECK'
ulimit -n 65536
start() {
  rm -f /data/p/ports.json
  postroad serve --data /data/p --set listen.mqtt=127.0.0.1:1883 --set listen.http=127.0.0.1:8080 2>/tmp/log &
  pid=$!
  tries=0
  until [ -s /data/p/ports.json ]; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ] || ! kill -0 $pid; then cat /tmp/log; return 1; fi
    usleep 100000
  done
}
publish() {
  seq $count | sed "s,^,$1-," | mosquitto_pub -h 127.0.0.1 -q 1 -t k/x -l
}
received() {
  mosquitto_sub -h 127.0.0.1 -W 60 -c -i device -q 1 -t k/x -C $count >/tmp/got
  seq $count | sed "s,^,$1-," >/tmp/expected
  cmp /tmp/got /tmp/expected
}
case $1 in
first)
  echo "kernel $(uname -r)"
  postroad doctor --data /data/p
  start
  mosquitto_sub -h 127.0.0.1 -c -i device -q 1 -t k/x -E
  publish killed
  kill -9 $pid
  wait $pid || true
  start
  received killed
  publish cut
  echo "check passed: first"
  ;;
second)
  start
  received cut
  wget -q -O - http://127.0.0.1:8080/metrics | grep -q '^postroad_log_commits_total'
  kill -TERM $pid
  wait $pid
  postroad log check /data/p
  echo "check passed: second"
  ;;
esac
CHECK
chmod +x root/init
(cd root && find . | cpio --quiet -o -H newc | gzip -1) >initrd
truncate -s 1G disk
PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q disk

# no_timer_check: an emulated processor on a busy machine is too slow for the test of the timer, and the kernel gives up.
# A disk with a cache of its own, which loses it: what the guest did not sync is gone with the guest.
boot() {
  timeout "$BOOT_SECONDS_MAX" qemu-system-x86_64 -accel "$ACCELERATOR" -cpu max -smp 2 -m 1024 -nographic -no-reboot \
    -kernel "$kernel" -initrd initrd -append "console=ttyS0 quiet panic=-1 no_timer_check phase=$1" \
    -drive file=disk,if=virtio,format=raw,cache=writeback | tr -d '\r' | tee "out-$1"
  grep -q "^check passed: $1" "out-$1" || { echo "failed on $package" >&2; exit 1; }
}
boot first
boot second
echo "the server runs on $package"
