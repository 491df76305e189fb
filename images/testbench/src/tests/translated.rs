//! Tests of devices behind an SMMU. Messages arrive because the doorbell is mapped for the device.
//! A message to an unmapped address does not arrive, and is reported as an event that identifies
//! the device.

use crate::devices::{ACKNOWLEDGE, RAISE};
use crate::machine::{Machine, Translated, UNHANDLED};
use crate::report::{Outcome, Report, Verdict, check};
use crate::rig::Rig;
use crate::smmu::{Access, DOORBELL_WINDOW, Event, EventKind, StreamId};
use alloc::format;
use core::sync::atomic::Ordering;
use image_rt::cpu;
use image_rt::pci::{self, Function};
use irq_domain::layer::{Iommu, IommuDomain, IovaConstraint};
use irq_domain::pci::TableMemory;
use msi_types::Granule;
use msi_types::explain::Obstacle;

const MSI: u8 = 0x05;
/// Offsets in the MSI capability with 64-bit addresses: control register with its enable bit,
/// address and data.
const MSI_CONTROL: u16 = 2;
const MSI_ADDRESS: u16 = 4;
const MSI_DATA: u16 = 12;
const MSI_ENABLED: u16 = 1;

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    // The discovery tests report a missing SMMU.
    let Some(translated) = &machine.smmu else { return };
    let mut case = |name, test: fn(&Bench<'_>) -> Outcome| {
        report.case(name, || Bench::new(machine, translated).and_then(|bench| test(&bench)));
    };
    case("smmu: nothing that devices did so far was refused", |bench| bench.expect_events(&[]));
    case("smmu: a device stores an address at which its doorbell is mapped", stored);
    case(
        "smmu: with its own doorbell unmapped, a device's message is an event that names it",
        unmapped,
    );
    case("smmu: after the last vector nothing is mapped, and a late message is an event", late);
    case("smmu: what a stream without an entry sends is an event", refused);
}

/// A machine with an SMMU, and an `edu` without vectors.
struct Bench<'a> {
    machine: &'a Machine,
    translated: &'a Translated,
    edu: &'a Function,
}

impl<'a> Bench<'a> {
    fn new(machine: &'a Machine, translated: &'a Translated) -> Result<Self, Verdict> {
        Ok(Self { machine, translated, edu: machine.device("edu")?.0 })
    }

    fn rig(&self, name: &str) -> Result<Rig, Verdict> {
        Rig::of(self.machine, name)
    }

    fn stream(&self) -> Result<StreamId, Verdict> {
        self.translated
            .smmu
            .stream(self.edu.requester().at_host())
            .ok_or(Verdict::Failed("edu has no stream".into()))
    }

    /// Returns the offset of edu's MSI capability, and the message address that is stored in it.
    fn stored(&self) -> Result<(u16, u64), Verdict> {
        let at = pci::capability(self.edu, MSI).ok_or(Verdict::Failed("edu has no MSI".into()))?;
        Ok((at, u64::from(self.edu.config().read32(at + MSI_ADDRESS))))
    }

    /// Makes edu send a message. Checks that the message is reported as this event, and that it
    /// does not arrive.
    fn expect_event(&self, rig: &Rig, wanted: Event) -> Outcome {
        let before = (rig.counts.of(0), UNHANDLED.load(Ordering::Acquire));
        let told = self.translated.smmu.interrupts();
        rig.device.fire(0)?;
        cpu::wait_until(2000, || self.translated.smmu.interrupts() > told);
        cpu::wait_until(5, || rig.counts.of(0) > before.0);
        self.expect_events(&[wanted])?;
        let after = (rig.counts.of(0), UNHANDLED.load(Ordering::Acquire));
        check!(before == after, "the interrupt arrived nevertheless");
        Ok(())
    }

    fn expect_arrival(&self, rig: &Rig) -> Outcome {
        let cpu = rig.handles[0].effective_affinity();
        let runs = rig.fire(0, cpu)?;
        check!(
            runs.is_some_and(|runs| runs.there == 1 && runs.elsewhere == 0),
            "{}: {runs:?}",
            rig.name
        );
        self.expect_events(&[])
    }

    /// Checks that the explanation of edu's vector names this obstacle, or none.
    fn expect_obstacle(&self, rig: &Rig, wanted: Option<Obstacle>) -> Outcome {
        let handle = rig.handles.first().ok_or(Verdict::Failed("no vectors".into()))?;
        let explanation = self.machine.interrupts.explain(handle.irq());
        let found = explanation.and_then(|explanation| explanation.obstacle());
        check!(found == wanted, "{found:x?} instead of {wanted:x?}");
        Ok(())
    }

    /// Checks what the SMMU has reported since the last call.
    fn expect_events(&self, wanted: &[Event]) -> Outcome {
        let events = self.translated.smmu.events();
        check!(events == wanted, "the SMMU reported {events:x?}, not {wanted:x?}");
        Ok(())
    }

    fn pages(&self) -> usize {
        self.translated.doorbells.layer().pages()
    }
}

fn refused_write(stream: StreamId, address: u64) -> Event {
    Event { kind: EventKind::Translation, stream, access: Access::Write, address }
}

fn stored(bench: &Bench<'_>) -> Outcome {
    check!(bench.pages() == 0, "{} doorbells are mapped without a user", bench.pages());
    let rig = bench.rig("edu")?;
    let (_, address) = bench.stored()?;
    check!(DOORBELL_WINDOW.contains(&address), "the stored address is {address:#x}");
    check!(bench.pages() == 1, "{} doorbells are mapped", bench.pages());
    bench.expect_arrival(&rig)?;
    rig.tear_down()
}

/// Unmaps the page without the layer's knowledge, with the same call that the layer uses.
fn unmapped(bench: &Bench<'_>) -> Outcome {
    let (rig, other) = (bench.rig("edu")?, bench.rig("nvme")?);
    bench.expect_arrival(&rig)?;
    let (_, address) = bench.stored()?;
    let stream = bench.stream()?;
    let (domain, page) = (IommuDomain(stream.0), Granule::Size4K.page(address));
    let iommu = bench.translated.doorbells.layer().iommu();
    bench.expect_obstacle(&rig, None)?;
    let mapped = iommu.translate(domain, page);
    iommu.unmap(domain, page);
    bench.expect_obstacle(&rig, Some(Obstacle::NotMapped { iova: address }))?;
    bench.expect_event(&rig, refused_write(stream, address))?;
    bench.expect_arrival(&other)?;
    let irq_domain::layer::Translated::To(doorbell) = mapped else {
        return Err(Verdict::Failed(format!("the doorbell was not mapped: {mapped:?}")));
    };
    let again = iommu.map(domain, doorbell, IovaConstraint::At(page));
    check!(again == Ok(page), "the doorbell cannot be mapped again: {again:?}");
    bench.expect_arrival(&rig)?;
    other.tear_down()?;
    rig.tear_down()
}

/// Makes a device send a message after its vectors were freed.
fn late(bench: &Bench<'_>) -> Outcome {
    let rig = bench.rig("edu")?;
    bench.expect_arrival(&rig)?;
    let (at, address) = bench.stored()?;
    let config = bench.edu.config();
    let data = config.read16(at + MSI_DATA);
    rig.tear_down()?;
    check!(bench.pages() == 0, "{} doorbells are still mapped", bench.pages());
    let (told, before) = (bench.translated.smmu.interrupts(), UNHANDLED.load(Ordering::Acquire));
    config.write32(at + MSI_ADDRESS, address as u32);
    config.write16(at + MSI_DATA, data);
    let control = config.read16(at + MSI_CONTROL);
    config.write16(at + MSI_CONTROL, control | MSI_ENABLED);
    pci::bar(bench.edu, 0).write32(RAISE, 1);
    cpu::wait_until(2000, || bench.translated.smmu.interrupts() > told);
    pci::bar(bench.edu, 0).write32(ACKNOWLEDGE, 1);
    config.write16(at + MSI_CONTROL, control);
    bench.expect_events(&[refused_write(bench.stream()?, address)])?;
    check!(UNHANDLED.load(Ordering::Acquire) == before, "the message arrived");
    Ok(())
}

fn refused(bench: &Bench<'_>) -> Outcome {
    let rig = bench.rig("edu")?;
    let stream = bench.stream()?;
    let (_, iova) = bench.stored()?;
    bench.translated.smmu.refuse(stream)?;
    bench.expect_obstacle(&rig, Some(Obstacle::NotMapped { iova }))?;
    let event =
        Event { kind: EventKind::BadStreamEntry, stream, access: Access::Write, address: 0 };
    let outcome = bench.expect_event(&rig, event);
    bench.translated.smmu.serve(stream)?;
    outcome?;
    bench.expect_arrival(&rig)?;
    rig.tear_down()
}
