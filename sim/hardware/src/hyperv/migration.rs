//! Decides when the host end migrates, and provides a channel that holds back the host end's
//! replies.

use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind, Received};

/// The times at which the host end migrates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostMigration {
    /// The host end migrates only when asked to.
    #[default]
    Never,
    /// The host end migrates repeatedly while a guest waits for a reply, alternately before the
    /// host receives the request and between receiving the request and replying.
    InFlight,
}

/// On average, the host end migrates in one of this many waits.
const EVERY: u32 = 3;

/// The state of a request in flight when the host end migrates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// The host hasn't received the request yet.
    InTheRing,
    /// The host has received the request but hasn't replied.
    Taken,
}

/// The migrations that have taken place.
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

    /// Returns the state of the guest's request when the host end migrates during this wait, or
    /// `None` if the host end doesn't migrate.
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

/// A channel to a peer whose ring is always full.
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
