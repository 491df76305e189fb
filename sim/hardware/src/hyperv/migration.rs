//! Decides when the host end migrates, and provides a channel that holds its replies back.

use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind, Received};

/// When the host end migrates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HostMigration {
    /// The host end does not migrate unless asked to.
    #[default]
    Never,
    /// The host end migrates repeatedly while a guest waits for a reply: alternately before the
    /// host receives the request, and after it has received the request but before it replies.
    InFlight,
}

/// The host end migrates in one out of this many waits.
const EVERY: u32 = 3;

/// The state of an in-flight request while the host migrates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// The host hasn't received the request yet.
    InTheRing,
    /// The host has received the request but hasn't replied.
    Taken,
}

/// The migrations up to now.
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

    /// Returns the state that the request is in when the host migrates during this wait, or `None`
    /// if it doesn't.
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
