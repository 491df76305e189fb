//! The smallest kernels: each says in one line that it took its interrupt.

use anyhow::{Result, ensure};

use super::{LIMIT, PROGRAM, Version};
use crate::dtb::Tools;
use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;
use doorbell_harness::image::Image;

const GICV3: &[&str] = &["virt,gic-version=3,its=on"];
const GICV2: &[&str] = &["virt,gic-version=2"];
/// A GICv3 with an ITS, and two CPUs.
const GICV3_2_CPUS: &[&str] = &["virt,gic-version=3,its=on", "-smp", "2"];
/// A GICv4 with virtual LPIs at its redistributors, and an image at EL2.
const GICV4: &[&str] = &["virt,gic-version=4,its=on,virtualization=on"];
const GICV4_2_CPUS: &[&str] = &["virt,gic-version=4,its=on,virtualization=on", "-smp", "2"];

/// Devices with functions behind a bridge from PCI Express to conventional PCI, one of them behind
/// a second bridge on that bus, and with functions behind a bridge on the root bus. GICv2m has 64
/// vectors for all of them.
const BEHIND_BRIDGES: &[&str] = &[
    "pcie-pci-bridge,id=outer",
    "edu,bus=outer,addr=1",
    "edu,bus=outer,addr=2",
    "edu,bus=outer,addr=3",
    "edu,bus=outer,addr=4",
    "edu,bus=outer,addr=5",
    "edu,bus=outer,addr=6",
    "edu,bus=outer,addr=7",
    "edu,bus=outer,addr=8",
    "edu,bus=outer,addr=9",
    "virtio-rng-pci,disable-legacy=on,bus=outer,addr=10,vectors=16",
    "virtio-rng-pci,disable-legacy=on,bus=outer,addr=11,vectors=16",
    "virtio-rng-pci,disable-legacy=on,bus=outer,addr=12,vectors=16",
    "pci-bridge,id=inner,bus=outer,addr=16,chassis_nr=2",
    "edu,bus=inner,addr=1",
    "pci-bridge,id=root,chassis_nr=1",
    "edu,bus=root,addr=1",
    "edu,bus=root,addr=2",
];

/// A kernel, and the beginning of the line that it ends with.
pub(super) struct Kernel {
    name: &'static str,
    says: &'static str,
    /// Values of `-M`, each with further options of QEMU.
    machines: &'static [&'static [&'static str]],
    devices: &'static [&'static str],
    image: Image,
}

/// Builds all of them.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<Kernel>> {
    let tick = |name, machines| -> Result<Kernel> {
        let image = Image::build_heapless(workspace, "minimal", name)?;
        Ok(Kernel { name, says: "ok - three ticks of the timer", machines, devices: &[], image })
    };
    Ok(vec![
        tick("tick", &[GICV3])?,
        tick("tick-gicv2", &[GICV2])?,
        Kernel {
            name: "message",
            says: "ok - the first message",
            machines: &[GICV3, GICV2],
            devices: &["edu"],
            image: Image::build(workspace, "minimal", "message")?,
        },
        Kernel {
            name: "kexec",
            says: "ok - 3 lives",
            machines: &[GICV3, GICV3_2_CPUS, GICV4, GICV4_2_CPUS],
            devices: &["edu", "edu"],
            image: Image::build(workspace, "minimal", "kexec")?,
        },
        Kernel {
            name: "bridge",
            says: "ok - 16 functions behind 2 bridges have 61 vectors",
            machines: &[GICV3, GICV2],
            devices: BEHIND_BRIDGES,
            image: Image::build(workspace, "minimal", "bridge")?,
        },
    ])
}

impl Kernel {
    /// Runs it on each of its machines.
    pub(super) fn judge(&self, tools: &Tools, version: Version, tally: &mut Tally) {
        for machine in self.machines {
            let shown = machine.join(" ");
            let name = format!("{} on {shown} of {version:?}'s QEMU", self.name);
            tally.case(&name, self.run(tools, machine));
        }
    }

    fn run(&self, tools: &Tools, machine: &[&str]) -> Result<()> {
        let mut qemu = tools.command(PROGRAM);
        qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M"]);
        qemu.args(["-cpu", "cortex-a57", "-M"]).args(machine).arg("-kernel").arg(&self.image.flat);
        for device in self.devices {
            qemu.args(["-device", device]);
        }
        let mut lines = Vec::new();
        let status =
            process::watch(&mut qemu, LIMIT, |line| lines.push(line.trim_end().to_owned()))?;
        ensure!(status.success(), "QEMU ended with {status}");
        ensure!(self.is_said_by(&lines), "it says {lines:?}");
        Ok(())
    }

    fn is_said_by(&self, lines: &[String]) -> bool {
        matches!(lines, [line] if line.starts_with(self.says))
    }
}
