#!/busybox sh
# The guest's init process. It reports the facts that `LinuxFact` of doorbell-facts defines.
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
cpus=$($B nproc); last=$((cpus - 1))
others=$($B seq 1 $last)
reads=$($B sed -n 's/.*reads=\([0-9]*\).*/\1/p' /proc/cmdline)
# Time between pings, and between rounds of moves. Many reads take long enough for fewer of both.
pause=0.02; [ "${reads:-0}" -gt 10000 ] && pause=0.5
CPU=/sys/devices/system/cpu/cpu
DISK=/sys/block/nvme0n1

# Reports a fact with this name and these fields.
say() { echo "{\"linux\":{\"$1\":{$2}}}"; }
# Reports a fact for each line of the input, which becomes the field `line`. A prefix precedes each
# fact.
say_lines() {
    $B sed -e 's/["\\]/\\&/g' -e 's/\t/ /g' -e "s/.*/$2{\"linux\":{\"$1\":{\"line\":\"&\"}}}/"
}
complain() { say complaint "\"line\":\"$*\""; }
disk_reads() { [ -e $DISK/stat ] && read -r completed rest < $DISK/stat; }
# Sets all CPUs except the first online or offline.
others_on() {
    for cpu in $others; do echo $1 > $CPU$cpu/online || complain "CPU $cpu stays"; done
}

# Reads blocks on these CPUs one at a time. The second parameter is their number.
read_disk() {
    $B taskset -c $1 $B dd if=/dev/nvme0n1 of=/dev/null bs=512 count=$2 iflag=direct 2> /dev/null &&
        echo $2 >> /tmp/reads || complain "a read failed"
}
# Reads this number of blocks on these CPUs, and continues to read until the load ends.
reader() {
    read_disk $1 $2
    : > /tmp/done-$1
    until [ -e /tmp/end ]; do read_disk $1 10; done
}
pinger() {
    until [ -e /tmp/end ]; do
        $B ping -q -c 10 -i $pause 10.0.2.2 > /dev/null || complain "ten pings had no answer"
    done
}
end_load() { : > /tmp/end; wait; $B rm /tmp/end /tmp/done-*; }
# Reports the kernel's counts of pings and answers once they are equal. An answer may arrive late.
count_pings() {
    for try in $($B seq 100); do
        set -- $($B grep '^IcmpMsg: [0-9]' /proc/net/snmp)
        [ "$2" = "$3" ] && break
        $B sleep 0.1
    done
    say pings "\"sent\":$3,\"answered\":$2"
}
# Moves each vector whose affinity can be set from user space to each CPU in turn.
move_vectors() {
    for cpu in $($B seq 0 $last); do
        for vector in /proc/irq/*/nvme0q0 /proc/irq/*/virtio0*; do
            vector=${vector%/*}
            echo $cpu > $vector/smp_affinity_list; read -r now < $vector/effective_affinity_list
            [ "$now" = $cpu ] && moved=$((moved + 1)) || complain "$vector stays at $now"
        done
    done
}
# Loads disk and network: first with a reader on each CPU while vectors move, then with one reader
# while CPUs go offline and online.
traffic() {
    moved=0; turns=0
    for cpu in $($B seq 0 $last); do reader $cpu $((reads / cpus)) & done
    pinger &
    while :; do
        move_vectors
        [ $($B ls /tmp | $B grep -c done-) = $cpus ] && break
        $B sleep $pause
    done
    end_load
    reader 0-$last 10 & pinger &
    while [ $turns -lt 2 ]; do others_on 0; others_on 1; turns=$((turns + 1)); done
    end_load
    count_pings
    $B ip link set eth0 down
    disk_reads
    requested=$($B awk '{ sum += $1 } END { print sum }' /tmp/reads)
    say reads "\"requested\":$requested,\"completed\":$completed"
    say affinities "\"moved\":$moved"
    say hotplugs "\"turns\":$turns"
    [ -e /sys/module/ring ] && ring
    [ -e /sys/module/retrigger ] && retrigger
    for irq in $(resent); do say resent "\"interrupt\":$irq"; done
}

# Suspends to idle, up to the point where the kernel would wait for a wake-up, or to RAM, where the
# hypervisor wakes the guest at once. The resume resets the disk; afterwards, Linux does not change its
# vectors.
suspend() {
    state=mem
    $B grep -q suspends /proc/cmdline && state=freeze && echo platform > /sys/power/pm_test
    echo $state > /sys/power/state || complain "no suspend"
    [ "$($B cat /sys/power/suspend_stats/success)" = 1 ] || complain "the suspend failed"
    until $B grep -q live /sys/class/nvme/nvme0/state; do $B sleep 0.05; done
    # While it resumes, Linux takes these interrupts without counting them, and then sends them again.
    say replaces "\"resent\":$(resent | $B wc -l)"
}
# Prints the interrupts whose messages the kernel's driver sent again, because a CPU went offline.
resent() { $B cat /sys/module/*/parameters/resent 2> /dev/null; }
# Prints an address of this kernel's initramfs.
initramfs() { $B hexdump -v -e '/1 "%02x"' /proc/device-tree/chosen/linux,initrd-$1; }
# Reads the disk, and replaces the kernel by another one of the same kind.
replace_kernel() {
    read_disk 0 100
    code=$($B sed -n 's/^ *\([0-9a-f]*\)-.*Kernel code/\1/p' /proc/iomem)
    image=$($B printf %x $((0x$code & ~0x1fffff)))
    say replaces "\"resent\":$(resent | $B wc -l)"
    /kexec /image $image /initramfs $(initramfs start) $(initramfs end)
    complain "no kexec: $?"
}
# Lets the kernel crash, while its disk and its interrupts are in use. Another kernel of the same kind
# then starts in memory that was reserved for it.
crash() {
    read_disk 0 100
    limits=$($B sed -n 's/ : Crash kernel//p' /proc/iomem); limit=$($B printf %x $((0x${limits#*-} + 1)))
    /kexec /image ${limits%-*} /initramfs $(initramfs start) $(initramfs end) $limit \
        /proc/device-tree/memory@*/reg || complain "no kernel for a crash: $?"
    say replaces "\"resent\":$(resent | $B wc -l)"
    echo c > /proc/sysrq-trigger
}
# Makes each CPU in turn take 20 messages of each PCI MSI of two functions, and of four platform MSIs,
# where kernels offer them to modules. An external function has none.
ring() {
    wanted=40; [ -e /sys/module/ring/parameters/platform ] && wanted=120
    $B grep -q ring.external /proc/cmdline && wanted=$((wanted - 20))
    for cpu in $($B seq 0 $last); do
        for first in $($B cat /sys/module/ring/parameters/first); do
            echo $cpu > /proc/irq/$first/smp_affinity_list || complain "interrupt $first stays"
        done
        before=$(count_of ring $cpu $cpu)
        echo 20 > /sys/module/ring/parameters/times || complain "a PCI MSI is lost"
        taken=$(($(count_of ring $cpu $cpu) - before))
        [ $taken = $wanted ] || complain "CPU $cpu took $taken of $wanted MSIs"
    done
}
# Lets the suite count the instructions of the disk's interrupts. The first reads do one-time work.
is_watched() { $B grep -q watched /proc/cmdline; }
watched() {
    until [ -e /dev/nvme0n1 ]; do $B sleep 0.1; done
    read_disk 0 2
    handler=$($B grep ' nvme_irq[[:space:]]' /proc/kallsyms)
    echo "{\"watched\":{\"ready\":{\"handler\":\"${handler%% *}\"}}}"
    read -r line
    read_disk 0 16
    echo '{"watched":"done"}'
    $B sleep 60
}
# Makes the disk's first interrupt pending, if the kernel has the module for this.
retrigger() {
    irq=$($B sed -n 's/^ *\([0-9]*\):.*nvme0q0$/\1/p' /proc/interrupts)
    before=$(count_of nvme0q0 0 $last)
    echo $irq > /sys/module/retrigger/parameters/interrupt || complain "no retrigger"
    tries=50
    while [ $(count_of nvme0q0 0 $last) = $before ] && [ $tries -gt 0 ]; do
        $B sleep 0.1
        tries=$((tries - 1))
    done
    # The interrupt must not come a second time.
    $B sleep 0.2
    say retriggered "\"interrupt\":$irq,\"taken\":$(($(count_of nvme0q0 0 $last) - before))"
}
# Counts the interrupts of a driver that the CPUs of a range have taken.
count_of() {
    $B awk -v first=$2 -v last=$3 \
        '/'$1'$/ { for (at = first + 2; at <= last + 2; at++) sum += $at } END { print sum }' \
        /proc/interrupts
}

$B dmesg | $B grep -e ITS -e MBI -e GICv2m | say_lines controller
$B dmesg | $B grep -e 'MEM 0x' -e ' IO 0x' -e 'BAR.*mem.*assigned' | say_lines pci-memory
say cpus "\"online\":$cpus,\"again\":false"
if ! is_watched; then
    say listens ''
    read -r line
    say heard "\"text\":\"$line\",\"again\":false"
fi
$B devmem 0x0b000000 32
say absent-device "\"status\":$?"
# While a driver starts, its interrupts and the code that waits for them run on the only CPU. With
# `awake`, an LPI is enabled after all redistributors have read that it is disabled.
$B grep -q awake /proc/cmdline || others_on 0
parameters=$($B sed -n 's/.* parameters=\([^ ]*\).*/\1/p' /proc/cmdline)
for module in $($B cat /modules); do
    case $module in *.xz) $B unxz /$module; module=${module%.xz} ;; esac
    $B insmod /$module $parameters
    parameters=
done
is_watched && watched
if [ "$reads" ]; then
    # The kernel's own read is the last action of the driver's initialization.
    until disk_reads && [ "$completed" -gt 0 ]; do $B sleep 0.05; done
    $B grep -q -e suspends -e sleeps /proc/cmdline && suspend
    $B grep -q kexecs /proc/cmdline && replace_kernel
    $B grep -q crashes /proc/cmdline && crash
    $B ip addr add 10.0.2.15/24 dev eth0; $B ip link set eth0 up
fi
others_on 1
say cpus "\"online\":$($B nproc),\"again\":true"
if $B grep -q waits /proc/cmdline; then
    say listens ''
    read -r line
    say heard "\"text\":\"$line\",\"again\":true"
fi
irq=$($B sed -n 's/^ *\([0-9]*\):.*virtio0-input$/\1/p' /proc/interrupts)
for cpu in $($B seq 0 $last); do
    [ "$irq" ] && echo $cpu > /proc/irq/$irq/smp_affinity_list &&
        $B dd if=/dev/hwrng of=/dev/null bs=64 count=100
done
[ "$reads" ] && traffic
$B dmesg | $B grep -i -e 'timeout,' -e 'timed out' -e 'nobody cared' -e 'completion polled' |
    say_lines complaint
# A crash leaves LPIs enabled.
$B grep -q crashed /proc/cmdline || $B dmesg | $B grep 'left enabled' | say_lines complaint
# The kernel's log is printed without UART interrupts, so the count in the UART's row stays correct.
$B dmesg -n 1
say_lines row '<0>' < /proc/interrupts > /tmp/rows
while read -r row; do echo "$row" > /dev/kmsg; done < /tmp/rows
# A console that a thread prints, as the PL011 of newer kernels, loses in a reset what the thread has
# not printed.
for printer in $($B grep -l '^pr/' /proc/[0-9]*/comm); do
    until $B grep -q '^State:.S' ${printer%comm}status; do :; done
done
# A reset does not ask drivers to stop their devices, so the devices send nothing more.
[ "$reads" ] && echo b > /proc/sysrq-trigger
$B poweroff -f
