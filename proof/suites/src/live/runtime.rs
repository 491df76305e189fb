//! Changes of a running guest, each with the obstacle that the command must then find.

use super::console::Step;

/// A network card whose driver uses INTx, and an NVMe controller with virtual functions.
pub(crate) const MORE: &[&str] = &[
    "-device",
    "e1000e,addr=5.0,romfile=",
    "-device",
    "nvme-subsys,id=subsystem",
    "-device",
    "pcie-root-port,id=physical,chassis=7,slot=7,addr=6.0",
    "-device",
    "nvme,serial=2,subsys=subsystem,bus=physical,sriov_max_vfs=2,sriov_vq_flexible=4,\
     sriov_vi_flexible=2,max_ioqpairs=6,msix_qsize=7",
];
const CARD_AT: &str = "0000:00:05.0";
/// The NVMe controller, and one of its virtual functions.
const PHYSICAL: &str = "0000:03:00.0";
const VIRTUAL: &str = "0000:03:00.1";
/// An entropy source, whose pin is wired to the same input as the network card's.
const SOURCE: &str = "0000:01:00.0";
/// The root port above the entropy source.
const PORT: &str = "0000:00:01.0";

const fn step(commands: &'static str, function: &'static str, expected: &'static str) -> Step {
    Step { commands, function, expected }
}

/// The changes, in order. `$source` and `$port` are the functions' addresses.
pub(crate) const STEPS: &[Step] = &[
    step(
        "source=0000:01:00.0; port=0000:00:01.0; drivers=/sys/bus/pci/drivers
         load /more; await /sys/class/net/eth0; $B ip link set eth0 up",
        CARD_AT,
        r#"["intx", { "setup": "messages-unused" }, 0]"#,
    ),
    step("poke $port 4 02", SOURCE, r#"["msix", { "bridge-disabled": { "bridge": 8 } }, 1]"#),
    step("", PORT, r#"["msix", "bus-master-disabled", 1]"#),
    step("poke $port 4 06; poke $source 4 02", SOURCE, r#"["msix", "bus-master-disabled", 1]"#),
    step(
        "poke $source 4 06; poke $source $(msix $source) c0",
        SOURCE,
        r#"["msix", "function-masked", 1]"#,
    ),
    step("poke $source $(msix $source) 00", SOURCE, r#"["msix", "messages-disabled", 1]"#),
    step("poke $source $(msix $source) 80", SOURCE, r#"["msix", null, 0]"#),
    step(
        "echo $source > $drivers/virtio-pci/unbind; echo 0 > $D/$source/msi_bus
         echo $source > $drivers/virtio-pci/bind",
        SOURCE,
        r#"["intx", { "setup": "forbidden" }, 1]"#,
    ),
    step(
        "echo $source > $drivers/virtio-pci/unbind
         echo 1 > $D/$source/msi_bus; echo 0 > $D/$port/msi_bus
         echo $source > $drivers/virtio-pci/bind",
        SOURCE,
        r#"["intx", { "setup": "forbidden" }, 1]"#,
    ),
    step("", PORT, r#"["msix", null, 0]"#),
    step(
        "echo $source > $drivers/virtio-pci/unbind; echo 1 > $D/$port/msi_bus",
        SOURCE,
        r#"["none", { "setup": "no-driver" }, 0]"#,
    ),
    step(
        "echo vfio-pci > $D/$source/driver_override; echo $source > $drivers/vfio-pci/bind",
        SOURCE,
        r#"["none", { "setup": "no-program" }, 0]"#,
    ),
    step(
        "echo 1 > $D/$source/remove",
        SOURCE,
        r#"["doorbell: no PCI device has the address 0000:01:00.0", 2]"#,
    ),
    step(
        "nvme=0000:03:00.0; echo 0 > $D/$nvme/sriov_drivers_autoprobe
         echo 2 > $D/$nvme/sriov_numvfs",
        PHYSICAL,
        r#"["msix", null, 0]"#,
    ),
    step("", VIRTUAL, r#"["none", { "setup": "no-driver" }, 0]"#),
    step(
        "for irq in $($B ls $D/$nvme/msi_irqs); do echo 1 > /proc/irq/$irq/smp_affinity_list; done",
        PHYSICAL,
        r#"["msix", null, 0]"#,
    ),
    step("echo 0 > /sys/devices/system/cpu/cpu1/online", PHYSICAL, r#"["msix", "shut-down", 0]"#),
    // A user who may not read the devicetree's blob still reads its nodes.
    step(
        "$B mkdir -p /etc; echo nobody:x:65534:65534::/: > /etc/passwd
         as='start-stop-daemon -S -c nobody -x'",
        PHYSICAL,
        r#"["msix", "shut-down", 0]"#,
    ),
];
