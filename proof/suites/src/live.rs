//! Runs `doorbell live` in guests with Debian's kernels on QEMU, with faults in firmware and on the
//! kernel's command line. The command must find each fault, and must report the interrupts and
//! DeviceIDs that Linux uses.

mod console;
mod guest;
mod runtime;
mod subjects;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use doorbell_harness::qemu::{self, PROGRAM, Version};
use doorbell_harness::suite::{self, Case};
use doorbell_harness::{hang, process};

use self::console::Console;
use self::guest::{Guest, run};
use self::subjects::{ACPI, Change, GICV2, GROUPS, HOST, STEPS, SUBJECTS, Subject};
use crate::acpi::linux::mapped;
use crate::fetched;

const COMMAND_LINE: &str = "console=ttyAMA0 loglevel=1 panic=-1";
/// With less memory, Linux 6.12 does not boot on UEFI firmware.
const MEMORY: &str = "1G";

pub(crate) fn cases() -> Vec<Case> {
    let cases = SUBJECTS.iter().enumerate().flat_map(|(index, subject)| {
        let versions = match subject.versions {
            all if suite::is_long() => all,
            all => &all[index % all.len()..][..1],
        };
        versions.iter().map(move |&version| {
            let name = format!("{version:?}'s kernel on {}", subject.name);
            Case::of(name, move || subject.judge(version))
        })
    });
    cases.collect()
}

impl Subject {
    fn judge(&self, version: Version) -> Result<()> {
        let guest = Guest::get(version)?;
        let stem = guest.folder.join(self.name.replace(' ', "-"));
        let mut qemu = fetched::qemu(version)?.command(PROGRAM);
        qemu.args(["-cpu", "cortex-a57", "-smp", "2", "-m", MEMORY]);
        qemu.args(qemu::CONSOLE).args(self.devices.concat());
        let disk = guest.folder.join("disk");
        qemu.args(qemu::drives(&disk)).arg("-kernel").arg(&guest.kernel);
        qemu.arg("-initrd").arg(&guest.initramfs);
        let (explained, options) = (self.explained, self.options);
        qemu.arg("-append").arg(format!("{COMMAND_LINE} explained={explained} {options}"));
        if options.contains(ACPI) {
            qemu.arg("-bios").arg(fetched::uefi()?);
        }
        let trace = stem.with_extension("trace");
        qemu.args(["-trace", "gicv3_its_cmd_mapd", "-D"]).arg(&trace);
        if let Some(blob) = self.change(version, &stem.with_extension("dtb"))? {
            qemu.arg("-dtb").arg(blob);
        }
        qemu.args(["-M", &format!("virt,{}", self.machine)]);
        let mut console = Console::default();
        process::watch(&mut qemu, hang::RUN, |line| console.line(line))
            .with_context(|| format!("the last line is `{}`", console.last))?;
        let mapped: BTreeSet<_> = fs::read_to_string(&trace)?.lines().filter_map(mapped).collect();
        let has_its = self.machine != GICV2;
        console.judge(has_its.then_some(&mapped), &self.expected)?;
        if self.options == STEPS {
            console.judge_steps(runtime::STEPS)?;
        }
        if self.options == GROUPS {
            let groups = console.judge_groups()?;
            eprintln!("{}: {groups} groups, as Linux makes them", self.name);
        }
        eprintln!("{}: Linux maps {mapped:x?}, as the command shows", self.name);
        Ok(())
    }

    /// Writes the machine's devicetree with the fault to `file`. Returns `None` if the devicetree
    /// has no fault.
    fn change<'f>(&self, version: Version, file: &'f Path) -> Result<Option<&'f Path>> {
        if matches!(self.change, Change::None) {
            return Ok(None);
        }
        let mut qemu = fetched::qemu(version)?.command(PROGRAM);
        qemu.args(["-display", "none", "-nic", "none", "-cpu", "cortex-a57", "-smp", "2"]);
        qemu.args(["-m", MEMORY, "-M"]);
        qemu.arg(format!("virt,{},dumpdtb={}", self.machine, file.display()));
        process::capture(&mut qemu)?;
        let put = |kind: &str| {
            let mut put = fetched::compiler()?.command("fdtput");
            put.args(["-t", kind]).arg(file);
            anyhow::Ok(put)
        };
        match self.change {
            Change::None => {}
            Change::Shorten(map, length) => {
                let mut get = fetched::compiler()?.command("fdtget");
                let cells = process::capture(get.args(["-t", "x"]).arg(file).args([HOST, map]))?;
                let mut cells: Vec<_> = cells.split_whitespace().map(str::to_owned).collect();
                *cells.get_mut(3).context("a map has four cells")? = format!("{length:x}");
                run(put("x")?.args([HOST, map]).args(cells))?;
            }
            Change::Map(entries) => {
                let mut get = fetched::compiler()?.command("fdtget");
                let get = get.args(["-t", "x"]).arg(file).args([HOST, "msi-map"]);
                let cells = process::capture(get)?;
                let its = cells.split_whitespace().nth(1).context("a map has four cells")?;
                let cells = entries.iter().flat_map(|[first, id, length]| {
                    [format!("{first:x}"), its.to_owned(), format!("{id:x}"), format!("{length:x}")]
                });
                run(put("x")?.args([HOST, "msi-map"]).args(cells))?;
            }
            Change::Add(node, properties) => {
                for (property, value) in properties {
                    run(put("u")?.args([node, property, &*value.to_string()]))?;
                }
            }
            Change::Disable(node) => run(put("s")?.args([node, "status", "disabled"]))?,
            Change::Move(node, base) => {
                run(put("x")?.args([node, "reg", "0", &format!("{base:x}"), "0", "20000"]))?;
            }
        }
        Ok(Some(file))
    }
}
