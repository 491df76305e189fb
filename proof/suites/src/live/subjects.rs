//! Machines with a planted fault, and what the command must find on them.

use doorbell_harness::qemu::Version;

use super::console::Expected;
use super::runtime;

/// An entropy source below a root port, an NVMe controller on the root bus, and an entropy source
/// below a bridge to a conventional bus. That bridge replaces the requester ID of the entropy
/// source.
const DEVICES: &[&str] = &[
    "-device",
    "pcie-root-port,id=root,chassis=1,slot=1",
    "-device",
    "virtio-rng-pci,bus=root,disable-legacy=on",
    "-device",
    "nvme,drive=d0,serial=1",
    "-device",
    "pcie-pci-bridge,id=conventional",
    "-device",
    "virtio-rng-pci,bus=conventional,addr=3",
];
/// A switch with two functions below it, a device with two functions, and two root ports of one
/// device without Access Control Services, of which one has a function below it. (Linux's driver
/// for the SMMUv3 refuses a second function on a conventional bus, because both have one StreamID.)
const SHARED: &[&str] = &[
    "-device",
    "pcie-root-port,id=above,chassis=2,slot=2",
    "-device",
    "x3130-upstream,bus=above,id=switch",
    "-device",
    "xio3130-downstream,bus=switch,id=left,chassis=3,slot=3",
    "-device",
    "xio3130-downstream,bus=switch,id=right,chassis=4,slot=4",
    "-device",
    "e1000e,bus=left,romfile=",
    "-device",
    "e1000e,bus=right,romfile=",
    "-device",
    "qemu-xhci,addr=8.0,multifunction=on",
    "-device",
    "qemu-xhci,addr=8.1",
    "-device",
    "pcie-root-port,id=open,chassis=5,slot=5,addr=9.0,multifunction=on,disable-acs=on",
    "-device",
    "pcie-root-port,id=beside,chassis=6,slot=6,addr=9.1,disable-acs=on",
    "-device",
    "e1000e,bus=open,romfile=",
];
/// Functions without a root port, which QEMU refuses on a machine without an MSI controller.
const ENDPOINTS: &[&str] =
    &["-device", "nvme,drive=d0,serial=1", "-device", "virtio-rng-pci,disable-legacy=on"];
/// Word on the command line that makes the guest print its functions' groups.
pub(super) const GROUPS: &str = "groups";
/// Word on the command line that makes the guest change itself in [`runtime::STEPS`].
pub(super) const STEPS: &str = "steps";
/// Word on the command line that makes Linux read ACPI tables, which UEFI firmware provides.
pub(super) const ACPI: &str = "acpi=force";
const GICV3: &str = "gic-version=3";
pub(super) const GICV2: &str = "gic-version=2";
const SMMU: &str = "gic-version=3,iommu=smmuv3";
pub(super) const HOST: &str = "/pcie@10000000";
const ITS: &str = "/intc@8000000/its@8080000";

/// Change of a property of a devicetree node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    None,
    /// Limits the only entry of a map in the host bridge's node to this number of requesters.
    Shorten(&'static str, u32),
    /// Replaces the entries of `msi-map` in the host bridge's node: the first requester, its
    /// DeviceID, and the number of requesters.
    Map(&'static [[u32; 3]]),
    /// Adds properties with one cell to a node.
    Add(&'static str, &'static [(&'static str, u32)]),
    /// Disables a node.
    Disable(&'static str),
    /// Moves the registers of a node to this address below 4 GiB.
    Move(&'static str, u32),
}

/// Expands to all functions with a driver, each with the same obstacle.
macro_rules! all {
    ($obstacle:literal) => {
        &[
            ("0000:00:01.0", $obstacle),
            ("0000:00:02.0", $obstacle),
            ("0000:00:03.0", $obstacle),
            ("0000:01:00.0", $obstacle),
            ("0000:02:03.0", $obstacle),
        ]
    };
}
/// Machine with a planted fault, and the expected results of the command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    /// Versions on which the long run tries the machine. The ordinary run tries one of them.
    pub(super) versions: &'static [Version],
    pub(super) machine: &'static str,
    pub(super) change: Change,
    pub(super) options: &'static str,
    pub(super) devices: &'static [&'static [&'static str]],
    /// Function that the command must explain.
    pub(super) explained: &'static str,
    pub(super) expected: Expected,
}

const STABLE: &[Version] = &[Version::Stable];

const SOUND: Subject = Subject {
    name: "a sound machine",
    versions: &Version::ALL,
    machine: GICV3,
    change: Change::None,
    options: "",
    devices: &[DEVICES],
    explained: "0000:01:00.0",
    expected: Expected {
        faults: &[],
        differences: &[],
        line: "translation: the device has DeviceID 0x100",
        silent: false,
    },
};

/// A machine on which no message arrives.
const SILENT: Subject = Subject {
    versions: STABLE,
    options: "silent",
    expected: Expected {
        line: "no message of any function has arrived: firmware may state wrong DeviceIDs, or \
               ranges that the",
        silent: true,
        ..SOUND.expected
    },
    ..SOUND
};

pub(super) const SUBJECTS: &[Subject] = &[
    SOUND,
    Subject { name: "a sound machine with an SMMU", versions: STABLE, machine: SMMU, ..SOUND },
    Subject {
        name: "a machine with shared buses and devices",
        versions: STABLE,
        machine: SMMU,
        options: GROUPS,
        devices: &[DEVICES, SHARED],
        ..SOUND
    },
    Subject {
        name: "a sound machine with GICv2m frames",
        versions: STABLE,
        machine: GICV2,
        expected: Expected {
            line: "doorbell: a controller receives messages at 0x8020040",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a machine that is changed while it runs",
        versions: &Version::ALL,
        machine: SMMU,
        options: STEPS,
        devices: &[DEVICES, runtime::MORE],
        ..SOUND
    },
    Subject {
        name: "ACPI tables with an ITS and an SMMU",
        versions: &[Version::Backports],
        machine: SMMU,
        options: "acpi=force kvm-arm.mode=none",
        expected: Expected { line: "firmware: requester 0x0100: MADT/ITS@0", ..SOUND.expected },
        ..SOUND
    },
    Subject {
        name: "ACPI tables with a GICv2m frame",
        versions: STABLE,
        machine: GICV2,
        options: ACPI,
        expected: Expected {
            line: "firmware: requester 0x0100: MADT/MSI-frame@0",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a machine without an MSI controller",
        versions: STABLE,
        machine: "gic-version=3,its=off",
        devices: &[ENDPOINTS],
        explained: "0000:00:02.0",
        expected: Expected {
            line: "firmware: requester 0x0010: firmware names no MSI controller for the requester",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a map without some requesters",
        change: Change::Shorten("msi-map", 0x10),
        // Linux uses the ITS for 01:00.0, because the map contains the root port above this
        // function.
        expected: Expected {
            faults: &[
                ("0000:00:02.0", r#"{ "setup": { "outside-map": { "requester": 16 } } }"#),
                ("0000:00:03.0", r#"{ "setup": { "outside-map": { "requester": 24 } } }"#),
                ("0000:02:03.0", r#"{ "setup": { "outside-map": { "requester": 512 } } }"#),
            ],
            differences: &["0000:01:00.0"],
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "pci=nomsi",
        versions: STABLE,
        options: "pci=nomsi",
        expected: Expected {
            faults: all!(r#"{ "setup": "turned-off" }"#),
            line: "endpoint: the kernel's command line disables MSI and MSI-X",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a disabled ITS",
        versions: STABLE,
        change: Change::Disable(ITS),
        expected: Expected {
            faults: all!(r#"{ "setup": "controller-disabled" }"#),
            line: "doorbell: firmware disables the MSI controller that it names for the function",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "an ITS at another address",
        versions: STABLE,
        // In QEMU's memory map, this address is in the second half of the flash memory.
        change: Change::Move(ITS, 0x400_0000),
        expected: Expected {
            faults: all!(r#"{ "setup": "controller-unused" }"#),
            line: "INTx, which Linux uses instead:",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "an SMMU whose map omits two buses",
        machine: SMMU,
        change: Change::Shorten("iommu-map", 0x100),
        options: "silent",
        expected: Expected {
            faults: &[
                ("0000:01:00.0", r#"{ "setup": { "no-stream": { "requester": 256 } } }"#),
                ("0000:02:03.0", r#"{ "setup": { "no-stream": { "requester": 512 } } }"#),
            ],
            line: "firmware: requester 0x0100: /intc@8000000/its@8080000",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "a disabled SMMU",
        versions: STABLE,
        machine: SMMU,
        change: Change::Disable("/smmuv3@9050000"),
        ..SOUND
    },
    Subject {
        name: "an SMMU that passes DMA through, with an offline CPU",
        versions: STABLE,
        machine: SMMU,
        options: "iommu.passthrough=1 offline",
        ..SOUND
    },
    Subject {
        name: "CPUs that never came online",
        versions: STABLE,
        options: "maxcpus=1",
        ..SOUND
    },
    Subject {
        name: "irqchip.gicv3_nolpi=1",
        versions: STABLE,
        options: "irqchip.gicv3_nolpi=1",
        expected: Expected {
            faults: all!(r#"{ "setup": "lpis-turned-off" }"#),
            line: "endpoint: the kernel's command line disables LPIs, and with them the ITS",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "wrong DeviceIDs of two buses",
        change: Change::Map(&[[0, 0, 0x100], [0x100, 0x108, 0xff00]]),
        expected: Expected {
            line: "note: no message of 0000:01:00.0, the only sender on bus 0000:01, has arrived, \
                   but messages of other",
            ..SOUND.expected
        },
        ..SILENT
    },
    Subject { name: "wrong DeviceIDs", change: Change::Map(&[[0, 8, 0xfff8]]), ..SILENT },
    Subject {
        name: "DeviceIDs that the ITS does not implement",
        change: Change::Map(&[[0, 0x1_0000, 0x1_0000]]),
        ..SILENT
    },
    Subject {
        name: "DeviceIDs beyond the ITS's device table",
        versions: STABLE,
        change: Change::Map(&[[0, 0x0800_0000, 0x1_0000]]),
        expected: Expected {
            faults: &[
                (
                    "0000:00:01.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217736, "room": 67108864 } } }"#,
                ),
                (
                    "0000:00:02.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217744, "room": 67108864 } } }"#,
                ),
                (
                    "0000:00:03.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217752, "room": 67108864 } } }"#,
                ),
                (
                    "0000:01:00.0",
                    r#"{ "setup": { "beyond-table": { "device": 134217984, "room": 67108864 } } }"#,
                ),
                (
                    "0000:02:03.0",
                    r#"{ "setup": { "beyond-table": { "device": 134218240, "room": 67108864 } } }"#,
                ),
            ],
            line: "translation: the ITS's device table has 0x4000000 entries, and firmware states \
                   DeviceID 0x8000100",
            ..SOUND.expected
        },
        ..SOUND
    },
    Subject {
        name: "SPIs that the GICv2m frame does not have",
        machine: GICV2,
        change: Change::Add(
            "/intc@8000000/v2m@8020000",
            &[("arm,msi-base-spi", 160), ("arm,msi-num-spis", 64)],
        ),
        ..SILENT
    },
];
