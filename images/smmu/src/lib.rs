//! A small driver of the Arm SMMUv3 (Arm IHI 0070). It owns registers, queues and the stream table;
//! the tables that the SMMU walks are its user's. A stream without translation is refused: no
//! access passes untranslated.
#![no_std]

extern crate alloc;

mod event;
mod queue;
mod registers;
mod stream_table;

pub use event::{Access, Event, EventKind};
pub use stream_table::{Context, SpaceId, StreamId, Translation};

use gic_driver::{Coherence, GicPlatform, PhysicalRegion, Platform, Table, TableLayout, Wait};
use image_rt::platform::Kernel;
use queue::{Commands, Events, Forget};
use registers::{Features, Registers};
use stream_table::StreamTable;
use thiserror::Error;

/// Reason for which an SMMU cannot be used, or did not carry out a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SmmuError {
    /// Its registers are not mapped.
    #[error("the SMMU's registers are not mapped")]
    NotMapped,
    /// It lacks a feature.
    #[error("this driver needs an SMMU with {0}")]
    Lacks(&'static str),
    /// There is no memory for one of its tables.
    #[error("the platform has no memory for the SMMU's {0}")]
    NoMemory(&'static str),
    /// It does not answer in time.
    #[error("the SMMU does not answer to {0}")]
    Timeout(&'static str),
    /// It refuses a command, with this `CMDQ_CONS.ERR`.
    #[error("the SMMU refuses a command with error {0:#x}")]
    BadCommand(u32),
    /// It does not have the stream.
    #[error("stream {0} is beyond the SMMU's")]
    StreamRange(StreamId),
}

/// The SMMU.
pub struct Smmu {
    registers: Registers,
    features: Features,
    commands: Commands,
    events: Events,
    streams: StreamTable,
}

impl Smmu {
    /// Takes the SMMU into use. It refuses every access, without an event, until
    /// [`enable`](Self::enable).
    pub fn new(region: PhysicalRegion) -> Result<Self, SmmuError> {
        let registers = Registers::new(Kernel.map(region).ok_or(SmmuError::NotMapped)?);
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
        Ok(Self { registers, features, commands, events, streams })
    }

    /// Translates from now on, and refuses the streams without a translation, each access with an
    /// event.
    pub fn enable(self) -> Result<Self, SmmuError> {
        self.registers.enable_events()?;
        self.registers.enable_translation()?;
        Ok(self)
    }

    /// Does it translate by tables of the second stage?
    pub fn has_stage_2(&self) -> bool {
        self.features.stage_2
    }

    /// A stream's accesses are translated from now on.
    pub fn translate(
        &mut self,
        stream: StreamId,
        translation: &Translation,
    ) -> Result<(), SmmuError> {
        self.streams.set(stream, translation)?;
        self.forget(Forget::Stream(stream))
    }

    /// A stream's accesses are refused from now on, each with an event.
    pub fn refuse(&mut self, stream: StreamId) -> Result<(), SmmuError> {
        self.streams.clear(stream);
        self.forget(Forget::Stream(stream))
    }

    /// A page of an address space was unmapped: the SMMU is to walk the tables anew.
    pub fn forget_page(&mut self, space: SpaceId, page: u64) -> Result<(), SmmuError> {
        self.forget(Forget::Page { space, page })
    }

    /// The oldest event that was not read.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.next(&self.registers)
    }

    fn forget(&mut self, what: Forget) -> Result<(), SmmuError> {
        self.commands.post(&self.registers, what)?;
        self.commands.sync(&self.registers)
    }
}

/// Zeroed memory that the SMMU reads and writes.
pub fn memory(bytes: u64, align: u64, what: &'static str) -> Result<Table, SmmuError> {
    let align = align.max(bytes.next_power_of_two());
    let layout = TableLayout::new(bytes, align).with_address_bits(44);
    Kernel.allocate_table(layout).ok_or(SmmuError::NoMemory(what))
}

/// Stores an entry at `offset`, its first word last: that says whether the entry is valid.
pub fn store(table: &Table, offset: u64, words: &[u64]) {
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
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}
