//! The SMMU behind the interrupt core's IOMMU layer. Each stream has an address space: all RAM is
//! at its own address, doorbells are where the layer has them mapped, and nothing else is. A stream
//! without one is refused.

mod translation;

pub(crate) use smmu::{Access, Event, EventKind, StreamId};
pub(crate) use translation::DOORBELL_WINDOW;

use crate::report::Verdict;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_driver::PhysicalRegion;
use image_rt::lock::IrqMutex;
use image_rt::pci::Bar;
use irq_domain::layer::{DoorbellMode, Iommu, IommuDomain, IovaConstraint};
use irq_domain::pci::TableMemory;
use msi_types::{Granule, RequesterId};
use smmu::{Context, SmmuError, SpaceId, Translation};
use translation::AddressSpace;

/// Number of events that are kept until they are asked for.
const KEPT_EVENTS: usize = 64;

/// Firmware's description of an SMMU and the requesters behind it.
#[derive(Clone, Debug)]
pub(crate) struct SmmuDescription {
    pub(crate) registers: PhysicalRegion,
    /// The SPI by which it tells that there are events.
    pub(crate) event_spi: u32,
    /// Of the PCI host's `iommu-map`.
    pub(crate) streams: Vec<StreamSpan>,
}

/// Consecutive requesters with consecutive streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamSpan {
    pub(crate) first_requester: u32,
    pub(crate) first_stream: u32,
    pub(crate) length: u32,
}

impl SmmuDescription {
    /// The stream of a requester, if the SMMU serves it.
    pub(crate) fn stream(&self, requester: RequesterId) -> Option<StreamId> {
        self.streams.iter().find_map(|span| {
            let offset = requester.get().checked_sub(span.first_requester)?;
            (offset < span.length).then(|| StreamId(span.first_stream + offset))
        })
    }
}

/// The SMMU, translating.
pub(crate) struct Smmu {
    description: SmmuDescription,
    state: IrqMutex<Unit>,
    /// Number of runs of the event interrupt's handler.
    interrupts: AtomicU64,
    /// A device's write passed before the SMMU translated.
    pub(crate) passed_while_off: Result<bool, Verdict>,
}

/// The SMMU, and what its tables and events are.
struct Unit {
    driver: smmu::Smmu,
    kept: Vec<Event>,
    spaces: BTreeMap<StreamId, Space>,
}

/// A stream's address space.
struct Space {
    memory: AddressSpace,
    id: SpaceId,
    translation: Translation,
}

impl Smmu {
    /// Takes the SMMU into use: no stream has an address space yet. `write` has a device write, and
    /// returns true if that passes.
    pub(crate) fn new(
        description: SmmuDescription,
        write: impl FnOnce() -> Result<bool, Verdict>,
    ) -> Result<Self, SmmuError> {
        let driver = smmu::Smmu::new(description.registers)?;
        let passed_while_off = write();
        let driver = driver.enable()?;
        let kept = Vec::with_capacity(KEPT_EVENTS);
        let state = IrqMutex::new(Unit { driver, kept, spaces: BTreeMap::new() });
        Ok(Self { description, state, interrupts: AtomicU64::new(0), passed_while_off })
    }

    /// Is it to refuse what comes while it is off? (IHI 0070, `SMMU_GBPA`.)
    pub(crate) fn refuses_while_off(&self) -> bool {
        const GBPA: u64 = 0x44;
        const ABORT: u32 = 1 << 20;
        let PhysicalRegion { base: address, bytes: length } = self.description.registers;
        Bar { address, length }.read32(GBPA) & ABORT != 0
    }

    /// Gives a stream an address space of its own with `memory` in it, unless it has one.
    pub(crate) fn attach(&self, stream: StreamId, memory: Range<u64>) -> Result<(), SmmuError> {
        self.state.with(|state| {
            if state.spaces.contains_key(&stream) {
                return Ok(());
            }
            let memory = AddressSpace::new(memory)?;
            // Spaces are numbered as their streams, which have 16 bits at PCI.
            let id = SpaceId(stream.0 as u16);
            let translation = Translation::Stage1(Context::new(id, memory.root())?);
            state.driver.translate(stream, &translation)?;
            state.spaces.insert(stream, Space { memory, id, translation });
            Ok(())
        })
    }

    /// Refuses whatever a stream does from now on; its address space stays as it is.
    pub(crate) fn refuse(&self, stream: StreamId) -> Result<(), SmmuError> {
        self.state.with(|state| state.driver.refuse(stream))
    }

    /// Undoes [`refuse`](Self::refuse).
    pub(crate) fn serve(&self, stream: StreamId) -> Result<(), SmmuError> {
        self.state.with(|state| {
            let Unit { driver, spaces, .. } = state;
            let space = spaces.get(&stream).ok_or(SmmuError::StreamRange(stream))?;
            driver.translate(stream, &space.translation)
        })
    }

    /// Handles the event interrupt. Hard IRQ.
    pub(crate) fn take_events(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.state.with(|state| {
            let Unit { driver, kept, .. } = state;
            while let Some(event) = driver.next_event() {
                if kept.len() < KEPT_EVENTS {
                    kept.push(event);
                }
            }
        });
    }

    /// Events that the handler found since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state
            .with(|state| core::mem::replace(&mut state.kept, Vec::with_capacity(KEPT_EVENTS)))
    }

    /// The stream of a requester, if the SMMU serves it.
    pub(crate) fn stream(&self, requester: RequesterId) -> Option<StreamId> {
        self.description.stream(requester)
    }

    /// Returns the number of runs of the event interrupt's handler.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// The SPI by which it tells that there are events.
    pub(crate) fn event_spi(&self) -> u32 {
        self.description.event_spi
    }
}

impl Unit {
    fn space(&mut self, domain: IommuDomain) -> Result<&mut Space, &'static str> {
        self.spaces.get_mut(&StreamId(domain.0)).ok_or("its stream has no address space")
    }

    fn map(
        &mut self,
        domain: IommuDomain,
        page: u64,
        constraint: IovaConstraint,
    ) -> Result<u64, &'static str> {
        // New mappings need no invalidation: no cache of the SMMU's holds them yet.
        self.space(domain)?.memory.map_doorbell(page, constraint)
    }

    fn unmap(&mut self, domain: IommuDomain, mapped: u64) -> Result<(), SmmuError> {
        let Ok(space) = self.space(domain) else { return Ok(()) };
        space.memory.unmap_doorbell(mapped);
        let id = space.id;
        self.driver.forget_page(id, mapped)
    }
}

/// The SMMU as the interrupt core's layer takes it. A domain is a stream.
#[derive(Clone)]
pub(crate) struct Behind(pub(crate) Arc<Smmu>);

impl Iommu for Behind {
    fn domain(&self, device: RequesterId) -> Option<IommuDomain> {
        self.0.stream(device).map(|StreamId(number)| IommuDomain(number))
    }

    fn mode(&self, _: IommuDomain) -> DoorbellMode {
        DoorbellMode::Mapped(Granule::Size4K)
    }

    fn map(
        &self,
        domain: IommuDomain,
        page: u64,
        constraint: IovaConstraint,
    ) -> Result<u64, &'static str> {
        self.0.state.with(|state| state.map(domain, page, constraint))
    }

    fn unmap(&self, domain: IommuDomain, mapped: u64) {
        let done = self.0.state.with(|state| state.unmap(domain, mapped));
        done.expect("the SMMU forgets a page");
    }
}

impl core::fmt::Debug for Smmu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Smmu({:#x})", self.description.registers.base)
    }
}
