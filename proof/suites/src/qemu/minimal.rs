//! Runs the smallest kernels. Each kernel prints one line after it has handled its interrupts. The
//! kernel that a guide walks through first prints the texts that the guide shows.

use anyhow::{Result, ensure};
use doorbell_facts::{Fact, MinimalFact};
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{PROGRAM, Version};
use doorbell_harness::{hang, process, workspace};

use crate::fetched;
use crate::size::HEAPLESS;

const GICV3: &[&str] = &["virt,gic-version=3,its=on"];
const GICV2: &[&str] = &["virt,gic-version=2"];
/// A GICv3 with an ITS, and two CPUs.
const GICV3_2_CPUS: &[&str] = &["virt,gic-version=3,its=on", "-smp", "2"];
/// Two CPUs, and a disk of zeros for the device `nvme`.
const GICV3_DISK: &[&str] = &[GICV3_2_CPUS[0], "-smp", "2", "-blockdev", DISK];
const GICV2_DISK: &[&str] = &[GICV2[0], "-smp", "2", "-blockdev", DISK];
const DISK: &str = "null-co,node-name=disk,size=1048576,read-zeroes=on";
/// The guide for kernel authors, which shows what `disk` prints on its first machine.
const GUIDE: &str = include_str!("../../../../docs/guides/kernel.md");

/// A kernel, and the fact that it reports at its end.
#[derive(Debug)]
pub(crate) struct MinimalKernel {
    /// Name of the program.
    pub(crate) name: &'static str,
    says: fn(&MinimalFact) -> bool,
    /// Machines on which the kernel runs: the value of `-M`, with further options for QEMU.
    pub(crate) machines: &'static [&'static [&'static str]],
    devices: &'static [&'static str],
    is_heapless: bool,
    is_shown: bool,
}

/// A kernel that prints nothing but its fact.
const KERNEL: MinimalKernel = MinimalKernel {
    name: "tick",
    says: |fact| *fact == MinimalFact::Ticked { times: 3 },
    machines: &[GICV3],
    devices: &[],
    is_heapless: false,
    is_shown: false,
};

/// All kernels.
pub(crate) static KERNELS: [MinimalKernel; 4] = [
    MinimalKernel { is_heapless: true, ..KERNEL },
    MinimalKernel { name: "tick-gicv2", machines: &[GICV2], is_heapless: true, ..KERNEL },
    MinimalKernel {
        name: "message",
        says: |fact| matches!(fact, MinimalFact::Received { .. }),
        machines: &[GICV3, GICV2],
        devices: &["edu"],
        ..KERNEL
    },
    MinimalKernel {
        name: "disk",
        says: |fact| *fact == MinimalFact::Moved { taken: [[102, 200], [200, 100]] },
        machines: &[GICV3_DISK, GICV2_DISK],
        devices: &["nvme,serial=1,drive=disk"],
        is_shown: true,
        ..KERNEL
    },
];

impl MinimalKernel {
    /// Builds the kernel, with the same profile as the test bench, to share its libraries.
    fn image(&self) -> Result<Image> {
        // Without features there is no global allocator, so linking fails if a kernel needs one.
        let features = if self.is_heapless { HEAPLESS } else { &[] };
        Image::build_with(workspace::this()?, "minimal", self.name, features)
    }

    /// Runs the kernel on one of its machines.
    ///
    /// # Errors
    /// Fails if the kernel prints anything other than its fact, and the guide's texts before it.
    pub(crate) fn judge(&self, machine: &[&str], version: Version) -> Result<()> {
        let mut qemu = fetched::qemu(version)?.command(PROGRAM);
        qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M"]);
        qemu.args(["-cpu", "cortex-a57", "-M"]).args(machine);
        qemu.arg("-kernel").arg(&self.image()?.flat);
        for device in self.devices {
            qemu.args(["-device", device]);
        }
        let mut lines = Vec::new();
        let status =
            process::watch(&mut qemu, hang::RUN, |line| lines.push(line.trim_end().to_owned()))?;
        ensure!(status.success(), "QEMU ended with {status}");
        let first = if self.is_shown { lines.len().saturating_sub(1) } else { 0 };
        let (shown, said) = lines.split_at(first);
        ensure!(self.is_said_by(said), "the kernel prints {lines:?}");
        if self.is_shown && machine == self.machines[0] {
            let blocks = GUIDE.split("```text\n").skip(1).filter_map(|it| it.split_once("```"));
            let texts: Vec<_> = blocks.flat_map(|(text, _)| text.lines()).collect();
            ensure!(shown == texts, "the kernel prints {shown:#?}, and the guide {texts:#?}");
        }
        Ok(())
    }

    fn is_said_by(&self, lines: &[String]) -> bool {
        let [line] = lines else { return false };
        matches!(Fact::parse(line), Some(Fact::Minimal(fact)) if (self.says)(&fact))
    }
}
