//! Tests that a guest's device can't access memory outside the guest. The machine's RAM is backed
//! by a file, which the test examines afterwards.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Result, ensure};
use doorbell_facts::{Access, Fact, HypervisorFact, StrayDmaFact};
use doorbell_harness::qemu::Version;
use doorbell_harness::suite::Case;

use crate::board::{Board, LIMIT};
use crate::files::{MACHINE_BYTES_BELOW, PHYSICAL_RAM, RAM};
use crate::output::Output;
use crate::{built, hostile};

/// Guest memory in MiB.
const MEMORY: u32 = 64;
/// The first function behind the host bridge. The function's stream is [`STREAM`].
const DEVICE: &str = "nvme,serial=1,addr=01.0";
const STREAM: u32 = 0x8;
/// A second device that bypasses the SMMU.
const UNCONFINED: &str = "virtio-rng-pci,addr=02.0";
const NO_SMMU: &[&str] = &["-M", "iommu=none"];
/// Memory that belongs to the hypervisor but is unused. This memory is below the guest's RAM and
/// above the devicetree, at which the hypervisor's heap ends.
const OUTSIDE: u64 = PHYSICAL_RAM - 0x1_0000;
const PAGE: usize = 4096;
/// The addresses of the PCI functions.
const FUNCTION: u32 = 0x08;
const UNCONFINED_FUNCTION: u32 = 0x10;
/// Vendor ID of QEMU's controller, which the device writes to memory (docs/specs/pci-ids.rst).
const VENDOR: u16 = 0x1b36;

/// Lists the cases on each QEMU version: with an SMMU and the stage that this version supports, as
/// a trusted guest without an SMMU, and as an untrusted guest without an SMMU. The trusted guest
/// proves that the test detects the device's writes.
pub(crate) fn cases() -> Vec<Case> {
    let on = |(version, stage): (Version, u8)| {
        let of = format!("on {version:?}'s QEMU");
        [
            (format!("stray DMA is confined by stage {stage}"), With::Smmu),
            (format!("stray DMA of a trusted guest {of}"), With::Trust),
            (format!("no device without an SMMU {of}"), With::Neither),
        ]
        .map(|(name, with)| {
            built::case(name, LIMIT, move || {
                let attempt = Attempt::of(version, with)?;
                match with {
                    With::Smmu => attempt.is_confined(stage),
                    With::Trust => attempt.is_free(),
                    With::Neither => attempt.is_refused(),
                }
            })
        })
    };
    [(Version::Stable, 1), (Version::Backports, 2)].into_iter().flat_map(on).collect()
}

/// Reason why a device may be assigned to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    /// An SMMU confines the device.
    Smmu,
    /// The guest is trusted.
    Trust,
    /// The device must not be assigned to the guest.
    Neither,
}

/// Result of a run.
#[derive(Clone, Debug)]
struct Attempt {
    output: Output,
    /// Hypervisor memory. The memory is zero at first.
    outside: Vec<u8>,
}

impl Attempt {
    fn of(version: Version, with: With) -> Result<Self> {
        let trusted = with == With::Trust;
        let devices = &[DEVICE, UNCONFINED];
        let board = Board { devices, trusted, ..Board::plain(version, MEMORY) };
        let words = format!("stray={OUTSIDE}");
        let guest = if trusted { hostile::trusted(&words)?[0] } else { hostile::guest(&words)? };
        let bytes = MACHINE_BYTES_BELOW + (u64::from(MEMORY) << 20);
        let ram = built::folder()?.join(format!("ram-{version:?}-{with:?}").to_lowercase());
        let backend =
            format!("memory-backend-file,id=ram,size={bytes},mem-path={},share=on", ram.display());
        let mut qemu = board.command(&[guest])?;
        qemu.args(["-M", "memory-backend=ram", "-object", &backend]);
        qemu.args(if with == With::Neither { NO_SMMU } else { &[] });
        File::create(&ram)?.set_len(bytes)?;
        let output = Output::of(&mut qemu)?;
        let mut outside = vec![0; PAGE];
        let mut file = File::open(&ram)?;
        file.seek(SeekFrom::Start(OUTSIDE - RAM))?;
        file.read_exact(&mut outside)?;
        fs::remove_file(&ram)?;
        Ok(Self { output, outside })
    }

    /// Checks that the device accessed only its own guest's memory, and that its faults were
    /// reported.
    fn is_confined(&self, stage: u8) -> Result<()> {
        self.must_have_tried(false)?;
        ensure!(self.outside.iter().all(|byte| *byte == 0), "memory was written");
        for fact in [
            HypervisorFact::Confines { stage },
            HypervisorFact::Refused { stream: STREAM, access: Access::Read, address: OUTSIDE },
            HypervisorFact::Refused { stream: STREAM, access: Access::Write, address: OUTSIDE },
            HypervisorFact::CutOff { stream: STREAM },
        ] {
            self.output.must_state(fact)?;
        }
        self.must_withhold(UNCONFINED_FUNCTION)
    }

    /// Checks that the device was able to access all memory.
    fn is_free(&self) -> Result<()> {
        self.must_have_tried(true)?;
        ensure!(self.outside.iter().any(|byte| *byte != 0), "memory was not written");
        Ok(())
    }

    /// Checks that no device was assigned to the guest, and that the guest did not try to use one.
    fn is_refused(&self) -> Result<()> {
        [FUNCTION, UNCONFINED_FUNCTION].iter().try_for_each(|it| self.must_withhold(*it))?;
        let tried = self.output.facts.iter().any(|(_, fact)| matches!(fact, Fact::StrayDma(_)));
        ensure!(!tried, "the guest has a device: {:#?}", self.output);
        self.output.judge(0)
    }

    /// Checks that the device accessed memory, and whether it still completes commands.
    fn must_have_tried(&self, completes: bool) -> Result<()> {
        self.output.must_state(StrayDmaFact::Inside { vendor: VENDOR })?;
        self.output.must_state(StrayDmaFact::AfterOutside { completes })?;
        self.output.judge(0)
    }

    fn must_withhold(&self, address: u32) -> Result<()> {
        let mut facts = self.output.hypervisor();
        let is_withheld = facts.any(|fact| {
            matches!(fact, HypervisorFact::Withheld { function, .. } if *function == address)
        });
        ensure!(is_withheld, "{address:#x} is not withheld: {self:#?}");
        Ok(())
    }
}
