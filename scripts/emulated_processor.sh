#!/bin/sh
# Runs kernel tests on an emulated processor (Bochs) with AVX-512 and AMX, where the machine has none.
#
#   scripts/emulated_processor.sh [-m MODEL] WORKFOLDER ["TESTS"]
#
# MODEL is one of Bochs' (bochs --help cpu); TESTS are parts of names of tests. Needs root for Debian's packages. Builds Bochs
# 3.0 in WORKFOLDER, once, and boots a Linux kernel with the statically linked tests as its only programs; the processor's
# features and the tests' results come out of the serial line into WORKFOLDER/serial.txt.
set -eu
model=sapphire_rapids
[ "$1" != -m ] || { model=$2; shift 2; }
work=$(realpath "$1")
# Some ten minutes. The others take longer: quantised_products, which has all formats and numbers of rows, 19 minutes.
tests=$(echo ${2:-the_largest keep_their_digits special_values smallest products_with_bf16 rounded_activations packed_weight \
    every_format infer::amx infer::vnni infer::paged dot::split logits_equal prefill_equals})
repo=$(realpath "$(dirname "$0")/..")
cd "$repo"

# Debian's own build of Bochs lacks what the patch adds, and is slower, having a debugger.
if [ ! -x "$work/bochs/bochs" ]; then
    apt-get install -y --no-install-recommends bochsbios vgabios grub-pc-bin grub-common xorriso mtools busybox-static cpio \
        linux-image-cloud-amd64 g++ make patch curl ca-certificates xz-utils
    rm -rf "$work/bochs"
    mkdir -p "$work/bochs"
    curl -sSfL -o "$work/bochs.tar.xz" http://deb.debian.org/debian/pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz
    echo "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b  $work/bochs.tar.xz" | sha256sum -c
    tar xf "$work/bochs.tar.xz" -C "$work/bochs" --strip-components=1
    patch -d "$work/bochs" -p1 < scripts/bochs-3.0-amx.patch
    (cd "$work/bochs" && ./configure CFLAGS=-O2 CXXFLAGS=-O2 --enable-x86-64 --enable-avx --enable-evex --enable-amx \
        --enable-all-optimizations --with-nogui --disable-docbook && make -j"$(nproc)") > "$work/bochs.txt" 2>&1
fi

build() {
    RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" CARGO_TARGET_DIR="$work/target" cargo test "$@" --no-run \
        --target x86_64-unknown-linux-gnu --message-format json-render-diagnostics >> "$work/build.json"
}
root="$work/root"
rm -rf "$root" "$work/iso" "$work/serial.txt" "$work/build.json"
mkdir -p "$root/bin" "$root/proc" "$root/dev" "$root/tmp" "$root/tests" "$root$repo/fixtures" \
    "$root$repo/crates/corella-ops" "$root$repo/crates/corella-model" "$work/iso/boot/grub"
build -p corella-ops --lib --test conformance --test infer --test quant
build -p corella-model --test gpt2_inference
sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/build.json" | xargs cp -t "$root/tests"
cp /bin/busybox "$root/bin/"
cp -r fixtures/gpt2 fixtures/quant "$root$repo/fixtures/"
cat > "$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox grep -m 1 flags /proc/cpuinfo
failed() { echo "test \$1 FAILED"; /bin/busybox dmesg | /bin/busybox tail -3; }
for test in /tests/*; do \$test --test-threads 1 $tests || failed \$test; done
echo DONE
/bin/busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc | gzip -1 > "$work/iso/boot/initrd.gz")
cp "$(ls /boot/vmlinuz-*cloud* | tail -1)" "$work/iso/boot/vmlinuz"
# Bochs returns from system management mode into four levels of page tables only. Linux takes fast short moves (fsrm) for a
# promise of fast long ones, which Bochs does not give. With its HPET the serial line takes minutes.
cat > "$work/iso/boot/grub/grub.cfg" <<'GRUB'
set timeout=0
menuentry tests {
    linux /boot/vmlinuz console=ttyS0,115200 quiet mitigations=off nokaslr no5lvl clearcpuid=fsrm hpet=disable rdinit=/init
    initrd /boot/initrd.gz
}
GRUB
grub-mkrescue -o "$work/tests.iso" "$work/iso"
cat > "$work/bochsrc" <<BOCHS
display_library: nogui
cpu: model=$model, count=1, ips=50000000, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0: enabled=1
ata0-master: type=cdrom, path=$work/tests.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial.txt
log: $work/bochs.log
clock: sync=none
panic: action=fatal
error: action=ignore
BOCHS
# Powering off ends the emulator, with status 1.
ended=0
timeout 3600 "$work/bochs/bochs" -q -f "$work/bochsrc" > /dev/null 2>&1 < /dev/null || ended=$?
grep -a -o -w -e 'avx512[a-z_0-9]*' -e 'amx[a-z_0-9]*' "$work/serial.txt" | sort -u | tr '\n' ' '
echo
grep -a -e '^test .* \.\.\.' -e FAILED "$work/serial.txt" || true
grep -aq '^DONE' "$work/serial.txt" || { echo "the emulator ended early, status $ended: see $work/bochs.log" >&2; exit 1; }
grep -aq '^test .* \.\.\. ok' "$work/serial.txt" || { echo "no test passed" >&2; exit 1; }
! grep -aq FAILED "$work/serial.txt"
