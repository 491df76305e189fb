//! A host's channel that loses, delays, duplicates or changes packets in transit.

use doorbell_test_support::Outside;
use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind, Received};
use hyperv_vpci::protocol::reply::Status;
use std::sync::{Arc, Mutex};

/// Type number of a D0 entry.
const D0_ENTRY: [u8; 4] = [7, 0, 0x49, 0x42];

pub(crate) type Change = fn(&mut Vec<u8>);

/// Treatment of the host's later completions.
#[derive(Clone, Default, Debug)]
pub(crate) enum Fate {
    #[default]
    Sent,
    Lost,
    /// Kept until [`Tampered::let_go`].
    Kept,
    Doubled,
    Changed(Change),
    /// A different completion arrives.
    Replaced(Vec<u8>),
    /// The answer to the first D0 entry is replaced by a failure; all others are sent unchanged.
    FirstEntryRefused,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) fate: Fate,
    kept: Vec<(PacketKind, Vec<u8>)>,
    /// Requests and notices of the guest, in order.
    pub(crate) heard: Vec<(PacketKind, Vec<u8>)>,
}

#[derive(Clone, Default)]
pub(crate) struct Tamper(Arc<Mutex<Script>>);

impl Tamper {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Script) -> R) -> R {
        f(&mut self.0.lock().expect("no test panics while it holds the lock"))
    }

    pub(crate) fn set(&self, fate: Fate) {
        self.with(|script| script.fate = fate);
    }

    /// Returns the guest's messages since the last call.
    pub(crate) fn heard(&self) -> Vec<(PacketKind, Vec<u8>)> {
        self.with(|script| std::mem::take(&mut script.heard))
    }
}

/// Host's channel that wraps another one.
pub(crate) struct Tampered<C> {
    pub(crate) inner: C,
    pub(crate) tamper: Tamper,
}

impl<C: Channel> Tampered<C> {
    /// Sends the packets that were kept.
    pub(crate) fn let_go(&mut self) {
        for (kind, payload) in self.tamper.with(|script| std::mem::take(&mut script.kept)) {
            // The packet is lost if the guest has not read for so long that the ring is full.
            let _ = self.inner.send(kind, &payload);
        }
    }
}

impl<C: Channel> Channel for Tampered<C> {
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError> {
        let _outside = Outside::new();
        let fate = match kind {
            PacketKind::Completion(_) => self.tamper.with(|script| script.fate.clone()),
            PacketKind::Notice | PacketKind::Request(_) => Fate::Sent,
        };
        match fate {
            Fate::Sent => self.inner.send(kind, payload),
            Fate::Lost => Ok(()),
            Fate::Kept => {
                self.tamper.with(|script| script.kept.push((kind, payload.to_vec())));
                Ok(())
            }
            Fate::Doubled => {
                self.inner.send(kind, payload)?;
                let _ = self.inner.send(kind, payload);
                Ok(())
            }
            Fate::Replaced(other) => self.inner.send(kind, &other),
            Fate::FirstEntryRefused => {
                let entered = self.tamper.with(|script| {
                    let last = script.heard.last();
                    last.is_some_and(|(_, message)| message.starts_with(&D0_ENTRY))
                });
                if !entered {
                    return self.inner.send(kind, payload);
                }
                self.tamper.set(Fate::Sent);
                self.inner.send(kind, &Status::BAD_DATA.get().to_le_bytes())
            }
            Fate::Changed(change) => {
                let mut payload = payload.to_vec();
                change(&mut payload);
                self.inner.send(kind, &payload)
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
        let _outside = Outside::new();
        let received = self.inner.receive(buffer)?;
        if let Some((kind, payload)) = received.and_then(|of| Some((of.kind, of.payload(buffer)?)))
        {
            self.tamper.with(|script| script.heard.push((kind, payload.to_vec())));
        }
        Ok(received)
    }

    fn idle(&mut self) -> Result<Idle, ChannelError> {
        self.inner.idle()
    }
}
