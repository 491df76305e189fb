//! Migration of the host's end, also between a guest's request and its answer.

use super::{Channel, HostEnd, HypervHost, nobody};
use crate::lock::lock;
use hyperv_vpci::channel::{ChannelError, Idle, PacketKind, Received};
use hyperv_vpci::host::Host;
use hyperv_vpci::ring::RingChannel;
use std::sync::PoisonError;

/// Migrations of the host's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostMigration {
    /// It stays, unless it is asked to move.
    #[default]
    Never,
    /// Again and again while a guest waits for an answer: in turn before the host took the
    /// request, and after it, with the answer not yet sent.
    InFlight,
}

/// One in so many waits, the host's end migrates.
const EVERY: u32 = 3;

/// Migrations so far.
#[derive(Debug)]
pub(super) struct Moves {
    migration: HostMigration,
    waits: u32,
    in_flight: u64,
    failure: Option<String>,
}

impl Moves {
    pub(super) const fn new(migration: HostMigration) -> Self {
        Self { migration, waits: 0, in_flight: 0, failure: None }
    }
}

/// A channel whose peer makes no room.
struct Full<'a>(&'a mut Channel);

impl hyperv_vpci::channel::Channel for Full<'_> {
    fn send(&mut self, _: PacketKind, _: &[u8]) -> Result<(), ChannelError> {
        Err(ChannelError::Full)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
        self.0.receive(buffer)
    }

    fn idle(&mut self) -> Result<Idle, ChannelError> {
        self.0.idle()
    }
}

impl HypervHost {
    /// The host works while a guest waits, for the `turn`th time in this wait.
    pub(super) fn answer(&self, turn: u32) {
        let end = &mut *lock(&self.end);
        if turn == 0 && end.moves.migration == HostMigration::InFlight {
            end.moves.waits = end.moves.waits.wrapping_add(1);
            if end.moves.waits.is_multiple_of(EVERY) {
                self.migrate_in_flight(end);
            }
        }
        // A guest whose channel fails notices by its waits.
        let _ = end.host.serve(&mut end.channel);
    }

    fn migrate_in_flight(&self, end: &mut HostEnd) {
        if end.moves.waits.is_multiple_of(2 * EVERY) {
            let _ = end.host.serve(&mut Full(&mut end.channel));
        }
        match self.migrate_end(end) {
            Ok(()) => end.moves.in_flight += 1,
            Err(reason) => _ = end.moves.failure.get_or_insert(reason),
        }
    }

    /// Saves the host's end, drops it, and restores it. No function sends meanwhile.
    ///
    /// # Errors
    /// The host's reason, or that the restored end saves as another one.
    pub fn migrate(&self) -> Result<(), String> {
        self.migrate_end(&mut lock(&self.end))
    }

    fn migrate_end(&self, end: &mut HostEnd) -> Result<(), String> {
        let mut senders = self.senders.write().unwrap_or_else(PoisonError::into_inner);
        let (saved, indices) = (end.host.save(), end.channel.indices());
        let restored = Host::restore(self.config, self.injection.clone(), &end.offered, &saved);
        let (host, interrupts) = restored.map_err(|error| error.to_string())?;
        if host.save() != saved {
            return Err("a restored host saves as another one".to_owned());
        }
        let [there, back] = &self.rings;
        let channel = RingChannel::restore(back.clone(), there.clone(), nobody as fn(), indices);
        end.channel = channel.map_err(|error| error.to_string())?;
        end.host = host;
        for (function, interrupts) in end.offered.iter().zip(interrupts) {
            let requester = function.description.slot.requester(0);
            let sender = senders.iter_mut().find(|(other, _)| *other == requester);
            if let Some((_, sender)) = sender {
                *sender = interrupts;
            }
        }
        Ok(())
    }

    /// Returns the number of migrations between a request and its answer.
    ///
    /// # Errors
    /// The first reason for which one failed.
    pub fn migrated_in_flight(&self) -> Result<u64, String> {
        let end = lock(&self.end);
        end.moves.failure.clone().map_or(Ok(end.moves.in_flight), Err)
    }
}
