//! A small driver of the Arm SMMUv3 (Arm IHI 0070), enough to stand behind the interrupt core's
//! IOMMU layer. Each stream has an address space: all RAM is at its own address, doorbells are
//! where the layer has them mapped, and nothing else is. A stream without one is refused: no access
//! passes untranslated.

mod event;
mod queue;
mod registers;
mod stream_table;
mod translation;

pub(crate) use event::{Access, Event, EventKind};
pub(crate) use stream_table::StreamId;
pub(crate) use translation::DOORBELL_WINDOW;

use crate::platform::Kernel;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_driver::{Coherence, GicPlatform, PhysicalRegion, Platform, Table, TableLayout, Wait};
use image_rt::lock::IrqMutex;
use irq_domain::layer::{DoorbellMode, Iommu, IommuDomain, IovaConstraint};
use msi_types::{Granule, RequesterId};
use queue::{Commands, Events, Forget};
use registers::{Features, Registers};
use stream_table::{Context, StreamTable};
use thiserror::Error;
use translation::AddressSpace;

/// Number of events that are kept until they are asked for.
const KEPT_EVENTS: usize = 64;

/// Reason for which an SMMU cannot be used, or did not carry out a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum SmmuError {
    #[error("the SMMU's registers are not mapped")]
    NotMapped,
    #[error("this driver needs an SMMU with {0}")]
    Lacks(&'static str),
    #[error("the platform has no memory for the SMMU's {0}")]
    NoMemory(&'static str),
    #[error("the SMMU does not answer to {0}")]
    Timeout(&'static str),
    #[error("the SMMU refuses a command with error {0:#x}")]
    BadCommand(u32),
    #[error("stream {0} is beyond the SMMU's")]
    StreamRange(StreamId),
}

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
}

/// Registers, queues and tables of the SMMU.
struct Unit {
    registers: Registers,
    commands: Commands,
    events: Events,
    kept: Vec<Event>,
    streams: StreamTable,
    spaces: BTreeMap<StreamId, Space>,
}

/// A stream's address space.
struct Space {
    memory: AddressSpace,
    context: Context,
}

impl Smmu {
    /// Takes the SMMU into use: no stream has an address space yet.
    pub(crate) fn new(description: SmmuDescription) -> Result<Self, SmmuError> {
        let mmio = Kernel.map(description.registers).ok_or(SmmuError::NotMapped)?;
        let registers = Registers::new(mmio);
        let features = Features::read(&registers)?;
        registers.disable()?;
        let streams = StreamTable::new(features.streams)?;
        let mut commands = Commands::new(features.commands)?;
        let events = Events::new(features.events)?;
        registers.place_tables(&streams, &commands, &events);
        registers.enable_commands()?;
        for command in [Forget::Configuration, Forget::Translations] {
            commands.post(&registers, command)?;
        }
        commands.sync(&registers)?;
        registers.enable_events()?;
        registers.enable_translation()?;
        let kept = Vec::with_capacity(KEPT_EVENTS);
        let state = Unit { registers, commands, events, kept, streams, spaces: BTreeMap::new() };
        Ok(Self { description, state: IrqMutex::new(state), interrupts: AtomicU64::new(0) })
    }

    /// Gives a stream an address space of its own with `memory` in it, unless it has one.
    pub(crate) fn attach(&self, stream: StreamId, memory: Range<u64>) -> Result<(), SmmuError> {
        self.state.with(|state| {
            if state.spaces.contains_key(&stream) {
                return Ok(());
            }
            let memory = AddressSpace::new(memory)?;
            let context = Context::new(stream, memory.root())?;
            state.streams.set(stream, &context)?;
            state.spaces.insert(stream, Space { memory, context });
            state.changed_stream(stream)
        })
    }

    /// Refuses whatever a stream does from now on; its address space stays as it is.
    pub(crate) fn refuse(&self, stream: StreamId) -> Result<(), SmmuError> {
        self.state.with(|state| {
            state.streams.clear(stream);
            state.changed_stream(stream)
        })
    }

    /// Undoes [`refuse`](Self::refuse).
    pub(crate) fn serve(&self, stream: StreamId) -> Result<(), SmmuError> {
        self.state.with(|state| {
            let Unit { streams, spaces, .. } = state;
            let space = spaces.get(&stream).ok_or(SmmuError::StreamRange(stream))?;
            streams.set(stream, &space.context)?;
            state.changed_stream(stream)
        })
    }

    /// Handles the event interrupt. Hard IRQ.
    pub(crate) fn take_events(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.state.with(|state| {
            let Unit { registers, events, kept, .. } = state;
            while let Some(event) = events.next(registers) {
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
    /// The SMMU is to read a stream's entry anew.
    fn changed_stream(&mut self, stream: StreamId) -> Result<(), SmmuError> {
        self.commands.post(&self.registers, Forget::Stream(stream))?;
        self.commands.sync(&self.registers)
    }

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
        let command = Forget::Page { space: space.context.space(), page: mapped };
        self.commands.post(&self.registers, command)?;
        self.commands.sync(&self.registers)
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

/// Zeroed memory that the SMMU reads and writes.
fn memory(bytes: u64, align: u64, what: &'static str) -> Result<Table, SmmuError> {
    let align = align.max(bytes.next_power_of_two());
    let layout = TableLayout::new(bytes, align).with_address_bits(48);
    Kernel.allocate_table(layout).ok_or(SmmuError::NoMemory(what))
}

/// Stores an entry at `offset`, its first word last: that says whether the entry is valid.
fn store(table: &Table, offset: u64, words: &[u64]) {
    for (index, word) in words.iter().enumerate().rev() {
        if index == 0 {
            publish(table);
        }
        Kernel.store64(table, offset + 8 * index as u64, *word);
    }
    publish(table);
}

/// Makes stored entries visible to the SMMU, which reads through the caches.
fn publish(table: &Table) {
    Kernel.publish(table, 0..table.bytes, Coherence::Coherent);
}

/// Waits, at most as long as the platform does.
fn wait_for(what: &'static str, mut done: impl FnMut() -> bool) -> Result<(), SmmuError> {
    let mut turn = 0;
    while !done() {
        if Kernel.wait(turn) == Wait::GiveUp {
            return Err(SmmuError::Timeout(what));
        }
        turn += 1;
    }
    Ok(())
}

/// Registers as the SMMU's parts use them.
type Frame = <Kernel as Platform>::Mmio;

impl core::fmt::Debug for Smmu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Smmu({:#x})", self.description.registers.base)
    }
}
