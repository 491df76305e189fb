//! An SMMU behind the interrupt core's IOMMU layer. Each stream has an address space: RAM is
//! identity-mapped, doorbells are mapped where the layer places them, and everything else is
//! unmapped. Accesses of a stream without an address space are aborted.

mod translation;

pub(crate) use smmu::{Access, Event, EventKind, StreamId};
pub(crate) use translation::DOORBELL_WINDOW;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_driver::PhysicalRegion;
use gic_firmware::{Description, IommuRouting, PciHost};
use image_rt::lock::IrqMutex;
use irq_domain::layer::{DoorbellMode, Iommu, IommuDomain, IovaConstraint, Translated};
use msi_types::{Granule, HwIrq, RequesterId};
use smmu::{Context, SmmuError, SpaceId, Translation};
use translation::AddressSpace;

/// Maximum number of events that are kept until a test reads them.
const KEPT_EVENTS: usize = 64;

/// Firmware's description of the SMMU in front of PCI.
#[derive(Clone, Debug)]
pub(crate) struct SmmuDescription {
    registers: PhysicalRegion,
    /// SPI that signals new events.
    event_spi: HwIrq,
    streams: IommuRouting,
}

impl SmmuDescription {
    /// Returns the SMMU to which the host bridge's `iommu-map` refers.
    pub(crate) fn of(description: &Description, host: &PciHost) -> Option<Self> {
        let iommu = description.iommu(host.iommu.map.first()?.iommu?)?;
        let registers = iommu.registers.as_ref()?.value;
        // The event queue's interrupt is the first one, as in QEMU's devicetree.
        let user = description.wired.iter().find(|user| user.id == iommu.id)?;
        iommu.compatible.iter().any(|name| name == "arm,smmu-v3").then_some(Self {
            registers: PhysicalRegion { base: registers.base(), bytes: registers.size() },
            event_spi: user.interrupts.first()?.hwirq(),
            streams: host.iommu.clone(),
        })
    }
}

/// An enabled SMMU.
pub(crate) struct Smmu {
    description: SmmuDescription,
    state: IrqMutex<Unit>,
    /// Number of runs of the event interrupt's handler.
    interrupts: AtomicU64,
}

/// The SMMU's state: its driver, recorded events, and address spaces.
struct Unit {
    driver: smmu::Smmu,
    kept: Vec<Event>,
    spaces: BTreeMap<StreamId, Space>,
}

/// Address space of a stream.
struct Space {
    memory: AddressSpace,
    id: SpaceId,
    translation: Translation,
}

impl Smmu {
    /// Initializes the SMMU. No stream has an address space yet.
    pub(crate) fn new(description: SmmuDescription) -> Result<Self, SmmuError> {
        let driver = smmu::Smmu::new(description.registers)?.enable()?;
        let kept = Vec::with_capacity(KEPT_EVENTS);
        let state = IrqMutex::new(Unit { driver, kept, spaces: BTreeMap::new() });
        Ok(Self { description, state, interrupts: AtomicU64::new(0) })
    }

    /// Creates an address space that maps `memory` for a stream, unless the stream already has one.
    pub(crate) fn attach(&self, stream: StreamId, memory: Range<u64>) -> Result<(), SmmuError> {
        self.state.with(|state| {
            if state.spaces.contains_key(&stream) {
                return Ok(());
            }
            let memory = AddressSpace::new(memory)?;
            // An address space has the number of its stream. PCI streams have 16-bit numbers.
            let id = SpaceId(stream.0 as u16);
            let translation = Translation::Stage1(Context::new(id, memory.root())?);
            state.driver.translate(stream, &translation)?;
            state.spaces.insert(stream, Space { memory, id, translation });
            Ok(())
        })
    }

    /// Aborts all accesses from a stream from now on, but keeps its address space.
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

    /// Handles the event interrupt. Called in hard IRQ context.
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

    /// Returns the events that the handler read since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state
            .with(|state| core::mem::replace(&mut state.kept, Vec::with_capacity(KEPT_EVENTS)))
    }

    /// Returns the stream of a requester, if the SMMU serves it.
    pub(crate) fn stream(&self, requester: RequesterId) -> Option<StreamId> {
        self.description.streams.stream(requester).map(|(_, stream)| StreamId(stream))
    }

    /// Returns the number of runs of the event interrupt's handler.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// Returns the SPI that signals new events.
    pub(crate) fn event_spi(&self) -> HwIrq {
        self.description.event_spi
    }
}

impl Unit {
    fn space(&mut self, domain: IommuDomain) -> Result<&mut Space, &'static str> {
        self.spaces.get_mut(&StreamId(domain.0)).ok_or("its stream has no address space")
    }
}

/// The SMMU as an `Iommu` for the interrupt core's layer. Each stream is a domain.
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
        // No invalidation is needed, because the SMMU does not cache entries that are invalid.
        self.0.state.with(|state| state.space(domain)?.memory.map_doorbell(page, constraint))
    }

    fn unmap(&self, domain: IommuDomain, mapped: u64) {
        self.0.state.with(|state| {
            let Ok(space) = state.space(domain) else { return };
            space.memory.unmap_doorbell(mapped);
            let id = space.id;
            let done = state.driver.forget_page(id, mapped);
            done.expect("the SMMU could not invalidate a page");
        });
    }

    /// Translates an address by reading the same tables in memory as the SMMU.
    fn translate(&self, domain: IommuDomain, address: u64) -> Translated {
        self.0.state.with(|state| {
            let is_on = state.driver.translates(StreamId(domain.0));
            let space = state.space(domain).ok().filter(|_| is_on);
            let output = space.and_then(|space| space.memory.translate(address));
            output.map_or(Translated::Refused, Translated::To)
        })
    }
}

impl core::fmt::Debug for Smmu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Smmu({:#x})", self.description.registers.base)
    }
}
