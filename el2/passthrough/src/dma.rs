//! Confines DMA with the SMMU between PCI and memory. A function's stream uses its guest's address
//! space: the guest's RAM and, identity-mapped, the page with the machine's `GITS_TRANSLATER`.
//! The SMMU aborts accesses from all other streams.

use alloc::vec::Vec;
use core::ops::Range;
use doorbell_facts::{Access, Fact, HypervisorFact};
use el2_cpu::{TranslationTables, VTCR, Vmid};
use el2_vm::{Memory, Ram, irqchip};
use gic_bringup::MsiController;
use gic_driver::PhysicalRegion;
use gic_firmware::{IommuIndex, PciHost};
use image_rt::lock::IrqMutex;
use image_rt::pci::{self, Function};
use image_rt::println;
use irq_domain::WiredRequest;
use irq_domain::pci::{TableMemory, capabilities};
use msi_types::{HwIrq, Trigger};
use smmu::{Context, Event, EventKind, Smmu, SpaceId, StreamId, Translation};
use spin::Once;
use thiserror::Error;

/// Maximum number of faults reported for a stream. After that many faults the stream is cut off, so
/// that a guest cannot keep the hypervisor busy.
const MOST_FAULTS: u32 = 16;
const PAGE: u64 = 0x1000;

static CONFINEMENT: Once<Confinement> = Once::new();

/// The SMMU in front of the host's functions.
struct Confinement {
    host: &'static PciHost,
    index: IommuIndex,
    state: IrqMutex<State>,
}

struct State {
    smmu: Smmu,
    /// Streams of guests, with the number of their faults.
    streams: Vec<(StreamId, u32)>,
}

/// Reason why a function's DMA is not confined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum Unconfined {
    #[error("no working SMMU translates its accesses")]
    NoSmmu,
    #[error("the SMMU cannot distinguish its accesses from those of its bridge")]
    Shared,
    #[error("virtio bypasses the SMMU without iommu_platform=on,disable-legacy=on")]
    Bypass,
}

/// Initializes the SMMU in front of the host's functions, if one exists.
pub(crate) fn bring_up(host: &'static PciHost) {
    let description = irqchip::get().description();
    let index = host.iommu.map.first().and_then(|entry| entry.value.iommu);
    let Some((index, iommu)) = index.and_then(|it| Some((it, description.iommu(it)?))) else {
        return;
    };
    let user = description.wired.iter().find(|user| user.id == iommu.id);
    // The first interrupt is the event queue's (binding `arm,smmu-v3`).
    let interrupt = user.and_then(|user| user.interrupts.first());
    let is_v3 = iommu.compatible.iter().any(|name| name == "arm,smmu-v3");
    let (true, Some(region), Some(interrupt)) = (is_v3, &iommu.registers, interrupt) else {
        return;
    };
    let region = PhysicalRegion { base: region.value.base(), bytes: region.value.size() };
    let smmu = match Smmu::new(region).and_then(Smmu::enable) {
        Ok(smmu) => smmu,
        Err(error) => return println!("hypervisor: {error}"),
    };
    let stage = 1 + u8::from(smmu.has_stage_2());
    println!("{}", Fact::from(HypervisorFact::Confines { stage }));
    let confined = IrqMutex::new(State { smmu, streams: Vec::new() });
    CONFINEMENT.call_once(|| Confinement { host, index, state: confined });
    let request = WiredRequest::new(HwIrq::new(interrupt.value.get()), Trigger::Edge, "smmu");
    let handle = irqchip::get().interrupts().request_wired(request, |_| take_events());
    // Leak the handle, because the SMMU stays in use.
    core::mem::forget(handle.expect("the SMMU's interrupt could not be requested"));
}

/// Returns a function's stream. The function's DMA is confined once the stream has a translation.
pub(crate) fn stream(function: &Function) -> Result<StreamId, Unconfined> {
    let confinement = CONFINEMENT.get().ok_or(Unconfined::NoSmmu)?;
    let requester = function.requester();
    let stream = confinement.host.iommu.stream(requester.at_host());
    match stream {
        Some((index, stream)) if index == confinement.index => {
            if requester.at_host() != requester.function {
                return Err(Unconfined::Shared);
            }
            if bypasses(function) {
                return Err(Unconfined::Bypass);
            }
            Ok(StreamId(stream))
        }
        _ => Err(Unconfined::NoSmmu),
    }
}

/// Returns `true` for a virtio device that uses physical addresses. A device that offers
/// `VIRTIO_F_ACCESS_PLATFORM` does not, regardless of whether its driver accepts the feature
/// (virtio 1.2, 4.1.4.3 and 6).
fn bypasses(function: &Function) -> bool {
    const VENDOR: u16 = 0x1af4;
    const DEVICES: Range<u16> = 0x1000..0x1080;
    const VENDOR_SPECIFIC: u8 = 0x09;
    const COMMON: u8 = 1;
    const SELECT: u64 = 0x00;
    const FEATURES: u64 = 0x04;
    const ACCESS_PLATFORM: u32 = 33;
    if function.vendor() != VENDOR || !DEVICES.contains(&function.device()) {
        return false;
    }
    let config = &**function.config();
    let common = capabilities(config)
        .filter(|it| it.id == VENDOR_SPECIFIC && config.read8(it.offset + 3) == COMMON);
    let registers = common.filter_map(|it| {
        let bar = function.bar(config.read8(it.offset + 4))?;
        Some((pci::mapped(bar.cpu), u64::from(config.read32(it.offset + 8))))
    });
    let offers = |(bar, at): (pci::MappedRegion, u64)| {
        let is_inside = at.is_multiple_of(4) && at + FEATURES + 4 <= bar.length();
        is_inside && {
            bar.write32(at + SELECT, ACCESS_PLATFORM / 32);
            bar.read32(at + FEATURES) >> (ACCESS_PLATFORM % 32) & 1 == 1
        }
    };
    !registers.last().is_some_and(offers)
}

/// Assigns the guest's address space to its functions' streams. Without an SMMU, the guest is
/// trusted.
pub(crate) fn confine<'a>(guest: usize, ram: &Ram, functions: impl Iterator<Item = &'a Function>) {
    let Some(confinement) = CONFINEMENT.get() else { return };
    confinement.state.with(|state| {
        let translation = translation(guest, ram, state.smmu.has_stage_2());
        for stream in functions.filter_map(|it| stream(it).ok()) {
            state
                .smmu
                .translate(stream, &translation)
                .expect("the SMMU could not translate a stream");
            state.streams.push((stream, 0));
        }
    });
}

/// Returns a guest's address space for devices. The address space omits other regions that the
/// guest's vCPUs can access.
fn translation(guest: usize, ram: &Ram, by_stage_2: bool) -> Translation {
    let mut tables =
        if by_stage_2 { TranslationTables::stage_2() } else { TranslationTables::stage_1() };
    tables.map_ram(ram);
    for (_, controller) in irqchip::get().controllers() {
        if let MsiController::Its(its) = controller {
            let page = its.doorbell() & !(PAGE - 1);
            tables.map_page(page, page, Memory::Device);
        }
    }
    let root = tables.root();
    let vmid = Vmid::of_guest(guest).expect("the guest's number fits a VMID").get();
    if by_stage_2 {
        return Translation::Stage2 { vmid, vtcr: VTCR, root };
    }
    let context = Context::new(SpaceId(vmid.into()), root);
    Translation::Stage1(context.expect("not enough memory for the context"))
}

/// Reports accesses that the SMMU aborted. The loop is bounded, because a stream that is cut off
/// causes no more events.
fn take_events() {
    let Some(confinement) = CONFINEMENT.get() else { return };
    confinement.state.with(|State { smmu, streams }| {
        while let Some(event) = smmu.next_event() {
            let known = streams.iter_mut().find(|(stream, _)| *stream == event.stream);
            let Some((stream, faults)) = known else {
                report(event);
                continue;
            };
            *faults += 1;
            if *faults <= MOST_FAULTS {
                report(event);
            }
            if *faults == MOST_FAULTS {
                println!("{}", Fact::from(HypervisorFact::CutOff { stream: stream.0 }));
                if let Err(error) = smmu.translate(*stream, &Translation::Refused) {
                    println!("hypervisor: {error}");
                }
            }
        }
    });
}

fn report(event: Event) {
    if event.kind != EventKind::Translation {
        return println!("hypervisor: {event}");
    }
    let Event { stream: StreamId(stream), address, .. } = event;
    let access = match event.access {
        smmu::Access::Read => Access::Read,
        smmu::Access::Write => Access::Write,
    };
    println!("{}", Fact::from(HypervisorFact::Refused { stream, access, address }));
}
