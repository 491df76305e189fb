//! Tests that a guest's device can't access memory outside the guest, and that its messages pass an
//! SMMU that the guest owns. For the former, the machine's RAM is backed by a file, which the test
//! examines afterwards.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Access, Ending, Fact, HypervisorFact, MinimalFact, StrayDmaFact};
use doorbell_harness::image::Image;
use doorbell_harness::process;
use doorbell_harness::qemu::Version;
use doorbell_harness::suite::{Case, Shared};
use doorbell_harness::workspace;

use crate::board::{Board, LIMIT};
use crate::built;
use crate::controller::Controller;
use crate::files::{self, Files, MACHINE_BYTES_BELOW, PHYSICAL_RAM, RAM};

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
        [
            case(
                format!("stray DMA is confined by stage {stage}"),
                version,
                With::Smmu,
                move |it| it.is_confined(stage),
            ),
            case(
                format!("stray DMA of a trusted guest on {version:?}'s QEMU"),
                version,
                With::Trust,
                Attempt::is_free,
            ),
            case(
                format!("no device without an SMMU on {version:?}'s QEMU"),
                version,
                With::Neither,
                Attempt::is_refused,
            ),
        ]
    };
    let own = built::case("a message passes a guest's own SMMU", LIMIT, pass_own_smmu);
    let cases = [(Version::Stable, 1), (Version::Backports, 2)].into_iter().flat_map(on);
    cases.chain([own]).collect()
}

/// Runs a guest that owns the SMMU, which must translate its device's message to the guest's
/// doorbell.
fn pass_own_smmu() -> Result<()> {
    let (workspace, ram) = (workspace::this()?, files::ram(true));
    let guest = Image::build_at(workspace, "minimal", "behind-smmu", ram)?;
    let board = Board {
        controller: Controller::DirectLpi,
        devices: &["edu".to_owned()],
        trusted: true,
        guest_smmu: true,
        ..Board::plain(Version::Stable, MEMORY)?
    };
    let files = Files { kernel: &guest.flat, initrd: None, append: "" };
    let mut facts = Vec::new();
    process::watch(&mut board.command(&[files])?, LIMIT, |line| facts.extend(Fact::parse(line)))?;
    let is_received = |fact: &Fact| matches!(fact, Fact::Minimal(MinimalFact::Received { .. }));
    ensure!(facts.iter().any(is_received), "the guest received no message: {facts:#?}");
    let off = HypervisorFact::Ended { guest: 0, how: Ending::Off }.into();
    ensure!(facts.contains(&off), "the machine was not turned off: {facts:#?}");
    Ok(())
}

fn case(
    name: String,
    version: Version,
    with: With,
    judge: impl FnOnce(&Attempt) -> Result<()> + Send + 'static,
) -> Case {
    built::case(name, LIMIT, move || judge(&Attempt::watch(version, with)?))
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
#[derive(Debug)]
struct Attempt {
    facts: Vec<Fact>,
    /// Hypervisor memory. The memory is zero at first.
    outside: Vec<u8>,
}

impl Attempt {
    fn watch(version: Version, with: With) -> Result<Self> {
        static GUESTS: [Shared<Image>; 2] = [const { Shared::new() }; 2];
        let trusted = with == With::Trust;
        let guest =
            GUESTS[usize::from(trusted)].get(|| built::guest("stray-dma", files::ram(trusted)))?;
        let board = Board {
            devices: &[DEVICE.to_owned(), UNCONFINED.to_owned()],
            trusted,
            ..Board::plain(version, MEMORY)?
        };
        let append = format!("{OUTSIDE:#x}");
        let files = Files { kernel: &guest.flat, initrd: None, append: &append };
        let bytes = MACHINE_BYTES_BELOW + (u64::from(MEMORY) << 20);
        let ram = built::folder()?.join(format!("ram-{version:?}-{with:?}").to_lowercase());
        let backend =
            format!("memory-backend-file,id=ram,size={bytes},mem-path={},share=on", ram.display());
        let mut qemu = board.command(&[files])?;
        qemu.args(["-M", "memory-backend=ram", "-object", &backend]);
        qemu.args(if with == With::Neither { NO_SMMU } else { &[] });
        File::create(&ram)?.set_len(bytes)?;
        let mut facts = Vec::new();
        process::watch(&mut qemu, LIMIT, |line| facts.extend(Fact::parse(line)))?;
        let mut outside = vec![0; PAGE];
        let mut file = File::open(&ram)?;
        file.seek(SeekFrom::Start(OUTSIDE - RAM))?;
        file.read_exact(&mut outside)?;
        fs::remove_file(&ram)?;
        Ok(Self { facts, outside })
    }

    /// Checks that the device accessed only its own guest's memory, and that its faults were
    /// reported.
    fn is_confined(&self, stage: u8) -> Result<()> {
        self.must_have_tried()?;
        ensure!(self.outside.iter().all(|byte| *byte == 0), "memory was written");
        self.must_say(HypervisorFact::Confines { stage })?;
        for access in [Access::Read, Access::Write] {
            self.must_say(HypervisorFact::Refused { stream: STREAM, access, address: OUTSIDE })?;
        }
        self.must_say(HypervisorFact::CutOff { stream: STREAM })?;
        self.must_withhold(UNCONFINED_FUNCTION)?;
        self.must_say(StrayDmaFact::AfterOutside { completes: false })
    }

    /// Checks that the device was able to access all memory.
    fn is_free(&self) -> Result<()> {
        self.must_have_tried()?;
        ensure!(self.outside.iter().any(|byte| *byte != 0), "memory was not written");
        self.must_say(StrayDmaFact::AfterOutside { completes: true })
    }

    /// Checks that no device was assigned to the guest, and that the guest did not try to use one.
    fn is_refused(&self) -> Result<()> {
        [FUNCTION, UNCONFINED_FUNCTION].iter().try_for_each(|it| self.must_withhold(*it))?;
        let tried = self.facts.iter().any(|fact| matches!(fact, Fact::StrayDma(_)));
        ensure!(!tried, "the guest has a device: {:#?}", self.facts);
        self.must_have_ended()
    }

    fn must_have_tried(&self) -> Result<()> {
        self.must_say(StrayDmaFact::Inside { vendor: VENDOR })?;
        self.must_have_ended()
    }

    fn must_have_ended(&self) -> Result<()> {
        self.must_say(HypervisorFact::Ended { guest: 0, how: Ending::Off })
    }

    fn must_withhold(&self, address: u32) -> Result<()> {
        let is_withheld = |fact: &Fact| {
            matches!(fact, Fact::Hypervisor(HypervisorFact::Withheld { function, .. })
                if *function == address)
        };
        ensure!(self.facts.iter().any(is_withheld), "{address:#x} is not withheld: {self:#?}");
        Ok(())
    }

    fn must_say(&self, wanted: impl Into<Fact>) -> Result<()> {
        let wanted = wanted.into();
        let found = self.facts.iter().find(|fact| **fact == wanted);
        found.map(|_| ()).with_context(|| format!("no {wanted} in {:#?}", self.facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt {
        let refused = |access| HypervisorFact::Refused { stream: STREAM, access, address: OUTSIDE };
        let facts = [
            HypervisorFact::Confines { stage: 2 }.into(),
            HypervisorFact::Withheld { function: UNCONFINED_FUNCTION, reason: "virtio".into() }
                .into(),
            StrayDmaFact::Inside { vendor: VENDOR }.into(),
            refused(Access::Read).into(),
            refused(Access::Write).into(),
            HypervisorFact::CutOff { stream: STREAM }.into(),
            StrayDmaFact::AfterOutside { completes: false }.into(),
            HypervisorFact::Ended { guest: 0, how: Ending::Off }.into(),
        ];
        Attempt { facts: facts.into(), outside: vec![0; PAGE] }
    }

    #[test]
    fn a_stray_dma_write_disproves_confinement() {
        let mut written = attempt();
        written.is_confined(2).unwrap();
        assert!(written.is_free().is_err());
        written.outside[7] = 1;
        assert!(written.is_confined(2).is_err());
        assert!(written.is_free().is_err());
        written.facts.push(StrayDmaFact::AfterOutside { completes: true }.into());
        written.is_free().unwrap();
    }

    #[test]
    fn confinement_requires_every_fact() {
        for index in 0..attempt().facts.len() {
            let mut silent = attempt();
            let fact = silent.facts.remove(index);
            assert!(silent.is_confined(2).is_err(), "the check does not require {fact}");
        }
        assert!(attempt().is_confined(1).is_err());
    }
}
