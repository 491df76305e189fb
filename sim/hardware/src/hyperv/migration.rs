//! The times at which the host's end migrates, and the channel that keeps its answers back.

use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind, Received};

/// Migrations of the host's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostMigration {
    /// It stays, unless it is asked to move.
    #[default]
    Never,
    /// Again and again while a guest waits for an answer. It is in turn before the host took the
    /// request, and after it, with the answer not yet sent.
    InFlight,
}

/// One in so many waits, the host's end migrates.
const EVERY: u32 = 3;

/// The host's part of a request that is in flight while the host migrates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// The host did not take it yet.
    InTheRing,
    /// The host took it and did not answer.
    Taken,
}

/// Migrations so far.
#[derive(Debug)]
pub(super) struct Migrations {
    wanted: HostMigration,
    waits: u32,
    in_flight: u64,
    failure: Option<String>,
}

impl Migrations {
    pub(super) const fn new(wanted: HostMigration) -> Self {
        Self { wanted, waits: 0, in_flight: 0, failure: None }
    }

    /// Does the host migrate in this wait?
    pub(super) fn due(&mut self) -> Option<Request> {
        if self.wanted == HostMigration::Never {
            return None;
        }
        self.waits = self.waits.wrapping_add(1);
        let taken = self.waits.is_multiple_of(2 * EVERY);
        let request = if taken { Request::Taken } else { Request::InTheRing };
        self.waits.is_multiple_of(EVERY).then_some(request)
    }

    pub(super) fn note(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.in_flight += 1,
            Err(reason) => _ = self.failure.get_or_insert(reason),
        }
    }

    pub(super) fn in_flight(&self) -> Result<u64, String> {
        self.failure.clone().map_or(Ok(self.in_flight), Err)
    }
}

/// A channel whose peer makes no room.
pub(super) struct Full<'a, C>(pub(super) &'a mut C);

impl<C: Channel> Channel for Full<'_, C> {
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
