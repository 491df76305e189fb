//! Changes of a running guest, each with the obstacle that the command must then find.

use doorbell_suites::live::Step;

/// A network card whose driver uses INTx.
pub(crate) const CARD: &[&str] = &["-device", "e1000e,addr=5.0,romfile="];
const CARD_AT: &str = "0000:00:05.0";
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
    step("echo 1 > $D/$source/remove", SOURCE, "[null, null, 2]"),
];
