//! The test bench on one of QEMU's machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{PROGRAM, Version, drives, write_disk};
use doorbell_harness::suite::Shared;
use doorbell_harness::testbench::Count;
use doorbell_harness::{hang, process, workspace};

use super::board;
use super::virt::{Machine, Start};
use crate::fetched;

/// Builds the test bench, once.
pub(crate) fn image() -> Result<&'static Image> {
    static IMAGE: Shared<Image> = Shared::new();
    IMAGE.get(|| Image::build(workspace::this()?, "testbench", "testbench"))
}

/// Returns the folder with a machine's disk, sockets and logs.
pub(crate) fn folder(machine: &Machine, version: Version) -> Result<PathBuf> {
    let run = format!("{version:?}-{}", machine.name).to_lowercase();
    let folder = workspace::this()?.target.join("qemu").join(run);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A run of the test bench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    /// Machine.
    pub(crate) machine: &'static Machine,
    /// Version of QEMU.
    pub(crate) version: Version,
    /// Number of interrupts of the load test.
    pub(crate) load: u32,
}

impl Bench {
    /// Runs the test bench, which must find the machine's hardware and pass all its checks.
    ///
    /// # Errors
    /// Fails if a check failed; the error names each failed check.
    pub(crate) fn judge(&self) -> Result<()> {
        // An absent component is a reason to skip the case, not a failed run.
        image()?;
        fetched::qemu(self.version)?;
        let mut count = Count::default();
        let ended = self.run(&[], &mut |line| count.line(line));
        eprintln!("{} on {:?}'s QEMU: {}", self.machine.name, self.version, count.shown());
        count.verdict(ended, &self.machine.reasons(self.version))
    }

    /// Runs the test bench with additional arguments for QEMU, and passes each line of its console
    /// to `line`.
    pub(crate) fn run(&self, more: &[&str], line: &mut dyn FnMut(&str)) -> Result<()> {
        let folder = folder(self.machine, self.version)?;
        let disk = folder.join("disk.img");
        write_disk(&disk)?;
        let mut qemu = self.command()?;
        self.add_arguments(&mut qemu, &disk);
        let status = process::watch(qemu.args(more), hang::RUN, line)?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    /// Returns the machine with the image.
    fn command(&self) -> Result<Command> {
        let Machine { options, cpu, boot, .. } = self.machine;
        if *boot == Start::Board {
            return board::with(image()?);
        }
        let mut qemu = fetched::qemu(self.version)?.command(PROGRAM);
        qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M"]);
        qemu.args(["-M", &format!("virt,{options}"), "-cpu", cpu, "-kernel"]);
        if *boot == Start::Firmware {
            qemu.arg(&image()?.elf).args(["-semihosting-config", "enable=on,target=native"]);
        } else {
            qemu.arg(&image()?.flat);
        }
        Ok(qemu)
    }

    fn add_arguments(&self, qemu: &mut Command, disk: &Path) {
        qemu.args(["-smp", &self.machine.cpus.to_string(), "-append", &self.expected()]);
        qemu.args(drives(disk));
        for device in self.machine.devices() {
            let addition = self.machine.addition(device);
            qemu.arg("-device").arg(format!("{}{addition}", device.arguments));
        }
    }

    /// Returns the hardware that the image must find, in the image's own format.
    fn expected(&self) -> String {
        let mut functions = vec![self.machine.host_bridge()];
        functions.extend(self.machine.devices().iter().map(|device| device.function));
        functions.sort_unstable();
        let (Machine { cpus, expected, .. }, load) = (self.machine, self.load);
        let (iommu, functions) = (self.machine.iommu(), functions.join(","));
        format!("cpus={cpus} {expected} iommu={iommu} functions={functions} load={load}")
    }
}
