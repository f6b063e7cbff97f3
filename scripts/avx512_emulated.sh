#!/bin/sh
# Runs the kernel tests on an emulated processor with AVX-512 (Bochs), where the machine has none.
#
#   scripts/avx512_emulated.sh WORKFOLDER
#
# Needs root for Debian's packages. Boots a Linux kernel with the statically linked tests as its only programs; the
# emulated processor's features and the tests' results come out of the serial line into WORKFOLDER/serial.txt.
set -eu
work=$(realpath "$1")
repo=$(realpath "$(dirname "$0")/..")
apt-get install -y --no-install-recommends bochs bochs-term bochsbios vgabios grub-pc-bin grub-common xorriso mtools \
    busybox-static cpio linux-image-cloud-amd64
target=x86_64-unknown-linux-gnu
cd "$repo"
RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR="$work/target" \
    cargo test -p corella-ops -p corella-model --no-run --target $target
root="$work/root"
rm -rf "$root" "$work/iso" "$work/serial.txt"
mkdir -p "$root/bin" "$root/proc" "$root/dev" "$root/tmp" "$root$repo/fixtures" "$root$repo/crates/corella-model" \
    "$work/iso/boot/grub"
cp /bin/busybox "$root/bin/"
cp -r fixtures/gpt2 "$root$repo/fixtures/"
for test in conformance gpt2_golden; do
    newest=$(ls -t "$work/target/$target/debug/deps/$test"-* | grep -v '\.d$' | head -1)
    cp "$newest" "$root/bin/$test"
    strip "$root/bin/$test"
done
cat > "$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox grep flags /proc/cpuinfo
for test in conformance gpt2_golden; do /bin/$test --test-threads 1; done
echo DONE
/bin/busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc | gzip -1 > "$work/iso/boot/initrd.gz")
cp "$(ls /boot/vmlinuz-*cloud* | tail -1)" "$work/iso/boot/vmlinuz"
cat > "$work/iso/boot/grub/grub.cfg" <<'GRUB'
set timeout=0
menuentry tests {
    linux /boot/vmlinuz console=ttyS0 mitigations=off clearcpuid=321,323,515,516 nopku noxsaves nokaslr panic=-1 rdinit=/init
    initrd /boot/initrd.gz
}
GRUB
grub-mkrescue -o "$work/tests.iso" "$work/iso"
cat > "$work/bochsrc" <<BOCHS
display_library: term
cpu: model=corei7_skylake_x, count=1, ips=50000000, ignore_bad_msrs=1
memory: guest=768, host=768
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0: enabled=1
ata0-master: type=cdrom, path=$work/tests.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial.txt
log: $work/bochs.log
clock: sync=none
panic: action=report
error: action=ignore
BOCHS
echo c > "$work/commands"
script -qfc "TERM=xterm bochs -q -f $work/bochsrc -rc $work/commands" /dev/null > /dev/null < /dev/null &
emulator=$!
until grep -aq DONE "$work/serial.txt" 2>/dev/null; do
    kill -0 $emulator || { echo "the emulator ended early: see $work/bochs.log" >&2; exit 1; }
    sleep 2
done
pkill bochs-bin || true
grep -a -o -w 'avx512[a-z_0-9]*' "$work/serial.txt" | sort -u | tr '\n' ' '
grep -a '^test ' "$work/serial.txt"
! grep -aq FAILED "$work/serial.txt"
