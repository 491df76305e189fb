//! A guest whose device reaches for memory that is not the guest's. The machine's RAM is a file:
//! what is in it afterwards is the verdict.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::controller::Controller;
use super::files::{Files, GUEST_RAM, MACHINE_BYTES_BELOW, RAM};
use super::{Board, LIMIT, Machine, Record};
use crate::dtb::Tools;
use crate::process;
use crate::qemu::{self, Version};
use crate::step::Tally;
use crate::workspace::Workspace;
use doorbell_harness::image::Image;

/// MiB of the guest.
const MEMORY: u32 = 64;
/// The first function behind the host bridge, and its stream.
const DEVICE: &str = "nvme,serial=1,addr=01.0";
const STREAM: &str = "0x8";
/// A device that bypasses the SMMU, next to it.
const UNCONFINED: &str = "virtio-rng-pci,addr=02.0";
const NO_SMMU: &[&str] = &["-M", "iommu=none"];
/// Memory of the hypervisor that it does not use: below the guest's RAM, and above the devicetree,
/// which ends its heap.
const OUTSIDE: u64 = GUEST_RAM - 0x1_0000;
const PAGE: usize = 4096;
/// Words of the hypervisor about the devices.
const BYPASSES: &str = "hypervisor: only a trusted-guest gets function 0x0010: virtio bypasses \
                        the SMMU without iommu_platform=on,disable-legacy=on";
const NOTHING_CONFINES: &str = "hypervisor: only a trusted-guest gets function 0x0008: no SMMU \
                                that works translates its accesses";
/// Words of the guest: its device was cut off from memory, or was not.
const CUT_OFF: &str = "dma - after what was outside the guest, a command completes: false";
const AT_WORK: &str = "dma - after what was outside the guest, a command completes: true";

/// The guest on each QEMU that can be had: with an SMMU, of the stage that this QEMU has, and
/// trusted without one. The latter is to show that the judge sees what the device wrote.
pub(super) fn run(workspace: &Workspace, hypervisor: &Image, tally: &mut Tally) -> Result<()> {
    let guest = Image::build_at(workspace, "stray-dma", "stray-dma", GUEST_RAM)?;
    let folder = super::folder(workspace)?;
    let ram = folder.join("ram");
    for (version, stage) in [(Version::Stable, 1), (Version::Backports, 2)] {
        let tools = match qemu::fetch(workspace, version) {
            Ok(tools) => tools,
            Err(absent) => {
                tally.skip(format!("stray DMA on {version:?}'s QEMU: {absent:#}"));
                continue;
            }
        };
        let attempt = |with| Attempt::watch(&tools, [hypervisor, &guest], &ram, with);
        let confined = attempt(With::Smmu).and_then(|attempt| attempt.is_confined(stage));
        tally.case(&format!("stray DMA is confined by stage {stage}"), confined);
        let trusted = attempt(With::Trust).and_then(|attempt| attempt.is_free());
        tally.case(&format!("stray DMA of a trusted guest on {version:?}'s QEMU"), trusted);
        let refused = attempt(With::Neither).and_then(|attempt| attempt.is_refused());
        tally.case(&format!("no device without an SMMU on {version:?}'s QEMU"), refused);
    }
    Ok(())
}

/// The reason for which the guest may have a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    /// An SMMU confines the device.
    Smmu,
    /// The guest is trusted.
    Trust,
    /// None.
    Neither,
}

/// A run's result.
#[derive(Debug)]
struct Attempt {
    lines: Vec<String>,
    /// Memory of the hypervisor's, all zeros at first.
    outside: Vec<u8>,
}

impl Attempt {
    fn watch(tools: &Tools, [image, guest]: [&Image; 2], ram: &Path, with: With) -> Result<Self> {
        let board = Board {
            machine: Machine::default(),
            tools,
            image,
            vcpus: 1,
            cpus: 1,
            memory: MEMORY,
            controller: Controller::Its,
            devices: &[DEVICE.to_owned(), UNCONFINED.to_owned()],
            trusted: with == With::Trust,
            move_every: None,
            record: Record::default(),
        };
        let append = format!("{OUTSIDE:#x}");
        let files = Files { kernel: &guest.flat, initrd: None, append: &append };
        let bytes = MACHINE_BYTES_BELOW + (u64::from(MEMORY) << 20);
        let backend =
            format!("memory-backend-file,id=ram,size={bytes},mem-path={},share=on", ram.display());
        let mut qemu = board.command(&[files])?;
        qemu.args(["-M", "memory-backend=ram", "-object", &backend]);
        qemu.args(if with == With::Neither { NO_SMMU } else { &[] });
        File::create(ram)?.set_len(bytes)?;
        let mut lines = Vec::new();
        process::watch(&mut qemu, LIMIT, |line| lines.push(line.trim_end().to_owned()))?;
        let mut outside = vec![0; PAGE];
        let mut file = File::open(ram)?;
        file.seek(SeekFrom::Start(OUTSIDE - RAM))?;
        file.read_exact(&mut outside)?;
        fs::remove_file(ram)?;
        Ok(Self { lines, outside })
    }

    /// The device reached its guest's memory and no other, and its faults were reported.
    fn is_confined(&self, stage: u8) -> Result<()> {
        self.must_have_tried()?;
        ensure!(self.outside.iter().all(|byte| *byte == 0), "memory was written");
        self.must_say(&format!("hypervisor: the SMMU confines DMA by stage {stage}"))?;
        for access in ["read", "write"] {
            self.must_say(&format!(
                "hypervisor: stream {STREAM} may not {access} {OUTSIDE:#x}: nothing is mapped there"
            ))?;
        }
        self.must_say(&format!("hypervisor: stream {STREAM} is cut off"))?;
        self.must_say(BYPASSES)?;
        self.must_say(CUT_OFF)
    }

    /// The device reached all memory.
    fn is_free(&self) -> Result<()> {
        self.must_have_tried()?;
        ensure!(self.outside.iter().any(|byte| *byte != 0), "memory was not written");
        self.must_say(AT_WORK)
    }

    /// The guest did not find the device.
    fn is_refused(&self) -> Result<()> {
        self.must_say(NOTHING_CONFINES)?;
        self.must_say("an NVMe controller")
    }

    fn must_have_tried(&self) -> Result<()> {
        self.must_say("dma - inside the guest 0x1b36")?;
        self.must_say("hypervisor: the guest turned its machine off")
    }

    fn must_say(&self, wanted: &str) -> Result<()> {
        let line = self.lines.iter().find(|line| *line == wanted);
        line.map(|_| ()).with_context(|| format!("no line `{wanted}` in {:#?}", self.lines))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn attempt() -> Attempt {
        let event = |access| {
            format!("hypervisor: stream 0x8 may not {access} 0x4fff0000: nothing is mapped there")
        };
        let lines = [
            "hypervisor: the SMMU confines DMA by stage 2".to_owned(),
            "dma - inside the guest 0x1b36".to_owned(),
            event("read"),
            event("write"),
            "hypervisor: stream 0x8 is cut off".to_owned(),
            BYPASSES.to_owned(),
            CUT_OFF.to_owned(),
            "hypervisor: the guest turned its machine off".to_owned(),
        ];
        Attempt { lines: lines.into(), outside: vec![0; PAGE] }
    }

    #[test]
    fn written_memory_is_not_confined() {
        let mut written = attempt();
        written.is_confined(2).unwrap();
        assert!(written.is_free().is_err());
        written.outside[7] = 1;
        assert!(written.is_confined(2).is_err());
        assert!(written.is_free().is_err());
        written.lines.push(AT_WORK.to_owned());
        written.is_free().unwrap();
    }

    #[test]
    fn each_line_is_wanted() {
        for index in 0..attempt().lines.len() {
            let mut silent = attempt();
            let line = silent.lines.remove(index);
            assert!(silent.is_confined(2).is_err(), "`{line}` is not wanted");
        }
        assert!(attempt().is_confined(1).is_err());
    }
}
