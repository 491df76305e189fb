#!/busybox sh
# The guest's init process. It loads the drivers, uses the devices, and prints the output of
# `doorbell live` and the kernel's table of interrupts. The prefix of each line states its origin.
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
# Loads the modules in a list.
load() {
    for module in $($B cat $1); do
        case $module in *.xz) $B unxz /$module; module=${module%.xz} ;; esac
        case $module in
        virtio-rng.ko) ;;
        # The driver polls for a command whose message does not arrive in this number of seconds.
        nvme-core.ko) $B insmod /$module $($B grep -q silent /proc/cmdline && echo admin_timeout=1) ;;
        # The driver uses INTx.
        e1000e.ko) $B insmod /$module IntMode=0 ;;
        *) $B insmod /$module ;;
        esac
    done
}
load /modules
# Waits up to ten seconds for a file to appear.
await() { for try in $($B seq 100); do [ -e $1 ] && break; $B sleep 0.1; done; }
await /dev/nvme0n1
# If the messages of the entropy sources do not arrive, this block never ends.
{
    $B insmod /virtio-rng.ko
    $B dd if=/dev/hwrng of=/tmp/random bs=64 count=1
    : > /tmp/read
} 2> /dev/null &
if $B grep -q silent /proc/cmdline; then
    await /sys/bus/pci/devices/0000:02:03.0/msi_irqs
    $B sleep 0.5
else
    await /tmp/read
fi
$B grep -q offline /proc/cmdline && echo 0 > /sys/devices/system/cpu/cpu1/online
/doorbell live --json > /tmp/json; echo "status: $?"
$B sed 's/^/json: /' /tmp/json
# The kernel's command line sets the variable.
/doorbell live --explain $explained | $B sed 's/^/text: /'
$B sed 's/^/irqs: /' /proc/interrupts
if $B grep -q groups /proc/cmdline; then
    for function in /sys/bus/pci/devices/*; do
        group=none
        # Before Linux 6.15, a function gets its group when a driver is tried on it.
        if ! [ -e $function/iommu_group ]; then
            echo pcieport > $function/driver_override
            echo $($B basename $function) > /sys/bus/pci/drivers_probe
        fi
        [ -e $function/iommu_group ] && group=$($B basename $($B readlink $function/iommu_group))
        echo "pci: $($B basename $function) $group $($B hexdump -v -e '1/1 "%02x"' $function/config)"
    done
fi
if $B grep -q steps /proc/cmdline; then
    D=/sys/bus/pci/devices
    # Reads or writes a byte of a function's configuration space.
    byte() { echo $((0x$($B dd if=$D/$1/config bs=1 skip=$2 count=1 | $B hexdump -e '1/1 "%02x"'))); }
    poke() { printf "\\x$3" | $B dd of=$D/$1/config bs=1 seek=$2 conv=notrunc; }
    # Prints the offset of the upper byte of Message Control in a function's MSI-X capability.
    msix() {
        capability=$(byte $1 52)
        while [ $(byte $1 $capability) != 17 ]; do capability=$(byte $1 $((capability + 1))); done
        echo $((capability + 3))
    }
    step() {
        ${as:+$B $as} /doorbell ${as:+--} live --explain $1 --json > /tmp/json 2>&1
        echo "step: $? $($B tr -d '\n' < /tmp/json)"
    }
    . /steps
fi 2> /dev/null
# Turning the machine off would wait for the drivers of devices that do not answer.
echo b > /proc/sysrq-trigger
$B sleep 60
