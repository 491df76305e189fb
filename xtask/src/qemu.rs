//! The bare-metal images on QEMU: the drivers, judged by a GIC and PCI devices of another project.

mod cost;
mod machines;
mod minimal;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::image::Image;
pub(crate) use doorbell_harness::qemu::{
    Monitor, PROGRAM, Peer, Version, drives, fetch, write_disk,
};
use doorbell_harness::testbench::Count;

use self::cost::{Linux, Spans};
use self::machines::{Boot, Machine};
use crate::dtb::Tools;
use crate::parallel::{self, Trial};
use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;

/// A run takes seconds; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(3);
/// Interrupts of the load test where each takes long.
const SMALL_LOAD: u32 = 1000;

/// Options of a person's run.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Machine to run; all are named where none is given
    #[arg(long)]
    machine: Option<String>,
    /// QEMU to run it on
    #[arg(long, value_enum, default_value = "stable")]
    qemu: Version,
    /// Have QEMU tell what its ITS does
    #[arg(long)]
    trace: bool,
    /// Count time in instructions: a nanosecond is one (several CPUs need the QEMU of backports)
    #[arg(long)]
    icount: bool,
    /// Count the instructions of an interrupt, ours and Linux's
    #[arg(long, conflicts_with_all = ["machine", "trace", "icount"])]
    cost: bool,
}

/// The test bench on every machine of the table, and the smallest kernels, on each QEMU that can be
/// had.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let kernels = minimal::build(workspace)?;
    let image = Image::build(workspace, "testbench", "testbench")?;
    let mut fetched = Vec::new();
    for version in Version::ALL {
        match fetch(workspace, version) {
            Ok(tools) => fetched.push((version, tools)),
            Err(error) => tally.skip(format!("QEMU of {version:?}: {error:#}")),
        }
    }
    let mut trials: Vec<Trial<'_>> = Vec::new();
    for (version, tools) in &fetched {
        let version = *version;
        for machine in machines::ALL {
            let load = machine.load;
            let bench = Bench { workspace, image: &image, tools, version, machine, load };
            trials.push(Box::new(move |tally| {
                bench.judge(tally);
                Ok(())
            }));
        }
        for kernel in &kernels {
            trials.push(Box::new(move |tally| {
                kernel.judge(tools, version, tally);
                Ok(())
            }));
        }
        let bench = Bench::watched(workspace, &image, tools, version);
        let name = format!("what an interrupt costs on {version:?}'s QEMU");
        trials.push(Box::new(move |tally| {
            tally.case(&name, cheaper_than_linux(&bench));
            Ok(())
        }));
    }
    // Most of their time they wait for timers and devices.
    parallel::tallied(&trials, tally);
    Ok(())
}

/// One machine, for a person to watch; without one, their names.
pub(crate) fn watch(workspace: &Workspace, wanted: &Watch) -> Result<ExitCode> {
    if wanted.cost {
        return compare(workspace, wanted.qemu);
    }
    let Some(name) = &wanted.machine else {
        for machine in machines::ALL {
            println!(
                "{:18} -M {} -cpu {} -smp {}",
                machine.name, machine.options, machine.cpu, machine.cpus
            );
        }
        return Ok(ExitCode::SUCCESS);
    };
    let machine = machines::ALL.iter().find(|machine| machine.name == name);
    let machine =
        machine.with_context(|| format!("no machine `{name}`; cargo xtask qemu names them"))?;
    let image = Image::build(workspace, "testbench", "testbench")?;
    let tools = fetch(workspace, wanted.qemu)?;
    // Counting takes its time.
    let load = if wanted.icount || wanted.trace { SMALL_LOAD } else { machine.load };
    let bench =
        Bench { workspace, image: &image, tools: &tools, version: wanted.qemu, machine, load };
    let mut count = Count::default();
    let mut more = Vec::new();
    if wanted.trace {
        more.extend(["-trace", "gicv3_its*"]);
    }
    if wanted.icount {
        more.extend(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    }
    bench.run(&more, &mut |line| {
        println!("{line}");
        count.line(line);
    })?;
    Ok(if count.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fewer instructions from IAR to EOI than Linux's.
fn cheaper_than_linux(bench: &Bench<'_>) -> Result<()> {
    let ours = bench.cost()?;
    println!("an interrupt takes {ours}; Linux: {}", cost::LINUX);
    ensure!(ours.core() < cost::LINUX.core(), "it takes {ours}, and Linux's {}", cost::LINUX);
    Ok(())
}

/// Both, measured here and now.
fn compare(workspace: &Workspace, version: Version) -> Result<ExitCode> {
    let image = Image::build(workspace, "testbench", "testbench")?;
    let tools = fetch(workspace, version)?;
    let linux = Linux::fetch(workspace)?;
    let bench = Bench::watched(workspace, &image, &tools, version);
    println!("{:16} {}", "the test bench:", bench.cost()?);
    println!("{:16} {}", "Linux:", bench.cost_of(&linux)?);
    println!("{:16} {}, by {}", "on record:", cost::LINUX, linux.name);
    Ok(ExitCode::SUCCESS)
}

/// One run's ingredients.
struct Bench<'a> {
    workspace: &'a Workspace,
    image: &'a Image,
    tools: &'a Tools,
    version: Version,
    machine: &'a Machine,
    load: u32,
}

impl<'a> Bench<'a> {
    /// With a disk alone, and one CPU, so that one thing happens after the other.
    fn watched(
        workspace: &'a Workspace,
        image: &'a Image,
        tools: &'a Tools,
        version: Version,
    ) -> Self {
        Self { workspace, image, tools, version, machine: &machines::WATCHED, load: 0 }
    }
}

impl Bench<'_> {
    /// The instructions of an interrupt here.
    fn cost(&self) -> Result<Spans> {
        let mut qemu = self.watched_machine()?;
        qemu.arg("-kernel").arg(&self.image.flat).args(["-append", self.machine.expected]);
        cost::measure(qemu, &self.folder()?)
    }

    /// The same under Linux.
    fn cost_of(&self, linux: &Linux) -> Result<Spans> {
        let mut qemu = self.watched_machine()?;
        qemu.arg("-kernel").arg(&linux.kernel).arg("-initrd").arg(&linux.initrd);
        qemu.args(["-append", "console=ttyAMA0 quiet panic=-1", "-dfilter", cost::KERNEL]);
        cost::measure(qemu, &self.folder()?)
    }

    fn watched_machine(&self) -> Result<Command> {
        let Machine { options, cpu, cpus, .. } = self.machine;
        let disk = self.folder()?.join("disk.img");
        write_disk(&disk)?;
        let mut qemu = self.tools.command(PROGRAM);
        qemu.args([
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-m",
            "512M",
            "-no-reboot",
        ]);
        qemu.args(["-M", &format!("virt,{options}"), "-cpu", cpu, "-smp", &cpus.to_string()]);
        qemu.arg("-drive")
            .arg(format!("if=none,id=d0,format=raw,readonly=on,file={}", disk.display()));
        qemu.args(["-device", "nvme,drive=d0,serial=1"]);
        Ok(qemu)
    }

    fn folder(&self) -> Result<PathBuf> {
        let run = format!("{:?}-{}", self.version, self.machine.name).to_lowercase();
        let folder = self.workspace.target.join("qemu").join(run);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn judge(&self, tally: &mut Tally) {
        let name = format!("{} on {:?}'s QEMU", self.machine.name, self.version);
        let mut count = Count::default();
        let outcome = self.run(&[], &mut |line| count.line(line));
        println!("{name}: {} passed, {} failed", count.passed, count.failed.len());
        tally.pass(count.passed);
        for failure in &count.failed {
            tally.fail(format!("{name}: {failure}"));
        }
        if let Err(error) =
            outcome.and_then(|()| count.complete(&self.machine.reasons(self.version)))
        {
            tally.fail(format!("{name}: {error:#}"));
        }
    }

    fn run(&self, more: &[&str], line: &mut dyn FnMut(&str)) -> Result<()> {
        let folder = self.folder()?;
        let disk = folder.join("disk.img");
        write_disk(&disk)?;
        let peer = Peer::start(&folder.join("ivshmem.sock"))?;
        let mut qemu = self.tools.command(PROGRAM);
        self.arguments(&mut qemu, &disk, peer.socket());
        let monitor = Monitor::offered_by(&mut qemu, &folder)?;
        let mut refused = None;
        let status = process::watch(qemu.args(more), LIMIT, |text| {
            line(text);
            if let Some(order) = requested(text) {
                refused = refused.take().or(monitor.order(&[order]).err());
            }
        })?;
        if let Some(error) = refused {
            return Err(error);
        }
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    fn arguments(&self, qemu: &mut Command, disk: &Path, socket: &Path) {
        let Machine { options, cpu, cpus, boot, .. } = self.machine;
        qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M"]);
        qemu.args(["-M", &format!("virt,{options}"), "-cpu", cpu, "-smp", &cpus.to_string()]);
        match boot {
            Boot::Loader => qemu.arg("-kernel").arg(&self.image.flat),
            Boot::Firmware => qemu
                .args(["-semihosting-config", "enable=on,target=native"])
                .arg("-kernel")
                .arg(&self.image.elf),
        };
        qemu.args(["-append", &self.expected()]);
        qemu.args(drives(disk));
        qemu.arg("-chardev").arg(format!("socket,id=peer,path={}", socket.display()));
        for device in self.machine.devices(self.version) {
            qemu.arg("-device").arg(format!(
                "{}{}",
                device.arguments,
                self.machine.addition(device)
            ));
        }
    }

    /// Returns the results that the image must find, in its own words.
    fn expected(&self) -> String {
        let mut functions = vec![machines::HOST_BRIDGE];
        functions.extend(self.machine.devices(self.version).filter_map(|device| device.function));
        functions.sort_unstable();
        let (Machine { cpus, expected, .. }, load) = (self.machine, self.load);
        let (iommu, functions) = (self.machine.iommu(), functions.join(","));
        format!("cpus={cpus} {expected} iommu={iommu} functions={functions} load={load}")
    }
}

/// Returns the monitor command for an effect that the image cannot have on itself.
fn requested(line: &str) -> Option<&'static str> {
    // A completion that does not come: neither fatal nor corrected, which the older QEMU would not
    // pass on.
    let known = line.trim_end() == "request - an error at hp";
    known.then_some("pcie_aer_inject_error hp 0x4000")
}

#[cfg(test)]
mod test {
    use super::*;

    fn counted(lines: &[&str]) -> Count {
        let mut count = Count::default();
        for line in lines {
            count.line(line);
        }
        count
    }

    #[test]
    fn unfounded_skip_is_a_failure() {
        let total = "total: 0 passed, 0 failed, 1 skipped";
        for machine in machines::ALL {
            let complete_on =
                |version, why| counted(&[why, total]).complete(&machine.reasons(version)).is_ok();
            let complete = |why| complete_on(Version::Backports, why);
            assert_eq!(complete("skip - a: there is one CPU"), machine.cpus == 1);
            let lacks_its = machine.name.starts_with("gicv2") || machine.name == "gicv3-no-its";
            assert_eq!(complete("skip - a: no ITS"), lacks_its);
            assert!(!complete("skip - a: the weather"));
            let pending = "skip - a: this QEMU leaves what is pending behind";
            let off = "skip - a: this SMMU lets everything pass while it is off";
            assert!(!complete(pending) && !complete(off));
            assert_eq!(complete_on(Version::Stable, pending), machine.name.starts_with("gicv2"));
            assert_eq!(complete_on(Version::Stable, off), machine.name == "gicv3-smmu");
        }
    }
}
