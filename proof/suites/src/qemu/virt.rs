//! QEMU's machines with their devices, and the hardware that the test bench must find on each.

use doorbell_harness::qemu::Version;

/// Way in which QEMU starts the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The image starts as Linux does: below EL3, with the devicetree's address in x0.
    Loader,
    /// The image starts as firmware does: as an ELF file, on all CPUs simultaneously, at the
    /// highest exception level.
    Firmware,
    /// The image starts like [`Loader`](Self::Loader), on the i.MX 8M Plus's evaluation kit.
    Board,
}

/// A `virt` machine, or a board.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Name, which is part of the cases' names.
    pub(crate) name: &'static str,
    /// Options of `-M virt`, or the name of the board.
    pub(crate) options: &'static str,
    /// Model of the CPUs.
    pub(crate) cpu: &'static str,
    /// Number of CPUs.
    pub(crate) cpus: u32,
    /// Way in which QEMU starts the image.
    pub(crate) boot: Start,
    /// Hardware that the image must find, in addition to CPUs and PCI functions.
    pub(crate) expected: &'static str,
    /// Number of interrupts of the load test.
    pub(crate) load: u32,
    /// Missing features, which are reasons for the image to skip a test.
    pub(crate) lacks: &'static [&'static str],
}

const SEVERAL_CPUS: &str = "there is one CPU";
/// Feature that a GICv2 lacks.
const ITS: &str = "no ITS";
/// Feature that a GICv3 without an ITS lacks on `virt`: PCI devices cannot send messages.
const MESSAGES: &str = "no MSI controller";
const EDU: &str = "no edu";
const PAIR: &str = "no second edu";

impl Machine {
    /// Returns additional arguments of a device. By default, virtio bypasses an SMMU, and may
    /// suppress a message if its driver has already handled the cause by polling.
    pub(crate) fn addition(&self, device: &Device) -> &'static str {
        match (device.arguments.starts_with("virtio-"), self.iommu()) {
            (false, _) => "",
            (true, "smmuv3") => ",event_idx=off,iommu_platform=on",
            (true, _) => ",event_idx=off",
        }
    }

    /// Returns the kind of IOMMU between PCI and memory.
    pub(crate) fn iommu(&self) -> &'static str {
        let named = self.options.split(',').find_map(|option| option.strip_prefix("iommu="));
        named.unwrap_or("none")
    }

    /// Returns the vendor and device ID of the host bridge.
    pub(crate) fn host_bridge(&self) -> &'static str {
        if self.boot == Start::Board { "16c3:abcd" } else { "1b36:0008" }
    }

    /// Returns the devices of this machine.
    pub(crate) fn devices(&self) -> &'static [Device] {
        match self.boot {
            Start::Board => BOARD_DEVICES,
            _ if self.lacks.contains(&MESSAGES) => &[],
            Start::Loader | Start::Firmware => DEVICES,
        }
    }

    /// Returns the reasons that the image may give for skipping a test: the machine's missing
    /// features, and this QEMU's defects.
    pub(crate) fn reasons(&self, version: Version) -> Vec<&'static str> {
        [self.lacks, self.flaws(version)].concat()
    }

    /// Returns the defects of this QEMU that the image may give as reasons for skipping a test.
    fn flaws(&self, version: Version) -> &'static [&'static str] {
        match version {
            // Before QEMU 9.2, writing GICD_ITARGETSR did not affect pending interrupts.
            Version::Stable if self.options.contains("gic-version=2") => {
                &["this QEMU leaves what is pending behind"]
            }
            _ => &[],
        }
    }
}

/// A GICv3 with an ITS and two CPUs.
const GICV3: Machine = Machine {
    name: "gicv3",
    options: "gic-version=3,its=on",
    cpu: "cortex-a57",
    cpus: 2,
    boot: Start::Loader,
    expected: "el=el1 gic=3 its=on security=one",
    load: 10_000,
    lacks: &[],
};
/// The same, on which the image then restarts itself.
const RESTARTED: Machine =
    Machine { expected: "el=el1 gic=3 its=on security=one restarts=on", ..GICV3 };
/// A GICv3 or GICv4 below a kernel at EL2.
const AT_EL2: Machine = Machine { cpu: "neoverse-n1", ..GICV3 };
/// A GICv2 with a GICv2m frame and two CPUs.
const GICV2: Machine = Machine {
    name: "gicv2",
    options: "gic-version=2",
    expected: "el=el1 gic=2 its=off v2m=on",
    lacks: &[ITS],
    ..GICV3
};

/// All machines, with the hardware that the test bench must find on each.
pub(crate) const ALL: &[Machine] = &[
    Machine { name: "gicv3-1-cpu", cpus: 1, lacks: &[SEVERAL_CPUS], ..RESTARTED },
    Machine { load: 100_000, ..RESTARTED },
    Machine { name: "gicv3-8-cpus", cpus: 8, ..GICV3 },
    Machine {
        name: "gicv3-no-its",
        options: "gic-version=3,its=off",
        expected: "el=el1 gic=3 its=off security=one",
        lacks: &[ITS, MESSAGES, EDU, PAIR],
        ..GICV3
    },
    // PCI behind an SMMU, where doorbells have translated addresses.
    Machine { name: "gicv3-smmu", options: "gic-version=3,its=on,iommu=smmuv3", ..GICV3 },
    Machine {
        name: "gicv3-el2",
        options: "gic-version=3,its=on,virtualization=on",
        expected: "el=el2 gic=3 its=on security=one",
        ..AT_EL2
    },
    Machine {
        name: "gicv4",
        options: "gic-version=4,its=on,virtualization=on",
        expected: "el=el2 gic=4 its=on security=one restarts=on",
        ..AT_EL2
    },
    Machine {
        name: "secure",
        options: "gic-version=3,its=on,secure=on",
        boot: Start::Firmware,
        expected: "el=el1 gic=3 its=on security=non-secure",
        ..GICV3
    },
    Machine {
        name: "secure-el2",
        options: "gic-version=3,its=on,secure=on,virtualization=on",
        boot: Start::Firmware,
        expected: "el=el2 gic=3 its=on security=non-secure",
        ..AT_EL2
    },
    Machine { name: "gicv2-1-cpu", cpus: 1, lacks: &[SEVERAL_CPUS, ITS], ..GICV2 },
    Machine { load: 100_000, ..GICV2 },
    Machine { name: "gicv2-8-cpus", cpus: 8, ..GICV2 },
    Machine {
        name: "gicv2-el2",
        options: "gic-version=2,virtualization=on",
        expected: "el=el2 gic=2 its=off v2m=on",
        ..GICV2
    },
];

/// The machine on which an interrupt's instructions are counted.
pub(crate) const WATCHED: Machine =
    Machine { name: "watched", cpus: 1, expected: "cost=watched", load: 0, ..GICV3 };

/// A PCI device.
#[derive(Debug)]
pub(crate) struct Device {
    /// Argument of `-device`.
    pub(crate) arguments: &'static str,
    /// Vendor and device ID.
    pub(crate) function: &'static str,
}

const fn device(arguments: &'static str, function: &'static str) -> Device {
    Device { arguments, function }
}

const DEVICES: &[Device] = &[
    device("nvme,drive=d0,serial=1", "1b36:0010"),
    device("virtio-net-pci,disable-legacy=on,romfile=", "1af4:1041"),
    device("virtio-rng-pci,disable-legacy=on", "1af4:1044"),
    device("edu,addr=5", "1234:11e8"),
    device("pcie-root-port,id=rp,chassis=1,slot=1", "1b36:000c"),
    // Three functions behind a bridge to conventional PCI, one of them behind a second bridge
    // there, which are a single requester at the ITS, and one behind a port, which is a separate
    // requester.
    device("pcie-pci-bridge,id=bridge,addr=10.0", "1b36:000e"),
    device("edu,bus=bridge,addr=1", "1234:11e8"),
    // This `edu` shares an INTx wire with the `edu` on the root bus, because `virt` has four wires,
    // the other `edu` is device 5, and the bridge is device 10.
    device("edu,bus=bridge,addr=3", "1234:11e8"),
    device("pci-bridge,id=inner,bus=bridge,addr=4,chassis_nr=2", "1b36:0001"),
    device("edu,bus=inner,addr=1", "1234:11e8"),
    device("virtio-rng-pci,disable-legacy=on,bus=rp", "1af4:1044"),
    device("nec-usb-xhci,msix=off", "1033:0194"),
];

/// All functions of the only slot of the i.MX 8M Plus's evaluation kit. Both `edu` assert the same
/// pin.
const BOARD_DEVICES: &[Device] = &[
    device("edu,bus=dw-pcie,addr=0.0,multifunction=on", "1234:11e8"),
    device("nvme,drive=d0,serial=1,bus=dw-pcie,addr=0.1", "1b36:0010"),
    device("virtio-net-pci,disable-legacy=on,romfile=,bus=dw-pcie,addr=0.3", "1af4:1041"),
    device("virtio-rng-pci,disable-legacy=on,bus=dw-pcie,addr=0.4", "1af4:1044"),
    device("edu,bus=dw-pcie,addr=0.5", "1234:11e8"),
];

/// The i.MX 8M Plus's evaluation kit, where all vectors share a single line.
pub(crate) const IMX8MP: Machine = Machine {
    name: "imx8mp",
    options: "imx8mp-evk",
    cpu: "cortex-a53",
    cpus: 4,
    boot: Start::Board,
    expected: "el=el2 gic=3 its=off imsi-rx=on security=one",
    load: 100_000,
    lacks: &[
        ITS,
        "no CPU can send a message to a host bridge",
        "the vectors of a line share its priority",
    ],
};
