//! Signals between a guest and its host while each sleeps until the other signals.
//!
//! The host runs on its own thread. If the guest waits while the host sleeps and no signal is
//! pending, it would wait forever, so the wait is abandoned and counted. No test therefore depends
//! on a clock.

use hyperv_vpci::channel::Notifier;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Default)]
struct State {
    /// `true` if a signal to the host is pending.
    to_host: bool,
    to_guest: bool,
    /// Number of the guest's wake-ups, by signals and by other tasks.
    wake_ups: u32,
    /// `true` while the host's thread sleeps.
    host_sleeps: bool,
    stops: bool,
    /// Number of signals raised at the guest.
    raised: u32,
    waits_in_vain: u32,
}

/// Signals of both ends, and the state of the host's thread.
#[derive(Default)]
pub(crate) struct EndSignals {
    state: Mutex<State>,
    changed: Condvar,
}

impl EndSignals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// Blocks the host's thread until the guest signals. Returns `false` at the end of the test.
    pub(crate) fn host_sleeps(&self) -> bool {
        let mut state = self.lock();
        state.host_sleeps = true;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| !state.to_host && !state.stops).unwrap();
        (state.host_sleeps, state.to_host) = (false, false);
        !state.stops
    }

    /// Blocks the guest until the host signals. Returns `false` if the host will never signal.
    pub(crate) fn guest_sleeps(&self) -> bool {
        let state = self.lock();
        let is_under_way = |state: &mut State| !state.to_guest && !state.is_quiet();
        let mut state = self.changed.wait_while(state, is_under_way).unwrap();
        let signaled = std::mem::take(&mut state.to_guest);
        state.waits_in_vain += u32::from(!signaled);
        signaled
    }

    pub(crate) fn wake_ups(&self) -> u32 {
        self.lock().wake_ups
    }

    /// Wakes the guest's tasks.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        state.wake_ups = state.wake_ups.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Blocks a task of the guest until the number of wake-ups differs from `seen`. Returns `false`
    /// if the host will never signal.
    pub(crate) fn guest_waits(&self, seen: u32) -> bool {
        let state = self.lock();
        let is_under_way = |state: &mut State| state.wake_ups == seen && !state.is_quiet();
        let mut state = self.changed.wait_while(state, is_under_way).unwrap();
        state.to_guest = false;
        let is_woken = state.wake_ups != seen;
        state.waits_in_vain += u32::from(!is_woken);
        is_woken
    }

    /// Waits until the host sleeps and has no work.
    pub(crate) fn settle(&self) {
        drop(self.changed.wait_while(self.lock(), |state| !state.is_quiet()).unwrap());
    }

    /// Waits until the host has handled all signals. Returns `true` if the host signaled the guest.
    pub(crate) fn host_signaled(&self) -> bool {
        self.settle();
        self.guest_sleeps()
    }

    pub(crate) fn stop(&self) {
        self.lock().stops = true;
        self.changed.notify_all();
    }

    /// Returns the number of signals raised at the guest since the last call.
    pub(crate) fn raised(&self) -> u32 {
        std::mem::take(&mut self.lock().raised)
    }

    /// Returns the number of guest waits since the last call that were not ended by a signal.
    pub(crate) fn waits_in_vain(&self) -> u32 {
        std::mem::take(&mut self.lock().waits_in_vain)
    }
}

impl State {
    fn is_quiet(&self) -> bool {
        self.host_sleeps && !self.to_host
    }
}

/// Notifier that wakes one end and counts the signals to the guest.
#[derive(Clone)]
pub(crate) enum Bell {
    /// The test drives both ends itself.
    Nobody,
    Host(Arc<EndSignals>),
    Guest(Arc<EndSignals>),
}

impl Notifier for Bell {
    fn signal(&self) {
        match self {
            Self::Nobody => {}
            Self::Host(signals) => {
                signals.lock().to_host = true;
                signals.changed.notify_all();
            }
            Self::Guest(signals) => {
                let mut state = signals.lock();
                state.to_guest = true;
                state.wake_ups = state.wake_ups.wrapping_add(1);
                state.raised += 1;
                signals.changed.notify_all();
            }
        }
    }
}
