//! Driver for one SMMU.

use crate::event::{Event, SpaceId, StreamId};
use crate::platform::SmmuError;
use crate::queue::{Commands, EventQueue, Forget};
use crate::registers::{Features, Registers};
use crate::stream_table::{StreamTable, Translation};
use gic_driver::{PhysicalRegion, Platform};
use image_rt::platform::Kernel;

/// An SMMU with its queues and its stream table.
pub struct Smmu {
    registers: Registers,
    features: Features,
    commands: Commands,
    events: EventQueue,
    streams: StreamTable,
}

impl Smmu {
    /// Initializes the SMMU. The SMMU aborts every access, without reporting an event, until
    /// [`enable`](Self::enable) is called.
    pub fn new(region: PhysicalRegion) -> Result<Self, SmmuError> {
        let registers = Registers::new(Kernel.map(region).ok_or(SmmuError::NotMapped)?);
        let features = Features::read(&registers)?;
        registers.disable()?;
        let streams = StreamTable::new(features.streams)?;
        let mut commands = Commands::new(features.commands)?;
        let events = EventQueue::new(features.events)?;
        registers.place_tables(&streams, &commands.0, &events.0);
        registers.enable_commands()?;
        for command in [Forget::Configuration, Forget::Translations] {
            commands.post(&registers, command)?;
        }
        commands.sync(&registers)?;
        Ok(Self { registers, features, commands, events, streams })
    }

    /// Enables translation. From then on, accesses of streams without a translation are aborted and
    /// reported as events.
    pub fn enable(self) -> Result<Self, SmmuError> {
        self.registers.enable_events()?;
        self.registers.enable_translation()?;
        Ok(self)
    }

    /// Returns `true` if the SMMU supports stage 2 translation.
    pub fn has_stage_2(&self) -> bool {
        self.features.stage_2
    }

    /// Starts translating a stream's accesses.
    pub fn translate(
        &mut self,
        stream: StreamId,
        translation: &Translation,
    ) -> Result<(), SmmuError> {
        self.streams.set(stream, translation)?;
        self.forget(Forget::Stream(stream))
    }

    /// Returns `true` if the stream's entry in memory makes the SMMU translate the stream's
    /// accesses.
    pub fn translates(&self, stream: StreamId) -> bool {
        self.streams.translates(stream)
    }

    /// Starts aborting a stream's accesses and reporting an event for each.
    pub fn refuse(&mut self, stream: StreamId) -> Result<(), SmmuError> {
        self.streams.clear(stream);
        self.forget(Forget::Stream(stream))
    }

    /// Invalidates the cached translation of a page, so that the SMMU walks the tables again.
    pub fn forget_page(&mut self, space: SpaceId, page: u64) -> Result<(), SmmuError> {
        self.forget(Forget::Page { space, page })
    }

    /// Returns the oldest event that has not been read yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.next(&self.registers)
    }

    fn forget(&mut self, what: Forget) -> Result<(), SmmuError> {
        self.commands.post(&self.registers, what)?;
        self.commands.sync(&self.registers)
    }
}

impl core::fmt::Debug for Smmu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}
